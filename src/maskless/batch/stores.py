"""Where the outputs of a batch go: a folder, or object storage behind a URL.

A reader finds a published folder whole: on a disk it appears by a rename, in object storage its marker comes last and
is created only where there is none.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

from maskless.batch.places import is_url, local, opened
from maskless.data.errors import MasklessError, first_line
from maskless.data.files import require_writable

STAGING = "batch/staging"
"""Folders that are being written, and those that are being removed; nothing in it is needed after a run."""


class StorageError(MasklessError):
    """The outputs cannot be written (disk full, no permission, no connection): the batch stops and can be resumed."""


@runtime_checkable
class Store(Protocol):
    """A folder of outputs. Names are relative and have forward slashes. Every method may raise a StorageError.

    place: the folder or URL, for messages.
    """

    place: str

    def names(self, folder: str) -> set[str]:
        """The names of the files directly in a folder; empty if there is no such folder."""

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is no such file."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file, which appears whole or not at all; an earlier one is replaced."""

    def create(self, name: str, content: bytes) -> bool:
        """Write a file only if there is none of this name, and return whether it was written."""

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""

    def append(self, name: str, content: bytes) -> None:
        """Add to the end of a file in one write. Object storage has no such thing: there it does nothing."""

    def staging(self, owner: str) -> AbstractContextManager[Path]:
        """Give an empty folder on this machine, and remove it afterwards. owner: the shard that it belongs to."""

    def clear_staging(self, owner: str) -> None:
        """Remove what killed workers of a shard have left."""

    def publish(self, staged: Path, folder: str) -> None:
        """Make a staged folder appear under a name; an earlier folder of this name is replaced."""


def open_store(place: str) -> Store:
    """The store of a folder or URL. Nothing is created.

    Raises:
        MasklessError: the folder cannot be written to, or the URL cannot be opened.
    """
    place = local(place)
    if is_url(place):
        return ObjectStore(place)
    require_writable(place)
    return FolderStore(place)


class FolderStore:
    """A folder on a disk, of this machine or shared."""

    def __init__(self, place: str) -> None:
        self.place, self._root = place, Path(place)

    def names(self, folder: str) -> set[str]:
        with _storage_errors(self.place), suppress(FileNotFoundError):
            return {entry.name for entry in os.scandir(self._root / folder) if not entry.name.startswith(".")}
        return set()

    def read(self, name: str) -> bytes | None:
        with _storage_errors(self.place), suppress(FileNotFoundError):
            return (self._root / name).read_bytes()
        return None

    def write(self, name: str, content: bytes) -> None:
        with self._written(name, content) as temporary:
            os.replace(temporary, self._root / name)

    def create(self, name: str, content: bytes) -> bool:
        with self._written(name, content) as temporary:
            try:
                os.link(temporary, self._root / name)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP):
                    raise
                if (self._root / name).exists():  # a file system without links
                    return False
                os.replace(temporary, self._root / name)
        return True

    def remove(self, name: str) -> None:
        with _storage_errors(self.place):
            (self._root / name).unlink(missing_ok=True)

    def append(self, name: str, content: bytes) -> None:
        with _storage_errors(self.place):
            (self._root / name).parent.mkdir(parents=True, exist_ok=True)
            with (self._root / name).open("ab", buffering=0) as file:
                file.write(content)

    @contextmanager
    def staging(self, owner: str) -> Iterator[Path]:
        folder = self._root / STAGING / owner / secrets.token_hex(8)
        with _storage_errors(self.place):
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def clear_staging(self, owner: str) -> None:
        shutil.rmtree(self._root / STAGING / owner, ignore_errors=True)

    def publish(self, staged: Path, folder: str) -> None:
        with _storage_errors(self.place):
            for path in staged.rglob("*"):
                if path.is_file():
                    _flush(path)
            target = self._root / folder
            while True:
                try:
                    os.rename(staged, target)
                    return
                except OSError as error:
                    if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EACCES):
                        raise
                    if not target.exists():
                        raise
                old = staged.with_name(f"old-{secrets.token_hex(8)}")
                with suppress(FileNotFoundError):  # another worker published the same row at this moment
                    os.rename(target, old)
                shutil.rmtree(old, ignore_errors=True)

    @contextmanager
    def _written(self, name: str, content: bytes) -> Iterator[Path]:
        """A hidden file beside `name` that has the content and is on the disk; it is removed afterwards."""
        path = self._root / name
        temporary = path.with_name(f".tmp-{secrets.token_hex(6)}")
        with _storage_errors(self.place):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)


class ObjectStore:
    """Object storage behind a URL, by obstore. Folders are prefixes."""

    def __init__(self, place: str) -> None:
        self.place, self._objects = place, opened(place)

    def names(self, folder: str) -> set[str]:
        import obstore

        with _storage_errors(self.place):
            listed = obstore.list(self._objects, folder)
            paths = [meta["path"].removeprefix(f"{folder}/") for chunk in listed for meta in chunk]
        return {path for path in paths if "/" not in path}

    def read(self, name: str) -> bytes | None:
        import obstore

        with _storage_errors(self.place), suppress(FileNotFoundError):
            return bytes(obstore.get(self._objects, name).bytes())
        return None

    def write(self, name: str, content: bytes) -> None:
        import obstore

        with _storage_errors(self.place):
            obstore.put(self._objects, name, content)

    def create(self, name: str, content: bytes) -> bool:
        import obstore

        with _storage_errors(self.place):
            try:
                obstore.put(self._objects, name, content, mode="create")
            except obstore.exceptions.AlreadyExistsError:
                return False
        return True

    def remove(self, name: str) -> None:
        import obstore

        with _storage_errors(self.place), suppress(FileNotFoundError):
            obstore.delete(self._objects, name)

    def append(self, name: str, content: bytes) -> None:
        pass

    def clear_staging(self, owner: str) -> None:
        pass

    @contextmanager
    def staging(self, owner: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="maskless-") as folder:
            yield Path(folder)

    def publish(self, staged: Path, folder: str) -> None:
        import obstore

        files = {path.relative_to(staged).as_posix(): path for path in sorted(staged.rglob("*")) if path.is_file()}
        with _storage_errors(self.place):
            listed = obstore.list(self._objects, folder)
            present = {meta["path"].removeprefix(f"{folder}/") for chunk in listed for meta in chunk}
            for name in sorted(files, key=lambda name: (name == "result.json", name)):
                obstore.put(self._objects, f"{folder}/{name}", files[name].read_bytes())
            for name in sorted(present - set(files)):
                obstore.delete(self._objects, f"{folder}/{name}")


def _flush(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _storage_errors(place: str) -> Iterator[None]:
    """Convert errors of the disk or the connection in the block into a StorageError of one line."""
    try:
        yield
    except MasklessError:
        raise
    except Exception as error:
        if isinstance(error, FileNotFoundError) or not (
            isinstance(error, OSError) or type(error).__module__.startswith("obstore")
        ):
            raise
        reason = getattr(error, "strerror", None) or first_line(error)
        raise StorageError(f"cannot read or write {place}: {reason}") from error
