"""Files appear whole or not at all."""

import os
import stat

import pytest

from maskless.data.errors import MasklessError
from maskless.data.files import (
    finite,
    remove_leftovers,
    require_no_links,
    require_writable,
    temporary_folder,
    write_bytes,
    written_whole,
)
from maskless.data.processes import owner


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


DEAD = "-".join([*owner().split("-")[:2], "0" * 8])
"""The name of a process that had the number of this one and has ended."""


def test_what_a_killed_process_left_is_removed_at_the_next_write_and_nothing_else(tmp_path):
    folder = tmp_path / f".tmp-{DEAD}-abc_1"
    (folder / "results").mkdir(parents=True)
    (folder / "results" / "a.png").write_bytes(b"half")
    (tmp_path / f".tmp-{DEAD}-0123456789ab.png").write_bytes(b"half")
    others = [f".tmp-{owner()}-01.png", f".tmp-{'0' * 8}-1-{'0' * 8}-01.png", ".tmp-notes", "a.png", ".tmp-x.png"]
    for name in others:
        (tmp_path / name).write_bytes(b"")
    write_bytes(tmp_path / "new.bin", b"")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "new.bin"])


def test_leftovers_are_never_removed_through_a_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    link = tmp_path / "folder" / f".tmp-{DEAD}-abc"
    link.symlink_to(outside)
    assert remove_leftovers(tmp_path / "folder") == [] and (outside / "kept").exists() and link.is_symlink()
    assert remove_leftovers(tmp_path / "nothing") == []


def test_a_temporary_folder_is_hidden_and_goes_away(tmp_path):
    with temporary_folder(tmp_path) as folder:
        assert folder.parent == tmp_path and folder.name.startswith(f".tmp-{owner()}-")
        assert remove_leftovers(tmp_path) == []
    assert os.listdir(tmp_path) == []


def test_folders_that_are_links_are_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    require_no_links(tmp_path / "real", tmp_path / "nothing")
    with pytest.raises(MasklessError, match="link is a symbolic link to .*real, whose files would be replaced"):
        require_no_links(tmp_path / "real", tmp_path / "link")
