"""Refinement: the bundled redrawer draws over the objects that the inpainter has drawn, and over nothing else."""

from dataclasses import replace

import pytest
import torch

from maskless.data.result import EditResult
from maskless.engine.batching import Batches
from maskless.engine.editor import Editor
from maskless.engine.refine import refine
from maskless.models.pretrained import EditModels, Refinement
from maskless.storybook.world.graph import sample
from maskless.storybook.world.scenes import draw, split_seed
from maskless.storybook.world.sheets import to_tensor

STEPS = 2
BOX = (40, 40, 88, 88)


@pytest.fixture(scope="module")
def models() -> EditModels:
    loaded = Editor.from_pretrained("storybook", device="cpu", dtype="float32").models
    return replace(loaded, refinement=Refinement(steps=STEPS, guidance_scale=1.0))


@pytest.fixture(scope="module")
def scene() -> torch.Tensor:
    return to_tensor(draw(sample(split_seed("validation", 3)), 128).image)


def refined(models: EditModels, scene: torch.Tensor, batch: int) -> torch.Tensor:
    """Two windows, refined from one grey and one brighter drawing."""
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 40:88, 40:88] = 1
    drawn = torch.full((2, 3, 64, 64), 128, dtype=torch.uint8)
    drawn[1] = 200
    windows, masks = scene.expand(2, -1, -1, -1), mask.expand(2, -1, -1, -1)
    return refine(models, windows, masks, drawn, "a red car", seed=3, batches=Batches(batch))


def edit(models: EditModels, scene: torch.Tensor, **options) -> EditResult:
    return Editor(models).edit(scene, **{"prompt": "a red car", "steps": 2, **options})


def test_each_window_is_drawn_at_the_redrawers_size_whatever_its_batch(models, scene):
    before = models.redrawer.unet_forwards
    together, alone = refined(models, scene, 2), refined(models, scene, 1)
    assert together.shape == (2, 3, 128, 128) and together.dtype == torch.uint8
    assert (together.int() - alone.int()).abs().max() <= 1
    assert not torch.equal(together[0], together[1]), "the redrawer sees the drawing"
    assert models.redrawer.unet_forwards - before == 2 * 2 * STEPS


def test_the_surroundings_of_the_mask_hardly_change(models, scene):
    difference = (refined(models, scene, 2)[0].float() / 255 - scene).abs().mean(dim=0)
    assert difference[:24].mean() < 0.03


def test_a_search_refines_its_candidates_and_nothing_else_changes(models, scene):
    options = {"caption": "an object", "anchors": 2, "iterations": 1}
    with_it, without = (edit(each, scene, **options) for each in (models, replace(models, refinement=None)))
    assert with_it.candidates.crops.shape[2:] == (128, 128) and without.candidates.crops.shape[2:] == (96, 96)
    assert torch.equal(with_it.candidates.regions.boxes_xyxy, without.candidates.regions.boxes_xyxy)
    assert with_it.order == without.order and torch.equal(with_it.losses.rows, without.losses.rows)
    boxes = {tuple(box) for box in with_it.candidates.regions.boxes_xyxy.tolist()}
    assert with_it.cost.unet_forwards == without.cost.unet_forwards + len(boxes) * STEPS
    x0, y0, x1, y1 = with_it.best.box_xyxy
    outside = torch.ones(128, 128, dtype=torch.bool)
    outside[y0:y1, x0:x1] = False
    assert torch.equal(with_it.best.tensor()[:, outside], scene[:, outside])


def test_a_resumed_search_refines_the_same_candidates_at_the_same_cost(models, scene):
    """Also from a state that was taken after the result; a second result refines nothing."""
    editor, options = Editor(models), {"anchors": 2, "iterations": 1, "steps": 2}
    request = editor.request(scene, caption="an object", prompt="a red car")
    run = editor.start(request, **options)
    result, calls = run.result(), models.redrawer.unet_forwards
    again = run.result()
    assert models.redrawer.unet_forwards == calls and again.cost.unet_forwards == result.cost.unet_forwards
    later = editor.start(request, state=run.state(), **options).result()
    assert torch.equal(later.candidates.crops, result.candidates.crops)
    assert later.cost.unet_forwards == result.cost.unet_forwards


