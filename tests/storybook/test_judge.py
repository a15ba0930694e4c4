"""The judge's decoding, its comparison with the truth, and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.storybook.judge import Detection, Judge, JudgeNet, iou, match_objects
from maskless.storybook.training.judge import targets
from maskless.storybook.world.graph import COLOURS, KINDS, TEXTURES
from maskless.storybook.world.scenes import VisibleObject, render


def _truth(kind: str, colour: str, box: tuple[int, int, int, int]) -> VisibleObject:
    mask = np.zeros((128, 128), dtype=bool)
    return VisibleObject(kind=kind, colour=colour, texture="plain", box_xyxy=box, mask=mask, index=0)


def _seen(kind: str, colour: str, box: tuple[float, float, float, float]) -> Detection:
    return Detection(kind=kind, colour=colour, texture="plain", box_xyxy=box, confidence=0.9)


def test_iou_by_hand() -> None:
    assert iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0


def test_a_match_needs_kind_colour_and_location_and_is_used_once() -> None:
    truth = [_truth("car", "red", (0, 0, 20, 20)), _truth("car", "red", (60, 60, 80, 80))]
    one = _seen("car", "red", (1, 1, 21, 21))
    assert match_objects([one], truth) == type(match_objects([], []))(right=1, extra=0)
    assert match_objects([one, _seen("car", "blue", (60, 60, 80, 80))], truth).right == 1
    assert match_objects([one, _seen("cat", "red", (60, 60, 80, 80))], truth).right == 1
    assert match_objects([one, _seen("car", "red", (75, 75, 95, 95))], truth).extra == 1
    assert match_objects([], truth).right == 0


def test_the_targets_of_a_scene_decode_to_its_objects() -> None:
    """Targets and decoding fit together: the targets of the training, decoded, are the truth of the scene."""
    judge = Judge(JudgeNet())
    for seed in range(30):
        scene = render(seed)
        goal = targets(scene)
        maps = {"heat": torch.logit(goal["heat"].clamp(1e-4, 1 - 1e-4)), "box": goal["box"].clamp_min(0.1).log()}
        for name, options in (("kind", KINDS), ("colour", tuple(COLOURS)), ("texture", TEXTURES)):
            maps[name] = torch.nn.functional.one_hot(goal[name].clamp_min(0).long(), len(options)).permute(2, 0, 1)
        maps |= {"background": torch.zeros(9), "style": torch.zeros(4)}
        verdict = judge._decode(maps, scene.image)
        assert match_objects(verdict.objects, scene.objects).right == len(scene.objects)
        assert len(verdict.objects) == len(scene.objects)


def test_boxes_are_in_pixels_of_the_picture_given(tmp_path: Path) -> None:
    scene = render(next(s for s in range(50) if render(s).objects))
    goal = targets(scene)
    maps = {"heat": torch.logit(goal["heat"].clamp(1e-4, 1 - 1e-4)), "box": goal["box"].clamp_min(0.1).log()}
    maps |= {"kind": torch.zeros(24, 32, 32), "colour": torch.zeros(10, 32, 32), "texture": torch.zeros(4, 32, 32)}
    maps |= {"background": torch.zeros(9), "style": torch.zeros(4)}
    judge = Judge(JudgeNet())
    small = judge._decode(maps, scene.image).objects[0].box_xyxy
    large = judge._decode(maps, scene.image.resize((256, 384))).objects[0].box_xyxy
    assert large == pytest.approx((small[0] * 2, small[1] * 3, small[2] * 2, small[3] * 3))


def test_saved_and_loaded_it_sees_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    judge = Judge(JudgeNet(), threshold=0.01)
    judge.save(tmp_path)
    again = Judge.from_pretrained(tmp_path)
    image = torch.rand(1, 3, 128, 128)
    assert torch.allclose(judge.net(image)["kind"], again.net(image)["kind"], atol=2e-2)
    assert json.loads((tmp_path / "config.json").read_text())["kinds"] == list(KINDS)


def test_a_missing_truncated_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MasklessError, match="model.safetensors: no such file"):
        Judge.from_pretrained(tmp_path)
    Judge(JudgeNet()).save(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(MasklessError, match="model.safetensors: damaged"):
        Judge.from_pretrained(tmp_path)
    Judge(JudgeNet(widths=(32, 64, 96))).save(tmp_path)
    with pytest.raises(MasklessError, match="not of the judge's architecture"):
        Judge.from_pretrained(tmp_path)
