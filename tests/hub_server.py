"""A small server that speaks the part of the Hugging Face hub's protocol that downloads need, on this machine only."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a hostile or broken server sends: a status, headers and a body, and whether it closes the connection."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    close: bool = False


class HubServer:
    """Models by id, each a folder, at one commit.

    requests: (method, path, Range header) of all that came.
    breaking: names of files whose download is cut near its end and then refused.
    gated: ids whose files need a licence. converted: id to the folder that its pull request 1 offers.
    answers: from the beginning of a path to an answer that takes the place of the usual one, see `Answer`.
    lists_hashes: whether the listing has sizes and hashes, as the hub's has and a mirror's may not.
    """

    def __init__(self, models: dict[str, Path]) -> None:
        self.models = models
        self.commits = {repo_id: hashlib.sha1(repo_id.encode()).hexdigest() for repo_id in models}
        self.requests: list[tuple[str, str, str | None]] = []
        self.breaking: set[str] = set()
        self.broken: set[str] = set()
        self.gated: set[str] = set()
        self.converted: dict[str, Path] = {}
        self.answers: dict[str, Answer] = {}
        self.lists_hashes = True
        self.url = ""

    def folder_at(self, repo_id: str, revision: str) -> tuple[str, Path] | None:
        """The commit and the folder of a revision; None where there is none."""
        of_pull_request = hashlib.sha1(f"{repo_id} pr".encode()).hexdigest()
        if revision in ("refs/pr/1", of_pull_request) and repo_id in self.converted:
            return of_pull_request, self.converted[repo_id]
        if revision in ("main", self.commits[repo_id]):
            return self.commits[repo_id], self.models[repo_id]
        return None


@contextmanager
def serving(models: dict[str, Path]) -> Iterator[HubServer]:
    """A server of these models for as long as the block lasts."""
    hub = HubServer(models)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = _Server(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, _request: object, _address: object) -> None:
        """Clients that refuse an answer close the connection, which is no error here."""


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        for beginning, answer in self.hub.answers.items():
            if path.startswith(beginning):
                return self._send_answer(answer)
        parts = path.split("/")
        if parts[:2] == ["api", "models"]:
            self._answer_about("/".join(parts[2:4]), parts[4] if len(parts) > 4 else "", "/".join(parts[5:]) or "main")
        elif "/resolve/" in path:
            repo_id, _, rest = path.partition("/resolve/")
            commit, _, name = rest.partition("/")
            self._send_file(repo_id, commit, name)
        else:
            self._refuse(404, "EntryNotFound")

    def _answer_about(self, repo_id: str, what: str, revision: str) -> None:
        if repo_id not in self.hub.models:
            return self._refuse(404, "RepoNotFound")
        if what == "discussions":
            offers = [_offer(repo_id)] if repo_id in self.hub.converted else []
            return self._send(json.dumps({"discussions": offers, "count": len(offers), "start": 0}).encode())
        at = self.hub.folder_at(repo_id, revision)
        if at is None:
            return self._refuse(404, "RevisionNotFound")
        commit, folder = at
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        names = [path.relative_to(folder).as_posix() for path in files]
        if what == "tree":
            listing = [
                {"type": "file", "path": name, "oid": _etag(path), "size": path.stat().st_size}
                for name, path in zip(names, files, strict=True)
            ]
            return self._send(json.dumps(listing).encode())
        siblings = [
            {"rfilename": name} | (_facts(path) if self.hub.lists_hashes else {})
            for name, path in zip(names, files, strict=True)
        ]
        about = {"id": repo_id, "modelId": repo_id, "sha": commit, "private": False, "tags": [], "siblings": siblings}
        return self._send(json.dumps(about).encode())

    def _send_file(self, repo_id: str, revision: str, name: str) -> None:
        if repo_id in self.hub.gated:
            return self._refuse(401, "GatedRepo")
        at = self.hub.folder_at(repo_id, revision) if repo_id in self.hub.models else None
        if at is None or not (at[1] / name).is_file():
            return self._refuse(404, "EntryNotFound" if at else "RepoNotFound")
        if self.command == "GET" and name in self.hub.broken and name in self.hub.breaking:
            return self._refuse(500, "")
        content = (at[1] / name).read_bytes()
        headers = {"ETag": f'"{_etag(at[1] / name)}"', "X-Repo-Commit": at[0], "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range")
        first = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        if asked:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        cut = self.command == "GET" and name in self.hub.breaking
        self._send(content[first:], 206 if asked else 200, headers, cut=cut)
        if cut:
            self.hub.broken.add(name)

    def _send_answer(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in ({"Content-Length": str(len(answer.body))} | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            with suppress(OSError):
                self.wfile.write(answer.body)
        self.close_connection = self.close_connection or answer.close

    def _send(
        self, body: bytes, status: int = 200, headers: dict[str, str] | None = None, *, cut: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) * 17 // 20] if cut else body)
        if cut:
            self.close_connection = True

    def _refuse(self, status: int, code: str) -> None:
        self._send(b"{}", status, {"X-Error-Code": code, "X-Error-Message": code})


def _etag(path: Path) -> str:
    """As the hub has it: the SHA-256 of weights, and of other files the SHA-1 of their blob in git."""
    content = path.read_bytes()
    if path.suffix == ".safetensors":
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _facts(path: Path) -> dict[str, object]:
    """What a listing with `blobs=true` says of a file."""
    size, digest = path.stat().st_size, _etag(path)
    if path.suffix == ".safetensors":
        return {"size": size, "blobId": "0" * 40, "lfs": {"size": size, "sha256": digest, "pointerSize": 135}}
    return {"size": size, "blobId": digest}


def _offer(repo_id: str) -> dict[str, object]:
    return {
        "num": 1, "title": "Adding `safetensors` variant of this model", "author": {"name": "SFconvertbot"},
        "status": "open", "isPullRequest": True, "createdAt": "2023-03-01T00:00:00.000Z",
        "repo": {"name": repo_id, "type": "model"},
    }  # fmt: skip
