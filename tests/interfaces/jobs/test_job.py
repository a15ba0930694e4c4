"""A job's progress, and its folder."""

import json

from maskless.data.result import DrawnStep, StepRecord
from maskless.interfaces.jobs.job import FAILED, MAX_PREVIEWS, RUNNING, Job
from maskless.interfaces.jobs.spec import EditSpec


def new_job(tmp_path) -> Job:
    return Job(
        "a" * 24, tmp_path / "job", EditSpec(prompt="a tent", box=(1, 2, 40, 50)), suffix=".png", mask_suffix=".png"
    )


def test_progress_counts_steps_and_distinct_previews_and_estimates_the_rest(tmp_path):
    job = new_job(tmp_path)
    job.change(RUNNING)
    assert job.progress()["total_steps"] == 0 and job.seconds_left is None
    job.add_step(StepRecord(step=0, total_steps=4, inpaintings=0, seconds=9.0), None)
    assert job.seconds_left is None
    for step in (1, 2):
        job.add_step(DrawnStep(step=step, total_steps=4, inpaintings=step, seconds=2.0, loss=1.0), b"same")
    assert job.progress() == {
        "step": 2,
        "total_steps": 4,
        "inpaintings": 2,
        "previews": 1,
        "drawings": 0,
        "seconds_left": 4.0,
    }
    for number in range(50):
        job.add_step(DrawnStep(step=3, total_steps=4, inpaintings=3, seconds=2.0, loss=1.0), bytes([number]))
    assert len(job.previews) == MAX_PREVIEWS and job.previews[-1] == bytes([49])


def test_what_is_being_drawn_is_shown_until_the_step_is_complete(tmp_path):
    job = new_job(tmp_path)
    job.change(RUNNING)
    version = job.version
    job.show(b"half", 0.5)
    assert (job.drawing, job.drawn_share, job.drawings) == (b"half", 0.5, 1) and job.version > version
    job.add_step(DrawnStep(step=1, total_steps=4, inpaintings=1, seconds=2.0, loss=1.0), b"best")
    assert job.drawing is None and job.drawn_share == 0 and job.progress()["drawings"] == 1
    assert job.previews == [b"best"], "what was being drawn is no candidate"


def test_a_job_is_read_back_as_it_was(tmp_path):
    job = new_job(tmp_path)
    job.folder.mkdir()
    version = job.version
    job.change(FAILED, "no")
    assert job.version > version
    found = Job.read(job.folder)
    assert (found.name, found.spec, found.state, found.error) == (job.name, job.spec, FAILED, "no")
    assert (found.image, found.mask, found.finished) == (job.image, job.mask, job.finished)


def test_a_folder_that_is_not_a_jobs_is_left_alone(tmp_path):
    assert Job.read(tmp_path) is None
    for content in ("", "[]", json.dumps({"name": "x"})):
        (tmp_path / "job.json").write_text(content)
        assert Job.read(tmp_path) is None
