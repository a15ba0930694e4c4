"""The server with small models: in this process for its API, and on a port of its own for other clients."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from maskless.interfaces.jobs.worker import Jobs
from maskless.interfaces.web.options import ServeOptions
from maskless.interfaces.web.server import build_app
from served import Running


@pytest.fixture
def client(jobs: Jobs) -> Iterator[TestClient]:
    app = build_app(jobs, ServeOptions(), with_page=False)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield client


@pytest.fixture
def server(jobs: Jobs) -> Iterator[Running]:
    """A server without the page."""
    running = Running(jobs, ServeOptions(), with_page=False)
    yield running
    running.stop()
