"""Opens the parts of a model: networks, with every weight that they need, and their settings.

A folder of others is not trusted. Nothing in it may cause code to be fetched or run, and before anything is allocated
its settings are compared with the weights that its files hold: a network whose parameters and buffers have more than
SIZE_FACTOR times as many elements, and SPARE_ELEMENTS beyond that, is refused.
"""

from __future__ import annotations

import contextlib
import json
import re
import stat
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from maskless.data.errors import EditCancelled, MasklessError, first_line, shown
from maskless.models.listing import LFS_POINTER, SETTINGS, VARIANTS, variant_of
from maskless.models.memory import is_out_of_memory

JSON_BYTES, SETTINGS_BYTES = 64 * 2**20, 4 * 2**20
"""The largest JSON file that is read (a tokenizer's), and the largest that describes a network or a scheduler."""
SIZE_FACTOR, SPARE_ELEMENTS, SPARE_PARAMETERS = 2, 2**24, 200
MAX_INTEGER, MAX_ENTRIES = 2**24, 10_000
COUNTED = re.compile(r".*(layers|blocks|layers_per_block|depths?)")
"""Settings that count layers. None of them can be larger than the number of weights."""
LIMITS = {
    "num_labels": 2**17, "num_train_timesteps": 2**17, "axes_dims_rope": 2**12, "axes_dims": 2**12, "axes_lens": 2**14,
}  # fmt: skip
"""Settings by which a library fills a table when it builds a network, and the largest of each."""
UNBOUNDED = re.compile(r".*(theta|base)")
"""Settings that are only computed with."""
ATTENTION = (None, "eager", "sdpa")
"""The ways to compute attention that need no code beside torch's."""


@contextlib.contextmanager
def one_line_model_errors(what: str) -> Iterator[None]:
    """Whatever a library raises in this block, on a model that it cannot read or compute, becomes one line that begins
    with `what`. Too little memory and a cancellation stay the errors that they are.

    Raises:
        MasklessError: see above.
    """
    try:
        yield
    except (MasklessError, EditCancelled):
        raise
    except BaseException as error:
        # The tokenizers library panics by an exception that is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if is_out_of_memory(error):
            raise
        raise MasklessError(f"{what}: {first_line(error)}") from error


def opening(path: Path) -> contextlib.AbstractContextManager[None]:
    """A block that opens a part of a model: see `one_line_model_errors`."""
    return one_line_model_errors(f"cannot read {path}")


