"""Model folders of others, mutated by a seed: each must be loaded and edited with, or refused in one line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

SECONDS, BYTES = 60, 4 * 2**30
"""How long one folder may take, and how much memory beyond that of the process before."""
EDIT = [
    "--caption", "a", "--prompt", "b", "--box", "8,8,40,40", "--steps", "1", "--views", "1", "--device", "cpu",
    "--dtype", "float32",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, -1, 0, 1, 3, 7, 10**6, 10**12, 10**40, 0.5, -0.5, float("inf"), float("nan"), "", "x",
    "../../etc/passwd", "a\x1b[31mb\u202e", "x" * 10**5, [], [1], [[[[[]]]]], ["x"] * 3, list(range(10**5)), {}, 
    {"a": {"b": [None]}},
]  # fmt: skip
FIELDS: dict[str, Any] = {
    "attn_implementation": "kernels-community/flash-attn", "_attn_implementation": "flash_attention_2",
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}, "num_hidden_layers": 10**6,
    "layers_per_block": 10**6, "hidden_size": 10**9, "vocab_size": 10**11, "num_labels": 10**9, "depth": 10**7,
    "auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]},
    "trust_remote_code": True, "transformers_weights": "../../x.safetensors", "_class_name": "Evil",
    "model_type": "evil", "num_train_timesteps": 10**11, "unk_token": None, "eos_token": None,
    "tokenizer_class": "evil.Evil", "architectures": [3], "torch_dtype": "float99", "dtype": {"a": 1},
    "down_block_types": ["Evil"],
    "vae": ["evil", "Evil"], "scheduler": ["os", "system"], "image_mean": [0], "_name_or_path": "/etc",
    "custom_pipeline": "evil",
}  # fmt: skip
TEXTS = [
    b"", b"{", b"[]", b"3", b'"x"', b"null", b"[" * 10**5, b'{"a":' * 10**4, b"\xff\xfe", b"<html></html>",
    b"9" * 10**4, b'{"a": 1e999, "a": NaN}', b"\x00" * 1000,
]  # fmt: skip
INDICES: list[Any] = [
    [], 3, "x", {}, {"weight_map": []}, {"weight_map": {"a": 1}}, {"weight_map": {"a": "../dino/model.safetensors"}},
    {"weight_map": {"a": "/dev/zero"}}, {"weight_map": {"a": "missing.safetensors"}},
    {"metadata": [], "weight_map": None},
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one folder. held: whether it was edited with or refused in one line. problem: else, why not."""

    mutation: str
    message: str
    problem: str = ""

    @property
    def held(self) -> bool:
        return not self.problem


def mutate(folder: Path, seed: int) -> str:
    """Change one to three things in a folder of models, and describe them."""
    chance = random.Random(seed)
    return "; ".join(chance.choice(MUTATIONS)(folder, chance) for _ in range(chance.choice([1, 1, 1, 2, 3])))


