"""A lock on the outputs of a batch that a dead process does not keep.

In a folder it is a lock of the operating system, which ends with its process. In object storage it is a lease that
its holder renews; nobody renews the lease of a dead process. A run without shards excludes every other run, and a run
of one shard excludes runs of the whole and of the same shard.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from maskless.batch.places import is_url
from maskless.batch.shards import Shard
from maskless.batch.stores import StorageError, Store
from maskless.data.errors import MasklessError
from maskless.data.files import one_line_write_errors

FOLDER = "batch/locks"
WHOLE = "whole"
LEASE_SECONDS, RENEW_SECONDS = 60.0, 15.0


@contextmanager
def locked(store: Store, shard: Shard) -> Iterator[None]:
    """Hold the lock of a shard, or that of the whole batch if there is one shard only.

    Raises:
        MasklessError: another run holds it.
    """
    whole = shard.count == 1
    with ExitStack() as gate:
        # Whoever begins passes this gate; a run without shards stays in it.
        if not _entered(gate, store, WHOLE):
            raise _refusal(store, "another run without shards")
        for name in sorted(_present(store)):
            if whole and not _is_free(store, name):
                raise _refusal(store, f"a run of shard {name.replace('-of-', '/')}")
        with ExitStack() as own:
            if not whole:
                if not _entered(own, store, shard.name):
                    raise _refusal(store, f"another run of shard {shard.index}/{shard.count}")
                gate.close()
            yield


def _refusal(store: Store, who: str) -> MasklessError:
    return MasklessError(f"{store.place} is in use by {who}; wait for it, or choose another --output-dir")


def _present(store: Store) -> set[str]:
    """The names of the shards that have a lock file, whether it is held or not."""
    names = (name.partition(".")[0] for name in store.names(FOLDER))
    return {name for name in names if re.fullmatch(r"\d+-of-\d+", name)}


def _is_free(store: Store, name: str) -> bool:
    with ExitStack() as attempt:
        return _entered(attempt, store, name)


def _entered(stack: ExitStack, store: Store, name: str) -> bool:
    """Take a lock for as long as the stack is open; returns whether it was free."""
    if is_url(store.place):
        lease = _Lease(store, f"{FOLDER}/{name}.lease")
        if not lease.taken():
            return False
        stack.enter_context(lease)
        return True
    from filelock import FileLock, Timeout

    path = Path(store.place) / FOLDER / f"{name}.lock"
    with one_line_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            stack.enter_context(FileLock(path, timeout=0))
        except Timeout:
            return False
    return True


class _Lease:
    """A file that says until when it is held; a thread renews it."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        self._holder = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"
        self._stopped = threading.Event()

    def taken(self) -> bool:
        """Take the lease if nobody holds it, or if its holder has not renewed it in time."""
        if self._store.create(self._name, self._content()):
            return True
        try:
            until = float(json.loads(self._store.read(self._name) or b"{}").get("until", 0))
        except (ValueError, TypeError, AttributeError):
            until = 0.0
        if until > time.time():
            return False
        self._store.remove(self._name)
        return self._store.create(self._name, self._content())

    def __enter__(self) -> None:
        threading.Thread(target=self._renew, daemon=True).start()

    def __exit__(self, *_error: object) -> None:
        self._stopped.set()
        self._store.remove(self._name)

    def _renew(self) -> None:
        while not self._stopped.wait(RENEW_SECONDS):
            try:
                self._store.write(self._name, self._content())
            except StorageError:  # a short loss of the connection; the next renewal may succeed
                continue

    def _content(self) -> bytes:
        return json.dumps({"holder": self._holder, "until": time.time() + LEASE_SECONDS}).encode()
