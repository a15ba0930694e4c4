"""The training of the judge: its targets, its defects, its loss, and its figures."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from maskless.storybook.judge import Detection, Verdict
from maskless.storybook.train import ASSETS
from maskless.storybook.training import judge
from maskless.storybook.training.loop import Run
from maskless.storybook.world.backgrounds import BACKGROUNDS
from maskless.storybook.world.edits import LARGE
from maskless.storybook.world.graph import COLOURS, KINDS, SceneGraph, SceneObject
from maskless.storybook.world.scenes import Scene, draw
from maskless.storybook.world.styles import STYLES


def _scene(texture: str = "plain", size: float = 0.4) -> Scene:
    car = SceneObject(kind="car", colour="red", texture=texture, centre_xy=(0.5, 0.5), size=size)
    return draw(SceneGraph(objects=(car,), background="sea", style="pencil", horizon=0.6, detail_seed=0))


def _new(tmp_path: Path) -> nn.Module:
    torch.manual_seed(0)
    return judge.build(Run(name="judge", output=tmp_path, minutes=1, device=torch.device("cpu"), workers=0))


def test_targets_mark_the_centre_with_kind_colour_and_distances() -> None:
    scene = _scene()
    goal = judge.targets(scene)
    x0, y0, x1, y1 = (v / judge.STRIDE for v in scene.objects[0].box_xyxy)
    row, column = int((y0 + y1) / 2), int((x0 + x1) / 2)
    assert goal["heat"][0, row, column] == 1 and (goal["heat"] == 1).sum() == 1
    assert goal["kind"][row, column] == KINDS.index("car")
    assert goal["colour"][row, column] == list(COLOURS).index("red")
    left, top, right, bottom = goal["box"][:, row, column].tolist()
    assert abs(left + right - (x1 - x0)) < 1e-4 and abs(top + bottom - (y1 - y0)) < 1e-4
    assert goal["kind"][0, 0] == -1 and goal["box"][:, 0, 0].abs().sum() == 0
    assert goal["whole"].tolist() == [list(BACKGROUNDS).index("sea"), list(STYLES).index("pencil")]


def test_an_example_depends_on_its_seed_alone() -> None:
    first, again = judge.example(judge.FIRST_SEED), judge.example(judge.FIRST_SEED)
    assert first["image"].shape == (3, 128, 128) and all(torch.equal(first[key], again[key]) for key in first)


def test_defects_change_a_picture_a_little_and_stay_in_range() -> None:
    image = torch.stack([judge.example(seed)["image"] for seed in range(4)])
    spoilt = judge._augment(image, torch.Generator().manual_seed(0))
    assert spoilt.shape == image.shape and spoilt.min() >= 0 and spoilt.max() <= 1
    assert 0.005 < (spoilt - image).abs().mean() < 0.1


def test_the_bundled_weights_have_a_smaller_loss_than_new_ones(tmp_path: Path) -> None:
    examples = [judge.example(judge.FIRST_SEED + i) for i in range(3)]
    batch = {key: torch.stack([each[key] for each in examples]) for key in examples[0]}
    model, losses = _new(tmp_path), []
    with torch.no_grad():
        losses.append(judge.loss(model.eval(), batch, torch.Generator().manual_seed(0)))
        judge.restore(model, ASSETS)
        losses.append(judge.loss(model.eval(), batch, torch.Generator().manual_seed(0)))
    assert 0 < losses[1] < 0.2 * losses[0]


def test_a_texture_counts_where_kind_texture_and_location_are_right() -> None:
    scene = _scene("striped")
    small = _scene("striped", size=LARGE)

    def verdict(kind: str, texture: str, shift: float = 0) -> Verdict:
        x0, y0, x1, y1 = scene.objects[0].box_xyxy
        box = (x0 + shift, y0, x1 + shift, y1)
        seen = Detection(kind=kind, colour="blue", texture=texture, box_xyxy=box, confidence=0.9)
        return Verdict(objects=(seen,), background="sea", style="pencil")

    pairs = [
        (verdict("car", "striped"), scene),
        (verdict("car", "dotted"), scene),
        (verdict("cat", "striped"), scene),
        (verdict("car", "striped", shift=60), scene),
        (verdict("cat", "dotted"), small),  # a small object does not count
    ]
    assert judge._share_named("striped", pairs) == 0.25