def read_json(path: Path, *, limit: int = JSON_BYTES) -> dict[str, Any]:
    """The content of a JSON file with a model's settings.

    Raises:
        MasklessError: the file is missing, too large, or does not hold a JSON object; the message names it.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise MasklessError(f"model file damaged or unreadable: {path} (it is not a file)")
        if about.st_size > limit:
            raise MasklessError(f"{path} has {about.st_size:,} bytes, {limit:,} at most are read")
        content = json.loads(path.read_text(encoding="utf-8"))
    except MasklessError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise MasklessError(f"model file damaged or unreadable: {path} ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise MasklessError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def check_weights(folder: Path, *, without: Collection[str] = ()) -> None:
    """Check that the files of a model's weights and settings can be opened.

    without: folders in it whose weights are not needed.

    Raises:
        MasklessError: a file is missing, truncated or not readable; the message names it.
    """
    for path in sorted(folder.rglob("*")):
        _check_file(path)
    needed = [path for path in sorted(folder.rglob("*.safetensors*")) if path.parent.name not in without]
    for index in needed:
        for shard in _shards(index) if ".safetensors.index" in index.name and index.suffix == ".json" else ():
            if not (index.parent / shard).is_file():
                raise MasklessError(f"model file missing: {index.parent / shard}, named in {index.name}")
    weights = [path for path in needed if path.suffix == ".safetensors"]
    if not weights and not list(folder.rglob("*.bin")) and not list(folder.glob("*.onnx")):
        raise MasklessError(f"no model weights (*.safetensors) in {folder}")
    for path in weights:
        shapes_in(path)
    for path in sorted(folder.rglob("config.json")):
        read_json(path, limit=SETTINGS_BYTES)


def _check_file(path: Path) -> None:
    """Refuse what would be read without end, or wait without end: a pipe, a device, or a huge file of settings."""
    try:
        about = path.stat()
    except OSError:  # a link to nothing; what needs it will say so
        return
    if stat.S_ISDIR(about.st_mode):
        return
    if not stat.S_ISREG(about.st_mode):
        raise MasklessError(f"model file damaged or unreadable: {path} (it is not a file)")
    if path.suffix in SETTINGS and about.st_size > JSON_BYTES:
        raise MasklessError(f"{path} has {about.st_size:,} bytes, {JSON_BYTES:,} at most are read")


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in a .safetensors file, by name. The tensors are not read.

    Raises:
        MasklessError: the file is damaged or is no such file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if not path.is_file():
            raise OSError("it is not a file")
        with safe_open(path, framework="pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RecursionError) as error:
        if _is_pointer(path):
            raise MasklessError(
                f"{path} is a pointer of Git LFS and not the weights themselves; run `git lfs pull` in its repository"
            ) from error
        raise MasklessError(f"model file damaged or cut short: {path} ({first_line(error)})") from error


def _is_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return False


def open_network(kind: type, folder: Path, *, allow_pickle: bool = False, build: Mapping[str, Any] | None = None,
                 **options: Any) -> nn.Module:  # fmt: skip
    """A network of transformers or diffusers from its folder, on the CPU, with every weight from its files.

    Args:
        kind: its class.
        allow_pickle: also read weights that are not safetensors.
        build: further arguments of the constructor.
        options: further arguments of `kind.from_pretrained`.
    Raises:
        MasklessError: settings or weights that cannot be read, do not fit together or would need code from elsewhere,
            or a missing weight. The message names the folder, and the weight.
    """
    settings = read_json(folder / "config.json", limit=SETTINGS_BYTES)
    variant = _variant(folder)
    shapes = _shapes(folder, variant)
    check_settings(settings, folder / "config.json", weights=len(shapes) or None)
    if not shapes and not allow_pickle:
        raise MasklessError(
            f"no weights (*.safetensors) in {folder}; other formats can contain code and are read with --allow-pickle"
        )
    if (folder / "adapter_config.json").exists():
        raise MasklessError(f"{folder} is an adapter for another model (adapter_config.json), not a whole model")
    with opening(folder):
        if shapes:
            require_room(kind, folder, shapes, build or {})
        if getattr(kind, "config_class", None) is not None:
            options["ignore_mismatched_sizes"] = True  # transformers then names them in place of printing a table
        network, info = kind.from_pretrained(  # type: ignore[attr-defined]
            folder,
            variant=variant,
            use_safetensors=None if allow_pickle else True,
            local_files_only=True,
            output_loading_info=True,
            **(build or {}),
            **options,
        )
    require_all_weights(folder, info)
    return network


def require_all_weights(source: Path | str, info: Mapping[str, Any]) -> None:
    """Check the loading info of transformers or diffusers.

    Raises:
        MasklessError: weights that are missing or have another shape. The message names the first.
    """
    missing = sorted(map(str, info.get("missing_keys", ())))
    if missing:
        raise MasklessError(f"model {source} lacks {len(missing)} weights, the first is {shown(missing[0])}")
    mismatched = sorted(info.get("mismatched_keys", ()), key=str)
    if mismatched:
        name, held, needed = mismatched[0]
        raise MasklessError(
            f"model {source} has {len(mismatched)} weights of another shape than its settings say, the first is "
            f"{shown(name)}: {list(held)}, not {list(needed)}"
        )


def check_settings(settings: Mapping[str, Any], path: Path, *, weights: int | None = None) -> None:
    """Check the settings of a network or a scheduler before a library reads them.

    weights: number of weights in the files of the network; None if it is not known.

    Raises:
        MasklessError: they ask for code from elsewhere, for quantized weights, or for absurd amounts. path: their file.
    """
    for name, value in _fields(settings, path):
        if name == "quantization_config" and value is not None:
            method = value.get("quant_method") if isinstance(value, dict) else value
            raise MasklessError(
                f"{path} asks for quantized weights ({shown(method)}), which are not supported; use the same "
                "model with unquantized weights"
            )
        if "attn_implementation" in name or name == "kernel_config":
            for each in value.values() if isinstance(value, dict) else (value,):
                if each not in ATTENTION:
                    raise MasklessError(
                        f"{path} asks for {shown(each)} as {shown(name)}, code that is not part of the "
                        "model; remove that line"
                    )
        for number in value if isinstance(value, list) else (value,):
            if type(number) is int and abs(number) > _largest(name, weights):
                raise MasklessError(
                    f"{path}: {shown(name)} is {str(number)[:20]}, more than its weights or any model allow"
                )


def _largest(name: str, weights: int | None) -> float:
    """The largest amount that a setting of this name may have."""
    if weights is not None and COUNTED.fullmatch(name):
        return max(weights, SPARE_PARAMETERS)
    if UNBOUNDED.fullmatch(name):
        return float("inf")
    return LIMITS.get(name, MAX_INTEGER)


def _fields(settings: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Any]]:
    """Every named value, at any depth."""
    waiting: list[Any] = [settings]
    count = 0
    while waiting:
        value = waiting.pop()
        for name, each in value.items() if isinstance(value, dict) else (("", each) for each in value):
            count += 1
            if count > MAX_ENTRIES * 10 or (isinstance(each, list) and len(each) > MAX_ENTRIES):
                raise MasklessError(f"{path} has more entries than any model")
            if name:
                yield str(name), each
            if isinstance(each, (dict, list)):
                waiting.append(each)


def _variant(folder: Path) -> str | None:
    """The precision in the names of the weights, where a folder has no others; None for files without."""
    names = [path.name for path in folder.glob("*.safetensors")]
    found = {variant_of(name) for name in names}
    return None if None in found or not found else next((each for each in VARIANTS if each in found), None)


def _shards(index: Path) -> list[str]:
    """The files that an index names.

    Raises:
        MasklessError: it is not an index, or names a file that is not beside it.
    """
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(shard, str) for shard in named.values()):
        raise MasklessError(f"model file damaged: {index} must hold a weight_map from names to files")
    shards = sorted(set(named.values()))
    odd = [shard for shard in shards if Path(shard).name != shard or "\\" in shard]
    if odd:
        raise MasklessError(f"{index} names the file {shown(odd[0])}, which is not beside it")
    return shards


def _shapes(folder: Path, variant: str | None) -> dict[str, tuple[int, ...]]:
    """The shape of each weight that is in the safetensors of a folder; empty if it has none."""
    indices = [path for path in folder.glob("*.safetensors.index*.json") if variant_of(path.name) == variant]
    names = _shards(indices[0]) if indices else []
    files = [folder / name for name in names] or [
        path for path in sorted(folder.glob("*.safetensors")) if variant_of(path.name) == variant
    ]
    found: dict[str, tuple[int, ...]] = {}
    for path in files:
        found |= shapes_in(path)
    return found


def require_room(kind: Any, folder: Path, shapes: Mapping[str, tuple[int, ...]], build: Mapping[str, Any]) -> None:
    """Build a network without memory, and check that the weights of its files can be all of its own.

    kind, build: see `open_network`. folder: of its settings. shapes: of the weights in its files.

    Raises:
        MasklessError: the settings describe a larger network.
    """
    held = sum(_elements(shape) for shape in shapes.values())
    allowed = SIZE_FACTOR * held + SPARE_ELEMENTS
    described = 0
    with _at_most_parameters(SIZE_FACTOR * len(shapes) + SPARE_PARAMETERS, folder), torch.device("meta"):
        if getattr(kind, "config_class", None) is not None:
            config = kind.config_class.from_pretrained(folder, local_files_only=True)
            network = kind(config, **build)
        else:
            network = kind.from_config(kind.load_config(folder, local_files_only=True))
        described = sum(_elements(tensor.shape) for tensor in (*network.parameters(), *network.buffers()))
    if described > allowed:
        raise MasklessError(
            f"the settings in {folder} describe a network of {described:,} numbers, but its files hold {held:,}"
        )


def _elements(shape: Any) -> int:
    count = 1
    for side in shape:
        count *= int(side)
    return count


@contextlib.contextmanager
def recording_missing_weights() -> Iterator[list[tuple[nn.Module, list[str]]]]:
    """Record the names that are missing in each `load_state_dict` of a network that is built in this block.

    For code of a library that neither returns nor reports them. Yields a list of pairs: a module of the network, and
    the names, which are complete after the block.
    """
    thread = threading.get_ident()
    found: list[tuple[nn.Module, list[str]]] = []
    watched: dict[int, Any] = {}

    def watch(module: nn.Module, _name: str, _parameter: Any) -> None:
        if threading.get_ident() == thread and id(module) not in watched:
            # The list of missing names is one and the same for all modules of a network.
            watched[id(module)] = module.register_load_state_dict_post_hook(
                lambda each, keys: found.append((each, keys.missing_keys))
            )

    hook = register_module_parameter_registration_hook(watch)
    try:
        yield found
    finally:
        hook.remove()
        for handle in watched.values():
            handle.remove()


@contextlib.contextmanager
def _at_most_parameters(limit: int, folder: Path) -> Iterator[None]:
    """Stop the construction of a network in this thread at more than so many parameters."""
    thread, count = threading.get_ident(), 0

    def count_one(_module: Any, _name: str, _parameter: Any) -> None:
        nonlocal count
        if threading.get_ident() == thread:
            count += 1
            if count > limit:
                raise MasklessError(
                    f"the settings in {folder} describe more than {limit:,} weights, its files hold fewer"
                )

    hook = register_module_parameter_registration_hook(count_one)
    try:
        yield
    finally:
        hook.remove()
