"""Where pictures and manifests are: paths on this machine, and URLs such as s3://bucket/photos.

URLs are opened by obstore, which takes keys and addresses from the usual variables (AWS_ACCESS_KEY_ID, …).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from maskless.data.errors import MasklessError, first_line

SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]+://")


def is_url(place: str) -> bool:
    """Whether a place is a URL; file:// is one until `local` makes it a path."""
    return SCHEME.match(place) is not None


def local(place: str) -> str:
    """A file:// URL as a path; any other place as it is."""
    return unquote(urlsplit(place).path) if place.startswith("file://") else place


def joined(folder: str, name: str) -> str:
    """The place of a name in a folder; a name that is a URL or an absolute path is its own place."""
    name = local(name)
    if is_url(name) or os.path.isabs(name) or not folder:
        return name
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else os.path.join(folder, name)


def read_bytes(place: str) -> bytes:
    """The content of a file.

    Raises:
        MasklessError: it does not exist or cannot be read; the message names it.
    """
    place = local(place)
    try:
        if not is_url(place):
            return Path(place).read_bytes()
        store, name = _opened(place)
        return bytes(_obstore().get(store, name).bytes())
    except FileNotFoundError as error:
        raise MasklessError(f"no such file: {place}") from error
    except IsADirectoryError as error:
        raise MasklessError(f"{place} must be a file, got a folder") from error
    except Exception as error:
        if isinstance(error, OSError) or _is_obstore_error(error):
            raise MasklessError(f"cannot read {place}: {first_line(error)}") from error
        raise


def stamp(place: str) -> str | None:
    """A text that changes when a file changes (size and time, or size and ETag); None if there is no such file."""
    place = local(place)
    try:
        if not is_url(place):
            status = os.stat(place)
            return f"{status.st_size} {status.st_mtime_ns}"
        store, name = _opened(place)
        meta = _obstore().head(store, name)
        return f"{meta['size']} {meta['e_tag'] or meta['last_modified'].isoformat()}"
    except OSError:
        return None


def digest(place: str) -> str:
    """The SHA-256 of a file's bytes. Raises what `read_bytes` raises."""
    return hashlib.sha256(read_bytes(place)).hexdigest()


def list_folder(folder: str) -> list[str]:
    """The URLs of all files below a URL."""
    store, _name = _opened(folder.rstrip("/") + "/-")
    try:
        found = [meta["path"] for chunk in _obstore().list(store) for meta in chunk]
    except Exception as error:
        if isinstance(error, OSError) or _is_obstore_error(error):
            raise MasklessError(f"cannot list {folder}: {first_line(error)}") from error
        raise
    return [joined(folder, name) for name in found]


def exists_all(places: Iterable[str]) -> set[str]:
    """Those of the places that are files. A folder behind a URL is listed once, however many of its files are named."""
    found, remote = set(), dict[str, set[str]]()
    for place in places:
        if is_url(place):
            remote.setdefault(place.rpartition("/")[0], set()).add(place)
        elif os.path.isfile(place):
            found.add(place)
    for folder, named in remote.items():
        found |= named.intersection(list_folder(folder))
    return found


@lru_cache(maxsize=64)
def opened(folder: str) -> Any:
    """The obstore store of a folder behind a URL.

    Raises:
        MasklessError: obstore is not installed, or the URL is not one that it can open.
    """
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise MasklessError(f"to use {folder}, install obstore: pip install 'maskless[batch]'") from error
    try:
        return from_url(folder, client_options={"allow_http": True})
    except Exception as error:
        raise MasklessError(f"cannot open {folder}: {first_line(error)}") from error


def _opened(place: str) -> tuple[Any, str]:
    """The store of a file's folder, and the file's name in it."""
    folder, _slash, name = place.rpartition("/")
    return opened(folder), name


def _obstore() -> Any:
    import obstore

    return obstore


def _is_obstore_error(error: Exception) -> bool:
    return type(error).__module__.startswith("obstore")
