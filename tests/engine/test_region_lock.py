"""The region lock around real editors: the bundled redrawer, made to drift before it returns its pictures, and a tiny
Kontext that redraws its reference picture elsewhere."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from drifting import ASSETS, SAMPLES, WARM, DriftingEditor, make_kontext_drift, picture_of
from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.engine.editor import Editor
from maskless.engine.region_lock import lock
from maskless.evaluation.measures.drift import Drift
from maskless.models.inpainters.denoising import Sampling
from tiny_families import build_family

BOX = (108, 110, 172, 174)
"""The window around it is drawn in one piece, and shows parts of several objects."""
WORDS = {"caption": "a red car", "prompt": "a striped car", "seed": 5}


@pytest.fixture(scope="module")
def storybook() -> Editor:
    """With the redrawer as the model that edits, which follows instructions."""
    editor = Editor.from_pretrained("storybook", steps=1, context=0.7, device="cpu", dtype="float32")
    models = replace(editor.models, inpainter=editor.models.redrawer, redrawer=None, refinement=None)
    return Editor(models, editor.config)


def drifting(editor: Editor, drifts: dict[int, Drift | None]) -> Editor:
    """The same editor with a redrawer that drifts by these amounts."""
    redrawer = DriftingEditor(editor.models.inpainter, drifts)
    return Editor(replace(editor.models, inpainter=redrawer), editor.config)


def redrawn(editor: Editor, box=BOX, **options):
    return editor.edit(SAMPLES / "room.png", box=box, **WORDS, **options)


@pytest.fixture(scope="module")
def still(storybook):
    """The edit by the redrawer as it is, with the lock."""
    return redrawn(drifting(storybook, {}))


def test_an_editor_that_does_not_drift_gives_the_same_bits_as_without_the_lock(storybook, still):
    without = redrawn(drifting(storybook, {}), align=False)
    assert torch.equal(still.candidates.crops, without.candidates.crops) and still.order == without.order
    assert without.candidates.alignments == (None,) * 4
    for own in still.candidates.alignments:
        assert own is not None and own.aligned and not own.warped and not own.colours_matched


@pytest.mark.slow
def test_tiles_that_do_not_drift_lie_right_too(storybook):
    own = redrawn(drifting(storybook, {}), box=(60, 60, 190, 190)).candidates.alignment(0)
    assert own is not None and own.aligned and not own.warped and not own.colours_matched


def test_every_drift_is_taken_back_and_said(storybook, still):
    """Shift and scale are those of the window, in pixels of the original."""
    drifts = {
        5: Drift(shift_xy_px=(11, -6)),
        6: Drift(scale=1.1, **WARM),
        7: Drift(shift_xy_px=(-5, 5), scale=0.94, blur_px=0.7),
        8: Drift(shift_xy_px=(24, 0)),
    }
    result = redrawn(drifting(storybook, drifts))
    free = redrawn(drifting(storybook, drifts), align=False)
    x0, y0, x1, y1 = BOX
    assert result.candidates.seeds == (5, 6, 7, 8)
    for index, drift in enumerate(drifts.values()):
        own = result.candidates.alignment(index)
        left, _top, right, _bottom = result.candidates.windows_xyxy[index].tolist()
        factor = (right - left) / result.candidates.crops.shape[-1]
        assert own is not None and own.aligned and own.warped and own.colours_matched == (index == 1)
        expected = [factor * value for value in drift.shift_xy_px]
        assert own.shift_xy_px == pytest.approx(expected, abs=0.5 * factor)
        assert own.scale == pytest.approx(drift.scale, abs=0.008)
        wanted, aligned, moved = (
            each.edited(index).pixels().astype(int)[y0 + 8 : y1 - 8, x0 + 8 : x1 - 8] for each in (still, result, free)
        )
        assert np.abs(aligned - wanted).mean() < 0.5 * np.abs(moved - wanted).mean()
        outside = np.ones(result.request.size_yx, bool)
        outside[y0:y1, x0:x1] = False
        picture = result.request.source.pixels
        assert np.array_equal(result.edited(index).pixels()[outside], picture[outside]), "to the bit, as ever"


def test_a_candidate_that_cannot_be_aligned_says_so_and_ranks_last(storybook, still):
    best = still.order[0]
    result = redrawn(drifting(storybook, {still.candidates.seeds[best]: None}))
    own = result.candidates.alignment(best)
    assert own is not None and not own.aligned and own.residual > 0.5
    assert result.order[-1] == best and sorted(result.order) == [0, 1, 2, 3]
    assert all(result.candidates.alignment(index).aligned for index in result.order[:-1])


def test_a_search_with_such_an_editor_is_aligned_too_and_can_be_resumed(storybook):
    drifted = drifting(storybook, {5: Drift(shift_xy_px=(6, 4))})
    drifted = Editor(drifted.models, replace(drifted.config, budget=2))
    run = drifted.start(drifted.request(SAMPLES / "meadow.png", **WORDS))
    found = run.result().candidates
    assert all(own is not None for own in found.alignments)
    moved = [own for own in found.alignments if own.aligned]
    assert moved and all(own.warped for own in moved)
    again = drifted.start(drifted.request(SAMPLES / "meadow.png", **WORDS), state=run.state())
    assert again.result().candidates.alignments == found.alignments


def test_the_lock_changes_nothing_that_it_need_not():
    drawn = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    masks = torch.zeros(2, 1, 64, 64)
    masks[0, :, 20:40, 20:40], masks[1] = 1, 1
    locked = lock(drawn, drawn / 255, masks, EditConfig())
    assert torch.equal(locked.drawn, drawn)
    assert locked.alignments[0] is not None and locked.alignments[1] is None, "nothing lies outside of the second"
    assert lock(drawn, drawn / 255, masks, EditConfig(align=False)).alignments == (None, None)


def test_a_model_that_restores_the_outside_is_aligned_only_where_it_redraws_the_whole_window(storybook, still):
    """The bundled redrawer cannot drift outside of its mask, so nothing is measured there by default."""
    restored = redrawn(storybook)
    assert restored.candidates.alignments == (None,) * 4
    assert torch.equal(restored.candidates.crops, still.candidates.crops), "which changes no picture"
    whole = redrawn(storybook, whole_window=True)
    assert None not in whole.candidates.alignments
    assert not torch.equal(whole.candidates.crops, restored.candidates.crops)
    outside = np.ones(whole.request.size_yx, bool)
    outside[BOX[1] : BOX[3], BOX[0] : BOX[2]] = False
    assert np.array_equal(whole.best.pixels()[outside], whole.request.source.pixels[outside])


SIDE, CELLS = 128, 4
"""Side of Kontext's window in pixels, and by how many latents of two pixels it redraws its reference further right."""


