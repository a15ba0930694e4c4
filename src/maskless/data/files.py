"""Files that appear whole or not at all: they are written in the same folder under another name, then renamed."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maskless.data.errors import MasklessError


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` if the block succeeds, otherwise remove it.

    A missing folder is created. The temporary file has the same suffix, so encoders that choose the format by the
    suffix still work.

    Raises:
        MasklessError: the file cannot be written (no permission, disk full, a file where a folder should be).
    """
    path = Path(path)
    with one_line_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{secrets.token_hex(6)}{path.suffix}")
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a whole file and flush it to the disk before it is renamed, so a power cut leaves the old or the new file.

    Raises:
        MasklessError: see `written_whole`.
    """
    with written_whole(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def require_writable(folder: str | Path) -> None:
    """Check that a folder can be written to or created, so that an edit fails before it starts and not at its end.

    Nothing is created.

    Raises:
        MasklessError: the path or one of its parents is a file, or there is no permission.
    """
    folder = Path(folder)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise MasklessError(f"cannot write to {folder}: {existing} is a file, not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise MasklessError(f"cannot write to {folder}: no permission to write in {existing}")


@contextmanager
def one_line_write_errors(path: Path) -> Iterator[None]:
    """Convert an OSError in the block into a MasklessError of one line that names the path and the cause."""
    try:
        yield
    except OSError as error:
        raise MasklessError(f"cannot write {path}: {error.strerror or error}") from error


def finite(value: float) -> float | None:
    """The value as a float for JSON, or None if it is not finite, because JSON has no NaN or infinity."""
    number = float(value)
    return number if math.isfinite(number) else None
