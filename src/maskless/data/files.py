"""Files that appear whole or not at all: they are written in the same folder under another name, then renamed."""

from __future__ import annotations

import math
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from maskless.data.errors import MasklessError
from maskless.data.processes import has_ended, owner

TEMPORARY = ".tmp-"
LEFTOVER = re.compile(r"\.tmp-([0-9a-f]{8}-\d+-[0-9a-f]{8})-\w+(\.\w+)?")
"""Names of temporary files and folders, with the process that they belong to."""
_SEEN: set[tuple[int, str]] = set()
"""Processes, which may be forks of each other, and the folders in which they have looked for leftovers."""


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
        _remove_leftovers_once(path.parent)
        temporary = path.with_name(f"{TEMPORARY}{owner()}-{secrets.token_hex(6)}{path.suffix}")
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
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A hidden folder in `parent`, which exists, for as long as the block lasts."""
    _remove_leftovers_once(parent)
    with tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}{owner()}-", dir=parent) as folder:
        yield Path(folder)


def remove_leftovers(folder: Path) -> list[str]:
    """Remove the temporary files and folders of this package whose process has ended, and return their names.

    A process that is killed leaves them behind. Those of another host, and links, are left alone. A folder that is
    missing or cannot be read has none.
    """
    removed = []
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return []
    for entry in entries:
        found = LEFTOVER.fullmatch(entry.name)
        if found is None or entry.is_symlink() or not has_ended(found[1]):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            with suppress(OSError):
                os.unlink(entry.path)
        removed.append(entry.name)
    return removed


def _remove_leftovers_once(folder: Path) -> None:
    """Remove what killed processes left in a folder, the first time that this process writes there."""
    key = (os.getpid(), str(folder.absolute()))
    if key not in _SEEN:
        _SEEN.add(key)
        remove_leftovers(folder)


def require_no_links(*folders: Path) -> None:
    """Check that folders whose files are replaced or deleted are not symbolic links to folders of something else.

    Raises:
        MasklessError: one of them is a link.
    """
    for folder in folders:
        if folder.is_symlink():
            raise MasklessError(
                f"{folder} is a symbolic link to {os.path.realpath(folder)}, whose files would be replaced; remove the "
                "link, or write to another folder"
            )


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
