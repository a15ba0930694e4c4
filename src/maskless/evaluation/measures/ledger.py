"""What a suite has measured so far, one line of JSON for each request, so that a run that was killed can be resumed.

    ledger = Ledger(file, suite="storybook", fingerprint=fingerprint(models, config, [__file__]))
    figures = ledger.measured("maskless", seed, lambda: {"success": True, "seconds": 2.1})

Each line names its suite, its method, its key (the scene's seed, or a name) and a fingerprint of everything that the
figures follow from. Lines with another fingerprint are ignored and kept: whoever goes back to those models finds them
again.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from maskless.data.config import EditConfig
from maskless.data.files import finite, one_line_write_errors
from maskless.evaluation.measures.rows import Figures
from maskless.models.pretrained import EditModels

PACKAGE = Path(__file__).parents[2]
Key = int | str
WEIGHTS = (".safetensors", ".bin", ".json", ".txt")


class Ledger:
    """Figures by method and key. Those in the file are known from the start; new ones are written to it at once."""

    def __init__(self, file: Path | None, *, suite: str, fingerprint: str) -> None:
        """file: where the lines are kept; it need not exist. With None nothing is kept."""
        self.file, self.suite, self.fingerprint = file, suite, fingerprint
        self._known: dict[tuple[str, Key], Figures] = {}
        for line in _lines(file):
            if line.get("suite") == suite and line.get("fingerprint") == fingerprint:
                self._known[line["method"], line["key"]] = line["figures"]

    def __len__(self) -> int:
        return len(self._known)

    def measured(self, method: str, key: Key, measure: Callable[[], Figures]) -> Figures:
        """The figures of a request; where they are not known, `measure` is called and its answer is kept.

        measure: gives plain values that JSON can hold. NaN and infinity become None, already on the first call, so that
            a run that was resumed has the same figures as one that was never stopped.

        Raises:
            MasklessError: the file cannot be written.
        """
        if (method, key) not in self._known:
            figures = _plain(measure())
            names = {"suite": self.suite, "method": method, "key": key, "fingerprint": self.fingerprint}
            line = json.dumps({**names, "figures": figures}, ensure_ascii=False, allow_nan=False)
            self._append(line)
            self._known[method, key] = json.loads(line)["figures"]
        return self._known[method, key]

    def _append(self, line: str) -> None:
        """Add a line in a single write; it is on the disk when this returns. Where a kill has left half a line, the new
        one still begins on a line of its own."""
        if self.file is None:
            return
        with one_line_write_errors(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            broken = not _ends_in_newline(self.file)
            with self.file.open("ab", buffering=0) as opened:
                opened.write(("\n" * broken + line + "\n").encode("utf-8"))
                os.fsync(opened.fileno())


def fingerprint(
    models: EditModels | None,
    config: EditConfig | None,
    code: Sequence[str | Path] = (),
    **more: Path | str | int | float | None,
) -> str:
    """Sixteen letters that differ where figures may differ: with other weights, other options or other code.

    Args:
        models: they count by the contents of their folders (a hub id by its name), their device and number format.
        code: files whose source the figures follow from, such as the one that measures. What they import of this
            package, directly or not, counts too; so it is best that they import nothing that only shows figures.
        more: anything else that counts, such as a number of views; a Path counts by the contents of its folder.
    """
    parts: list[Any] = [config.to_dict() if config is not None else None]
    if models is not None:
        parts += [str(models.device), str(models.dtype)]
        parts += [[part, _contents(source)] for part, source in sorted(models.names.items())]
    parts += sorted(_digest(path) for path in sources_of(map(Path, code)))
    parts += [[name, _contents(value) if isinstance(value, Path) else value] for name, value in sorted(more.items())]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def sources_of(files: Iterable[Path]) -> list[Path]:
    """These files and all files of this package that they import, directly or not, at the top or inside functions."""
    waiting, found = [path.resolve() for path in files], set[Path]()
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported(path, path.stat().st_mtime_ns)
    return sorted(found)


@cache
def _imported(path: Path, changed_ns: int) -> tuple[Path, ...]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    inner = [PACKAGE.joinpath(*name.split(".")[1:]) for name in sorted(names) if name.startswith(f"{PACKAGE.name}.")]
    return tuple(file for name in inner if (file := name.with_suffix(".py")).is_file())


def encoded(picture: Image.Image) -> str:
    """A picture as text (a PNG in base64), so that it can be kept among the figures."""
    kept = io.BytesIO()
    picture.save(kept, "PNG", optimize=True)
    return base64.b64encode(kept.getvalue()).decode("ascii")


def decoded(text: str) -> Image.Image:
    """The picture that `encoded` made a text of."""
    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")


def _contents(source: str | Path) -> Any:
    """Names and digests of the weights and settings in a folder, the digest of a file, and of a hub id its name."""
    folder = Path(source)
    if not folder.is_dir():
        return _digest(folder) if folder.is_file() else str(source)
    files = sorted(path for path in folder.rglob("*") if path.suffix in WEIGHTS and path.is_file())
    return [[path.relative_to(folder).as_posix(), _digest(path)] for path in files]


def _digest(path: Path) -> str:
    return _digest_of(path, path.stat().st_size, path.stat().st_mtime_ns)


@cache
def _digest_of(path: Path, size: int, changed_ns: int) -> str:
    """The digest of a file's bytes. Size and time are there for the cache, which then reads a file again once it
    changes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lines(file: Path | None) -> list[dict[str, Any]]:
    """The lines of a file that are whole. A broken line, as a kill or a full disk leaves it, counts as never
    measured."""
    found: list[dict[str, Any]] = []
    if file is not None and file.is_file():
        for line in file.read_text("utf-8", errors="replace").splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict) and {"method", "key", "figures"} <= set(value):
                found.append(value)
    return found


def _ends_in_newline(file: Path) -> bool:
    if not file.is_file() or file.stat().st_size == 0:
        return True
    with file.open("rb") as opened:
        opened.seek(-1, os.SEEK_END)
        return opened.read(1) == b"\n"


def _plain(value: Any) -> Any:
    """The same value, however nested, with None for every number that is not finite, which JSON cannot express."""
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
