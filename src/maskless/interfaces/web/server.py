"""The whole server: the application, and the process that runs it until it is told to stop."""

from __future__ import annotations

import logging
import socket
import threading
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from maskless import __version__
from maskless.interfaces.jobs.uploads import MEGABYTE, UploadLimits
from maskless.interfaces.jobs.worker import LOG, JobLimits, Jobs
from maskless.interfaces.web.answers import add_error_handlers
from maskless.interfaces.web.api import edits_router, operator_router
from maskless.interfaces.web.images_api import images_router
from maskless.interfaces.web.options import ServeOptions
from maskless.interfaces.web.page import add_page
from maskless.interfaces.web.protection import App, Protection

ABOUT = (
    "Edit pictures with words, without masks. Every pixel outside the region is that of the picture that was sent, bit "
    "for bit. The answers of finished edits stay for a while and are then deleted."
)


def job_limits(options: ServeOptions) -> JobLimits:
    """The limits of the queue."""
    return JobLimits(
        waiting=options.queue, keep_seconds=60 * options.keep_minutes, job_seconds=60 * options.job_minutes
    )


def upload_limits(options: ServeOptions) -> UploadLimits:
    """The limits of each picture."""
    return UploadLimits(
        max_bytes=round(options.max_megabytes * MEGABYTE), max_pixels=round(options.max_megapixels * 1e6)
    )


def build_app(jobs: Jobs, options: ServeOptions, *, with_page: bool = True) -> App:
    """The application: the HTTP API, and the page at / unless `with_page` is False."""
    app = FastAPI(title="Maskless", version=__version__, description=ABOUT, docs_url=None, redoc_url=None)
    limits = upload_limits(options)
    add_error_handlers(app)
    app.include_router(images_router(jobs, limits))
    app.include_router(edits_router(jobs, limits))
    app.include_router(operator_router(jobs, lambda: app.openapi()))
    app.openapi = lambda: _schema(app)  # type: ignore[method-assign]
    if with_page:
        add_page(app, jobs, limits)
    return Protection(app, options)


def _schema(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI schema, with the one form that errors have."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        text = {"type": "string"}
        details = {"message": text, "type": text, "param": {"nullable": True}, "code": {"type": "integer"}}
        error = {"type": "object", "properties": {"error": {"type": "object", "properties": details}}}
        components = schema.setdefault("components", {}).setdefault("schemas", {})
        components["Error"] = error
        for name in ("HTTPValidationError", "ValidationError"):
            components.pop(name, None)
        for path in schema["paths"].values():
            for operation in path.values():
                operation.get("responses", {}).pop("422", None)  # every malformed request is answered with 400
        app.openapi_schema = schema
    return app.openapi_schema


class _Server(uvicorn.Server):
    """Stops in order: no more edits, then the present edit is finished or kept as a checkpoint, then the process."""

    def __init__(self, config: uvicorn.Config, jobs: Jobs, grace_seconds: float) -> None:
        super().__init__(config)
        self._jobs, self._grace = jobs, grace_seconds
        self._stopper: threading.Thread | None = None

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to stop at the first signal. A second one does not wait for the edit to finish."""
        if self._stopper is None:
            LOG.info("stopping; the present edit has %g s to finish", self._grace)
            self._stopper = threading.Thread(target=self._stop, name="maskless-stop")
            self._stopper.start()
        else:
            self._jobs.stop(0.0)

    def _stop(self) -> None:
        self._jobs.stop(self._grace)
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # pages that are still open are no error
        self.should_exit = True


def serve(jobs: Jobs, options: ServeOptions, listener: socket.socket) -> None:
    """Serve until the process gets SIGINT or SIGTERM. listener: of `listening`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for noisy in ("httpx", "uvicorn.error", "gradio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    config = uvicorn.Config(
        build_app(jobs, options),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    LOG.info("Maskless is at http://%s:%d (Ctrl-C stops it)", options.host, listener.getsockname()[1])
    try:
        _Server(config, jobs, options.grace_seconds).run([listener])
    finally:
        jobs.stop(0.0)
