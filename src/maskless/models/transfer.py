"""Requests to the hub or a mirror of it, with limits on names, bytes, attempts and time. Nothing that a server says is
trusted: what it sends is compared with its size and its hash before it is used."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskless.data.errors import MasklessError, one_line

LISTING_BYTES, SETTINGS_BYTES = 16 * 2**20, 64 * 2**20
"""The largest answer about a repository, and the largest file of settings."""
ATTEMPTS = 3
"""Failed requests in a row after which a download stops. One that brought PROGRESS_BYTES starts the count again."""
PROGRESS_BYTES = 64 * 2**20
PAUSE_SECONDS = 0.5
"""Pause before the second attempt; it doubles with each further one."""
TIMEOUT_SECONDS, STALLED_SECONDS, STALLED_BYTES = 30.0, 60.0, 64 * 2**10
"""How long a server may be silent, and how few bytes in how many seconds count as no transfer at all."""
ANSWER_SECONDS = 120.0
"""How long an answer about a repository may take as a whole."""
PIECE_BYTES = 2**20
SHA256, SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file that a server offers. size: in bytes; None if it is not known. digest: the SHA-256 of its content, or for
    a file that git keeps itself the SHA-1 of its blob; None if it is not known."""

    name: str
    size: int | None = None
    digest: str | None = None


class TransferError(OSError):
    """A server did not send what was requested; the same request may succeed later."""


class WrongContent(MasklessError):
    """A file is not the one whose hash is known."""


def known_digest(value: Any) -> str | None:
    """The value if it is the SHA-256 or SHA-1 of a file, in hexadecimal; None for anything else."""
    text = value.lower() if isinstance(value, str) else ""
    return text if SHA256.fullmatch(text) or SHA1.fullmatch(text) else None


def request_json(url: str) -> Any:
    """The JSON at an address.

    Raises:
        MasklessError: an answer that is too large, takes too long or is not JSON.
    """
    content = request_bytes(url, limit=LISTING_BYTES)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise MasklessError(f"the answer of {url} is not JSON, so this is not a hub of models") from error


def request_bytes(url: str, *, limit: int) -> bytes:
    """The content at an address, of at most `limit` bytes.

    Raises:
        MasklessError: an answer that is too large or takes too long.
    """
    content, began = bytearray(), time.monotonic()
    with _opened(url) as response:
        for piece in _pieces(response, url):
            content += piece
            if time.monotonic() - began > ANSWER_SECONDS:
                raise MasklessError(f"the answer of {url} takes longer than {ANSWER_SECONDS:.0f} s; nothing was kept")
            if len(content) > limit:
                raise MasklessError(f"the answer of {url} is larger than {limit / 2**20:.0f} MB; nothing was kept")
    return bytes(content)


def download(url: str, part: Path, file: RemoteFile, *, limit: int, on_bytes: Callable[[int], object]) -> str:
    """Download a file to `part`, of which an earlier call may have left the beginning, and check it.

    A file with the wrong content is removed and downloaded a second time.

    Args:
        limit: bytes at most, for a file of unknown size.
        on_bytes: called with the number of bytes that have come, for a progress bar.
    Returns:
        The SHA-256 of the content.
    Raises:
        TransferError, and the errors of the HTTP library: the download stopped; what has come is kept in `part`.
        WrongContent: the server sends another file than the one of this hash. `part` is removed.
        MasklessError: a file that is too large. `part` is removed.
    """
    on_bytes(part.stat().st_size if part.is_file() else 0)
    for attempt in (1, 2):
        _complete(url, part, file, limit, on_bytes)
        found = digests(part)
        if file.digest is None or file.digest in found:
            return found[0]
        part.unlink()
        if attempt == 2:
            raise WrongContent(
                f"{file.name} from {url} is not the file that was expected: its hash is {found[0]}, not {file.digest}; "
                "it was downloaded twice and deleted, so try another mirror (HF_ENDPOINT)"
            )
    raise AssertionError("unreachable")


def digests(path: Path) -> tuple[str, str, str]:
    """The SHA-256 of a file, the SHA-1 of its blob in git, and its SHA-1."""
    sha256, plain = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    blob = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            for digest in (sha256, blob, plain):
                digest.update(piece)
    return sha256.hexdigest(), blob.hexdigest(), plain.hexdigest()


