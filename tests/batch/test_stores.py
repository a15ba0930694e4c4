"""Outputs in a folder: files and folders appear whole, and one of two creators wins."""

import errno
import os
from pathlib import Path

import pytest

from maskless.batch.stores import FolderStore, StorageError, open_store
from maskless.data.errors import MasklessError


@pytest.fixture
def store(tmp_path):
    return open_store(f"file://{tmp_path}/out%20put")


def staged(store, **files: str):
    with store.staging("0-of-1") as folder:
        for name, content in files.items():
            (folder / "row" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "row" / name).write_text(content)
        store.publish(folder / "row", "7_a car")


def test_files(store, tmp_path):
    assert store.place == f"{tmp_path}/out put" and isinstance(store, FolderStore)
    assert store.names("batch") == set() and store.read("batch/a") is None
    store.write("batch/a", b"1")
    store.write("batch/a", b"2")
    assert store.create("batch/b", b"first") and not store.create("batch/b", b"second")
    assert store.read("batch/a") == b"2" and store.read("batch/b") == b"first"
    store.append("batch/b", b" and more")
    assert store.read("batch/b") == b"first and more" and store.names("batch") == {"a", "b"}
    store.remove("batch/a")
    store.remove("batch/a")
    assert store.names("batch") == {"b"}


def test_a_folder_appears_whole_and_replaces_an_earlier_one(store):
    staged(store, one="1", two="2")
    staged(store, one="3")
    root = Path(store.place)
    assert {path.name: path.read_text() for path in (root / "7_a car").iterdir()} == {"one": "3"}
    assert list((root / "batch/staging/0-of-1").iterdir()) == []


def test_what_a_killed_worker_left_is_removed(store):
    left = Path(store.place) / "batch/staging/0-of-1/abc/row"
    left.mkdir(parents=True)
    other = left.parents[2] / "1-of-2/def"
    other.mkdir(parents=True)
    store.clear_staging("0-of-1")
    assert not left.exists() and other.exists()


def test_without_links_on_the_file_system(store, monkeypatch):
    def link(*_names):
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", link)
    assert store.create("a", b"first") and not store.create("a", b"second") and store.read("a") == b"first"


def test_a_full_disk_is_one_line(store, monkeypatch):
    def replace(*_names):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(StorageError, match="out put: No space left on device"):
        store.write("a", b"1")
    assert list(Path(store.place).iterdir()) == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MasklessError, match="is a file, not a folder"):
        open_store(str(tmp_path / "file"))
