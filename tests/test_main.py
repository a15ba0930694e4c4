"""`python -m maskless` is the command."""

import subprocess
import sys

import maskless


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "maskless", *arguments], capture_output=True, text=True)


def test_it_is_the_command():
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"maskless {maskless.__version__}\n", "")


def test_bad_input_is_one_line_and_status_2():
    done = run("edit", "no-such-file.png", "-p", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "maskless: no such file: no-such-file.png\n"


def test_what_a_process_made_is_not_searched_for_cycles_at_its_end():
    script = (
        "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 0));"
        "from maskless.interfaces.cli import main; main(['--version'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("True\n")
