"""The parts of the page as HTML: what a client wrote stays text, and every picture has an alternative text."""

import re
import time
from pathlib import Path

import pytest

from maskless.interfaces.jobs.job import CANCELLED, FAILED, Job
from maskless.interfaces.jobs.spec import EditSpec
from maskless.interfaces.jobs.uploads import Upload
from maskless.interfaces.web import page_html
from maskless.interfaces.web.session import Session, Version

EVIL = '"><script>alert(1)</script>'


@pytest.fixture
def job(jobs, noisy_png) -> Job:
    options = {"search": "learned", "iterations": 1, "anchors": 2, "steps": 1}
    spec = EditSpec(caption=EVIL, prompt=f"a house {EVIL}", options=options)
    job = jobs.submit(spec, Upload(content=noisy_png, suffix=".png", size_px=(120, 72)))
    while not job.is_finished:
        time.sleep(0.02)
    return job


def test_every_part_of_a_result_is_safe_and_described(job):
    version = Version(title=job.spec.prompt, file=Path("x.png"), address="/v/x", before=EVIL, job=job.name, rank=2)
    session = Session(versions=[version, version], position=1)
    parts = [
        page_html.result_stage(version, job), page_html.cards(version, job), page_html.history(session),
        page_html.running_stage(job, "/pictures/x", (120, 72)), page_html.progress(job, 0), page_html.ended(job),
    ]  # fmt: skip
    for part in parts:
        assert "<script" not in part
        for image in re.findall(r"<img[^>]*>", part):
            assert " alt=" in image, image
    stage, cards, history = parts[:3]
    assert 'value="correct"' in stage and "Ranked 2nd of 2" in stage
    assert cards.count('aria-pressed="true"') == 1 and "rank=2&amp;download=true" in cards
    assert history.count("aria-current") == 1
    assert "choose one" in cards and "2 candidates." in parts[-1]


def test_a_single_candidate_is_counted_in_the_singular_and_offers_no_choice(jobs, noisy_png):
    options = {"budget": 1, "steps": 1, "keep_unchanged": True}
    spec = EditSpec(caption="a red car", prompt="a blue house", options=options)
    job = jobs.submit(spec, Upload(content=noisy_png, suffix=".png", size_px=(120, 72)))
    while not job.is_finished:
        time.sleep(0.02)
    version = Version(title=job.spec.prompt, file=Path("x.png"), address="/v/x", before="b", job=job.name, rank=1)
    cards = page_html.cards(version, job)
    assert "1 inpainting in" in cards and "choose one" not in cards
    assert "1 candidate." in page_html.ended(job)
    assert job.outcome.facts["candidates"][0]["region"]["shape"] == "mask"
    assert "<rect" in cards and "ms-tint" not in cards, "a tint would hide what was drawn"
    assert "ms-tint" in page_html.result_stage(version, job)


def test_one_version_is_no_history_and_a_picture_alone_has_no_modes():
    assert page_html.history(Session()) == ""
    assert "/samples/desert.png" in page_html.opener() and "60 minutes" in page_html.empty_stage(60.0)
    for name in page_html.SAMPLES:
        assert (Path(page_html.__file__).parents[2] / "assets" / "samples" / name).is_file()


def test_the_end_of_an_edit_in_words(tmp_path):
    job = Job("a" * 24, tmp_path, EditSpec(), suffix=".png", mask_suffix=None)
    assert "Waiting; 1 edit is made first" in page_html.progress(job, 1)
    job.change(CANCELLED)
    assert "Cancelled" in page_html.ended(job)
    job.change(FAILED, "the <caption> is odd")
    assert "The &lt;caption&gt; is odd" in page_html.ended(job) and 'role="alert"' in page_html.ended(job)


def test_what_is_being_drawn_is_on_the_stage_until_it_is_complete(job):
    assert "best so far" in page_html.running_stage(job, "/pictures/x", (120, 72))
    job.show(b"png", 0.5)
    job.show(b"another", 1.0)
    stage = page_html.running_stage(job, "/pictures/x", (120, 72))
    assert f"/v1/edits/{job.name}/drawing?number=2" in stage and "being drawn" in stage and "best so far" not in stage
    job.add_step(job.steps[-1], None)
    assert "best so far" in page_html.running_stage(job, "/pictures/x", (120, 72))
