"""The HTTP API: edits as jobs, their files and events, and what an operator needs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import anyio
from fastapi import APIRouter, File, Form, Query, Response, UploadFile
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, HTMLResponse, StreamingResponse

from maskless.data.errors import MasklessError, require
from maskless.interfaces.jobs.following import changes
from maskless.interfaces.jobs.job import Job
from maskless.interfaces.jobs.outcome import small_view
from maskless.interfaces.jobs.spec import EditSpec
from maskless.interfaces.jobs.uploads import UploadLimits, checked_upload
from maskless.interfaces.jobs.worker import Jobs
from maskless.interfaces.web.answers import (
    NotFound,
    download_name,
    finished_outcome,
    found_job,
    job_facts,
    of_rank,
    region_png,
    zipped,
)
from maskless.interfaces.web.docs_page import docs_page
from maskless.interfaces.web.metrics import metrics_text

EditId = Annotated[str, PathParameter(description="The `id` of the edit.", max_length=64)]
Rank = Annotated[int, Query(description="Which candidate, best first, from 1.", ge=1, le=10_000)]
Longest = Annotated[
    int | None,
    Query(description="Longer side of a small copy in pixels; without it, the file itself.", ge=16, le=2048),
]
Download = Annotated[bool, Query(description="Ask browsers to save the file.")]
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": words, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    for status, words in (
        (400, "The request makes no edit; the message says what was expected."),
        (401, "User and password, or a bearer token, are needed."),
        (403, "The request comes from another web page."),
        (404, "There is no such edit or file, or its time is over."),
        (413, "The picture has too many bytes or pixels."),
        (415, "The file is not a picture."),
        (421, "The request names another server."),
        (429, "The queue is full; Retry-After says when to try again."),
    )
}
PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "A PNG file."}}
SSE_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
decoding = anyio.CapacityLimiter(2)
"""How many pictures are decoded for a check at the same time."""


def edits_router(jobs: Jobs, limits: UploadLimits) -> APIRouter:
    """The routes below /v1/edits."""
    router = APIRouter(prefix="/v1/edits", tags=["Edits"], responses=ERRORS)

    @router.post("", status_code=202, summary="Start an edit")
    async def start(
        image: Annotated[UploadFile, File(description="The picture to edit.")],
        options: Annotated[
            str,
            Form(
                description="A JSON object: `instruction`, or `caption` and `prompt`; `task`, `box`, `extend`, `seed`, "
                "and any option of an edit.",
                examples=['{"instruction": "replace the red car with a blue house"}'],
            ),
        ] = "{}",
        mask: Annotated[
            UploadFile | None,
            File(description="A picture of the same size, bright where to edit; it takes the place of the search."),
        ] = None,
    ) -> dict[str, Any]:
        spec = EditSpec.read(_json_object(options))
        upload = checked_upload(await image.read(), limits)
        masked = None if mask is None else checked_upload(await mask.read(), limits, what="mask")
        job = await anyio.to_thread.run_sync(jobs.submit, spec, upload, masked, limiter=decoding)
        return job_facts(job, jobs)

    @router.get("/{id}", summary="The state, progress and result of an edit")
    def state(id: EditId) -> dict[str, Any]:
        return job_facts(found_job(jobs, id), jobs)

    @router.delete("/{id}", summary="Cancel an edit, or delete a finished one")
    def cancel(id: EditId) -> dict[str, Any]:
        job = found_job(jobs, id)
        if job.is_finished:
            jobs.remove(job)
        else:
            jobs.cancel(job)
        return job_facts(job, jobs)

    @router.get(
        "/{id}/events",
        summary="Progress as server-sent events, until the edit is finished",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}, "description": "Events named after the state."}},
    )
    def events(id: EditId) -> StreamingResponse:
        stream = _events(found_job(jobs, id), jobs)
        return StreamingResponse(stream, media_type="text/event-stream", headers=SSE_HEADERS)

    _add_files(router, jobs)
    return router


def _add_files(router: APIRouter, jobs: Jobs) -> None:
    """The files of an edit."""

    @router.get("/{id}/image", response_class=FileResponse, responses=PNG, summary="An edited picture")
    def image(id: EditId, rank: Rank = 1, longest: Longest = None, download: Download = False) -> FileResponse:
        outcome = finished_outcome(jobs, id)
        path = of_rank(outcome, rank)
        kind = "attachment" if download else "inline"
        shown = path if longest is None else small_view(path, longest)
        name = download_name(outcome, rank)
        return FileResponse(shown, media_type="image/png", filename=name, content_disposition_type=kind)

    @router.get("/{id}/source", response_class=FileResponse, summary="The picture that was sent")
    def source(id: EditId, longest: Longest = None) -> FileResponse:
        path = found_job(jobs, id).image
        return FileResponse(path if longest is None else small_view(path, longest))

    @router.get("/{id}/region", responses=PNG, summary="The region: white where the candidate may differ")
    def region(id: EditId, rank: Rank = 1) -> Response:
        return Response(region_png(finished_outcome(jobs, id), rank), media_type="image/png")

    @router.get("/{id}/maps/{name}", response_class=FileResponse, responses=PNG, summary="Where the model looked")
    def map_of(id: EditId, name: Literal["attention", "relevance"]) -> FileResponse:
        path = finished_outcome(jobs, id).maps.get(name)
        if path is None:
            raise NotFound(f"this edit has no map of the {name}")
        return FileResponse(path, media_type="image/png")

    @router.get("/{id}/previews/{number}", responses=PNG, summary="A preview, counted from 1")
    def preview(id: EditId, number: Annotated[int, PathParameter(ge=1, le=1000)]) -> Response:
        previews = found_job(jobs, id).previews
        if number > len(previews):
            raise NotFound(f"there are {len(previews)} previews so far, got number {number}")
        return Response(previews[number - 1], media_type="image/png")

    @router.get("/{id}/drawing", responses=PNG, summary="What is being drawn at this moment")
    def drawing(id: EditId) -> Response:
        picture = found_job(jobs, id).drawing
        if picture is None:
            raise NotFound("nothing is being drawn that could be shown; models need a preview autoencoder for that")
        return Response(picture, media_type="image/png", headers={"Cache-Control": "no-store"})

    @router.get("/{id}/report", response_class=HTMLResponse, summary="The whole edit on one page")
    def report(id: EditId, download: Download = False) -> FileResponse:
        kind = "attachment" if download else "inline"
        path = finished_outcome(jobs, id).report
        return FileResponse(path, media_type="text/html", filename="report.html", content_disposition_type=kind)

    @router.get("/{id}/overview", response_class=FileResponse, responses=PNG, summary="The whole edit as one picture")
    def overview(id: EditId) -> FileResponse:
        return FileResponse(finished_outcome(jobs, id).overview, media_type="image/png")

    @router.get("/{id}/zip", response_class=FileResponse, summary="All files of the edit")
    def archive(id: EditId) -> FileResponse:
        job = found_job(jobs, id)
        path = zipped(job, finished_outcome(jobs, id))
        return FileResponse(path, media_type="application/zip", filename="maskless-run.zip")


def operator_router(jobs: Jobs, page_of_docs: Any) -> APIRouter:
    """What an operator needs: health, metrics and the documentation. page_of_docs: gives the OpenAPI schema."""
    router = APIRouter(tags=["Server"])

    @router.get("/healthz", summary="Whether the server accepts edits", responses={503: {"description": "Stopping."}})
    def health(response: Response) -> dict[str, str]:
        response.status_code = 503 if jobs.is_stopping else 200
        return {"status": "stopping" if jobs.is_stopping else "ok"}

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    def metrics() -> Response:
        return Response(metrics_text(jobs), media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(page_of_docs()))

    return router


async def _events(job: Job, jobs: Jobs) -> AsyncIterator[str]:
    """One event for each change, named after the state; the data is the description of the job."""
    try:
        async for _version in changes(job, jobs):
            yield sse(job.state, job_facts(job, jobs))
    except MasklessError as error:
        yield sse("error", {"message": str(error)})


def sse(event: str, data: Any) -> str:
    """A server-sent event."""
    return f"event: {event}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise MasklessError(f"options must be a JSON object, got {text[:40]!r}") from None
    require(isinstance(value, dict), f"options must be a JSON object, got {text[:40]!r}")
    return dict(value)
