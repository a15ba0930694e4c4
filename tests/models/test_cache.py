"""The hub's cache: names that come from a server are checked before they become paths."""

import json

import pytest

from maskless.data.errors import MasklessError
from maskless.models.cache import is_commit, is_intact, is_safe_name, read_lock, snapshot_file
from maskless.models.transfer import RemoteFile

COMMIT = "ab" * 20


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/../x", "/etc/passwd", "a//b", "a/", "~/x", "a\\b", "C:x", "x\x00", "x\n", "nul",
     "aux.json", "com1.txt", "x.", "x ", "é\u202e.json", "a" * 201, "/".join("a" * 9), 7, None, ["x"], ".hidden",
     "x\x1b[31m"],
)  # fmt: skip
def test_names_that_could_lead_elsewhere_are_not_safe(name):
    assert not is_safe_name(name)


@pytest.mark.parametrize("name", ["config.json", "unet/model-00001-of-00002.safetensors", "a b/c+d@e=f.json", "_x/1"])
def test_ordinary_names_are_safe(name):
    assert is_safe_name(name)


def test_a_commit_is_a_hash():
    assert is_commit(COMMIT) and is_commit("0" * 64)
    assert not any(map(is_commit, ["main", "AB" * 20, COMMIT + "\n", COMMIT[:-1], None, 3, "../" + COMMIT]))


def test_a_file_outside_of_the_snapshot_has_no_path(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert snapshot_file("a/b", COMMIT, "unet/x.json").is_relative_to(tmp_path / "models--a--b" / "snapshots" / COMMIT)
    for commit, name in ((COMMIT, "../x"), ("..", "x")):
        with pytest.raises(MasklessError, match="cannot be a path in the cache"):
            snapshot_file("a/b", commit, name)


def test_a_file_is_intact_if_its_size_and_its_hash_are_right(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    in_git = "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f"  # of `git hash-object`
    for size, digest in ((None, None), (3, None), (3, sha256), (None, in_git)):
        assert is_intact(path, RemoteFile(name="x", size=size, digest=digest))
    for size, digest in ((4, sha256), (3, "0" * 64), (3, "0" * 40)):
        assert not is_intact(path, RemoteFile(name="x", size=size, digest=digest))
    assert not is_intact(tmp_path / "nothing", RemoteFile(name="x"))


ENTRY = {"files": {"x": {}}, "commit": COMMIT, "revision": None, "settings_only": False}


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"a/b": 3}', json.dumps({"a/b": ENTRY | {"files": {"../x": {}}}}),
     json.dumps({"a/b": ENTRY | {"files": {"x": 3}}}), json.dumps({"a/b": ENTRY | {"commit": "../.."}}),
     "[" * 100_000],
)  # fmt: skip
def test_a_damaged_lock_file_is_one_line(tmp_path, monkeypatch, content):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "maskless.lock.json").write_text(content)
    with pytest.raises(MasklessError, match="maskless.lock.json .*; delete it") as caught:
        read_lock()
    assert "\n" not in str(caught.value)
