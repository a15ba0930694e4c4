"""The queue and its one worker: order, limits, cancellation, failures, and what the next server finds."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from maskless.data.errors import MasklessError
from maskless.data.picture import load_image
from maskless.engine.editor import Editor
from maskless.interfaces.jobs import worker
from maskless.interfaces.jobs.job import CANCELLED, DONE, FAILED, Job
from maskless.interfaces.jobs.spec import EditSpec
from maskless.interfaces.jobs.uploads import Upload
from maskless.interfaces.jobs.worker import Busy, JobLimits, Jobs

QUICK = EditSpec(
    caption="a red square",
    prompt="a blue house",
    options={"search": "learned", "iterations": 2, "anchors": 2, "steps": 1},
)
LONG = replace(QUICK, options={**QUICK.options, "iterations": 200, "epochs": 20})


@pytest.fixture
def jobs_without(editor, tmp_path):
    """A second queue, without a preview autoencoder."""
    queue = Jobs(editor, tmp_path / "second", JobLimits(waiting=4))
    yield queue
    queue.stop()


@pytest.fixture
def upload(noisy_png) -> Upload:
    return Upload(content=noisy_png, suffix=".png", size_px=(120, 72))


def ended(job: Job, seconds: float = 60) -> Job:
    for _ in range(int(seconds / 0.02)):
        if job.is_finished:
            return job
        time.sleep(0.02)
    raise AssertionError(f"{job.state} after {seconds} s")


def begun(job: Job) -> Job:
    while not job.steps:
        time.sleep(0.01)
    return job


def test_jobs_are_made_in_turn_and_the_same_spec_gives_the_same_picture(jobs, upload):
    first, second = jobs.submit(QUICK, upload), jobs.submit(QUICK, upload)
    assert jobs.position(second) >= jobs.position(first)
    assert ended(first).state == ended(second).state == DONE
    assert first.finished <= second.began and first.name != second.name
    assert [path.read_bytes() for path in first.outcome.pictures] == [
        path.read_bytes() for path in second.outcome.pictures
    ]
    assert jobs.totals[DONE] == 2 and jobs.inpaintings > 0


def test_the_queue_is_bounded_and_a_cancelled_job_frees_its_place(jobs, upload):
    running = begun(jobs.submit(LONG, upload))
    waiting = [jobs.submit(QUICK, upload) for _ in range(4)]
    with pytest.raises(Busy) as refused:
        jobs.submit(QUICK, upload)
    assert refused.value.retry_after >= 1 and len(list(jobs.folder.glob("*/job.json"))) == 5
    jobs.cancel(waiting[1])
    assert waiting[1].state == CANCELLED  # at once
    jobs.submit(QUICK, upload)
    jobs.cancel(running)
    assert ended(running).state == CANCELLED, running.error
    assert not (running.folder / "checkpoint").exists()
    assert ended(waiting[3]).state == DONE


def test_whatever_goes_wrong_in_a_job_ends_that_job_alone(jobs, upload, monkeypatch, caplog):
    for error, words in (
        (ZeroDivisionError("a fault at /secret/place"), "internal error; the server's log has the details"),
        (MemoryError(), "the edit needs more memory than the server has"),
        (SystemExit(3), "internal error; the server's log has the details"),
        (MasklessError("the caption is odd"), "the caption is odd"),
    ):

        def broken(*_arguments, error=error, **_options):
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(worker, "save_edit", broken)
            job = ended(jobs.submit(QUICK, upload))
        assert (job.state, job.error) == (FAILED, words)
    assert "a fault at" in caplog.text
    assert ended(jobs.submit(QUICK, upload)).state == DONE


def test_a_job_may_not_take_longer_than_allowed(editor, tmp_path, upload):
    jobs = Jobs(editor, tmp_path / "served", JobLimits(job_seconds=0.0))
    job = ended(jobs.submit(LONG, upload))
    jobs.stop()
    assert job.state == FAILED and "took longer than the 0 minutes" in job.error


def test_finished_jobs_are_deleted_when_their_time_is_over(editor, tmp_path, upload):
    jobs = Jobs(editor, tmp_path / "served", JobLimits(keep_seconds=0.0))
    first = ended(jobs.submit(QUICK, upload))
    ended(jobs.submit(QUICK, upload))
    for _ in range(200):
        if not first.folder.exists():
            break
        time.sleep(0.05)
    jobs.stop()
    assert jobs.get(first.name) is None and not first.folder.exists()


def test_the_next_server_continues_a_search_and_keeps_what_is_done(editor: Editor, tmp_path, upload):
    folder = tmp_path / "served"
    spec = replace(QUICK, options={**QUICK.options, "iterations": 12})
    jobs = Jobs(editor, folder)
    done = ended(jobs.submit(spec, upload))
    stopped, waiting = jobs.submit(spec, upload), jobs.submit(spec, upload)
    begun(stopped)
    jobs.stop(0.0)
    assert not waiting.is_finished
    with pytest.raises(Busy, match="stopping"):
        jobs.submit(spec, upload)
    jobs = Jobs(editor, folder)
    assert jobs.get(done.name).outcome.facts == done.outcome.facts
    again = [ended(jobs.get(job.name)) for job in (stopped, waiting)]
    jobs.stop()
    for job in again:
        assert job.state == DONE
        assert [path.read_bytes() for path in job.outcome.pictures] == [
            path.read_bytes() for path in done.outcome.pictures
        ]


def test_a_job_that_ends_the_process_twice_is_not_tried_again(editor, tmp_path, upload):
    folder = tmp_path / "served"
    jobs = Jobs(editor, folder)
    job = begun(jobs.submit(LONG, upload))
    jobs.stop(0.0)
    content = json.loads((job.folder / "job.json").read_text())
    (job.folder / "job.json").write_text(json.dumps({**content, "state": "running", "attempts": 2}))
    jobs = Jobs(editor, folder)
    found = jobs.get(job.name)
    jobs.stop()
    assert found.state == FAILED and "ended twice" in found.error


def test_a_folder_belongs_to_one_server(jobs, editor):
    with pytest.raises(MasklessError, match="another server uses the folder"):
        Jobs(editor, jobs.folder)


def test_two_edits_of_the_same_picture_look_at_it_once(jobs, upload, monkeypatch):
    looks = []
    look = Editor.look
    monkeypatch.setattr(Editor, "look", lambda editor, image: looks.append(1) or look(editor, image))
    for _ in range(2):
        assert ended(jobs.submit(QUICK, upload)).state == DONE
    assert len(looks) == 1


def test_drawings_are_shown_while_they_are_made_and_change_no_picture(
    previewing_jobs, jobs_without, upload, monkeypatch
):
    monkeypatch.setattr(worker, "DRAWING_SECONDS", 0.0)
    shown, show = [], Job.show
    monkeypatch.setattr(
        Job, "show", lambda job, drawing, share: shown.append((drawing, share)) or show(job, drawing, share)
    )
    spec = EditSpec(prompt="a blue house", box=(10, 10, 50, 50), options={"steps": 2})
    job = ended(previewing_jobs.submit(spec, upload))
    assert job.state == DONE, job.error
    assert [share for _drawing, share in shown] == [0.5, 1.0] * 4 and job.drawings == 8
    assert len({drawing for drawing, _share in shown}) > 4 and all(png.startswith(b"\x89PNG") for png, _share in shown)
    assert job.drawing is None and len(job.previews) <= 4
    plain = ended(jobs_without.submit(spec, upload))
    assert plain.drawings == 0
    pairs = list(zip(plain.outcome.pictures, job.outcome.pictures, strict=True))
    assert len(pairs) == 4
    assert all(np.array_equal(load_image(one).pixels, load_image(other).pixels) for one, other in pairs)


def test_a_fast_drawing_is_not_shown_at_every_step(previewing_jobs, upload, monkeypatch):
    monkeypatch.setattr(worker, "DRAWING_SECONDS", 1e9)
    spec = EditSpec(prompt="a blue house", box=(10, 10, 50, 50), options={"steps": 2})
    assert ended(previewing_jobs.submit(spec, upload)).drawings == 1
