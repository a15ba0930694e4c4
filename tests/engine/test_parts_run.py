"""Parts of a region that lie far apart are drawn each in a window of its own."""

import numpy as np
import pytest
import torch

from maskless.engine.fill_run import FillRun
from maskless.engine.painters import FillPlan
from maskless.engine.parts_run import PartsRun, far_apart
from maskless.engine.run import resolved

PIXELS = np.random.default_rng(0).integers(0, 256, (80, 400, 3), dtype=np.uint8)


def blobs(*starts: int) -> np.ndarray:
    mask = np.zeros((80, 400), bool)
    for start in starts:
        mask[30:50, start : start + 20] = True
    return mask


def run(editor, mask: np.ndarray, kind=PartsRun, **given):
    asked = editor.request(PIXELS, prompt="a blue house", mask=mask, **given)
    return kind(asked, editor.models, resolved(editor.config, asked, editor.models), FillPlan(strengths=(1.0, 1.0)))


def test_only_parts_whose_windows_do_not_overlap_are_apart():
    mask = torch.from_numpy(blobs(10, 45, 200, 370))
    parts = far_apart(mask, 0.35)
    assert torch.equal(torch.stack(parts).sum(dim=0), mask.long()), "every pixel is in one part"
    assert sorted(int(part.nonzero()[:, 1].min()) for part in parts) == [10, 200, 370]
    assert len(far_apart(mask, 4.0)) == 1 and torch.equal(far_apart(mask, 4.0)[0], mask)


def test_specks_of_a_large_mask_are_found_on_a_small_copy():
    mask = torch.zeros(900, 3000, dtype=torch.bool)
    mask[torch.arange(5, 890, 59)[:, None], torch.arange(7, 400, 61)] = True
    mask[100:700, 2000:2600] = True
    parts = far_apart(mask, 0.1)
    assert len(parts) > 1 and torch.equal(torch.stack(parts).sum(dim=0), mask.long())


@pytest.fixture(scope="module")
def drawn(editor):
    return run(editor, blobs(20, 340))


def test_each_part_is_drawn_as_if_it_were_alone(editor, drawn):
    result = drawn.result()
    for start in (20, 340):
        alone = run(editor, blobs(start), FillRun).result()
        part = blobs(start)
        for rank in (0, 1):
            expected = alone.edited(alone.order[rank]).pixels()[part].astype(int)
            found = result.edited(result.order[rank]).pixels()[part].astype(int)
            assert np.abs(found - expected).max() <= 1, "rounded once more"


def test_outside_every_pixel_is_the_originals(drawn):
    edited = drawn.result().best
    mask = blobs(20, 340)
    assert np.array_equal(edited.touched().numpy(), mask)
    assert np.array_equal(edited.pixels()[~mask], PIXELS[~mask])
    assert edited.box_xyxy == (20, 30, 360, 50)


def test_steps_and_cost_are_those_of_all_parts(drawn):
    result = drawn.result()
    assert [step.step for step in drawn.history] == [0, 1, 2, 3, 4]
    assert {step.total_steps for step in drawn.history} == {4} and drawn.total_steps == 4
    assert result.cost.inpaintings == 4 and len(result.candidates) == 2
    assert drawn.preview() is not None and drawn.state() is None and list(drawn) == list(drawn.history)


def test_parts_that_lie_together_are_one_fill(editor):
    mask = blobs(100, 130)
    together, fill = run(editor, mask).result(), run(editor, mask, FillRun).result()
    assert np.array_equal(together.best.pixels(), fill.best.pixels()) and together.order == fill.order


def test_the_option_chooses_it_and_a_soft_mask_stays_soft(editor):
    grey = blobs(20, 340).astype(np.uint8) * 255
    grey[30:50, 30:40] = 90
    asked = editor.request(PIXELS, prompt="a blue house", mask=grey, soft_mask=True)
    chosen = editor.start(asked, each_part=True)
    assert isinstance(chosen, PartsRun) and not isinstance(editor.start(asked), PartsRun)
    result = chosen.result()
    assert result.used.each_part and np.array_equal(result.best.pixels()[grey == 0], PIXELS[grey == 0])
