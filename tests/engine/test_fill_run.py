"""Fills of known regions, on small models: what they may change, how they are tried, and what they record."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskless.engine.fill_run import DrawnOver, FillRun

STEPS = 2


def request(editor, pixels: np.ndarray, mask: np.ndarray, **given):
    return editor.request(pixels, prompt="a blue house", mask=mask, **given)


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
@pytest.mark.parametrize("void,fine", [(False, False), (True, False), (True, True)])
def test_outside_the_mask_every_pixel_is_the_originals(editor, size, depth, void, fine):
    pixels, mask = noise(size, depth), blob(size)
    run = FillRun(request(editor, pixels, mask), editor.models, editor.config, strengths=(1.0,), void=void, fine=fine)
    result = run.result()
    edited = result.best.pixels()
    assert edited.dtype == depth and edited.shape == pixels.shape
    assert np.array_equal(edited[~mask], pixels[~mask])
    assert (edited[mask] != pixels[mask]).any(axis=1).mean() > (0.9 if void else 0.5)
    assert np.array_equal(result.best.touched().numpy(), mask)
    x0, y0, x1, y1 = result.best.box_xyxy
    assert mask[y0:y1, x0:x1].sum() == mask.sum()
    assert result.best.tensor().shape == (3, *size)


def test_of_what_is_void_nothing_is_seen(editor):
    """Two pictures that differ under the mask alone come out the same."""
    mask, results = blob((72, 120)), []
    for under in (0, 255):
        pixels = noise((72, 120))
        pixels[mask] = under
        run = FillRun(request(editor, pixels, mask), editor.models, editor.config, strengths=(1.0,), void=True)
        results.append(run.result())
    assert results[0].config.feather == 0
    assert np.array_equal(results[0].best.pixels(), results[1].best.pixels())


def test_it_has_the_face_of_a_search(editor):
    run = FillRun(request(editor, noise((72, 120)), blob((72, 120)), seed=5), editor.models, editor.config)
    records = list(run)
    assert [record.iteration for record in records] == [1, 2, 3, 4] == [record.iteration for record in run.history]
    assert all(record.total_iterations == run.total_iterations == 4 for record in records)
    assert records[-1].expected_loss == min(record.loss for record in records)
    result = run.result()
    assert len(result.candidates) == 4 == len(result.losses) and sorted(result.order) == [0, 1, 2, 3]
    assert float(result.scores[result.order[0]]) == float(result.scores.max())
    assert result.anchors is None and result.anchor_net is None and result.attention is None
    assert result.candidates.seeds == (5, 6, 7, 8) and not torch.equal(*result.candidates.crops[:2])
    assert result.cost.inpaintings == records[-1].inpaintings
    assert result.cost.unet_forwards >= result.cost.inpaintings * 2  # guidance
    assert {"inpainting", "losses", "ranking"} <= set(result.cost.seconds)


def test_strengths_share_their_noise_and_keep_ever_less(editor, picture):
    pixels = (picture.movedim(0, -1) * 255).round().byte().numpy()
    everything = np.ones((72, 120), bool)
    run = FillRun(request(editor, pixels, everything), editor.models, editor.config.resolved(), strengths=(0.5, 1.0))
    result = run.result()
    assert len(set(result.candidates.seeds)) == 1 and not torch.equal(*result.candidates.crops)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(editor):
    pixels, mask = noise((72, 120)), blob((72, 120))
    crops = [editor.edit(pixels, prompt="a house", mask=mask, seed=seed).candidates.crops for seed in (1, 1, 9)]
    assert torch.equal(crops[0], crops[1]) and not torch.equal(crops[0], crops[2])


def test_small_regions_are_magnified_and_large_ones_drawn_in_tiles(editor):
    small, large = np.zeros((160, 240), bool), np.ones((160, 240), bool)
    small[50:70, 100:120] = True
    for mask, sides in ((small, {64}), (large, {128})):
        run = FillRun(request(editor, noise((160, 240)), mask), editor.models, editor.config, strengths=(1.0,))
        assert {int(side) for side in run.result().candidates.crops.shape[2:]} == sides


def test_with_the_layout_kept_only_a_difference_of_texts_changes_anything(editor):
    """Between two equal texts there is nothing to draw but what the autoencoder loses."""
    pixels, everything = noise((64, 64)), np.ones((64, 64), bool)
    crops = {}
    for caption in ("a house", "a tree"):
        asked = replace(request(editor, pixels, everything), caption=caption, prompt="a house")
        run = FillRun(
            asked, editor.models, editor.config, drawn_over=DrawnOver(strengths=(0.5, 1.0), contrast=1.6, finer=2)
        )
        result = run.result()
        crops[caption] = result.candidates.crops
        assert result.cost.unet_forwards % 3 == 0, "the one text, and the other guided away from it"
    same, other = crops["a house"], crops["a tree"]
    inpainter = editor.models.inpainter
    back = inpainter.decode(inpainter.latents_of(asked.image[None] * 2 - 1))[0]
    # A batch of one and a batch of two round differently, which may tip a pixel.
    assert int((same.int() - back.int()).abs().max()) <= 1
    assert int((other[0].int() - back.int()).abs().max()) > 1 and not torch.equal(other[0], other[1])


def test_a_model_that_sees_what_is_there_draws_it_over_by_itself(editor, monkeypatch):
    """No second answer is asked of it, and its tries differ by their noise."""
    monkeypatch.setattr(editor.models.inpainter, "sees_picture", True)
    asked = replace(request(editor, noise((64, 64)), np.ones((64, 64), bool)), caption="a tree", prompt="a house")
    over = DrawnOver(strengths=(1.0, 1.0), contrast=2.0)
    result = FillRun(asked, editor.models, editor.config, drawn_over=over).result()
    assert result.cost.inpaintings == 2 and result.cost.unet_forwards == 2 * 2 * STEPS, "guidance, and nothing beside"
    assert len(set(result.candidates.seeds)) == 2 and not torch.equal(*result.candidates.crops)


def test_what_is_drawn_over_can_be_drawn_larger_than_it_is(editor):
    for size, magnified, side in ((64, 1, 64), (64, 2, 128), (72, 2, 144), (32, 2, 64), (200, 2, 256)):
        over = DrawnOver(strengths=(1.0,), contrast=2.0, magnified=magnified)
        asked = replace(request(editor, noise((size, size)), np.ones((size, size), bool)), caption="a tree")
        result = FillRun(asked, editor.models, editor.config, drawn_over=over).result()
        assert result.candidates.crops.shape[-2:] == (side, side), (size, magnified)


def test_tiles_of_a_picture_that_is_seen_share_one_noise(editor, monkeypatch):
    """Where two overlap theirs is the same; elsewhere it does not repeat itself. Other fills give none of their own."""
    inpainter, given = editor.models.inpainter, []
    original = type(inpainter).inpaint

    def noted(self, images, *others, noise=None, **named):
        given.append(noise)
        return original(self, images, *others, noise=noise, **named)

    monkeypatch.setattr(type(inpainter), "inpaint", noted)
    asked = replace(request(editor, noise((64, 64)), np.ones((64, 64), bool)), caption="a tree")
    over = DrawnOver(strengths=(1.0,), magnified=2)
    monkeypatch.setattr(inpainter, "sees_picture", True)
    FillRun(asked, editor.models, editor.config, drawn_over=over).result()
    (tiles,) = given
    across = round(len(tiles) ** 0.5)
    assert len(tiles) == across**2 > 4
    step = tiles.shape[-1] // 2  # from a tile to the next
    first, beside, below = tiles[0], tiles[1], tiles[across]
    assert torch.equal(first[:, :, step:], beside[:, :, :-step]) and torch.equal(first[:, step:], below[:, :-step])
    assert not torch.equal(first, beside)
    given.clear()
    FillRun(asked, editor.models, editor.config, drawn_over=DrawnOver(strengths=(1.0,))).result()
    assert given == [None], "one piece starts from the seed's own noise"


def test_contrast_raises_a_small_guidance_and_leaves_a_large_one(editor, monkeypatch):
    over = DrawnOver(strengths=(0.5,), contrast=3.2, finer=2)
    assert [over.guidance_scale(usual) for usual in (1.0, 2.5, 7.5, 12.0)] == [3.2, 8.0, 8.0, 12.0]
    told = []
    monkeypatch.setattr(
        "maskless.engine.fill.redraw",
        lambda *_, **how: told.append(how) or torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
    )
    asked = replace(request(editor, noise((64, 64)), np.ones((64, 64), bool)), caption="a house", prompt="a tree")
    config = replace(editor.config, steps=3, guidance_scale=2.5)
    list(FillRun(asked, editor.models, config, drawn_over=over))
    assert (told[0]["steps"], told[0]["guidance_scale"], told[0]["strength"]) == (6, 8.0, 0.5)


def test_guidance_leads_away_from_the_caption_and_what_is_to_be_avoided(editor, monkeypatch):
    told = []
    encode = editor.models.inpainter.encode_prompt
    monkeypatch.setattr(
        editor.models.inpainter, "encode_prompt", lambda text, avoided="": told.append((text, avoided)) or encode(text)
    )
    asked = replace(request(editor, noise((64, 64)), np.ones((64, 64), bool)), caption="a house", prompt="a tree")
    FillRun(
        asked,
        editor.models,
        replace(editor.config, negative_prompt="blur"),
        drawn_over=DrawnOver(strengths=(1.0,), contrast=2.0),
    )
    assert told == [("a tree", "a house, blur"), ("a house", "")]
    told.clear()
    FillRun(asked, editor.models, replace(editor.config, negative_prompt="blur"))
    assert told == [("a tree", "blur")]


def test_what_is_drawn_over_is_ranked_by_the_prompt_less_the_caption(editor):
    asked = replace(request(editor, noise((64, 64)), np.ones((64, 64), bool)), caption="a house", prompt="a tree")
    over = DrawnOver(strengths=(0.5, 1.0), contrast=2.0)
    clip, text = editor.models.clip, {}
    for name, how in (("filled", {"strengths": (0.5, 1.0)}), ("drawn over", {"drawn_over": over})):
        run = FillRun(asked, editor.models, editor.config, **how)
        crops = run.result().candidates.crops / 255
        seen = torch.stack([clip.encode(crop[None]).embedding[0] for crop in crops])
        text[name] = torch.tensor([sign for sign, _fit in run._signs]), seen
    house, tree = clip.encode_text("a house"), clip.encode_text("a tree")
    signs, seen = text["filled"]
    assert torch.allclose(signs, seen @ tree, atol=1e-3)
    signs, seen = text["drawn over"]
    assert torch.allclose(signs, seen @ (tree - house), atol=1e-3)
