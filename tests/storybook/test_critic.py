"""The critic: right drawings are called right, lumps are not, and a part that was left out is not found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from maskless.data.errors import MasklessError
from maskless.storybook.critic import CROP, Critic, CriticNet, crop_around
from maskless.storybook.train import ASSETS
from maskless.storybook.world.graph import KINDS, SceneGraph, SceneObject
from maskless.storybook.world.scenes import draw
from maskless.storybook.world.shapes import PARTS, SHAPES


@pytest.fixture(scope="module")
def critic() -> Critic:
    return Critic.from_pretrained(ASSETS / "critic")


def _alone(kind: str) -> SceneGraph:
    item = SceneObject(kind=kind, colour="red", centre_xy=(0.5, 0.5), size=0.5)
    return SceneGraph(objects=(item,), background="meadow", style="flat", horizon=0.6, detail_seed=0)


def test_most_kinds_drawn_right_are_right_and_blurred_ones_are_not(critic: Critic) -> None:
    scenes = [draw(_alone(kind), 192) for kind in KINDS]
    boxes = [scene.objects[0].box_xyxy for scene in scenes]
    right = critic.examine([scene.image for scene in scenes], boxes)
    lumps = critic.examine([scene.image.filter(ImageFilter.GaussianBlur(9)) for scene in scenes], boxes)
    assert sum(opinion.kind == kind for opinion, kind in zip(right, KINDS, strict=True)) >= 22
    assert sum(opinion.kind is not None for opinion in lumps) <= 3
    assert all(0 <= opinion.confidence <= 1 for opinion in right + lumps)


def test_a_part_is_found_where_it_is_and_not_where_it_was_left_out(critic: Critic) -> None:
    graph = _alone("house")
    whole = draw(graph, 192)
    bare = draw(graph, 192, parts={0: [part for part in SHAPES["house"].parts if part.name not in ("window", "door")]})
    with_parts, without = critic.examine([whole.image, bare.image], [whole.objects[0].box_xyxy] * 2)
    assert {"door", "roof", "window"} <= with_parts.parts and not {"door", "window"} & without.parts
    assert "wheel" not in with_parts.parts


def test_the_thresholds_decide(critic: Critic) -> None:
    scene = draw(_alone("car"), 128)
    picture, box = [scene.image], [scene.objects[0].box_xyxy]
    strict, lenient = Critic(critic.net, right=1.01, part=1.01), Critic(critic.net, right=0.0, part=0.0)
    assert strict.examine(picture, box)[0].kind is None and strict.examine(picture, box)[0].parts == frozenset()
    assert lenient.examine(picture, box)[0].kind == "car" and lenient.examine(picture, box)[0].parts == frozenset(PARTS)
    assert critic.examine([], []) == []


def test_a_crop_shows_the_surroundings_of_the_box_and_stays_in_the_picture() -> None:
    rows, columns = np.mgrid[:100, :100]
    image = Image.fromarray(np.stack([rows, columns, 0 * rows], axis=2).astype(np.uint8))
    middle, corner = (np.asarray(crop_around(image, box)).astype(int) for box in ((40, 40, 60, 60), (0, 80, 20, 100)))
    assert middle.shape == (CROP, CROP, 3)
    assert abs(middle[..., 0].min() - 37) <= 1 and abs(middle[..., 0].max() - 62) <= 1
    assert corner[..., 1].min() == 0 and abs(corner[..., 1].max() - 25) <= 1 and corner[..., 0].max() >= 98
    assert np.asarray(crop_around(image, (0, 0, 100, 100)))[..., 0].max() >= 98


def test_saved_weights_are_small_and_open_again(tmp_path: Path, critic: Critic) -> None:
    critic.save(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 1.5e6
    crops = torch.rand(2, 3, CROP, CROP, generator=torch.Generator().manual_seed(0))
    for a, b in zip(critic.probabilities(crops), Critic.from_pretrained(tmp_path).probabilities(crops), strict=True):
        assert torch.equal(a, b)


def test_missing_and_damaged_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(MasklessError, match="no such file"):
        Critic.from_pretrained(tmp_path)
    Critic(CriticNet((8, 8, 8))).save(tmp_path)
    with pytest.raises(MasklessError, match="not of the critic's architecture"):
        Critic.from_pretrained(tmp_path)
