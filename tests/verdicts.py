"""What a judge that makes no mistakes sees in a scene."""

import dataclasses

from maskless.storybook.judge import Detection, Verdict
from maskless.storybook.world.scenes import Scene


def true_verdict(scene: Scene, **changes) -> Verdict:
    """A verdict that sees exactly what is in a scene, with these changes."""
    objects = tuple(
        Detection(kind=t.kind, colour=t.colour, texture=t.texture, box_xyxy=t.box_xyxy, confidence=1.0)
        for t in scene.objects
    )
    return dataclasses.replace(
        Verdict(objects=objects, background=scene.graph.background, style=scene.graph.style), **changes
    )
