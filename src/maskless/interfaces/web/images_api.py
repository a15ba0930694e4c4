"""POST /v1/images/edits as the clients of image APIs send it. Without a mask, the region is found."""

from __future__ import annotations

import base64
import io
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio
import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.datastructures import FormData
from starlette.datastructures import UploadFile as FormFile

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError, require
from maskless.data.instructions import parse_instruction
from maskless.data.metadata import Metadata
from maskless.data.picture import load_image
from maskless.data.provenance import ProvenanceOptions
from maskless.interfaces.jobs.following import changes
from maskless.interfaces.jobs.job import CANCELLED, FAILED, Job
from maskless.interfaces.jobs.outcome import Outcome
from maskless.interfaces.jobs.spec import EditSpec
from maskless.interfaces.jobs.uploads import NotAPicture, Upload, UploadLimits, checked_upload
from maskless.interfaces.jobs.worker import Jobs
from maskless.interfaces.web.answers import error_answer
from maskless.interfaces.web.api import ERRORS, SSE_HEADERS, decoding, sse
from maskless.interfaces.web.protection import error_body
from maskless.records.credentials import Signer

FORMATS = ("png", "jpeg", "webp")
IGNORED = ("background", "quality", "input_fidelity", "user", "moderation", "style", "safety_identifier")
"""Fields of other services that have no meaning here."""
OWN = ("image", "image[]", "mask", "model", "n", "size", "output_format", "output_compression", "response_format")
MAX_IMAGES, MAX_PARTIAL = 10, 3


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How the answer should be. size: "auto" or "WIDTHxHEIGHT". url: give addresses in place of the pictures."""

    n: int
    size: str
    output_format: str
    compression: int
    url: bool
    stream: bool
    partial_images: int


def images_router(jobs: Jobs, limits: UploadLimits) -> APIRouter:
    """The routes that clients of image APIs use."""
    router = APIRouter(prefix="/v1", tags=["Images"], responses=ERRORS)

    @router.post("/images/edits", summary="Edit a picture and wait for it", openapi_extra=_form_schema())
    async def edit(request: Request) -> Response:
        async with request.form(max_files=4, max_fields=100) as form:
            wanted, spec = _wanted(form), _spec(form, jobs)
            image = checked_upload(await _file(form, "image").read(), limits)
            mask = checked_upload(await form["mask"].read(), limits, what="mask") if "mask" in form else None  # type: ignore[union-attr]
        _check_size(wanted.size, image.size_px)
        require(not (mask and spec.box), "give a mask or a box, not both")
        mask = None if mask is None else await anyio.to_thread.run_sync(_bright_where_editable, mask, limiter=decoding)
        job = await anyio.to_thread.run_sync(jobs.submit, spec, image, mask, limiter=decoding)
        if wanted.stream:
            stream = _streamed(job, jobs, wanted, request)
            return StreamingResponse(stream, media_type="text/event-stream", headers=SSE_HEADERS)
        async for _version in changes(job, jobs, request.is_disconnected):
            pass
        if job.state in (FAILED, CANCELLED) or job.outcome is None:
            return _unfinished(job)
        return JSONResponse(await anyio.to_thread.run_sync(_answer, job, jobs, wanted, str(request.base_url)))

    @router.get("/models", summary="The models that this server has loaded")
    def models() -> dict[str, Any]:
        entry = {"id": jobs.editor.models.options.models, "object": "model", "created": 0, "owned_by": "maskless"}
        return {"object": "list", "data": [entry]}

    return router


def _wanted(form: FormData) -> Wanted:
    output_format = _text(form, "output_format", "png")
    require(output_format in FORMATS, f"output_format must be one of {', '.join(FORMATS)}, got {output_format[:20]!r}")
    response_format = _text(form, "response_format", "b64_json")
    require(response_format in ("b64_json", "url"), "response_format must be b64_json or url")
    return Wanted(
        n=_whole(form, "n", 1, 1, MAX_IMAGES),
        size=_text(form, "size", "auto"),
        output_format=output_format,
        compression=_whole(form, "output_compression", 100, 0, 100),
        url=response_format == "url",
        stream=_text(form, "stream", "false").lower() in ("true", "1"),
        partial_images=_whole(form, "partial_images", 0, 0, MAX_PARTIAL),
    )


def _spec(form: FormData, jobs: Jobs) -> EditSpec:
    """The edit that the form describes. A prompt alone is read as an instruction if it is one."""
    model, loaded = _text(form, "model", ""), jobs.editor.models.options.models
    require(model in ("", loaded), f"model must be {loaded!r}, the one that this server has loaded, got {model[:60]!r}")
    taken = {*OWN, *IGNORED, "stream", "partial_images"}
    given = {name: _text(form, name, "") for name in form if name not in taken}
    require(
        bool(given.get("prompt", "").strip()) or "instruction" in given or "task" in given, "prompt must not be empty"
    )
    alone = not any(given.get(name) for name in ("instruction", "caption", "task"))
    if alone and "mask" not in form and not given.get("box"):
        try:
            parse_instruction(given["prompt"])
        except MasklessError:
            return EditSpec.read(given)  # a description; attention decides where it goes
        given["instruction"] = given.pop("prompt")
    return EditSpec.read(given)


def _text(form: FormData, name: str, default: str) -> str:
    value = form.get(name)
    require(value is None or isinstance(value, str), f"{name} must be text, got a file")
    return str(value) if value else default


def _whole(form: FormData, name: str, default: int, least: int, most: int) -> int:
    text = _text(form, name, str(default))
    good = text.isascii() and text.isdigit() and len(text) < 9 and least <= int(text) <= most
    require(good, f"{name} must be a whole number from {least} to {most}, got {text[:20]!r}")
    return int(text)


def _file(form: FormData, name: str) -> FormFile:
    """The one picture of the form; clients send it as `image` or as a list of one."""
    files = [value for key in (name, f"{name}[]") for value in form.getlist(key)]
    require(len(files) == 1, f"{name} must be one picture, got {len(files)}")
    if not isinstance(files[0], FormFile):
        raise NotAPicture(f"{name} must be a picture file, got text")
    if "mask" in form and not isinstance(form["mask"], FormFile):
        raise NotAPicture("mask must be a picture file, got text")
    return files[0]


def _bright_where_editable(mask: Upload) -> Upload:
    """The mask as Maskless reads it. In image APIs a mask is transparent where to edit; one without alpha is taken as
    bright where to edit."""
    from PIL import Image

    with Image.open(io.BytesIO(mask.content)) as image:
        if "A" not in image.getbands() and "transparency" not in image.info:
            return mask
        alpha = image.convert("RGBA").getchannel("A")
    file = io.BytesIO()
    alpha.point([255 * (value < 128) for value in range(256)]).save(file, format="PNG")
    return Upload(content=file.getvalue(), suffix=".png", size_px=mask.size_px)


def _check_size(size: str, size_px: tuple[int, int]) -> None:
    """Accept the picture's own size, or one of the same shape, to which the answer is resampled."""
    if size == "auto":
        return
    width, _x, height = size.partition("x")
    good = all(side.isascii() and side.isdigit() and 1 <= len(side) <= 4 for side in (width, height))
    require(good and 32 <= min(int(width), int(height)), f"size must be auto or WIDTHxHEIGHT, got {size[:20]!r}")
    skewed = abs(math.log(int(width) / int(height) * size_px[1] / size_px[0]))
    require(
        skewed < 0.02 or sorted(size_px) == sorted((int(width), int(height))),
        f"size must be auto or of the picture's shape, {size_px[0]}x{size_px[1]}, got {size}",
    )


