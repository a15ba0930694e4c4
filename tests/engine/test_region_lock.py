"""The region lock around a real editor: the bundled redrawer, made to drift before it returns its pictures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from drifting import SAMPLES, WARM, DriftingEditor
from maskless.data.config import EditConfig
from maskless.engine.editor import Editor
from maskless.engine.region_lock import lock
from maskless.evaluation.measures.drift import Drift

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
    """The edit by the redrawer as it is."""
    return redrawn(storybook)


def test_an_editor_that_does_not_drift_gives_the_same_bits_as_without_the_lock(storybook, still):
    without = redrawn(storybook, align=False)
    assert torch.equal(still.candidates.crops, without.candidates.crops) and still.order == without.order
    assert without.candidates.alignments == (None,) * 4
    for own in still.candidates.alignments:
        assert own is not None and own.aligned and not own.warped and not own.colours_matched


@pytest.mark.slow
def test_tiles_that_do_not_drift_lie_right_too(storybook):
    own = redrawn(storybook, box=(60, 60, 190, 190)).candidates.alignment(0)
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
