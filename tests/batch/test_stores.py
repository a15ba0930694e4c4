"""Outputs in a folder: files and folders appear whole, and one of two creators wins."""

import errno
import json
import os
from pathlib import Path

import pytest

from batch_tools import QUICK, write_manifest
from maskless.batch.locks import locked
from maskless.batch.places import opened
from maskless.batch.shards import Shard
from maskless.batch.stores import FolderStore, StorageError, open_store
from maskless.batch.worker import Worker
from maskless.data.errors import MasklessError
from s3_server import KEYS, s3_server


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


class TestObjectStorage:
    """The same in object storage, against a local S3 server."""

    @pytest.fixture
    def bucket(self, monkeypatch):
        pytest.importorskip("obstore")
        with s3_server() as (address, bucket):
            for name, value in (KEYS | {"AWS_ENDPOINT_URL": address}).items():
                monkeypatch.setenv(name, value)
            opened.cache_clear()
            yield bucket
        opened.cache_clear()

    def test_files_and_folders(self, bucket):
        store = open_store("s3://bucket/out put")
        assert store.names("batch") == set() and store.read("batch/a") is None
        store.write("batch/a", b"1")
        assert store.create("batch/b", b"first") and not store.create("batch/b", b"second")
        assert store.read("batch/b") == b"first" and store.names("batch") == {"a", "b"}
        store.remove("batch/a")
        store.remove("batch/a")
        staged(store, one="1", two="2")
        staged(store, one="3")
        names = {name: value for name, value in bucket.objects.items() if "7_a car" in name}
        assert names == {"bucket/out put/7_a car/one": b"3"}

    def test_a_lease_ends_with_its_time(self, bucket, monkeypatch):
        store, whole = open_store("s3://bucket/output"), Shard()
        with locked(store, whole), pytest.raises(MasklessError, match="is in use by"), locked(store, whole):
            pass
        with locked(store, whole):
            pass
        monkeypatch.setattr("maskless.batch.locks.LEASE_SECONDS", -1.0)  # of a process that died
        store.create("batch/locks/whole.lease", b'{"until": 5}')
        with locked(store, whole):
            pass
        assert not [name for name in bucket.objects if "lease" in name]

    def test_a_batch_from_bucket_to_bucket(self, bucket, maskless, tiny_models, tmp_path, monkeypatch):
        """The tree is that of a folder, but for the place of the pictures; what is finished is not done again."""
        monkeypatch.chdir(tmp_path)
        write_manifest(tmp_path, 2)
        for path in tmp_path.iterdir():
            bucket.objects[f"bucket/in/{path.name}"] = path.read_bytes()
        arguments = ["--models", str(tiny_models), *QUICK, "--quiet"]
        remote = ["batch", "s3://bucket/in/rows.jsonl", "--output-dir", "s3://bucket/out", *arguments]
        assert maskless(*remote)[0] == 0
        written = {name.removeprefix("bucket/out/"): value for name, value in bucket.objects.items()}
        assert len([name for name in written if name.startswith("batch/done/")]) == 2
        assert maskless("batch", "rows.jsonl", *arguments)[0] == 0
        local = {path.relative_to("output").as_posix(): path for path in Path("output").rglob("*") if path.is_file()}
        pictures = [name for name in local if name.endswith(".png") and "overview" not in name]
        assert len(pictures) == 6 and all(written[name] == local[name].read_bytes() for name in pictures)
        record = json.loads(written["0_a red square/result.json"])
        assert record["request"]["image"] == "s3://bucket/in/0.png"
        before = dict(bucket.objects)
        monkeypatch.setattr(Worker, "__init__", pytest.fail)
        assert maskless(*remote, "--resume")[0] == 0
        same = {name for name in before if "/batch/s" not in name}
        assert all(bucket.objects[name] == before[name] for name in same)

    def test_a_lost_connection_is_one_line(self, monkeypatch):
        pytest.importorskip("obstore")
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}).items():
            monkeypatch.setenv(name, value)
        opened.cache_clear()
        with pytest.raises(StorageError, match="s3://bucket/output"):
            open_store("s3://bucket/output").write("a", b"1")
        opened.cache_clear()