def _complete(url: str, part: Path, file: RemoteFile, limit: int, on_bytes: Callable[[int], object]) -> None:
    """Request the rest of a file until it is complete, or until ATTEMPTS requests in a row have failed."""
    failures = 0
    while True:
        before = part.stat().st_size if part.is_file() else 0
        if file.size is not None and before == file.size:
            return
        try:
            size = _receive(url, part, before, file, limit, on_bytes)
            if part.stat().st_size == size:
                return
            raise TransferError(f"{file.name} ended after {part.stat().st_size:,} of {size:,} bytes")
        except Exception as error:
            if isinstance(error, MasklessError) or _is_final(error):
                raise
            came = (part.stat().st_size if part.is_file() else 0) - before
            failures = 1 if came >= PROGRESS_BYTES else failures + 1
            if failures >= ATTEMPTS:
                raise
            time.sleep(PAUSE_SECONDS * 2 ** (failures - 1))


def _is_final(error: Exception) -> bool:
    """Whether the same request would fail again: the server refuses it."""
    status = getattr(getattr(error, "response", None), "status_code", 500)
    return 400 <= status < 500 and status not in (408, 416, 429)


def _receive(url: str, part: Path, before: int, file: RemoteFile, limit: int, on_bytes: Callable[[int], object]) -> int:
    """Append what a server sends to `part`, and return the size that the complete file has."""
    if file.size is not None and before > file.size:
        part.unlink()
        before = 0
    try:
        with _opened(url, {"Range": f"bytes={before}-"} if before else {}) as response:
            if response.status_code != 206 or not response.headers.get("Content-Range", "").startswith(
                f"bytes {before}-"
            ):
                before = 0  # the server sends the file from its beginning
            announced = response.headers.get("Content-Length", "")
            size = file.size if file.size is not None else before + int(announced) if announced.isdecimal() else None
            if size is None or (file.size is None and size > limit):
                told = "has no known size" if size is None else f"has {size:,} bytes, {limit:,} at most are accepted"
                raise MasklessError(f"{file.name} from {url} {told}; name another mirror (HF_ENDPOINT)")
            with part.open("ab" if before else "wb") as out:
                for piece in _pieces(response, url):
                    if before + len(piece) > size:
                        raise MasklessError(
                            f"{url} sends more than the {size:,} bytes of {file.name}; the download was stopped"
                        )
                    out.write(piece)
                    before += len(piece)
                    on_bytes(len(piece))
    except MasklessError:
        part.unlink(missing_ok=True)
        raise
    except Exception as error:
        if getattr(getattr(error, "response", None), "status_code", None) == 416:
            part.unlink(missing_ok=True)  # what is here is longer than the file
        raise
    return size


@contextmanager
def _opened(url: str, headers: dict[str, str] | None = None) -> Iterator[Any]:
    """The open response of a GET request; raises the hub's own error for an answer that is none."""
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    asked = {**build_hf_headers(), "Accept-Encoding": "identity", **(headers or {})}
    with get_session().stream("GET", url, headers=asked, timeout=TIMEOUT_SECONDS, follow_redirects=True) as response:
        if response.status_code >= 400:
            hf_raise_for_status(_without_body(response))
        if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
            coding = one_line(response.headers["Content-Encoding"])
            raise MasklessError(
                f"{url} sends its answer compressed ({coding}), which was not requested; nothing was kept"
            )
        yield response


def _without_body(response: Any) -> Any:
    """A response with the same status and headers only: the body of an error may be of any length."""
    headers = [(name, value) for name, value in response.headers.items() if name.lower() != "content-encoding"]
    return type(response)(response.status_code, headers=headers, request=response.request, content=b"{}")


def _pieces(response: Any, url: str) -> Iterator[bytes]:
    """What comes, as it comes.

    Raises:
        TransferError: hardly anything comes.
    """
    began, received = time.monotonic(), 0
    for piece in response.iter_raw():
        received += len(piece)
        if time.monotonic() - began > STALLED_SECONDS:
            if received < STALLED_BYTES:
                raise TransferError(f"{url} sent {received:,} bytes in {STALLED_SECONDS:.0f} s")
            began, received = time.monotonic(), 0
        yield piece
