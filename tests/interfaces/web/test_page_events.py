"""What the page does behind its events, where a browser is not needed."""

import base64
import os
import time

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from maskless.data.errors import MasklessError
from maskless.interfaces.jobs.uploads import MEGABYTE, UploadLimits
from maskless.interfaces.web.page_events import PageEvents
from maskless.interfaces.web.session import Session
from served import png


def event(**values) -> gr.EventData:
    return gr.EventData(None, values)


@pytest.fixture
def events(jobs) -> PageEvents:
    events = PageEvents(jobs, UploadLimits(max_bytes=MEGABYTE, max_pixels=1_000_000))
    events.names = ("extend", "iterations", "seed", "delta", "fit_edges")
    return events


def test_a_scene_is_drawn_by_its_number_with_words_for_it(events):
    first, again, other = (events.new_scene(Session(), number) for number in (7, 7, 8))
    pictures = [views[0].picture for views in (first, again, other)]
    content = [picture.file.read_bytes() for picture in pictures]
    assert content[0] == content[1] != content[2] and pictures[0].size_px == (256, 256)
    words, number = first[-2:]
    assert words.startswith("replace the ") and number == 8


def test_only_options_that_differ_from_the_servers_are_part_of_an_edit(events):
    defaults = events.jobs.editor.config
    same = ("", float(defaults.iterations), float(defaults.seed), defaults.delta, defaults.fit_edges)
    values = events._values(("remove the cat", "", "", "", *same), None)
    assert {name: value for name, value in values.items() if value} == {"instruction": "remove the cat"}
    values = events._values(("", "a car", "a tent", "replace", "", 3.0, 5.0, 1.5, False), {"box": [1, 2, 3, 4]})
    assert values == {
        "task": "replace", "caption": "a car", "prompt": "a tent", "iterations": 3, "seed": 5, "delta": 1.5,
        "fit_edges": False, "box": [1, 2, 3, 4],
    }  # fmt: skip


def test_a_painted_region_becomes_a_mask_of_the_pictures_size(events, tmp_path):
    (tmp_path / "source.png").write_bytes(png(np.zeros((72, 120, 3), np.uint8)))
    painted = np.zeros((36, 60), np.uint8)
    painted[10:20, 30:50] = 255
    drawn = {"mask": "data:image/png;base64," + base64.b64encode(png(painted)).decode()}
    mask = events._mask(drawn, tmp_path / "source.png")
    (tmp_path / "mask.png").write_bytes(mask.content)
    bright = np.asarray(Image.open(tmp_path / "mask.png")) > 127
    assert bright.shape == (72, 120) and bright[25:35, 70:90].all() and not bright[:18].any()
    for wrong in ("", "data:image/png;base64,%%%", "data:text/html;base64,PGI+", drawn["mask"][:40]):
        with pytest.raises(MasklessError):
            events._mask({"mask": wrong}, tmp_path / "source.png")
    with pytest.raises(MasklessError, match="paint over what should change"):
        empty = base64.b64encode(png(np.zeros((36, 60), np.uint8))).decode()
        events._mask({"mask": f"data:image/png;base64,{empty}"}, tmp_path / "source.png")


def test_only_pictures_that_were_sent_can_be_opened(events, tmp_path, noisy_png):
    name = events.keep_picture(noisy_png)
    session = events.open_upload(Session(), event(name=name))[0]
    assert session.picture.file.read_bytes() == noisy_png and session.picture.size_px == (120, 72)
    (tmp_path / "secret.png").write_bytes(noisy_png)
    for wrong in (str(tmp_path / "secret.png"), "../secret", None, {"path": "secret.png"}):
        views = events.open_upload(session, event(name=wrong))
        assert views[0] is session and "open it again" in views[2]
    for damaged in (b"nothing", noisy_png[:300]):
        with pytest.raises(MasklessError):
            events.keep_picture(damaged)
    assert len(list((events.jobs.folder / "pictures").iterdir())) == 1


def test_a_picture_is_deleted_when_its_time_is_over(events, noisy_png):
    old = events.pictures[events.keep_picture(noisy_png)]
    long_ago = time.time() - events.jobs.limits.keep_seconds - 10
    os.utime(old.parent, (long_ago, long_ago))
    events.keep_picture(noisy_png)
    assert not old.exists() and len(events.pictures) == 1
