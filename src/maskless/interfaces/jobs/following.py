"""Waiting for a job without a thread of one's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import anyio

from maskless.interfaces.jobs.job import QUEUED, Job
from maskless.interfaces.jobs.worker import Busy, Jobs

POLL_SECONDS = 0.05


async def changes(job: Job, jobs: Jobs, is_gone: Callable[[], Awaitable[bool]] | None = None) -> AsyncIterator[int]:
    """Yield the job's version after each change, until it is finished.

    is_gone: for a client that waits for the job, whether it has gone away. If so, or if the waiting itself is
    cancelled, the job is cancelled, so that its place becomes free. None leaves the job alone.

    Raises:
        Busy: the server stops before the job is finished.
    """
    seen = -1
    try:
        while True:
            if job.version != seen:
                seen = job.version
                yield seen
            if job.is_finished and job.version == seen:
                return
            if jobs.is_stopping and job.state == QUEUED:
                raise Busy("the server is stopping; try again later", 30)
            if is_gone is not None and await is_gone():
                return
            await anyio.sleep(POLL_SECONDS)
    finally:
        if is_gone is not None and not job.is_finished and not jobs.is_stopping:
            jobs.cancel(job)
