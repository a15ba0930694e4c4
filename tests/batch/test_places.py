"""Paths and URLs."""

from pathlib import Path

import pytest

from maskless.batch.places import digest, exists_all, is_url, joined, local, opened, read_bytes, stamp
from maskless.data.errors import MasklessError


def test_paths_and_urls():
    assert is_url("s3://bucket/a") and not is_url("a/b") and not is_url("C:/a")
    assert local("file:///a%20b/c") == "/a b/c" and local("a%20b") == "a%20b"
    assert joined("folder", "a.png") == "folder/a.png" and joined("", "a.png") == "a.png"
    assert joined("folder", "/abs/a.png") == "/abs/a.png" and joined("s3://b/x/", "a.png") == "s3://b/x/a.png"
    assert joined("folder", "s3://b/a.png") == "s3://b/a.png" and joined("folder", "file:///a") == "/a"


def test_files(tmp_path):
    path = tmp_path / "a b"
    path.write_bytes(b"1")
    first = stamp(str(path))
    assert read_bytes(f"file://{tmp_path}/a%20b") == b"1" and len(digest(str(path))) == 64
    path.write_bytes(b"22")
    assert first is not None and stamp(str(path)) != first and stamp(str(tmp_path / "none")) is None
    assert exists_all([str(path), str(tmp_path), "none"]) == {str(path)}


@pytest.mark.parametrize(("name", "words"), [("none", "no such file"), (".", "must be a file")])
def test_what_cannot_be_read(tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MasklessError, match=words):
        read_bytes(name)


def test_urls_need_obstore(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "obstore.store", None)
    opened.cache_clear()
    with pytest.raises(MasklessError, match=r"pip install 'maskless\[batch\]'"):
        opened("s3://bucket/a")
    assert not Path("s3:").exists()