def attempt(models: Path, work: Path, seed: int) -> Outcome:
    """Copy the models, mutate the copy, edit a small picture with it on the command line, and judge what came of it."""
    from maskless.interfaces.cli import main

    folder = work / "models"
    shutil.copytree(models, folder)
    mutation = mutate(folder, seed)
    Image.new("RGB", (48, 48), (90, 120, 150)).save(work / "a.png")
    before = {path for path in work.rglob("*") if not path.is_relative_to(folder)}
    out, err = io.StringIO(), io.StringIO()
    status: Any = None
    try:
        with _guarded(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(work):
            main(["edit", "a.png", *EDIT, "--models", str(folder), "--quiet"])
    except SystemExit as ended:
        status = ended.code
    except BaseException as error:
        return Outcome(mutation=mutation, message="", problem=f"{type(error).__name__}: {error}"[:300])
    message = err.getvalue().strip()
    new = {path.relative_to(work).parts[0] for path in work.rglob("*") if not path.is_relative_to(folder)} - {
        path.relative_to(work).parts[0] for path in before
    }
    return Outcome(mutation=mutation, message=message, problem=_judged(status, message, new, work))


def _judged(status: Any, message: str, new: set[str], work: Path) -> str:
    """What is wrong with how an edit ended; empty if nothing is."""
    if (work / "executed").exists():
        return "code of the folder was run"
    if new - {"output", "checkpoints"}:
        return f"files appeared: {sorted(new)}"
    if status == 0:
        return "" if (work / "output").is_dir() else "success without a result"
    if status != 2:
        return f"exit status {status}: {message[:300]}"
    if message.count("\n") or not message.isprintable() or not message.startswith("maskless: ") or len(message) > 1500:
        return f"not one line: {message[:300]!r}"
    return "" if not (work / "output").exists() else "a refused edit left an output"


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
    """A limit on time and memory, and no network."""

    def stop(_signal: int, _frame: Any) -> None:
        raise TimeoutError(f"not finished after {SECONDS} s")

    def refuse(*_arguments: Any) -> None:
        raise AssertionError("a connection was tried")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    connect, handler = socket.socket.connect, signal.signal(signal.SIGALRM, stop)
    sys_path = list(sys.path)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, hard))
        socket.socket.connect = refuse  # type: ignore[assignment,method-assign]
        signal.alarm(SECONDS)
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        socket.socket.connect = connect  # type: ignore[method-assign]
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        sys.path[:] = sys_path


def _pick(folder: Path, chance: random.Random, *patterns: str) -> Path:
    found = sorted(path for pattern in patterns for path in folder.rglob(pattern) if path.is_file())
    return chance.choice(found or [folder / "none.json"])


def _settings(folder: Path, chance: random.Random) -> tuple[Path, Any]:
    """A file of settings, more often one that describes a network, and its content."""
    path = _pick(folder, chance, "config.json") if chance.random() < 0.6 else _pick(folder, chance, "*.json")
    try:
        return path, json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return path, {}


def _change_value(folder: Path, chance: random.Random) -> str:
    path, content = _settings(folder, chance)
    value = chance.choice(VALUES)
    places = list(_places(content))
    if not places:
        return "nothing"
    holder, key = chance.choice(places)
    holder[key] = value
    path.write_text(json.dumps(content), "utf-8")
    return f"{path.relative_to(folder)}: {key!r:.40} is {value!r:.40}"


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(items)[:200]:
        yield content, key
        yield from _places(value)


