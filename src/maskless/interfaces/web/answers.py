"""What the HTTP API answers: the description of a job, its files, and errors."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from maskless.data.errors import MasklessError
from maskless.data.files import written_whole
from maskless.interfaces.jobs.job import DONE, Job
from maskless.interfaces.jobs.outcome import Outcome
from maskless.interfaces.jobs.uploads import NotAPicture, TooLarge
from maskless.interfaces.jobs.worker import LOG, Busy, Jobs
from maskless.interfaces.web.protection import error_body
from maskless.records.names import safe_name


class NotFound(MasklessError):
    """There is no such edit, candidate or file, or its time is over."""


STATUS: dict[type[MasklessError], int] = {TooLarge: 413, NotAPicture: 415, NotFound: 404, Busy: 429}


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error with a status and one line, in the form that clients of image APIs expect."""

    async def refused(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, MasklessError)
        return error_answer(error)

    async def malformed(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        return JSONResponse(error_body(f"{where[:60]}: {first['msg']}", 400), 400)

    async def known(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return JSONResponse(error_body(str(error.detail), error.status_code), error.status_code, headers=error.headers)

    async def unexpected(_request: Request, error: Exception) -> JSONResponse:
        LOG.error("unexpected error", exc_info=error)
        return JSONResponse(error_body("internal error; the server's log has the details", 500), 500)

    app.add_exception_handler(MasklessError, refused)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, known)
    app.add_exception_handler(Exception, unexpected)


def error_answer(error: MasklessError) -> JSONResponse:
    """The answer for an error of the client, or for a server that is busy."""
    status = STATUS.get(type(error), 400)
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Busy) else None
    return JSONResponse(error_body(str(error), status), status, headers=headers)


def job_facts(job: Job, jobs: Jobs) -> dict[str, Any]:
    """The description of a job, as GET /v1/edits/{id} answers."""
    base = f"/v1/edits/{job.name}"
    links = {"self": base, "events": f"{base}/events", "source": f"{base}/source"}
    if job.outcome is not None:
        links |= {part: f"{base}/{part}" for part in ("image", "region", "report", "overview", "zip")}
    expires = job.finished + jobs.limits.keep_seconds if job.is_finished else None
    return {
        "id": job.name,
        "object": "edit",
        "state": job.state,
        "created_at": int(job.created),
        "expires_at": None if expires is None else int(expires),
        "position": jobs.position(job),
        "progress": job.progress(),
        "request": job.spec.to_dict(),
        "error": job.error or None,
        "result": None if job.outcome is None else job.outcome.facts,
        "links": links,
    }


def found_job(jobs: Jobs, name: str) -> Job:
    """The job of this name.

    Raises:
        NotFound: there is none.
    """
    job = jobs.get(name)
    if job is None:
        raise NotFound("there is no such edit; finished edits are deleted after a while")
    return job


def finished_outcome(jobs: Jobs, name: str) -> Outcome:
    """The outcome of a job that is done.

    Raises:
        NotFound: there is no such job, or it has no outcome.
    """
    job = found_job(jobs, name)
    if job.state != DONE or job.outcome is None:
        raise NotFound(f"the edit has no result: it is {job.state}")
    return job.outcome


def of_rank(outcome: Outcome, rank: int) -> Path:
    """The picture of the candidate of this rank, from 1.

    Raises:
        NotFound: there are fewer candidates.
    """
    if not 1 <= rank <= len(outcome.pictures):
        raise NotFound(f"rank must be from 1 to {len(outcome.pictures)}, got {rank}")
    return outcome.pictures[rank - 1]


def download_name(outcome: Outcome, rank: int) -> str:
    """The name under which a browser saves a candidate."""
    words = outcome.facts["prompt"] or outcome.facts["task"]
    ending = f" {rank}" if rank > 1 else ""
    return f"{safe_name(words)}{ending}.png"


def region_png(outcome: Outcome, rank: int) -> bytes:
    """The region of a candidate as a PNG file of the picture's size: white where the candidate may differ."""
    of_rank(outcome, rank)
    if outcome.masks:
        return outcome.masks[rank - 1].read_bytes()
    from PIL import Image

    picture = Image.new("L", tuple(outcome.facts["size_px"]))
    picture.paste(255, tuple(outcome.facts["candidates"][rank - 1]["region"]["box_xyxy"]))
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def zipped(job: Job, outcome: Outcome) -> Path:
    """The whole run as one ZIP file, made when it is first asked for."""
    target = job.folder / "run.zip"
    if not target.exists():
        with written_whole(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            archive.write(job.image, job.image.name)
            if job.mask is not None:
                archive.write(job.mask, job.mask.name)
            for path in sorted(outcome.folder.rglob("*")):
                if path.is_file() and ".views" not in path.parts:
                    kind = zipfile.ZIP_STORED if path.suffix == ".png" else zipfile.ZIP_DEFLATED
                    archive.write(path, path.relative_to(outcome.folder).as_posix(), kind)
    return target
