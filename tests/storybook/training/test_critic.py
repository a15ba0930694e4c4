"""The training of the critic: its examples, their targets, the autoencoder's share, and its loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from maskless.storybook.train import ASSETS
from maskless.storybook.training import critic
from maskless.storybook.training.loop import Run
from maskless.storybook.world.graph import KINDS, SceneGraph, SceneObject, sample
from maskless.storybook.world.scenes import JUDGE_OFFSET, SPLITS, visible_parts
from maskless.storybook.world.shapes import PARTS, SHAPES


def _new() -> nn.ModuleDict:
    torch.manual_seed(0)
    return critic.build(Run(name="critic", output=ASSETS, minutes=1, device=torch.device("cpu"), workers=0))


@pytest.fixture(autouse=True)
def bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "models", property(lambda run: run.output))


def test_an_example_depends_on_its_seed_alone() -> None:
    first, again = (critic.example(critic.FIRST_SEED + 5) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["crop"].shape == (critic.PICTURES, 3, 48, 48) and first["parts"].shape == (critic.PICTURES, len(PARTS))
    assert first["right"][:2].tolist() == [1, 1] and 0 <= first["crop"].min() and first["crop"].max() <= 1


def test_the_scenes_are_of_the_judges_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(critic, "sample", lambda seed: seen.append(seed) or sample(seed))
    for seed in range(critic.FIRST_SEED, critic.FIRST_SEED + 40):
        critic.random_specimen(seed, np.random.default_rng(seed))
    assert len(seen) > 40, "none of the scenes was empty"
    assert all(JUDGE_OFFSET <= seed < SPLITS["train"].stop for seed in seen)


def test_parts_that_are_hidden_or_of_other_kinds_count_less() -> None:
    target, weight = critic.part_targets("house", there=("roof",), gone=("door",))
    of = {name: (float(target[i]), float(weight[i])) for i, name in enumerate(PARTS)}
    assert of["roof"] == (1, 1) and of["door"] == (0, 1) and of["chimney"] == (0, 0)
    assert of["wheel"] == (0, pytest.approx(critic.OTHER_PARTS))
    assert critic.lump_parts("house", "blurred", True)[1][PARTS.index("roof")] == 1
    assert critic.lump_parts("house", "blurred", False)[1][PARTS.index("roof")] == 0
    assert not critic.lump_parts("house", "mixture", True)[1].any()


def test_parts_are_left_out_of_the_picture() -> None:
    house = SceneObject(kind="house", colour="blue", centre_xy=(0.5, 0.5), size=0.5)
    graph = SceneGraph(objects=(house,), background="beach", style="flat", horizon=0.6, detail_seed=0)
    seen = visible_parts(graph, 0, 128)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        specimen = critic.specimen_of(graph, 0, 128, rng)
        picture, left, gone = critic.without_some_parts(specimen, seen, rng)
        assert gone and {*left, *gone} == set(SHAPES["house"].named_parts) == set(seen)
        assert np.abs(picture - specimen.right).max() > 0.1


def test_the_autoencoder_changes_a_share_of_the_crops_a_little() -> None:
    model, crops = _new(), torch.stack([critic.example(critic.FIRST_SEED + i)["crop"] for i in range(2)]).flatten(0, 1)
    changed = critic.encoded(model["vae"], crops.repeat(4, 1, 1, 1), torch.Generator().manual_seed(0)) - crops.repeat(
        4, 1, 1, 1
    )
    each = changed.abs().amax(dim=(1, 2, 3))
    assert 0 < (each > 0).sum() < len(each) / 2 and changed.abs().mean() < 0.05


def test_the_bundled_weights_have_a_smaller_loss_than_new_ones() -> None:
    examples = [critic.example(critic.FIRST_SEED + 10**6 + i) for i in range(4)]
    batch = {key: torch.stack([each[key] for each in examples]) for key in examples[0]}
    model, losses = _new(), []
    with torch.no_grad():
        losses.append(critic.loss(model.eval(), batch, torch.Generator().manual_seed(0)))
        critic.restore(model, ASSETS)
        losses.append(critic.loss(model.eval(), batch, torch.Generator().manual_seed(0)))
    assert 0 < losses[1] < 0.5 * losses[0]


def test_answers_are_figures_and_a_sheet_of_mistakes(tmp_path: Path) -> None:
    model = _new()
    critic.restore(model, ASSETS)
    answers = critic.Answers(critic.Critic(model["critic"].eval()), model["vae"])
    with torch.no_grad():
        for number in range(3):
            answers.ask(number)
    figures = answers.figures()
    assert {"right", "encoded", "blurred", "parts found", "threshold of 97 %"} <= set(figures)
    assert all(0 <= value <= 1 for value in figures.values()) and answers.mistakes().width > 48
    assert set(answers.confidences) - {"right", "encoded"} <= set(critic.LUMPS) and len(KINDS) == 24
