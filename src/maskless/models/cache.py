"""The hub's cache on this disk: its folders, the files in them, and the lock file that records each download.

The layout is that of the hub's own client, which other programs share: models--OWNER--NAME/blobs holds the content of
files under its hash, and models--OWNER--NAME/snapshots/COMMIT links to it by name. Names that come from a server are
checked before they become paths.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from maskless.data.errors import MasklessError, first_line, shown
from maskless.data.files import write_bytes
from maskless.models.transfer import SHA1, SHA256, RemoteFile, digests, known_digest

LOCK_NAME = "maskless.lock.json"
MAX_NAME, MAX_DEPTH = 200, 8
"""Letters of a folder's or file's name, and folders in a path, that a server may choose."""
SAFE_NAME = re.compile(r"[\w+-][\w .+@=-]*", re.ASCII)
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for devices."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the lock file records of a download.

    revision: as it was asked for; None for none. files: by name. settings_only: whether the weights were left out.
    without: the parts whose weights were left out.
    """

    revision: str | None
    commit: str
    files: Mapping[str, RemoteFile]
    settings_only: bool
    without: tuple[str, ...] = ()


def is_safe_name(name: object) -> bool:
    """Whether a path that a server names stays inside its folder on every system, and has no odd characters."""
    if not isinstance(name, str) or not name or len(name) > MAX_NAME * MAX_DEPTH:
        return False
    parts = name.split("/")
    return len(parts) <= MAX_DEPTH and all(
        len(part) <= MAX_NAME and SAFE_NAME.fullmatch(part) and part[-1] not in ". " and not RESERVED.fullmatch(part)
        for part in parts
    )


def is_commit(text: object) -> bool:
    """Whether this is the hash of a commit."""
    return isinstance(text, str) and (SHA1.fullmatch(text) or SHA256.fullmatch(text)) is not None


def snapshot_folder(repo_id: str, commit: str) -> Path:
    """The folder of a commit in the hub's cache."""
    return repository_folder(repo_id) / "snapshots" / commit


def repository_folder(repo_id: str) -> Path:
    """The folder of a repository in the hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}"


def snapshot_file(repo_id: str, commit: str, name: str) -> Path:
    """Where a file of a commit is in the cache.

    Raises:
        MasklessError: a commit or a name with which a server would choose a place outside of that folder.
    """
    if not is_commit(commit) or not is_safe_name(name):
        raise MasklessError(
            f"{repo_id} names the file {shown(name)} of commit {shown(commit)}, which cannot be a "
            "path in the cache; nothing was written"
        )
    path = snapshot_folder(repo_id, commit) / PurePosixPath(name)
    inside(path.parent, repo_id)
    return path


def blob_file(repo_id: str, digest: str) -> Path:
    """Where the content with this hash is in the cache."""
    assert known_digest(digest) == digest
    path = repository_folder(repo_id) / "blobs" / digest
    inside(path.parent, repo_id)
    return path


def inside(folder: Path, repo_id: str) -> None:
    """Check that a folder of the cache, with all links resolved, belongs to its repository.

    Raises:
        MasklessError: it is somewhere else.
    """
    root = repository_folder(repo_id).resolve()
    if not folder.resolve().is_relative_to(root):
        raise MasklessError(f"{folder} leads out of the cache {root}; remove that link, and run this again")


def missing_files(repo_id: str, entry: Entry) -> list[str]:
    """The files of an entry of the lock file that are not on this disk, or not in their full size."""
    return [name for name, file in entry.files.items() if not is_there(repo_id, entry.commit, file)]


def is_there(repo_id: str, commit: str, file: RemoteFile) -> bool:
    """Whether a file is in the cache in its full size."""
    path = snapshot_file(repo_id, commit, file.name)
    return path.is_file() and (file.size is None or path.stat().st_size == file.size)


def is_intact(path: Path, file: RemoteFile) -> bool:
    """Whether a path is a file with the size and the hash that are known. This reads the whole file."""
    if not path.is_file() or (file.size is not None and path.stat().st_size != file.size):
        return False
    return file.digest is None or file.digest in digests(path)


def remove_damaged(repo_id: str, entry: Entry) -> list[str]:
    """Remove the files of an entry whose content is not that of their hash, and return their names."""
    removed = []
    for name, file in entry.files.items():
        path = snapshot_file(repo_id, entry.commit, name)
        if not is_intact(path, file):
            remove_file(repo_id, path)
            removed.append(name)
    return removed


def remove_file(repo_id: str, path: Path) -> None:
    """Remove a file of a snapshot, and the blob that it links to if that is in the same repository."""
    if path.is_symlink():
        blobs, target = (repository_folder(repo_id) / "blobs").resolve(), path.resolve()
        if target.parent == blobs:
            target.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def link(blob: Path, path: Path) -> None:
    """Give a blob its name in a snapshot. Where no symbolic links can be made it moves there, so that no weight lies
    on the disk twice."""
    from huggingface_hub import constants

    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if not constants.HF_HUB_DISABLE_SYMLINKS:
        try:
            path.symlink_to(os.path.relpath(blob.resolve(), path.parent.resolve()))
            return
        except FileExistsError:  # another process has just made it
            return
        except (OSError, NotImplementedError):
            pass
    shutil.move(blob, path)


def read_lock() -> dict[str, Entry]:
    """The entries of the lock file by hub id.

    Raises:
        MasklessError: the file is damaged; the message names it.
    """
    path = lock_path()
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
        return {repo_id: _entry(fields) for repo_id, fields in content.items()}
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise MasklessError(
            f"cannot read {path} ({first_line(error)}); delete it, and the models will be looked up again"
        ) from error


def record(repo_id: str, entry: Entry) -> None:
    """Write an entry into the lock file."""
    content = {each: _plain(known) for each, known in (read_lock() | {repo_id: entry}).items()}
    write_bytes(lock_path(), (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def lock_path() -> Path:
    """The lock file, beside the hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).parent / LOCK_NAME


def _entry(fields: Any) -> Entry:
    """An entry of the lock file. Earlier versions kept the names of the files alone, in a list."""
    files = fields["files"]
    known = {name: {} for name in files} if isinstance(files, list) else files
    if not is_commit(fields["commit"]) or not all(map(is_safe_name, known)):
        raise ValueError("a commit or the name of a file is not valid")
    return Entry(
        revision=fields["revision"],
        commit=fields["commit"],
        files={
            name: RemoteFile(name=name, size=about.get("size"), digest=known_digest(about.get("hash")))
            for name, about in known.items()
        },
        settings_only=bool(fields["settings_only"]),
        without=tuple(map(str, fields.get("without", ()))),
    )


def _plain(entry: Entry) -> dict[str, Any]:
    files = {name: {"size": file.size, "hash": file.digest} for name, file in entry.files.items()}
    return {
        "revision": entry.revision, "commit": entry.commit, "files": files, "settings_only": entry.settings_only,
    } | ({"without": list(entry.without)} if entry.without else {})  # fmt: skip
