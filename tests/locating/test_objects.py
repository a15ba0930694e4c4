"""The things in a picture by their salience: with the bundled DINO, against the truth of drawn scenes."""

from __future__ import annotations

import numpy as np
import torch

from maskless.data.picture import load_image
from maskless.locating.objects import _one_each, things_in
from maskless.models.encoders import load_dino
from maskless.storybook.train import ASSETS
from maskless.storybook.world.scenes import render, split_seed


def test_things_are_covered_and_the_background_is_not() -> None:
    dino = load_dino(ASSETS / "dino")
    things_covered, background_covered = [], []
    scenes = (render(split_seed("validation", index), 128) for index in range(31_000, 31_040))
    for scene in (scene for scene in scenes if scene.objects):
        image = load_image(scene.image).rgb
        truth = torch.from_numpy(np.any([thing.mask for thing in scene.objects], axis=0))
        found = things_in(image, dino.features(image))
        things_covered.append(float(found[truth].float().mean()))
        background_covered.append(float(found[~truth].float().mean()))
    assert np.mean(things_covered) > 0.9
    assert np.mean(background_covered) < 0.2  # 0.37 where a thing may grow without a limit
    assert np.mean(np.array(background_covered) > 0.8) < 0.1  # hardly a picture is taken for one thing


def test_two_phrases_do_not_get_the_same_thing() -> None:
    left, right = torch.zeros(2, 4, dtype=torch.bool), torch.zeros(2, 4, dtype=torch.bool)
    left[:, :2], right[:, 2:] = True, True
    candidates = [left, left.clone(), right]
    assert _one_each([torch.tensor([3.0, 2.9, 0.0]), torch.tensor([2.0, 1.9, 1.0])], candidates) == [0, 2]
    assert _one_each([torch.tensor([1.0, 0.0, 0.5]), torch.tensor([2.0, 0.0, 0.0])], candidates) == [2, 0]
    assert _one_each([torch.tensor([1.0]), torch.tensor([2.0])], [left]) == [0, 0], "nothing else is left"
    assert _one_each([], []) == []
