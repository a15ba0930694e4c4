"""Every task from picture to result on small models: what stays exact, where it edits, what it records."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from maskless.data.canvas import without_margins
from maskless.data.errors import MasklessError
from maskless.data.picture import load_image
from maskless.data.tasks import TASKS
from maskless.engine.tasks import RUNS
from maskless.records.outputs import save_edit

FAST = {"iterations": 1, "updates": 2, "anchors": 2, "steps": 2}
SIZE = (72, 120)
ASKED = {
    "complete": {},
    "add": {"prompt": "a yellow star"},
    "remove": {"caption": "a red square"},
    "replace": {"caption": "a red square", "prompt": "a blue house"},
    "extend": {"extend": "left=0.5,bottom=16"},
    "repair": {},
    "style": {"prompt": "a pencil sketch"},
    "background": {"caption": "a red square", "prompt": "empty beach"},
    "texture": {"caption": "a red square", "prompt": "a striped square"},
    "creative": {"prompt": "a yellow star and a blue house"},
    "generate": {"prompt": "a red car in a meadow"},
}
WHOLE = ("style", "generate")


def scene(task: str, depth: type = np.uint8) -> np.ndarray:
    """[72, 120, 3], or 4 for the tasks that fill a hole: two bands, grain, a red square and a scratch."""
    pixels = np.zeros((*SIZE, 4), np.float64)
    pixels[:40], pixels[40:] = (0.5, 0.7, 0.9, 1), (0.3, 0.6, 0.3, 1)
    pixels[..., :3] += np.random.default_rng(0).uniform(-0.02, 0.02, (*SIZE, 3))
    pixels[30:54, 76:100, :3] = (0.9, 0.1, 0.1)
    if task == "repair":
        pixels[12:14, 4:90, :3] = 0.97
    if task == "complete":
        pixels[10:30, 20:50, 3] = 0
    white = np.iinfo(depth).max
    whole = (pixels * white).round().astype(depth)
    return whole if task in ("complete", "extend") else whole[..., :3]


@pytest.fixture(scope="module")
def results(editor):
    return {task: editor.edit(scene(task), task=task, **ASKED[task], **FAST) for task in TASKS}


def test_every_task_has_its_function():
    assert set(RUNS) == set(TASKS) == set(ASKED)


@pytest.mark.parametrize("task", TASKS)
def test_only_a_search_can_continue_from_a_checkpoint(editor, task):
    request = editor.request(scene(task), task=task, **ASKED[task])
    run = editor.start(request, **FAST)
    next(iter(run))
    assert request.searches == (run.state() is not None)
    masked = editor.request(scene(task)[..., :3], task="replace", prompt="a house", box=(0, 0, 20, 20))
    assert not masked.searches


@pytest.mark.parametrize("task", TASKS)
def test_every_pixel_outside_is_the_originals(results, task):
    result, original = results[task], scene(task)[..., :3]
    for index in range(len(result.candidates)):
        edited = result.edited(index)
        pixels, touched = edited.pixels(), edited.touched().numpy()
        kept = without_margins(pixels, result.request.margins_px)
        untouched = ~without_margins(touched, result.request.margins_px)
        assert kept.shape == original.shape and np.array_equal(kept[untouched], original[untouched])
        assert (pixels != result.request.source.pixels)[touched].any()
        assert touched.all() if task in WHOLE else untouched.any()


@pytest.mark.parametrize(
    "prompt, drawn", [("a pencil sketch", "a red car, a pencil sketch"), ("A red car, watercolour",) * 2]
)
def test_a_style_is_asked_for_with_what_is_there(editor, prompt, drawn):
    run = editor.start(editor.request(scene("style"), task="style", caption="a red car", prompt=prompt), **FAST)
    assert run.request.prompt == drawn


@pytest.mark.parametrize("task", ["complete", "extend", "background", "creative", "replace"])
def test_sixteen_bits_and_alpha_are_kept(editor, task, tmp_path):
    pixels = scene(task, np.uint16)
    result = editor.edit(pixels, task=task, **ASKED[task], **FAST)
    result.best.save(tmp_path / "edited.png")
    stored = load_image(tmp_path / "edited.png")
    kept = without_margins(stored.pixels, result.request.margins_px)
    untouched = ~without_margins(result.best.touched().numpy(), result.request.margins_px)
    assert stored.bit_depth == 16 and np.array_equal(kept[untouched], pixels[..., :3][untouched])
    if pixels.shape[2] == 4:
        assert np.array_equal(without_margins(stored.alpha, result.request.margins_px)[untouched],
                              pixels[..., 3][untouched])  # fmt: skip
        assert (stored.alpha[result.best.touched().numpy()] == 65535).all()


def test_searches_record_their_search_and_fills_none(results):
    for task, result in results.items():
        searched = task in ("add", "replace", "creative")
        assert (result.anchors is not None) == searched, task
        assert searched == (result.anchor_net is not None or result.placement is not None), task
        assert result.request.task == task and sorted(result.order) == list(range(len(result.candidates)))
        assert bool(result.scores.isfinite().all()) and len(result.history) > 0


def test_a_prompt_that_was_left_out_is_an_empty_place(results):
    for task in ("complete", "extend", "remove"):
        assert results[task].request.prompt.startswith("empty ")
    assert results["repair"].request.prompt == ""


def test_background_and_texture_part_the_picture_at_the_thing(results):
    thing = np.zeros(SIZE, bool)
    thing[34:50, 80:96] = True  # well inside the square
    far = np.zeros(SIZE, bool)
    far[:, :40] = True
    background, texture = (results[task].best.touched().numpy() for task in ("background", "texture"))
    assert not background[thing].any() and background[far].all()
    # This CLIP knows nothing, so where it cuts the outline says nothing; tests/engine/test_places.py has another.
    removed = results["remove"].best.touched().numpy()
    for changed in (texture, removed):
        assert changed[30:54, 76:100].any() and not changed[far].any()


def test_a_newcomer_keeps_away_from_what_is_there(results):
    x0, y0, x1, y1 = results["add"].best.box_xyxy
    thing = np.zeros(SIZE, bool)
    thing[30:54, 76:100] = True
    assert thing[y0:y1, x0:x1].mean() < 0.25


@pytest.mark.parametrize("task", [task for task in TASKS if task != "extend"])
def test_the_users_box_overrides_the_search(editor, task):
    result = editor.edit(scene(task), task=task, box="8,8,40,28", **ASKED[task], **FAST)
    expected = torch.zeros(SIZE, dtype=torch.bool)
    expected[8:28, 8:40] = True
    assert result.best.box_xyxy == (8, 8, 40, 28) and torch.equal(result.best.touched(), expected)


def test_only_a_search_goes_on_from_a_state(editor):
    run = editor.start(editor.request(scene("add"), task="add", **ASKED["add"]), **FAST)
    list(run)
    again = editor.start(run.request, state=run.state(), **FAST)
    assert again.result().order == run.result().order
    with pytest.raises(MasklessError, match="only a search for a region"):
        editor.start(editor.request(scene("style"), task="style", **ASKED["style"]), state=run.state(), **FAST)


@pytest.mark.parametrize("task", ["repair", "extend", "background", "creative", "add"])
def test_every_kind_of_result_can_be_written(results, tmp_path, task):
    saved = save_edit(results[task], tmp_path, draw_box=True, command="maskless edit")
    record = json.loads((saved.folder / "result.json").read_text("utf-8"))
    assert record["request"]["task"] == task and len(record["candidates"]) == len(results[task].candidates)
    assert (record["anchor_net"] is None) == (results[task].anchor_net is None)
    assert all((saved.folder / entry["file"]).is_file() for entry in record["candidates"])
    assert Image.open(saved.overview).width > 1000 and saved.report.stat().st_size > 1000
    assert np.array_equal(load_image(saved.folder / "input_image.png").pixels, scene(task)[..., :3])
    assert np.array_equal(load_image(saved.final).pixels, results[task].best.pixels())


def test_a_picture_without_anything_in_it(editor):
    """Flat grey: no thing to be found, and still no error but where there is nothing to do."""
    flat = np.full((64, 64, 3), 128, np.uint8)
    for task in ("add", "remove", "texture", "background"):
        result = editor.edit(flat, task=task, **ASKED[task], **FAST)
        assert result.best.pixels().shape == flat.shape


@pytest.mark.parametrize("task,options,opaque", [
    ("replace", {}, True), ("replace", {"keep_alpha": True}, False), ("background", {}, True), ("style", {}, False),
    ("texture", {}, False),
])  # fmt: skip
def test_what_is_painted_on_a_transparent_ground_can_be_seen(editor, task, options, opaque):
    pixels = np.dstack([scene(task)[..., :3], np.zeros(scene(task).shape[:2], np.uint8)])
    pixels[20:44, 84:108, 3] = 255
    edited = editor.edit(pixels, task=task, **ASKED[task], **FAST, **options).best
    alpha, touched = edited.source.alpha, edited.touched().numpy()
    assert np.array_equal(alpha[~touched], pixels[..., 3][~touched])
    changed = alpha != pixels[..., 3]
    assert changed.any() == opaque and (not opaque or (alpha[touched] > 0).all())
