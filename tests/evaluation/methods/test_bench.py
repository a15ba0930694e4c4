"""What the judge sees in a box."""

from __future__ import annotations

from PIL import ImageFilter

from maskless.evaluation.methods import bench
from maskless.storybook.critic import Critic
from maskless.storybook.judge import Detection, Verdict
from maskless.storybook.train import ASSETS
from maskless.storybook.world.graph import SceneGraph, SceneObject
from maskless.storybook.world.scenes import draw


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


def test_an_object_is_drawn_right_if_judge_and_critic_agree() -> None:
    critic = Critic.from_pretrained(ASSETS / "critic")
    car = SceneObject(kind="car", colour="red", centre_xy=(0.5, 0.5), size=0.5)
    scene = draw(SceneGraph(objects=(car,), background="meadow", style="flat", horizon=0.6, detail_seed=0), 192)
    seen = _verdict(("car", "red", scene.objects[0].box_xyxy)).objects
    assert bench.drawn_right(critic, scene.image, seen, "car", "red")
    assert not bench.drawn_right(critic, scene.image.filter(ImageFilter.GaussianBlur(12)), seen, "car", "red")
    assert not bench.drawn_right(critic, scene.image, seen, "car", "blue")
    assert not bench.drawn_right(critic, scene.image, _verdict(("cat", "red", seen[0].box_xyxy)).objects, "cat", "red")
    assert not bench.drawn_right(critic, scene.image, (), "car", "red")
