"""Neighbours: found with the bundled DINO, against the truth of drawn scenes."""

from __future__ import annotations

import torch

from maskless.data.masks import box_mask
from maskless.engine.editor import Editor
from maskless.locating.neighbours import neighbours, replaced_object
from maskless.locating.view import PictureView
from maskless.storybook.world.graph import SceneGraph, SceneObject
from maskless.storybook.world.scenes import Scene, draw

SIZE_YX = (256, 256)


def _scene() -> Scene:
    """A red car on the left and a blue cactus on the right, which do not touch."""
    car = SceneObject(kind="car", colour="red", centre_xy=(0.3, 0.6), size=0.36)
    cactus = SceneObject(kind="cactus", colour="blue", centre_xy=(0.75, 0.55), size=0.45)
    graph = SceneGraph(objects=(car, cactus), background="meadow", style="flat", horizon=0.55, detail_seed=3)
    return draw(graph, SIZE_YX[0])


def _view(scene: Scene) -> PictureView:
    return Editor.from_pretrained("storybook", device="cpu", dtype="float32").look(scene.image)


def _region(scene: Scene, into_cactus: float) -> tuple[int, int, int, int]:
    """The car's box with some room, to the right up to this share of the cactus' box (below 0 before it)."""
    (x0, y0, _x1, y1), (left, _top, right, _bottom) = (item.box_xyxy for item in scene.objects)
    return x0 - 4, y0 - 20, round(left + into_cactus * (right - left)), y1 + 20


def test_what_reaches_into_a_region_is_found_and_its_own_object_is_not() -> None:
    scene = _scene()
    car, cactus = (torch.from_numpy(item.mask) for item in scene.objects)
    region = _region(scene, 0.4)
    found = neighbours(_view(scene), region, replaces=True)
    assert found is not None and found.shape == SIZE_YX
    reaching = cactus & box_mask(region, SIZE_YX)
    assert int(reaching.sum()) > 100 and float(found[reaching].float().mean()) > 0.9
    assert not (found & car).any() and not (found & ~box_mask(region, SIZE_YX)).any()


def test_the_object_that_covers_most_of_a_region_is_the_replaced_one() -> None:
    scene = _scene()
    view = _view(scene)
    car, cactus = (torch.from_numpy(item.mask) for item in scene.objects)
    found = replaced_object(view, _region(scene, 0.4))
    assert found is not None and float(found[car].float().mean()) > 0.9 and not (found & cactus).any()
    assert replaced_object(view, (0, 0, 40, 30)) is None, "only the sky is there"


def test_a_region_without_neighbours_keeps_nothing() -> None:
    scene = _scene()
    assert neighbours(_view(scene), _region(scene, -0.2), replaces=True) is None


def test_the_object_of_a_region_that_is_too_small_is_no_neighbour_if_it_is_replaced() -> None:
    scene = _scene()
    view = _view(scene)
    x0, y0, x1, y1 = scene.objects[0].box_xyxy
    corner = (x0, y0 - 40, x0 + round(0.3 * (x1 - x0)), y1)
    assert neighbours(view, corner, replaces=True) is None
    found = neighbours(view, corner, replaces=False)
    assert found is not None and found[torch.from_numpy(scene.objects[0].mask)].any()
