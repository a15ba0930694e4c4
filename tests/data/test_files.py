"""Files appear whole or not at all."""

import os
import stat

import pytest

from maskless.data.errors import MasklessError
from maskless.data.files import finite, require_writable, write_bytes, written_whole


def test_the_folder_and_the_file_are_created(tmp_path):
    write_bytes(tmp_path / "a/b/c.bin", b"content")
    assert (tmp_path / "a/b/c.bin").read_bytes() == b"content"
    assert os.listdir(tmp_path / "a/b") == ["c.bin"]


def test_a_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_bytes(b"")
    write_bytes(tmp_path / "ours", b"")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


@pytest.mark.parametrize("error", [RuntimeError("an encoder failed"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    write_bytes(tmp_path / "a.png", b"old")
    with pytest.raises(type(error)), written_whole(tmp_path / "a.png") as temporary:
        assert temporary.suffix == ".png" and temporary.parent == tmp_path
        temporary.write_bytes(b"half")
        raise error
    assert os.listdir(tmp_path) == ["a.png"] and (tmp_path / "a.png").read_bytes() == b"old"


def test_system_errors_become_one_line_with_the_path(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MasklessError, match=r"^cannot write .*file/a\.bin: (File exists|Not a directory)$"):
        write_bytes(tmp_path / "file/a.bin", b"")


def test_checking_a_folder_creates_nothing(tmp_path):
    require_writable(tmp_path / "deep/er")
    assert not os.listdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    for folder in ("file", "file/deep"):
        with pytest.raises(MasklessError, match="file is a file, not a folder"):
            require_writable(tmp_path / folder)


def test_a_relative_folder_can_be_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    require_writable("output")
    require_writable(".")


def test_numbers_that_json_cannot_express_become_none():
    assert finite(1.5) == 1.5 and finite(float("nan")) is None and finite(float("inf")) is None
