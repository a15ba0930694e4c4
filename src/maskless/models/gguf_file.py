"""Reads the header of a GGUF file: the names, shapes and number formats of its tensors, without the tensors.

A file of others is not trusted. The header is checked against the size of the file before a library reads it, so that
counts and lengths in it cannot ask for more memory than the file has bytes.
"""

from __future__ import annotations

import importlib.util
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from maskless.data.errors import MasklessError, shown
from maskless.models import hub
from maskless.models.listing import LFS_POINTER

MAGIC, VERSIONS = b"GGUF", (2, 3)
HEADER_BYTES = 64 * 2**20
"""The largest header that is read."""
MAX_TENSORS, MAX_FIELDS, MAX_NAME, MAX_SIDES = 2**15, 2**12, 2**10, 4
"""Tensors, fields of the header, bytes of a name, and sides of a tensor in a file."""
MAX_LIST = 2**20
"""Strings in a list of the header."""
MAX_ENTRIES = 2**16
"""Entries in all lists of a header that a library may be given to read; a tokenizer has more, a denoiser hardly any."""
HUB_FILE = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w.-]+(@[\w.-]+)?)/(?P<file>[\w./+-]+)")
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The format of each type of number in the header, as `struct` names it."""
STRING, LIST = 8, 9
DEFAULT_ALIGNMENT, MAX_ALIGNMENT = 32, 2**20


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    """What a GGUF file holds.

    architecture: as the file names it; None if it does not. shapes: of the tensors by name, in the order of torch.
    formats: the names of the number formats of its tensors, such as Q8_0. entries: number of entries in all lists of
    the header.
    """

    architecture: str | None
    shapes: Mapping[str, tuple[int, ...]]
    formats: Mapping[str, str]
    entries: int


def require_library() -> None:
    """Check that the libraries that read GGUF files are installed.

    Raises:
        MasklessError: one is not; the message says what to install.
    """
    if any(importlib.util.find_spec(name) is None for name in ("gguf", "accelerate")):
        raise MasklessError("a denoiser in a GGUF file needs gguf and accelerate: pip install 'maskless[gguf]'")


def find_file(source: str, *, offline: bool = False, progress: bool = False) -> Path:
    """The file that a source names: a file, or owner/name/FILE.gguf or owner/name@revision/FILE.gguf on the hub, which
    is downloaded once.

    progress: whether to show progress bars of downloads on stderr.

    Raises:
        MasklessError: there is none, or its name does not end with .gguf.
    """
    path = Path(source)
    if path.suffix != ".gguf":
        raise MasklessError(
            f"--transformer takes a GGUF file (FILE.gguf, or owner/name/FILE.gguf), got {shown(source)}"
        )
    found = HUB_FILE.fullmatch(source)
    if path.is_file() or path.is_dir() or found is None:
        return path
    return hub.fetch_file(found["repository"], found["file"], offline=offline, progress=progress)


def read_header(path: Path) -> GgufHeader:
    """The header of a GGUF file. At most HEADER_BYTES of the file are read.

    Raises:
        MasklessError: the file is missing, not a GGUF file, cut short or damaged; the message names it and says why.
    """
    if not path.is_file():
        raise MasklessError(f"no such GGUF file: {path}")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = _Header(path, file.read(HEADER_BYTES), size)
    except OSError as error:
        raise MasklessError(f"cannot read {path}: {error.strerror}") from error
    return header.parsed()


class _Tensor(NamedTuple):
    """A tensor as the header describes it. offset, size: its bytes after the header."""

    name: str
    shape: tuple[int, ...]
    number_format: str
    offset: int
    size: int


class _Header:
    """The bytes of a header, and how far they are read."""

    def __init__(self, path: Path, content: bytes, size: int) -> None:
        self._path, self._content, self._size, self._at, self._entries = path, content, size, 0, 0

    def parsed(self) -> GgufHeader:
        """See `read_header`."""
        if self._content.startswith(LFS_POINTER):
            raise MasklessError(
                f"{self._path} is a pointer of Git LFS and not the weights themselves; run `git lfs pull` in its "
                "repository"
            )
        if not self._content.startswith(MAGIC):
            raise MasklessError(f"{self._path} is not a GGUF file: it does not begin with GGUF")
        self._at = len(MAGIC)
        version = int(self._number("I"))
        if version not in VERSIONS:
            raise MasklessError(f"{self._path} is GGUF of version {version}; versions 2 and 3 are read")
        tensors, fields = int(self._number("Q")), int(self._number("Q"))
        self._limit(tensors, MAX_TENSORS, "tensors")
        self._limit(fields, MAX_FIELDS, "fields")
        settings = {}
        for _ in range(fields):
            name = self._text(MAX_NAME)
            settings[name] = self._value(int(self._number("I")))
        if len(settings) < fields:
            raise self._damaged("it names a field twice")
        described = [self._tensor() for _ in range(tensors)]
        architecture = settings.get("general.architecture")
        self._check_places(described, settings.get("general.alignment", DEFAULT_ALIGNMENT))
        return GgufHeader(
            architecture=architecture if isinstance(architecture, str) else None,
            shapes={tensor.name: tensor.shape for tensor in described},
            formats={tensor.name: tensor.number_format for tensor in described},
            entries=self._entries,
        )

    def _tensor(self) -> _Tensor:
        """The next tensor."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        name = self._text(MAX_NAME)
        count = int(self._number("I"))
        self._limit(count, MAX_SIDES, f"sides of {shown(name)}")
        shape = tuple(int(self._number("Q")) for _ in range(count))[::-1]
        kind, offset = int(self._number("I")), int(self._number("Q"))
        try:
            number_format = GGMLQuantizationType(kind)
        except ValueError as error:
            raise self._damaged(f"{shown(name)} has the unknown number format {kind}") from error
        block, block_bytes = GGML_QUANT_SIZES[number_format]
        if not shape or min(shape) < 1 or shape[-1] % block:
            raise self._damaged(
                f"{shown(name)} has the shape {list(shape)}, which cannot be stored as {number_format.name}"
            )
        size = math.prod(shape) // block * block_bytes
        return _Tensor(name, shape, number_format.name, offset, size)

    def _check_places(self, tensors: list[_Tensor], alignment: object) -> None:
        """Check that every tensor lies in the file, and that no two share their bytes."""
        if len({tensor.name for tensor in tensors}) < len(tensors):
            raise self._damaged("it names a tensor twice")
        if type(alignment) is not int or not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            raise self._damaged(f"its alignment is {shown(alignment)}, which is no power of two")
        start = -(-self._at // alignment) * alignment
        end = 0
        for tensor in sorted(tensors, key=lambda each: each.offset):
            if tensor.offset < end:
                raise self._damaged(f"{shown(tensor.name)} shares its bytes with another tensor")
            end = tensor.offset + tensor.size
            if start + end > self._size:
                raise MasklessError(
                    f"{self._path} is cut short or damaged: {shown(tensor.name)} ends at byte {start + end:,}, and the "
                    f"file has {self._size:,}; download it again"
                )

    def _value(self, kind: int) -> object:
        """A value of the header; None for a list, which is only passed over."""
        if kind == STRING:
            return self._text(HEADER_BYTES)
        if kind != LIST:
            return self._number(self._format(kind))
        kind, count = int(self._number("I")), int(self._number("Q"))
        self._entries += count
        if kind == STRING:
            self._limit(count, MAX_LIST, "entries of a list")
            for _ in range(count):
                self._take(int(self._number("Q")))
        else:
            self._take(count * struct.calcsize(f"<{self._format(kind)}"))
        return None

    def _format(self, kind: int) -> str:
        if kind not in NUMBERS:
            raise self._damaged(f"a field has the unknown type {kind}")
        return NUMBERS[kind]

    def _number(self, number_format: str) -> int | float | bool:
        found = struct.unpack(f"<{number_format}", self._take(struct.calcsize(f"<{number_format}")))[0]
        assert isinstance(found, (int, float, bool))
        return found

    def _text(self, limit: int) -> str:
        length = int(self._number("Q"))
        self._limit(length, limit, "bytes of a name")
        try:
            return self._take(length).decode()
        except UnicodeDecodeError as error:
            raise self._damaged("a name is not UTF-8") from error

    def _take(self, count: int) -> bytes:
        """The next bytes."""
        end = self._at + count
        if end > len(self._content):
            if self._size > len(self._content):
                raise self._damaged(f"its header is larger than {HEADER_BYTES:,} bytes")
            raise MasklessError(
                f"{self._path} is cut short or damaged: its header ends at byte {end:,} or later, and the file has "
                f"{self._size:,}; download it again"
            )
        taken = self._content[self._at : end]
        self._at = end
        return taken

    def _limit(self, count: int, limit: int, what: str) -> None:
        if count > limit:
            raise self._damaged(f"it has {count:,} {what}, {limit:,} at most are read")

    def _damaged(self, reason: str) -> MasklessError:
        return MasklessError(f"GGUF file damaged: {self._path} ({reason})")