@pytest.mark.parametrize("task", ["replace", "add", "creative"])
def test_an_object_in_the_users_own_region_is_refined(models, scene, task):
    before = models.redrawer.unet_forwards
    result = edit(models, scene, task=task, box=BOX)
    assert result.candidates.crops.shape[2:] == (128, 128)
    assert models.redrawer.unet_forwards - before == len(result.candidates) * STEPS
    assert result.cost.unet_forwards == len(result.candidates) * (2 * 2 + STEPS)  # steps, guidance


def test_the_unchanged_pixels_of_a_region_stay_if_the_models_recommend_it_or_the_user_asks(models, scene):
    recommending = replace(models, refinement=replace(models.refinement, keep_unchanged=True))
    options = {"caption": "an object", "anchors": 2, "iterations": 1}
    for chosen, loaded, kept in (({}, recommending, True), ({"keep_unchanged": False}, recommending, False),
                                 ({}, models, False), ({"keep_unchanged": True}, models, True),
                                 ({"search": "paper"}, recommending, False)):  # fmt: skip
        result = edit(loaded, scene, **options, **chosen)
        assert result.used.keep_unchanged is kept
        if kept:
            masks = torch.stack([result.edited(index).touched() for index in result.order])
            x0, y0, x1, y1 = result.best.box_xyxy
            assert masks[0].any() and not masks[0, y0:y1, x0:x1].all()
            assert torch.equal(result.best.tensor()[:, ~masks[0]], scene[:, ~masks[0]])


@pytest.mark.parametrize("task", ["replace", "add"])
def test_each_candidate_in_the_users_own_region_keeps_what_it_does_not_change(models, scene, task):
    own = torch.zeros(1, 128, 128)
    own[:, 40:88, 36:88] = 1
    result = edit(models, scene, task=task, mask=own, keep_unchanged=True)
    masks = result.candidates.masks
    assert masks is not None and masks.any(dim=(1, 2)).all() and not (masks & (own == 0)).any()
    assert int(masks[0].sum()) < int(own.sum()) and not torch.equal(masks[0], masks[1])
    for index, mask in enumerate(masks):
        assert torch.equal(result.edited(index).tensor()[:, ~mask], scene[:, ~mask])
        assert result.candidates.kept_px(index) == 48 * 52 - int(mask.sum())
    grey = own * 0.7
    soft = edit(models, scene, task=task, mask=grey, soft_mask=True, keep_unchanged=True)
    assert torch.equal(soft.candidates.masks[0], own[0] > 0), "a soft mask says itself what is kept"


def test_parts_of_a_region_keep_what_they_do_not_change(models, scene):
    own = torch.zeros(1, 128, 128)
    own[:, 4:24, 4:24] = own[:, 100:124, 100:124] = 1
    result = edit(models, scene, task="add", mask=own, each_part=True, keep_unchanged=True)
    for index in range(len(result.candidates)):
        mask = result.edited(index).touched()
        assert mask[:30, :30].any() and mask[98:, 98:].any() and not (mask & (own[0] == 0)).any()
        assert torch.equal(result.edited(index).tensor()[:, ~mask], scene[:, ~mask])


@pytest.mark.parametrize(
    "task, options",
    [
        ("remove", {"box": BOX}),
        ("remove", {"caption": "a house", "prompt": ""}),
        ("complete", {"box": BOX, "prompt": ""}),
        ("extend", {"extend": "left=0.25", "prompt": ""}),
        ("background", {"caption": "a house", "prompt": "empty beach"}),
        ("background", {"box": BOX, "prompt": "empty beach"}),
        ("generate", {}),
        ("generate", {"box": BOX}),
    ],
)
def test_backgrounds_and_whole_pictures_are_not_refined(models, scene, task, options):
    before = models.redrawer.unet_forwards
    edit(models, scene, task=task, **options)
    assert models.redrawer.unet_forwards == before


def test_thin_marks_are_not_refined(models, scene):
    scratch, before = torch.zeros(1, 128, 128), models.redrawer.unet_forwards
    scratch[:, 60:64, 10:110] = 1
    edit(models, scene, task="repair", mask=scratch, prompt="")
    assert models.redrawer.unet_forwards == before


@pytest.mark.parametrize("task", ["style", "texture"])
def test_a_redrawing_is_not_refined(models, scene, task):
    options = {"task": task, "box": BOX, "prompt": "a striped pencil sketch"}
    with_it, without = (edit(each, scene, **options) for each in (models, replace(models, refinement=None)))
    assert torch.equal(with_it.candidates.crops, without.candidates.crops)
    assert with_it.cost.unet_forwards == without.cost.unet_forwards
