"""/docs is one page that loads nothing and names every operation."""

from starlette.testclient import TestClient

from maskless.interfaces.web.docs_page import docs_page
from maskless.interfaces.web.options import ServeOptions
from maskless.interfaces.web.server import build_app


def test_every_operation_and_field_is_on_the_page(jobs):
    client = TestClient(build_app(jobs, ServeOptions(), with_page=False), base_url="http://127.0.0.1")
    schema = client.get("/openapi.json").json()
    page = docs_page(schema)
    for path, operations in schema["paths"].items():
        assert f"<code>{path}</code>" in page
        assert not {"get", "post", "delete"}.isdisjoint(operations)
    form = schema["paths"]["/v1/images/edits"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    for field in form["properties"]:
        assert f"<code>{field}</code>" in page
    assert {"prompt", "iterations", "delta", "ranking", "seed", "box"} <= set(form["properties"])
    assert "422" not in page and "<script src" not in page
