"""The suite of model gates runs on the bundled models, and its parts see what they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskless.evaluation.suite import SuiteOptions
from maskless.evaluation.suites import models as suite
from maskless.models.inpainters.latent_unet import StableDiffusionInpainter
from maskless.models.pretrained import load_models
from maskless.storybook.world.edits import choose_other


def test_other_never_gives_the_same() -> None:
    rng = np.random.default_rng(0)
    assert {choose_other(("a", "b", "c"), "b", rng) for _ in range(50)} == {"a", "c"}


@pytest.mark.slow
def test_every_gate_gives_rows_with_intervals_on_held_out_scenes(tmp_path: Path) -> None:
    rows = suite.run(SuiteOptions(limit=6, sheets=tmp_path))
    assert {row["task"] for row in rows} == {"autoencoder", "clip", "dino", "judge", "inpainting"}
    for row in rows:
        assert set(row) >= {"suite", "method", "task", "metric", "value", "low", "high", "n", "gate"}
        assert row["low"] <= row["value"] <= row["high"] and row["n"] > 0
    assert (tmp_path / "inpainting.png").stat().st_size > 1000


@pytest.mark.parametrize("steps", [None, 3])
def test_the_inpainter_takes_the_steps_that_are_given_or_its_own(
    monkeypatch: pytest.MonkeyPatch, steps: int | None
) -> None:
    taken: list[int] = []
    filled = StableDiffusionInpainter.inpaint

    def watched(self: StableDiffusionInpainter, *given: object) -> object:
        if not self.takes_picture:  # the redrawer refines with steps of its own
            taken.append(given[-1].steps)  # type: ignore[attr-defined]
        return filled(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(StableDiffusionInpainter, "inpaint", watched)
    monkeypatch.setattr(suite, "GATES", (suite.inpainting,))
    suite.run(SuiteOptions(split="validation", limit=2, steps=steps))
    assert taken and set(taken) == {steps or load_models().inpainter.recommended_steps}
