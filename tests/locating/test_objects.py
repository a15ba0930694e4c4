"""The things in a picture by their salience: with the bundled DINO, against the truth of drawn scenes."""

from __future__ import annotations

import numpy as np
import torch

from maskless.engine.editor import Editor
from maskless.locating.objects import objects_in
from maskless.storybook.world.scenes import render, split_seed


def test_things_are_covered_and_the_background_is_not() -> None:
    editor = Editor.from_pretrained("storybook", device="cpu", dtype="float32")
    things_covered, background_covered = [], []
    scenes = (render(split_seed("validation", index), 128) for index in range(31_000, 31_040))
    for scene in (scene for scene in scenes if scene.objects):
        truth = torch.from_numpy(np.any([thing.mask for thing in scene.objects], axis=0))
        found = objects_in(editor.look(scene.image))
        things_covered.append(float(found[truth].float().mean()))
        background_covered.append(float(found[~truth].float().mean()))
    assert np.mean(things_covered) > 0.9
    assert np.mean(background_covered) < 0.2  # 0.37 where a thing may grow without a limit
    assert np.mean(np.array(background_covered) > 0.8) < 0.1  # hardly a picture is taken for one thing
