"""What the judge sees in a box."""

from __future__ import annotations

from maskless.evaluation.methods import bench
from maskless.storybook.judge import Detection, Verdict


def _verdict(*objects: tuple[str, str, tuple[float, float, float, float]]) -> Verdict:
    seen = tuple(
        Detection(kind=kind, colour=colour, texture="plain", box_xyxy=box, confidence=0.9)
        for kind, colour, box in objects
    )
    return Verdict(objects=seen, background="meadow", style="flat")


def test_what_is_in_a_box_has_its_centre_there() -> None:
    verdict = _verdict(("car", "red", (10, 10, 30, 30)), ("cat", "blue", (60, 60, 80, 80)))
    assert [d.kind for d in bench.objects_in(verdict, (0, 0, 40, 40))] == ["car"]
    assert bench.shows(verdict, (0, 0, 40, 40), "car", "red")
    assert not bench.shows(verdict, (0, 0, 40, 40), "car", "blue")
    assert not bench.shows(verdict, (0, 0, 40, 40), "cat", "blue")
