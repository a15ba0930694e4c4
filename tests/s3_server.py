"""A small S3 server for tests: objects in memory, with conditional creation, listing and deletion."""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


class Bucket:
    """The objects of the server by path, each with its bucket in front."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.lock = threading.Lock()


@contextmanager
def s3_server() -> Iterator[tuple[str, Bucket]]:
    """Start a server; gives its address, for AWS_ENDPOINT_URL, and its content. Any bucket name is accepted."""
    bucket = Bucket()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with bucket.lock:
                if self.headers.get("If-None-Match") == "*" and self._key() in bucket.objects:
                    return self._answer(412, _error("PreconditionFailed"))
                bucket.objects[self._key()] = body
            return self._answer(200, tag=body)

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            if "list-type" in query:
                return self._answer(200, self._listing(query.get("prefix", [""])[0]))
            body = bucket.objects.get(self._key())
            return self._answer(404, _error("NoSuchKey")) if body is None else self._answer(200, body, tag=body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_DELETE(self) -> None:
            bucket.objects.pop(self._key(), None)
            self._answer(204)

        def do_POST(self) -> None:
            """Delete several objects."""
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            names = [unescape(name) for name in re.findall(r"<Key>(.*?)</Key>", body)]
            for name in names:
                bucket.objects.pop(f"{self._key().strip('/')}/{name}", None)
            deleted = "".join(f"<Deleted><Key>{escape(name)}</Key></Deleted>" for name in names)
            self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

        def _key(self) -> str:
            return unquote(urlsplit(self.path).path).lstrip("/")

        def _listing(self, prefix: str) -> bytes:
            name = self._key().strip("/")
            with bucket.lock:
                found = {key.removeprefix(f"{name}/"): value for key, value in bucket.objects.items()}
            entries = "".join(
                f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                f'<ETag>"{hashlib.md5(value).hexdigest()}"</ETag><Size>{len(value)}</Size></Contents>'
                for key, value in sorted(found.items())
                if key.startswith(prefix)
            )
            return f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()

        def _answer(self, status: int, body: bytes = b"", tag: bytes | None = None) -> None:
            self.send_response(status)
            if tag is not None:
                self.send_header("ETag", f'"{hashlib.md5(tag).hexdigest()}"')
                self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", bucket
    finally:
        server.shutdown()
        server.server_close()


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
