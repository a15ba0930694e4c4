"""A name of a process says whether that process still runs."""

import os
import socket
import subprocess
import sys

from maskless.data import processes
from maskless.data.processes import has_ended, owner, process_start


def test_this_process_has_not_ended_and_has_one_name():
    assert owner() == owner() and not has_ended(owner())


def test_a_process_that_was_killed_has_ended_also_when_its_number_is_used_again():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    name = (
        f"{processes._short(socket.gethostname())}-{process.pid}-{processes._short(process_start(process.pid) or '')}"
    )
    assert not has_ended(name)
    process.kill()
    process.wait()
    assert has_ended(name)
    another = "-".join([*owner().split("-")[:2], "0" * 8])  # the number of this process, and another start
    assert has_ended(another)


def test_what_cannot_be_known_is_left_alone():
    of_another_host = f"{'0' * 8}-{os.getpid()}-{'0' * 8}"
    without_start = f"{processes._short(socket.gethostname())}-1-{processes._short('')}"
    assert not any(map(has_ended, [of_another_host, without_start, "", "a-b", owner().replace("-", "")]))


def test_a_fork_has_a_name_of_its_own():
    ours = owner()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, owner().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100).decode() != ours
