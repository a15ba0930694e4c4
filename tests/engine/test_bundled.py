"""The bundled models themselves, through the editor: what a user gets without naming any model."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline
from PIL import Image

from maskless.data.boxes import propose_regions
from maskless.data.picture import load_image
from maskless.data.result import EditResult
from maskless.engine.editor import Editor
from maskless.evaluation.suites.search_study import draw_tasks, is_clean
from maskless.method.anchors import find_anchors
from maskless.storybook.train import ASSETS

TASKS = draw_tasks("validation", 8, offset=5_000)

LEARNED = {"search": "learned", "anchors": 3}


@pytest.fixture(scope="module")
def storybook() -> Editor:
    return Editor.from_pretrained("storybook", steps=4, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def results(storybook: Editor) -> list[EditResult]:
    texts = [{"caption": task.caption, "prompt": task.prompt} for task in TASKS[:2]]
    return [storybook.edit(task.image, **each, **LEARNED) for task, each in zip(TASKS, texts, strict=False)]


@pytest.mark.slow
def test_anchor_net_learns_on_every_scene(results):
    for result in results:
        assert result.anchor_net.expected_loss_after < result.anchor_net.expected_loss_before


@pytest.mark.slow
def test_only_the_winning_region_changes_and_there_only_what_the_drawing_changes(results):
    for task, result in zip(TASKS, results, strict=False):
        before, after = np.asarray(task.image), np.asarray(result.best.pil())
        x0, y0, x1, y1 = result.best.box_xyxy
        changed, touched = (before != after).any(axis=2), result.best.touched().numpy()
        assert changed[touched].mean() > 0.9 and not changed[~touched].any()
        assert 0.2 < touched[y0:y1, x0:x1].mean() < 1
        assert touched.sum() == touched[y0:y1, x0:x1].sum()


@pytest.mark.slow
def test_no_region_is_inpainted_or_refined_twice(storybook, results):
    refinement = storybook.models.refinement
    for result in results:
        assert result.cost.inpaintings <= len(result.anchors) * len(result.config.sizes)
        refined = len({tuple(box) for box in result.candidates.regions.boxes_xyxy.tolist()})
        made = max(1, round(refinement.steps * refinement.strength))
        expected = result.cost.inpaintings * 4 * 2 + refined * made * 2  # steps, guidance
        assert result.cost.unet_forwards == expected


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(storybook, results):
    again = storybook.edit(TASKS[0].image, caption=TASKS[0].caption, prompt=TASKS[0].prompt, **LEARNED)
    assert again.order == results[0].order
    assert torch.equal(again.candidates.crops, results[0].candidates.crops)


def test_the_caption_finds_the_place(storybook):
    """`maskless evaluate search_study` gives the share of scenes with a clean box among the proposals."""
    found = 0
    for task in TASKS:
        image = load_image(task.image).rgb
        attention = storybook.models.dino.features(image).attention
        clip = storybook.models.clip
        relevance = clip.relevance(clip.relevance_crops(image), clip.encode_text(task.caption))
        anchors = find_anchors(attention, relevance, count=9, source="both")
        boxes = propose_regions(anchors, storybook.config.sizes, (image.shape[1], image.shape[2])).boxes_xyxy
        found += any(is_clean(box, task) for box in boxes.tolist())
    assert found >= 6


def test_the_stock_pipeline_opens_the_folder():
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(ASSETS / "inpainting", safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 48, 48))
    picture = TASKS[0].image.resize((64, 64))
    edited = pipeline("a red car", picture, mask, height=64, width=64, num_inference_steps=2).images[0]
    assert edited.size == (64, 64)
    assert np.abs(np.asarray(edited, dtype=float) - np.asarray(picture, dtype=float))[16:48, 16:48].mean() > 4
