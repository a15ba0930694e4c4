"""/docs: the HTTP API on one page that loads nothing from elsewhere, made from the OpenAPI schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maskless.records.html import page, text

CURL = """curl http://127.0.0.1:7860/v1/edits \\
  -F image=@scene.png \\
  -F 'options={"instruction": "replace the red car with a blue house"}'
# 202 {"id": "…", "state": "queued", …}

curl http://127.0.0.1:7860/v1/edits/ID               # queued, running, done, failed or cancelled
curl -N http://127.0.0.1:7860/v1/edits/ID/events     # the same, whenever it changes
curl -o edited.png http://127.0.0.1:7860/v1/edits/ID/image
curl -X DELETE http://127.0.0.1:7860/v1/edits/ID     # cancel it"""
PYTHON = """import base64
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:7860/v1", api_key="the token, or anything without one")
answer = client.images.edit(
    image=open("scene.png", "rb"),
    prompt="replace the red car with a blue house",   # no mask: the region is found
    extra_body={"seed": 7, "iterations": 5},          # any option of an edit
)
open("edited.png", "wb").write(base64.b64decode(answer.data[0].b64_json))
print(answer.model_extra["region"], answer.model_extra["score"])"""
JAVASCRIPT = """const form = new FormData();
form.append("image", file);                             // from <input type="file">
form.append("options", JSON.stringify({ caption: "a red car", prompt: "a blue house" }));
const { id } = await (await fetch("/v1/edits", { method: "POST", body: form })).json();

const events = new EventSource(`/v1/edits/${id}/events`);
events.addEventListener("running", (e) => console.log(JSON.parse(e.data).progress));
for (const end of ["done", "failed", "cancelled"]) {
  events.addEventListener(end, (e) => {
    events.close();
    if (end === "done") document.querySelector("img").src = `/v1/edits/${id}/image`;
    else console.log(JSON.parse(e.data).error);
  });
}"""
INTRODUCTION = (
    "Send a picture and words; get it back with one region changed. Every pixel outside the region is the one that was "
    "sent, bit for bit, at its own depth, with its alpha channel, EXIF data and ICC profile."
)
NOTES = (
    "A full queue answers 429 with Retry-After. A client of /v1/images/edits that goes away frees its place; an edit "
    "that was started with POST /v1/edits goes on until DELETE cancels it. The schema for generators of clients is "
    '<a href="/openapi.json">/openapi.json</a>.'
)


def docs_page(schema: Mapping[str, Any]) -> str:
    """The page of an OpenAPI schema."""
    examples = "".join(
        f"<h3>{title}</h3><pre>{text(code)}</pre>"
        for title, code in (("Python, with OpenAI’s client", PYTHON), ("curl", CURL), ("JavaScript", JAVASCRIPT))
    )
    groups: dict[str, list[str]] = {}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            tag = (operation.get("tags") or ["Other"])[0]
            groups.setdefault(tag, []).append(_operation(method.upper(), path, operation, schema))
    sections = "".join(f"<h2>{text(tag)}</h2>{''.join(parts)}" for tag, parts in groups.items())
    head = (
        f"<header><h1>{text(schema['info']['title'])} {text(schema['info']['version'])}: HTTP API</h1>"
        f'<p>{text(INTRODUCTION)}</p><p>{NOTES}</p><p><a href="/">The page for people</a></p></header>'
    )
    return page("HTTP API · Maskless", f"{head}<h2>Examples</h2>{examples}{sections}")


def _operation(method: str, path: str, operation: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """One operation, folded, with its parameters and its answers."""
    rows = [
        _row(parameter["name"], parameter["in"], parameter["schema"], parameter.get("description", ""))
        for parameter in operation.get("parameters", [])
    ]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        form = _resolved(content["schema"], schema)
        required = form.get("required", [])
        for name, field in form.get("properties", {}).items():
            where = "form, required" if name in required else "form"
            rows.append(_row(name, where, field, field.get("description", "")))
    answers = "".join(
        f"<tr><th scope=row>{text(status)}</th><td>{text(answer.get('description', ''))}</td></tr>"
        for status, answer in sorted(operation.get("responses", {}).items())
    )
    heading = (
        "<tr><th scope=col>Field</th><th scope=col>Where</th><th scope=col>Type</th><th scope=col>Meaning</th></tr>"
    )
    fields = f'<div class="scroll" tabindex="0"><table>{heading}{"".join(rows)}</table></div>' if rows else ""
    return (
        f"<details><summary><strong>{method}</strong> <code>{text(path)}</code> "
        f'<span class="faint">{text(operation.get("summary", ""))}</span></summary>'
        f'{fields}<div class="scroll" tabindex="0"><table><caption>Answers</caption>{answers}</table></div></details>'
    )


def _row(name: str, where: str, field: Mapping[str, Any], meaning: str) -> str:
    kinds = [each.get("type", "") for each in field.get("anyOf", [field])]
    kind = next((each for each in kinds if each and each != "null"), "")
    if "enum" in field:
        kind = " or ".join(map(str, field["enum"]))
    if field.get("format") == "binary" or "contentMediaType" in str(field):
        kind = "file"
    cells = "".join(f"<td>{text(value)}</td>" for value in (where, kind, meaning))
    return f"<tr><th scope=row><code>{text(name)}</code></th>{cells}</tr>"


def _resolved(field: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The field, or what it refers to."""
    reference = field.get("$ref", "")
    return schema["components"]["schemas"][reference.rpartition("/")[2]] if reference else field
