"""Who is let in, from where, and how much they may send."""

import base64

import pytest
from starlette.testclient import TestClient

from maskless.data.errors import MasklessError
from maskless.interfaces.web.options import ServeOptions
from maskless.interfaces.web.server import build_app


def served(jobs, base_url: str = "http://127.0.0.1:7860", **options) -> TestClient:
    return TestClient(build_app(jobs, ServeOptions(**options), with_page=False), base_url=base_url)


def basic(words: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(words.encode()).decode()}


def test_a_password_or_a_token_opens_everything_but_the_health_check_needs_none(jobs):
    client = served(jobs, auth="me:pass:word", token="tökén")
    for path in ("/docs", "/v1/models", "/openapi.json", "/metrics", "/v1/edits/x"):
        refused = client.get(path)
        assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith("Basic"), path
    assert client.get("/healthz").status_code == 200
    assert client.get("/v1/models", headers=basic("me:pass:word")).status_code == 200
    assert client.get("/v1/models", headers={"Authorization": "Bearer tökén".encode()}).status_code == 200
    for wrong in (
        basic("me:pass"),
        basic(""),
        {"Authorization": "Basic %%%"},
        {"Authorization": "Bearer me:pass:word"},
    ):
        assert client.get("/v1/models", headers=wrong).status_code == 401, wrong


def test_pages_elsewhere_cannot_use_the_server(jobs):
    client = served(jobs)
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        refused = client.post("/v1/edits", headers={"Origin": origin}, data={})
        assert refused.status_code == 403, origin
        assert "access-control-allow-origin" not in refused.headers
    assert client.post("/v1/edits", headers={"Sec-Fetch-Site": "cross-site"}, data={}).status_code == 403
    assert client.post("/v1/edits", headers={"Origin": "http://127.0.0.1:7860"}, data={}).status_code == 400
    # A name that somebody else points at this computer is not this server's.
    assert client.get("/v1/models", headers={"Host": "evil.example"}).status_code == 421
    assert client.get("/v1/models", headers={"Host": "localhost:7860"}).status_code == 200
    assert served(jobs, "http://pictures.lan", allow_host="pictures.lan, other").get("/v1/models").status_code == 200


def test_a_body_that_is_too_large_is_refused_with_or_without_a_length(jobs):
    client = served(jobs, max_megabytes=0.01)
    assert client.post("/v1/edits", files={"image": b"x" * 3_000_000}).status_code == 413

    def pieces():
        for _ in range(300):
            yield b"x" * 10_000

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert 400 <= client.post("/v1/edits", content=pieces(), headers=headers).status_code < 500
    assert client.post("/v1/edits", files={"image": b"x" * 20_000}).status_code == 413


def test_every_answer_keeps_browsers_at_this_server(jobs):
    headers = served(jobs).get("/v1/models").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "pictures.example"])
def test_an_address_that_others_reach_needs_a_password_unless_told(host, monkeypatch):
    with pytest.raises(MasklessError, match="--auth USER:PASSWORD"):
        ServeOptions(host=host)
    assert ServeOptions(host=host, open_to_all=True).host == host
    assert ServeOptions(host=host, token="t").is_protected
    monkeypatch.setenv("MASKLESS_AUTH", "me:secret")
    assert ServeOptions(host=host).auth == "me:secret"
