"""The suite of model gates runs on the bundled models, and its parts see what they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskless.evaluation.suite import SuiteOptions
from maskless.evaluation.suites import models as suite
from maskless.models.inpainters.latent_unet import StableDiffusionInpainter
from maskless.models.pretrained import load_models
from maskless.storybook.judge import Detection, Verdict
from maskless.storybook.world.edits import choose_other


def _verdict(*objects: tuple[str, str, tuple[float, float, float, float]]) -> Verdict:
    seen = tuple(
        Detection(kind=kind, colour=colour, texture="plain", box_xyxy=box, confidence=0.9)
        for kind, colour, box in objects
    )
    return Verdict(objects=seen, background="meadow", style="flat")


def test_what_is_in_a_box_has_its_centre_there() -> None:
    verdict = _verdict(("car", "red", (10, 10, 30, 30)), ("cat", "blue", (60, 60, 80, 80)))
    assert [d.kind for d in suite.objects_in(verdict, (0, 0, 40, 40))] == ["car"]
    assert suite.shows(verdict, (0, 0, 40, 40), "car", "red")
    assert not suite.shows(verdict, (0, 0, 40, 40), "car", "blue")
    assert not suite.shows(verdict, (0, 0, 40, 40), "cat", "blue")


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
        taken.append(given[-1].steps)  # type: ignore[attr-defined]
        return filled(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(StableDiffusionInpainter, "inpaint", watched)
    monkeypatch.setattr(suite, "GATES", (suite.inpainting,))
    suite.run(SuiteOptions(split="validation", limit=2, steps=steps))
    assert taken and set(taken) == {steps or load_models().inpainter.recommended_steps}
