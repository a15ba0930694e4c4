"""What stands between the network and the server: who is let in, from where, and how much they may send."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from maskless.interfaces.jobs.uploads import MEGABYTE
from maskless.interfaces.web.options import ServeOptions

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
OPEN_PATHS = ("/healthz",)
"""Paths that need no password: they say nothing about the edits."""
PAGE_CALLS = ("queue/join", "queue/data", "heartbeat/", "startup-events", "app_id", "info", "cancel", "reset")
"""What the page needs below /gradio_api/. Gradio's routes for files, uploads and other servers stay closed."""
READING = ("GET", "HEAD", "OPTIONS")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # The page's framework evaluates templates and styles, so these two are allowed inline; nothing else comes from
    # anywhere but this server.
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
}


class Protection:
    """ASGI middleware around the whole server.

    It refuses hosts that this server is not (so that a web page elsewhere cannot reach it through a name that it
    controls), requests that change something and come from other web pages, requests without the password or token,
    and bodies that are too large. It adds headers that keep browsers from loading anything from elsewhere.
    """

    def __init__(self, app: App, options: ServeOptions) -> None:
        self._app, self._options = app, options
        self._most_bytes = round((2 * options.max_megabytes + 1) * MEGABYTE)  # a picture, a mask, and the fields

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _refuse(scope, send, *refusal)
            return
        await self._app(scope, self._limited(receive), _with_headers(send))

    def _refusal(self, scope: Message, headers: dict[str, str]) -> tuple[int, str] | None:
        """The status and the message with which a request is refused; None lets it in."""
        host = _host_name(headers.get("host", ""))
        if not self._is_own(host):
            return 421, f"this server is not {host[:100]!r}; name it with --allow-host"
        changes = scope["type"] == "websocket" or scope["method"] not in READING
        if changes and not self._same_site(headers, host):
            return 403, "requests from other web pages are not accepted"
        if scope["path"] not in OPEN_PATHS and not self._is_known(headers.get("authorization", "")):
            return 401, "user and password, or a bearer token, are needed"
        inside = scope["path"].partition("/gradio_api/")[2]
        if inside and not inside.startswith(PAGE_CALLS):
            return 404, "there is no such address"
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            return 400, "Content-Length must be a number"
        if int(length) > self._most_bytes:
            return 413, f"a request must be at most {self._most_bytes / MEGABYTE:g} MB"
        return None

    def _is_own(self, host: str) -> bool:
        """Whether the request names this server. With a password, or open to all, every name is accepted unless some
        are listed."""
        options = self._options
        listed = {*options.other_hosts, *LOCAL_NAMES, options.host.strip("[]").lower()}
        free = not options.other_hosts and (options.is_protected or not options.is_local)
        return free or host in listed

    def _same_site(self, headers: dict[str, str], host: str) -> bool:
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return False
        origin = headers.get("origin")
        if origin is None:
            return True
        parts = urlsplit(origin)
        name = (parts.hostname or "").lower()
        own_port = headers.get("host", "").rpartition(":")[2]
        same = name == host and (parts.port is None or str(parts.port) == own_port)
        return same or name in self._options.other_hosts

    def _is_known(self, authorization: str) -> bool:
        """Whether the header holds the password or the token; compared in constant time."""
        options = self._options
        if not options.is_protected:
            return True
        kind, _space, value = authorization.partition(" ")
        if kind.lower() == "bearer" and options.token is not None:
            return hmac.compare_digest(value.strip().encode("latin-1"), options.token.encode())
        if kind.lower() == "basic" and options.auth is not None:
            try:
                given = base64.b64decode(value.strip(), validate=True)
            except (binascii.Error, ValueError):
                return False
            return hmac.compare_digest(given, options.auth.encode())
        return False

    def _limited(self, receive: Receive) -> Receive:
        """A `receive` that ends a body which is longer than its header says or has no length."""
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._most_bytes:
                return {"type": "http.disconnect"}
            return message

        return limited


def _host_name(header: str) -> str:
    """The name in a Host header, in lower case and without the port."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _value in message.get("headers", [])}
            added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            message["headers"] = [*message.get("headers", []), *(pair for pair in added if pair[0] not in present)]
        await send(message)

    return sending


async def _refuse(scope: Message, send: Send, status: int, words: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = json.dumps(error_body(words, status)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="Maskless", charset="UTF-8"'))
    await _with_headers(send)({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_body(message: str, status: int) -> dict[str, Any]:
    """An error as clients of image APIs expect it."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 503: "server_error"}
    kind = kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}
