"""What a suite has measured so far, one line of JSON a request, so that a run that was killed goes on where it stopped.

    ledger = Ledger(file, suite="storybook", fingerprint=fingerprint(models, config, [__file__]))
    figures = ledger.measured("maskless", seed, lambda: {"success": True, "seconds": 2.1})

Each line says whose it is: suite, method, key (the scene's seed, or a name) and a fingerprint of all that the figures
follow from. A line of another fingerprint counts for nothing and stays: going back to those models finds it again.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from maskless.data.config import EditConfig
from maskless.data.files import one_line_write_errors

PACKAGE = Path(__file__).parents[2]
Key = int | str
Figures = dict[str, Any]
WEIGHTS = (".safetensors", ".bin", ".json", ".txt")


class Ledger:
    """Figures by method and key; those of the file are there from the start, new ones are added to it at once."""

    def __init__(self, file: Path | None, *, suite: str, fingerprint: str) -> None:
        """file: where the lines are; it need not exist. None keeps nothing."""
        self.file, self.suite, self.fingerprint = file, suite, fingerprint
        self._known: dict[tuple[str, Key], Figures] = {}
        for line in _lines(file):
            if line.get("suite") == suite and line.get("fingerprint") == fingerprint:
                self._known[line["method"], line["key"]] = line["figures"]

    def __len__(self) -> int:
        return len(self._known)

    def measured(self, method: str, key: Key, measure: Callable[[], Figures]) -> Figures:
        """What is known of a request; where it is not, `measure` is called and its answer kept.

        measure: gives plain values that JSON can hold; NaN and infinity become None, on the first call already, so that
        a run that went on has the very figures of one that was never stopped.

        Raises:
            MasklessError: the file cannot be written.
        """
        if (method, key) not in self._known:
            figures = _finite(measure())
            names = {"suite": self.suite, "method": method, "key": key, "fingerprint": self.fingerprint}
            line = json.dumps({**names, "figures": figures}, ensure_ascii=False, allow_nan=False)
            self._append(line)
            self._known[method, key] = json.loads(line)["figures"]
        return self._known[method, key]

    def _append(self, line: str) -> None:
        """Add a line by a single write, on the disk when this returns. After half a line, which a kill may have left,
        it begins anew."""
        if self.file is None:
            return
        with one_line_write_errors(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            broken = not _ends_in_newline(self.file)
            with self.file.open("ab", buffering=0) as opened:
                opened.write(("\n" * broken + line + "\n").encode("utf-8"))
                os.fsync(opened.fileno())


def fingerprint(models: Any, config: EditConfig | None, code: Sequence[str | Path] = (), **more: Any) -> str:
    """Sixteen letters that differ where figures may: other weights, other options, other code.

    Args:
        models: EditModels, by the contents of their folders (a hub id, by its name), device and number format; or None.
        code: files whose source the figures follow from, such as the one that measures; what they import of this
            package, and so on, is meant too. What only shows figures is best kept out of them.
        more: anything else with a plain form, such as the judge's folder as a Path, or a number of views.
    """
    parts: list[Any] = [config.to_dict() if config is not None else None]
    if models is not None:
        parts += [str(models.device), str(models.dtype)]
        parts += [[part, _contents(source)] for part, source in sorted(models.names.items())]
    parts += sorted(_digest(path) for path in sources_of(map(Path, code)))
    parts += [[name, _contents(value) if isinstance(value, Path) else value] for name, value in sorted(more.items())]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def sources_of(files: Iterable[Path]) -> list[Path]:
    """These files and all files of this package that they import, directly or not, wherever in a file that stands."""
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
    """A picture as text, to be kept among the figures."""
    kept = io.BytesIO()
    picture.save(kept, "PNG", optimize=True)
    return base64.b64encode(kept.getvalue()).decode("ascii")


def decoded(text: str) -> Image.Image:
    """The picture of such a text."""
    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")


def _contents(source: str | Path) -> Any:
    """Names and digests of a folder's weights and settings; the name itself of what is no folder."""
    folder = Path(source)
    if not folder.is_dir():
        return str(source)
    files = sorted(path for path in folder.rglob("*") if path.suffix in WEIGHTS and path.is_file())
    return [[path.relative_to(folder).as_posix(), _digest(path)] for path in files]


def _digest(path: Path) -> str:
    return _digest_of(path, path.stat().st_size, path.stat().st_mtime_ns)


@cache
def _digest_of(path: Path, size: int, changed_ns: int) -> str:
    """Of a file's bytes; size and time only tell whether it was read before."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lines(file: Path | None) -> list[dict[str, Any]]:
    """The whole lines of a file. One that is broken, as a kill or a full disk leaves it, was never measured."""
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


def _finite(value: Any) -> Any:
    """The same, with None for every number that JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