def _add_field(folder: Path, chance: random.Random) -> str:
    path, content = _settings(folder, chance)
    name = chance.choice(sorted(FIELDS))
    if not isinstance(content, dict):
        return "nothing"
    marker = folder.parent / "executed"
    for place in (path.parent, folder):
        (place / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nEvil = None\n")
    path.write_text(json.dumps(content | {name: FIELDS[name]}), "utf-8")
    return f"{path.relative_to(folder)}: {name} is {FIELDS[name]!r:.60}"


def _remove_field(folder: Path, chance: random.Random) -> str:
    path, content = _settings(folder, chance)
    if not isinstance(content, dict) or not content:
        return "nothing"
    name = chance.choice(sorted(content))
    del content[name]
    path.write_text(json.dumps(content), "utf-8")
    return f"{path.relative_to(folder)} without {name:.40}"


def _replace_text(folder: Path, chance: random.Random) -> str:
    path, text = _pick(folder, chance, "*.json", "*.txt"), chance.choice(TEXTS)
    path.write_bytes(text)
    return f"{path.relative_to(folder)} is {text[:20]!r}"


def _change_weights(folder: Path, chance: random.Random) -> str:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    path = _pick(folder, chance, "*.safetensors")
    try:
        weights = load_file(path)
    except (SafetensorError, OSError):
        return "nothing"
    name = chance.choice(sorted(weights) or [""])
    value = weights.pop(name, torch.zeros(1))
    kind = chance.choice(["missing", "shorter", "integers", "nan", "renamed", "scalar", "extra"])
    changed = {
        "missing": {}, "shorter": {name: value.flatten()[:-1].clone()}, "integers": {name: value.to(torch.int64)},
        "nan": {name: value * float("nan")}, "renamed": {f"{name}\x1b[2J": value}, "scalar": {name: torch.tensor(1.0)},
        "extra": {name: value, "evil": torch.zeros(3)},
    }  # fmt: skip
    save_file(weights | changed[kind], path, metadata={"format": chance.choice(["pt", "np", "evil"])})
    return f"{path.relative_to(folder)}: {name} {kind}"


def _damage_weights(folder: Path, chance: random.Random) -> str:
    path = _pick(folder, chance, "*.safetensors")
    content = path.read_bytes() if path.is_file() else b""
    header = chance.choice(
        [b"{}", b"[]", b'{"a":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,4]}}', b"{" * 999]
    )
    damaged = [
        content[: chance.randrange(len(content) + 1)], b"", b"\xff" * 64, len(header).to_bytes(8, "little") + header,
        content[:8] + bytes(chance.randrange(256) for _ in range(64)) + content[72:], b"version https://git-lfs\n",
    ]  # fmt: skip
    path.write_bytes(chance.choice(damaged))
    return f"{path.relative_to(folder)} damaged"


def _add_index(folder: Path, chance: random.Random) -> str:
    path = _pick(folder, chance, "*.safetensors")
    index = path.with_name(path.name.split(".")[0] + ".safetensors.index.json")
    content = chance.choice(INDICES)
    index.write_text("[" * 10**5 if chance.random() < 0.1 else json.dumps(content))
    if chance.random() < 0.5:
        path.unlink(missing_ok=True)
    return f"{index.relative_to(folder)} is {content!r:.60}"


def _replace_file(folder: Path, chance: random.Random) -> str:
    path = _pick(folder, chance, "*")
    path.unlink(missing_ok=True)
    kind = chance.choice(["gone", "folder", "pipe", "endless", "loop", "dangling", "unreadable"])
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind in ("endless", "loop", "dangling"):
        path.symlink_to({"endless": "/dev/zero", "loop": path.name, "dangling": "nowhere"}[kind])
    elif kind == "unreadable":
        path.write_bytes(b"{}")
        path.chmod(0)
    return f"{path.relative_to(folder)}: {kind}"


def _damage_tokenizer(folder: Path, chance: random.Random) -> str:
    path = _pick(folder, chance, "vocab.json", "merges.txt", "tokenizer*.json", "special_tokens_map.json")
    content = path.read_bytes() if path.is_file() else b"{}"
    if path.name == "vocab.json" and chance.random() < 0.6:
        try:
            words = json.loads(content)
            gone = chance.choice(["<|endoftext|>", "<|startoftext|>", chance.choice(sorted(words))])
            words.pop(gone, None)
            path.write_text(json.dumps(words), "utf-8")
            return f"{path.relative_to(folder)} without {gone}"
        except (ValueError, AttributeError, IndexError):
            pass
    damaged = [
        content[: len(content) // 2],
        content * 2,
        b"#version: 0.2\na b c d\n",
        content.replace(b'"', b"'"),
        b"{}",
    ]
    path.write_bytes(chance.choice(damaged))
    return f"{path.relative_to(folder)} damaged"


def _move_part(folder: Path, chance: random.Random) -> str:
    parts = sorted(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())
    if len(parts) < 2:
        return "nothing"
    first, second = chance.sample(parts, 2)
    if chance.random() < 0.5 or second.is_relative_to(first) or first.is_relative_to(second):
        shutil.rmtree(first)
        return f"{first.relative_to(folder)} gone"
    shutil.rmtree(first)
    shutil.copytree(second, first, symlinks=True, ignore=lambda place, names: [n for n in names if _is_pipe(place, n)])
    return f"{first.relative_to(folder)} is a copy of {second.relative_to(folder)}"


def _is_pipe(place: str, name: str) -> bool:
    path = Path(place) / name
    return not path.is_symlink() and not path.is_file() and not path.is_dir()


MUTATIONS: list[Callable[[Path, random.Random], str]] = [
    _change_value, _change_value, _change_value, _add_field, _add_field, _remove_field, _replace_text, _change_weights,
    _damage_weights, _add_index, _replace_file, _damage_tokenizer, _move_part,
]  # fmt: skip