@pytest.fixture(scope="module")
def kontext(tmp_path_factory) -> Editor:
    """A tiny Kontext that drifts, loaded as any other."""
    folder = build_family("flux-kontext", tmp_path_factory.mktemp("kontext"))
    (folder / "maskless.json").write_text(json.dumps({"steps": 2, "native_px": SIDE}))
    parts = {part: str(ASSETS / "storybook" / part) for part in ("dino", "clip")}
    editor = Editor.from_pretrained(str(folder), device="cpu", dtype="float32", **parts)
    make_kontext_drift(editor.models.inpainter.pipeline, CELLS)
    return editor


@pytest.mark.parametrize("search", [False, True])
def test_a_kontext_that_redraws_its_window_elsewhere_is_moved_back(kontext, search):
    picture, box = picture_of("room", SIDE), (48, 40, 88, 84)
    region = {"search": "placed", "budget": 1} if search else {"box": box}
    options = {"caption": "a tree", "prompt": "a tall tree", "context": 1.0, "feather": 0.0, **region}
    errors = {}
    for align in (True, False):
        result = kontext.edit(picture, whole_window=True, align=align, **options)
        own = result.candidates.alignment(0)
        x0, y0, x1, y1 = result.candidates.regions.boxes_xyxy[0].tolist()
        left, _top, right, _bottom = result.candidates.windows_xyxy[0].tolist()
        inside = (slice(None), slice(y0 + 2, y1 - 2), slice(x0 + 2, x1 - 2))
        errors[align] = float((result.edited(0).tensor()[inside] - picture[inside]).abs().mean())
        factor = (right - left) / SIDE
        if align:
            assert own is not None and own.aligned and own.warped
            assert own.shift_xy_px == pytest.approx((2 * CELLS * factor, 0), abs=0.5 * factor)
            assert own.scale == pytest.approx(1, abs=0.01)
    if not search:  # the region that is found may be a plain wall
        assert errors[True] < 0.35 * errors[False], "it shows again what its reference shows"


def test_a_kontext_whose_outside_is_restored_shows_no_drift_there(kontext):
    """With its mask, as by default, its pipeline restores the latents outside: there is nothing to measure."""
    model, picture = kontext.models.inpainter, picture_of("room", SIDE)
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 40:84, 48:88] = 1
    sampling = Sampling(seed=1, steps=2, guidance_scale=3.5)
    drawn = model.inpaint(picture[None], mask, model.encode_prompt("a striped car"), sampling)[0] / 255
    whole = model.inpaint(picture[None], torch.ones_like(mask), model.encode_prompt("a car"), sampling)[0] / 255
    moved, far = picture.roll(2 * CELLS, dims=2), (slice(None), slice(4, 32), slice(16, SIDE - 16))
    assert model.takes_picture and not model.redraws_window
    assert float((drawn[far] - picture[far]).abs().mean()) < 0.3 * float((drawn[far] - moved[far]).abs().mean())
    assert float((whole[far] - moved[far]).abs().mean()) < 0.3 * float((whole[far] - picture[far]).abs().mean())


def test_a_model_that_fills_masks_cannot_redraw_whole_windows(editor, picture):
    with pytest.raises(MasklessError, match="whole_window needs a model that takes the picture .* the task replace"):
        editor.edit(picture, prompt="a tent", box=(10, 10, 40, 40), whole_window=True)


def test_a_soft_mask_and_whole_windows_exclude_each_other(storybook):
    grey = np.full((128, 128), 0, np.uint8)
    grey[40:80, 40:80] = 100
    picture = picture_of("room", 128)
    with pytest.raises(MasklessError, match="cannot be used together with soft_mask"):
        storybook.edit(picture, mask=grey, soft_mask=True, whole_window=True, **WORDS)
