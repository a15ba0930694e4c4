"""run.json appears whole and describes a run; a process is identified by its number and the time when it started."""

import os
import subprocess
import sys

import pytest

from maskless.data.errors import MasklessError
from maskless.data.processes import process_start
from maskless.records.run_file import RunFile, is_alive, read_run_file, record_of


@pytest.fixture
def run(editor, picture):
    request = editor.request(picture, caption="a red square", prompt="a house")
    return editor.start(request, iterations=3, search="learned")


def test_it_describes_the_run_and_appears_whole(run, tmp_path):
    file = RunFile(tmp_path, record_of(run))
    file.update(step=1)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    read = read_run_file(tmp_path)
    assert read == file.record and (read.step, read.total_steps, read.state) == (1, 3, "running")
    assert (read.caption, read.prompt, read.models) == ("a red square", "a house", run.models.names)
    assert is_alive(read) is True


def test_a_missing_and_a_damaged_file(tmp_path):
    assert read_run_file(tmp_path) is None
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(MasklessError, match="run.json: it is damaged"):
        read_run_file(tmp_path)


def test_two_processes_have_different_start_texts():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = process_start(process.pid)
    process.communicate(b"\n")
    assert process_start(os.getpid()) == process_start(os.getpid()) != start
    assert start and process_start(process.pid) is None
