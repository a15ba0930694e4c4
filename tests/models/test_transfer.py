"""Requests with limits; the hostile answers of a whole hub are in test_hub.py."""

import hashlib

import pytest

from hub_server import Answer, serving
from maskless.data.errors import MasklessError
from maskless.models import transfer
from maskless.models.transfer import RemoteFile, TransferError, download, known_digest, request_bytes, request_json

CONTENT = bytes(range(256)) * 300


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PAUSE_SECONDS", 0)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "x.safetensors").write_bytes(CONTENT)
    with serving({"a/b": tmp_path / "model"}) as hub:
        yield hub


def address(server) -> str:
    return f"{server.url}/a/b/resolve/main/x.safetensors"


def file(**changes) -> RemoteFile:
    facts = {"name": "x.safetensors", "size": len(CONTENT), "digest": hashlib.sha256(CONTENT).hexdigest()}
    return RemoteFile(**facts | changes)


def test_a_download_continues_and_is_checked_as_a_whole(server, tmp_path):
    part, came = tmp_path / "part", []
    part.write_bytes(CONTENT[:1000])
    assert download(address(server), part, file(), limit=0, on_bytes=came.append) == file().digest
    assert part.read_bytes() == CONTENT and sum(came) == len(CONTENT)
    assert [asked for method, _, asked in server.requests if method == "GET"] == ["bytes=1000-"]


def test_a_beginning_that_is_wrong_is_downloaded_again(server, tmp_path):
    part = tmp_path / "part"
    part.write_bytes(b"?" * 1000)
    download(address(server), part, file(), limit=0, on_bytes=len_of_nothing)
    assert part.read_bytes() == CONTENT
    part.write_bytes(CONTENT + b"more than the file has")
    download(address(server), part, file(), limit=0, on_bytes=len_of_nothing)
    assert part.read_bytes() == CONTENT


def len_of_nothing(_count: int) -> None:
    pass


def test_a_server_without_ranges_sends_the_file_from_its_beginning(server, tmp_path):
    part = tmp_path / "part"
    part.write_bytes(CONTENT[:1000])
    server.answers["a/b/resolve"] = Answer(body=CONTENT)
    download(address(server), part, file(), limit=0, on_bytes=len_of_nothing)
    assert part.read_bytes() == CONTENT


def test_a_file_of_unknown_size_has_a_limit(server, tmp_path):
    unknown = file(size=None, digest=None)
    download(address(server), tmp_path / "part", unknown, limit=len(CONTENT), on_bytes=len_of_nothing)
    with pytest.raises(MasklessError, match=f"has {len(CONTENT):,} bytes, 10 at most are accepted"):
        download(address(server), tmp_path / "other", unknown, limit=10, on_bytes=len_of_nothing)
    assert not (tmp_path / "other").exists()


def test_refusals_are_not_repeated_and_failures_are(server, tmp_path):
    for status, times in ((403, 1), (404, 1), (503, transfer.ATTEMPTS)):
        server.requests.clear()
        server.answers["a/b/resolve"] = Answer(status=status, body=b"no")
        with pytest.raises(OSError, match=str(status)):
            download(address(server), tmp_path / "part", file(), limit=0, on_bytes=len_of_nothing)
        assert len(server.requests) == times


def test_a_server_that_hardly_sends_anything_is_left(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "STALLED_SECONDS", 0)
    monkeypatch.setattr(transfer, "STALLED_BYTES", 10**9)
    with pytest.raises(TransferError, match="sent .* bytes in 0 s"):
        download(address(server), tmp_path / "part", file(), limit=0, on_bytes=len_of_nothing)


def test_answers_have_a_limit_and_must_be_json(server, monkeypatch):
    server.answers["data"] = Answer(body=b"[1, 2]")
    assert request_json(f"{server.url}/data") == [1, 2]
    with pytest.raises(MasklessError, match="larger than 0 MB"):
        request_bytes(f"{server.url}/data", limit=3)
    monkeypatch.setattr(transfer, "ANSWER_SECONDS", 0)
    with pytest.raises(MasklessError, match="takes longer than 0 s"):
        request_bytes(f"{server.url}/data", limit=100)
    monkeypatch.undo()
    server.answers["data"] = Answer(body=b"\xff\xfe")
    with pytest.raises(MasklessError, match="is not JSON, so this is not a hub"):
        request_json(f"{server.url}/data")


def test_only_hashes_are_hashes():
    assert known_digest("AB" * 20) == "ab" * 20 and known_digest("0" * 64) == "0" * 64
    assert not any(map(known_digest, ["", "x" * 40, "0" * 41, "../../x", None, 5, "0" * 40 + "\n"]))
