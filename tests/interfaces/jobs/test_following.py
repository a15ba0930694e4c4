"""Waiting for a job: every change is reported, and who goes away frees the place."""

import asyncio

import pytest

from maskless.interfaces.jobs.following import changes
from maskless.interfaces.jobs.job import CANCELLED, DONE
from maskless.interfaces.jobs.spec import EditSpec
from maskless.interfaces.jobs.uploads import Upload
from maskless.interfaces.jobs.worker import Busy


@pytest.fixture
def start(jobs, noisy_png):
    def start(**options):
        upload = Upload(content=noisy_png, suffix=".png", size_px=(120, 72))
        spec = EditSpec(
            caption="a red square", prompt="a house", options={"search": "learned", "anchors": 2, "steps": 1, **options}
        )
        return jobs.submit(spec, upload)

    return start


async def followed(job, jobs, is_gone=None) -> list[int]:
    return [version async for version in changes(job, jobs, is_gone)]


def test_versions_grow_until_the_job_is_done(jobs, start):
    job = start(iterations=2)
    versions = asyncio.run(followed(job, jobs))
    assert job.state == DONE and versions == sorted(set(versions)) and versions[-1] == job.version


def test_a_client_that_is_gone_cancels_its_job_and_only_a_watcher_does_not(jobs, start):
    job = start(iterations=200, epochs=20)

    async def gone() -> bool:
        return True

    asyncio.run(followed(job, jobs, gone))
    with pytest.raises(TimeoutError):
        watched = start(iterations=200, epochs=20)
        asyncio.run(asyncio.wait_for(followed(watched, jobs), 0.3))
    assert job.cancel_requested.is_set() and not watched.cancel_requested.is_set()
    jobs.cancel(watched)
    for each in (job, watched):
        asyncio.run(followed(each, jobs))
    assert job.state == watched.state == CANCELLED


def test_a_server_that_stops_says_so(jobs, start):
    start(iterations=2), start(iterations=2)
    last = start(iterations=2)
    jobs.stop()
    if not last.is_finished:
        with pytest.raises(Busy, match="stopping"):
            asyncio.run(followed(last, jobs))
