"""Which process something belongs to, so that what a killed process left behind can be told from what is in use."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import subprocess
from pathlib import Path


def process_start(pid: int) -> str | None:
    """A text that identifies when a process started, so that a later process with the same number has another text.

    None if there is no such process or the system does not tell. A zombie (a process that has ended and whose parent
    has not waited for it) counts as none.
    """
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
        return None if after_name[0] in "ZX" else f"{boot} {after_name[19]}"  # field 22 of proc(5), in clock ticks
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
        columns = subprocess.run(command, capture_output=True, text=True, timeout=5).stdout.split(maxsplit=1)
    except (OSError, subprocess.SubprocessError):
        return None
    return columns[1].strip() if len(columns) == 2 and not columns[0].startswith("Z") else None


def owner() -> str:
    """A short name of this process for names of files: a hash of its host, its number, and a hash of its start."""
    return _owner(os.getpid())


def has_ended(named: str) -> bool:
    """Whether the process of a name by `owner` has ended. False if that cannot be determined: on another host, or on a
    system that does not tell."""
    host, _, rest = named.partition("-")
    number, _, start = rest.partition("-")
    if host != _short(socket.gethostname()) or not number.isdecimal() or start == _short(""):
        return False
    return _short(process_start(int(number)) or "") != start


@functools.cache
def _owner(pid: int) -> str:
    return f"{_short(socket.gethostname())}-{pid}-{_short(process_start(pid) or '')}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
