"""What the tests of the server share: quick options, pictures, a server on a port of its own, and waiting."""

import io
import socket
import threading
import time

import numpy as np
import uvicorn
from PIL import Image

from maskless.interfaces.jobs.worker import Jobs
from maskless.interfaces.web.options import ServeOptions
from maskless.interfaces.web.server import build_app

QUICK = {"search": "learned", "iterations": 2, "anchors": 2, "steps": 1, "views": 1}
WORDS = {"caption": "a red square", "prompt": "a blue house"}


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


class Running:
    """A server on a free port, in a thread of its own."""

    def __init__(self, jobs: Jobs, options: ServeOptions, *, with_page: bool) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = uvicorn.Config(
            build_app(jobs, options, with_page=with_page), host="127.0.0.1", port=port, log_level="error",
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        self.url, self.jobs = f"http://127.0.0.1:{port}", jobs
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.02)

    def stop(self) -> None:
        self.jobs.stop()
        self._server.should_exit = True
        self._thread.join()


def finished(client, address: str, seconds: float = 60.0) -> dict:
    """The description of an edit, once it is finished."""
    for _ in range(int(seconds / 0.05)):
        job = client.get(address).json()
        if job["state"] in ("done", "failed", "cancelled"):
            return job
        time.sleep(0.05)
    raise AssertionError(f"not finished after {seconds} s: {job}")