def _encoded(outcome: Outcome, rank: int, wanted: Wanted, provenance: ProvenanceOptions) -> bytes:
    """A candidate as a file of the format and size that the client wants. A PNG of the picture's own size is the file
    that the edit has written, with every pixel outside the region as it was sent. Others keep its XMP, and are signed
    again where the server signs."""
    path = outcome.pictures[rank - 1]
    width, height = outcome.facts["size_px"]
    own_size = wanted.size in ("auto", f"{width}x{height}", f"{height}x{width}") or any(outcome.facts["margins_px"])
    if wanted.output_format == "png" and own_size:
        return path.read_bytes()
    from PIL import Image

    source = load_image(path)
    pixels = source.pixels if source.alpha is None else np.dstack([source.pixels, source.alpha])
    image = Image.fromarray((pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels)
    if not own_size:
        wide, _x, high = wanted.size.partition("x")
        image = image.resize((int(wide), int(high)), Image.Resampling.LANCZOS)
    marks = Metadata(xmp=source.metadata.xmp).save_options(wanted.output_format.upper())
    file = io.BytesIO()
    if wanted.output_format == "jpeg":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
        image.save(file, format="JPEG", quality=max(1, wanted.compression), subsampling=0, **marks)
    elif wanted.output_format == "webp":
        lossless = wanted.compression == 100
        image.save(file, format="WEBP", lossless=lossless, quality=wanted.compression, exact=True, **marks)
    else:
        image.save(file, format="PNG", **marks)
    signer = Signer.of(provenance)
    if signer is None:
        return file.getvalue()
    written = signer.ingredient(source)
    return signer.signed(file.getvalue(), f"image/{wanted.output_format}", None, written, title=path.name)


def _answer(job: Job, jobs: Jobs, wanted: Wanted, base: str) -> dict[str, Any]:
    """The answer without streaming, for a job that is done."""
    outcome = job.outcome
    assert outcome is not None
    facts, data = outcome.facts, []
    for candidate in facts["candidates"][: wanted.n]:
        rank = candidate["rank"]
        if wanted.url:
            picture = {"url": f"{base}v1/edits/{job.name}/image?rank={rank}"}
        else:
            picture = {"b64_json": base64.b64encode(_encoded(outcome, rank, wanted, jobs.provenance)).decode()}
        data.append({**picture, "region": candidate["region"], "score": candidate["score"]})
    width, height = facts["size_px"]
    return {
        "created": int(job.created),
        "data": data,
        "output_format": wanted.output_format,
        "size": f"{width}x{height}" if wanted.size == "auto" else wanted.size,
        "usage": _usage(),
        "id": job.name,
        **{name: facts[name] for name in ("region", "score", "seed", "task", "caption", "prompt", "candidates")},
    }


async def _streamed(job: Job, jobs: Jobs, wanted: Wanted, request: Request) -> AsyncIterator[str]:
    """The events of an edit: at most `partial_images` previews, then every picture when it is complete."""
    sent, shared = 0, {"size": wanted.size, "quality": "auto", "background": "auto", "output_format": "png"}
    try:
        async for _version in changes(job, jobs, request.is_disconnected):
            due = _previews_due(job, wanted.partial_images)
            preview = _present_preview(job)
            if sent < due and preview is not None:
                partial = {
                    "type": "image_edit.partial_image",
                    "partial_image_index": sent,
                    "created_at": int(time.time()),
                }
                partial["b64_json"] = base64.b64encode(preview).decode()
                sent += 1
                yield sse("image_edit.partial_image", partial | shared)
        if job.outcome is None:
            yield sse("error", error_body(job.error or f"the edit is {job.state}", 400))
            return
        answer = await anyio.to_thread.run_sync(_answer, job, jobs, wanted, str(request.base_url))
        extras = {name: answer[name] for name in ("id", "size", "output_format", "usage", "seed", "candidates")}
        for picture in answer["data"]:
            event = {"type": "image_edit.completed", "created_at": int(time.time()), "b64_json": ""} | shared | extras
            yield sse("image_edit.completed", event | picture)
    except MasklessError as error:
        yield sse("error", error_body(str(error), 503))


def _present_preview(job: Job) -> bytes | None:
    """The best candidate so far; before there is one, what is being drawn."""
    return job.previews[-1] if job.previews else job.drawing


def _previews_due(job: Job, partial_images: int) -> int:
    """How many previews should have been sent by now, so that they are spread over the steps."""
    if not job.steps or not job.steps[-1].total_steps:
        return 0
    last = job.steps[-1]
    return min(partial_images, math.ceil((last.step + job.drawn_share) / last.total_steps * partial_images))


def _unfinished(job: Job) -> JSONResponse:
    """The answer for an edit that failed or was cancelled."""
    internal = job.error.startswith("internal error") or "memory" in job.error
    if internal or job.state == CANCELLED:
        status = 500 if internal else 409
        return JSONResponse(error_body(job.error or "the edit was cancelled", status), status)
    return error_answer(MasklessError(job.error))


def _usage() -> dict[str, Any]:
    """Clients expect a count of tokens; there are none."""
    return {
        "input_tokens": 0,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
        "output_tokens": 0,
        "total_tokens": 0,
    }


def _form_schema() -> dict[str, Any]:
    """The form for the OpenAPI schema; the options of an edit come from EditConfig."""
    from dataclasses import fields

    kinds = {"int": "integer", "float": "number", "bool": "boolean", "str": "string"}
    whole, text = {"type": "integer"}, {"type": "string"}
    properties: dict[str, Any] = {
        "image": {**text, "format": "binary", "description": "The picture to edit."},
        "prompt": {
            **text,
            "description": "An instruction, or with `caption`, what should be there.",
            "maxLength": 2000,
        },
        "mask": {**text, "format": "binary", "description": "Transparent (or bright, without alpha) where to edit."},
        "model": {**text, "description": "The models that are loaded, or nothing."},
        "n": {**whole, "minimum": 1, "maximum": MAX_IMAGES, "description": "Pictures in the answer, best first."},
        "size": {**text, "description": "`auto`, or a size of the picture's shape, to which the answer is resampled."},
        "output_format": {**text, "enum": list(FORMATS)},
        "output_compression": {**whole, "minimum": 0, "maximum": 100, "description": "Quality of JPEG and WebP."},
        "response_format": {**text, "enum": ["b64_json", "url"]},
        "stream": {"type": "boolean", "description": "Answer with server-sent events."},
        "partial_images": {**whole, "minimum": 0, "maximum": MAX_PARTIAL, "description": "Previews in the stream."},
        "instruction": {**text, "description": "In place of a prompt, such as “remove the cat”."},
        "caption": {**text, "description": "What is there now, such as “a red car”."},
        "task": {**text, "description": "The kind of edit."},
        "box": {**text, "description": "X0,Y0,X1,Y1 in pixels, in place of a search."},
        "extend": {**text, "description": "Canvas to add: 0.25 of each side, 64 pixels, or left=0.5,top=40."},
    }
    for option in fields(EditConfig):
        kind = kinds[str(option.type).partition(" ")[0]]
        properties[option.name] = {"type": kind, "description": option.metadata["help"]}
    schema = {"type": "object", "required": ["image", "prompt"], "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
