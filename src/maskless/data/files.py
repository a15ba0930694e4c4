"""Files that appear whole or not at all: written beside their place under another name, then renamed over it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maskless.data.errors import MasklessError


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` when the block ends well, else remove it.

    The folder is made if it is missing. The temporary file keeps the suffix, so encoders that look at it still work.

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
    """Write a whole file, on the disk before it gets its name, so that a power cut leaves the old file or the new one.

    Raises:
        MasklessError: see `written_whole`.
    """
    with written_whole(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def require_writable(folder: str | Path) -> None:
    """Check that files can be made in a folder, or that it can be made itself: before minutes of work, not after.

    Nothing is made yet.

    Raises:
        MasklessError: a file stands in the way, or there is no permission.
    """
    folder = Path(folder)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise MasklessError(f"cannot write to {folder}: {there} is a file, not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise MasklessError(f"cannot write to {folder}: no permission to write in {there}")


@contextmanager
def one_line_write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError in the block into a MasklessError of one line that names the path and the cause."""
    try:
        yield
    except OSError as error:
        raise MasklessError(f"cannot write {path}: {error.strerror or error}") from error
