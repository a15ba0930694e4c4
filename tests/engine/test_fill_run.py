"""Fills of known regions, on small models: what they may change, how they are tried, and what they record."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskless.engine.fill_run import FillRun
from maskless.engine.painters import FillPlan, RedrawPlan
from maskless.engine.run import resolved

STEPS = 2


def request(editor, pixels: np.ndarray, mask: np.ndarray, **given):
    return editor.request(pixels, prompt="a blue house", mask=mask, **given)


def fill(editor, asked, config=None, **plan) -> FillRun:
    """A fill by this plan, not yet iterated."""
    used = resolved(config or editor.config, asked, editor.models)
    return FillRun(asked, editor.models, used, FillPlan(**plan))


def noise(size: tuple[int, int], depth: type = np.uint8) -> np.ndarray:
    white = np.iinfo(depth).max
    return np.random.default_rng(0).integers(0, white + 1, (*size, 3), dtype=depth)


def blob(size: tuple[int, int]) -> np.ndarray:
    """An ellipse off the middle and a thin line: no box at all."""
    ys, xs = np.mgrid[: size[0], : size[1]]
    mask = ((ys - size[0] * 0.4) / size[0]) ** 2 + ((xs - size[1] * 0.6) / size[1]) ** 2 < 0.05
    mask[size[0] - 5, 3 : size[1] // 2] = True
    return mask


@pytest.mark.parametrize("size", [(64, 64), (72, 120), (150, 40), (32, 260)])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("erase,thin_marks", [(False, False), (True, False), (True, True)])
def test_outside_the_mask_every_pixel_is_the_originals(editor, size, depth, erase, thin_marks):
    pixels, mask = noise(size, depth), blob(size)
    plan = {"strengths": (1.0,), "erase": erase, "thin_marks": thin_marks}
    result = fill(editor, request(editor, pixels, mask), **plan, changes={"feather": 0.0} if erase else {}).result()
    edited = result.best.pixels()
    assert edited.dtype == depth and edited.shape == pixels.shape
    assert np.array_equal(edited[~mask], pixels[~mask])
    assert (edited[mask] != pixels[mask]).any(axis=1).mean() > (0.9 if erase else 0.5)
    assert np.array_equal(result.best.touched().numpy(), mask)
    x0, y0, x1, y1 = result.best.box_xyxy
    assert mask[y0:y1, x0:x1].sum() == mask.sum()
    assert result.best.tensor().shape == (3, *size)


def test_nothing_of_what_is_erased_shows(editor):
    """Two pictures that differ under the mask alone come out the same."""
    mask, results = blob((72, 120)), []
    for under in (0, 255):
        pixels = noise((72, 120))
        pixels[mask] = under
        asked = request(editor, pixels, mask)
        results.append(fill(editor, asked, strengths=(1.0,), erase=True, changes={"feather": 0.0}).result())
    assert results[0].used.feather == 0 == results[0].candidates.feather and results[0].config.feather > 0
    assert np.array_equal(results[0].best.pixels(), results[1].best.pixels())


def test_its_steps_are_a_look_and_a_try_each(editor):
    run = fill(editor, request(editor, noise((72, 120)), blob((72, 120)), seed=5))
    steps = list(run)
    assert [step.step for step in steps] == [0, 1, 2, 3, 4] and tuple(steps) == run.history == tuple(run)
    assert all(step.total_steps == run.total_steps == 4 for step in steps)
    assert "loss" not in steps[0].to_dict() and "expected_loss" not in steps[1].to_dict(), "it fakes no fields"
    result = run.result()
    assert len(result.candidates) == 4 == len(result.losses) and sorted(result.order) == [0, 1, 2, 3]
    assert [step.loss for step in result.drawn_steps] == pytest.approx(result.losses.total.tolist())
    assert float(result.scores[result.order[0]]) == float(result.scores.max())
    assert result.anchors is None and result.anchor_net is None and result.attention is None
    assert result.candidates.seeds == (5, 6, 7, 8) and not torch.equal(*result.candidates.crops[:2])
    assert result.cost.inpaintings == steps[-1].inpaintings
    assert result.cost.unet_forwards >= result.cost.inpaintings * 2  # guidance
    assert {"inpainting", "losses", "ranking"} <= set(result.cost.seconds)


def test_strengths_share_their_noise_and_keep_ever_less(editor, picture):
    pixels = (picture.movedim(0, -1) * 255).round().byte().numpy()
    everything = np.ones((72, 120), bool)
    result = fill(editor, request(editor, pixels, everything), strengths=(0.5, 1.0)).result()
    assert len(set(result.candidates.seeds)) == 1 and not torch.equal(*result.candidates.crops)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(editor):
    pixels, mask = noise((72, 120)), blob((72, 120))
    crops = [editor.edit(pixels, prompt="a house", mask=mask, seed=seed).candidates.crops for seed in (1, 1, 9)]
    assert torch.equal(crops[0], crops[1]) and not torch.equal(crops[0], crops[2])


def test_small_regions_are_magnified_and_large_ones_drawn_in_tiles(editor):
    small, large = np.zeros((160, 240), bool), np.ones((160, 240), bool)
    small[50:70, 100:120] = True
    for mask, sides in ((small, {64}), (large, {128})):
        run = fill(editor, request(editor, noise((160, 240)), mask), strengths=(1.0,))
        assert {int(side) for side in run.result().candidates.crops.shape[2:]} == sides


def test_with_the_layout_kept_only_a_difference_of_texts_changes_anything(editor):
    """Between two equal texts there is nothing to draw but what the autoencoder loses."""
    pixels, everything = noise((64, 64)), np.ones((64, 64), bool)
    crops = {}
    for caption in ("a house", "a tree"):
        asked = replace(request(editor, pixels, everything), caption=caption, prompt="a house")
        plan = {"strengths": (0.5, 1.0), "redraw": RedrawPlan(guidance_factor=1.6, step_factor=2)}
        result = fill(editor, asked, **plan).result()
        crops[caption] = result.candidates.crops
        assert result.cost.unet_forwards % 3 == 0, "the one text, and the other guided away from it"
    same, other = crops["a house"], crops["a tree"]
    inpainter = editor.models.inpainter
    back = inpainter.decode(inpainter.latents_of(asked.image[None] * 2 - 1))[0]
    # A batch of one and a batch of two round differently, which may tip a pixel.
    assert int((same.int() - back.int()).abs().max()) <= 1
    assert int((other[0].int() - back.int()).abs().max()) > 1 and not torch.equal(other[0], other[1])


def test_a_model_that_takes_the_picture_redraws_it_by_itself(editor, monkeypatch):
    """No second answer is asked of it, and its tries differ by their noise."""
    monkeypatch.setattr(editor.models.inpainter, "takes_picture", True)
    asked = replace(request(editor, noise((64, 64)), np.ones((64, 64), bool)), caption="a tree", prompt="a house")
    plan = {"strengths": (1.0, 1.0), "redraw": RedrawPlan(guidance_factor=2.0)}
    result = fill(editor, asked, **plan).result()
    assert result.cost.inpaintings == 2 and result.cost.unet_forwards == 2 * 2 * STEPS, "guidance, and nothing beside"
    assert len(set(result.candidates.seeds)) == 2 and not torch.equal(*result.candidates.crops)


def test_a_redrawing_can_be_drawn_larger_than_the_picture(editor):
    for size, scale, side in ((64, 1, 64), (64, 2, 128), (72, 2, 144), (32, 2, 64), (200, 2, 256)):
        plan = {"strengths": (1.0,), "redraw": RedrawPlan(guidance_factor=2.0, scale=scale)}
        asked = replace(request(editor, noise((size, size)), np.ones((size, size), bool)), caption="a tree")
        result = fill(editor, asked, **plan).result()
        assert result.candidates.crops.shape[-2:] == (side, side), (size, scale)


def test_tiles_of_a_redrawing_share_one_noise(editor, monkeypatch):
    """Where two tiles overlap their noise is the same; elsewhere it does not repeat itself. Other fills give none."""
    inpainter, given = editor.models.inpainter, []
    original = type(inpainter).inpaint

    def noted(self, images, masks, prompt, sampling):
        given.append(sampling.noise)
        return original(self, images, masks, prompt, sampling)

    monkeypatch.setattr(type(inpainter), "inpaint", noted)
    asked = replace(request(editor, noise((64, 64)), np.ones((64, 64), bool)), caption="a tree")
    monkeypatch.setattr(inpainter, "takes_picture", True)
    fill(editor, asked, strengths=(1.0,), redraw=RedrawPlan(scale=2)).result()
    (tiles,) = given
    across = round(len(tiles) ** 0.5)
    assert len(tiles) == across**2 > 4
    step = tiles.shape[-1] // 2  # from a tile to the next
    first, beside, below = tiles[0], tiles[1], tiles[across]
    assert torch.equal(first[:, :, step:], beside[:, :, :-step]) and torch.equal(first[:, step:], below[:, :-step])
    assert not torch.equal(first, beside)
    given.clear()
    fill(editor, asked, strengths=(1.0,), redraw=RedrawPlan()).result()
    assert given == [None], "one piece starts from the seed's own noise"


def test_a_redrawing_is_ranked_by_the_prompt_less_the_caption(editor):
    asked = replace(request(editor, noise((64, 64)), np.ones((64, 64), bool)), caption="a house", prompt="a tree")
    clip, text = editor.models.clip, {}
    for name, redraw in (("filled", None), ("redrawn", RedrawPlan(guidance_factor=2.0))):
        run = fill(editor, asked, strengths=(0.5, 1.0), redraw=redraw)
        crops = run.result().candidates.crops / 255
        seen = torch.stack([clip.encode(crop[None]).embedding[0] for crop in crops])
        text[name] = torch.tensor([sign for sign, _fit in run._signs]), seen
    house, tree = clip.encode_text("a house"), clip.encode_text("a tree")
    signs, seen = text["filled"]
    assert torch.allclose(signs, seen @ tree, atol=1e-3)
    signs, seen = text["redrawn"]
    assert torch.allclose(signs, seen @ (tree - house), atol=1e-3)


def test_the_preview_is_the_best_try_so_far_and_draws_nothing(editor):
    run = fill(editor, request(editor, noise((72, 120)), blob((72, 120))), strengths=(1.0,) * 3)
    shown, forwards = [], []
    for _step in run:
        before = editor.models.inpainter.unet_forwards
        shown.append(run.preview())
        forwards.append(editor.models.inpainter.unet_forwards - before)
    assert shown[0] is None and forwards == [0] * 4
    result = run.result()
    best = int(result.losses.total.argmin())
    assert torch.equal(shown[-1], result.edited(best).tensor())


def test_an_interruption_while_a_candidate_is_scored_loses_nothing(editor, monkeypatch):
    """Ctrl-C at the last moment of the second candidate: it is drawn again, and the result is that of a whole run."""
    pixels, mask = noise((64, 64)), blob((64, 64))
    expected = fill(editor, request(editor, pixels, mask), strengths=(1.0, 0.8)).result()
    run = fill(editor, request(editor, pixels, mask), strengths=(1.0, 0.8))
    steps = iter(run)
    next(steps), next(steps)

    def stopped(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("maskless.engine.fill_run.seam_step", stopped)
        with pytest.raises(KeyboardInterrupt):
            next(steps)
    result = run.result()
    assert [step.step for step in result.history] == [0, 1, 2]
    assert torch.equal(result.candidates.crops, expected.candidates.crops) and result.order == expected.order
    assert result.cost.inpaintings == expected.cost.inpaintings + 1


@pytest.mark.parametrize("erase", [False, True])
def test_a_soft_mask_changes_each_part_by_its_value(editor, erase):
    pixels = noise((64, 96))
    grey = np.zeros((64, 96), np.uint8)
    grey[8:56, 16:40], grey[8:56, 40:80] = 60, 255
    asked = editor.request(pixels, prompt="a blue house", mask=grey, soft_mask=True)
    steps = replace(editor.config, steps=6)
    edited = fill(editor, asked, steps, strengths=(1.0,), erase=erase, changes={"feather": 0.0}).result().best
    mask = grey > 0
    assert np.array_equal(edited.pixels()[~mask], pixels[~mask])
    whole = fill(editor, request(editor, pixels, mask), steps, strengths=(1.0,), erase=erase, changes={"feather": 0.0})
    changed = [np.abs(each.pixels().astype(int) - pixels)[8:56, 20:36].mean() for each in (edited, whole.result().best)]
    assert 0 < changed[0] < changed[1], "a quarter of the change, and not the whole of it"
