"""The critic: a network that says of one object of a picture whether it is drawn right, and which of its parts it has.

It is the stricter judge of evaluation. The judge (judge.py) recognises an object also by a blurred or melted drawing of
it; the critic was trained on such lumps as a class of their own, "not drawn right". `training/critic.py` trains it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from maskless.storybook.judge import Block, load_weights, save_weights
from maskless.storybook.world.graph import KINDS
from maskless.storybook.world.shapes import PARTS
from maskless.storybook.world.sheets import to_tensor

CROP = 48
"""Pixels along the crops that the critic sees."""
ROOM = 1.3
"""Side of a crop as a multiple of the longer side of the object's box."""
RIGHT_THRESHOLD, PART_THRESHOLD = 0.6, 0.85
"""At the first, 95 % of right flat drawings of validation scenes pass, half of them encoded and decoded; at the second,
96 % of the visible parts of right flat drawings are found (docs/training-log.md)."""


class CriticNet(nn.Module):
    """A convolutional classifier of crops, of the judge's blocks; it has seven of the judge's eleven on the way down.

    From crops [N, 3, 48, 48] in [0, 1] it computes logits: "kind" [N, 24], "right" [N], that the object is drawn right,
    and "parts" [N, P], of each name of PARTS by itself.
    """

    def __init__(self, widths: tuple[int, int, int] = (64, 128, 192)) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(24, fine, 3, stride=2, padding=1)
        )
        self.fine = nn.Sequential(Block(fine), Block(fine))
        self.to_middle = nn.Conv2d(fine, middle, 2, stride=2)
        self.middle = nn.Sequential(Block(middle), Block(middle))
        self.to_coarse = nn.Conv2d(middle, coarse, 2, stride=2)
        self.coarse = nn.Sequential(Block(coarse))
        self.hidden = nn.Sequential(nn.Linear(2 * (fine + middle + coarse), 96), nn.ReLU())
        self.kind, self.right, self.parts = nn.Linear(96, len(KINDS)), nn.Linear(96, 1), nn.Linear(96, len(PARTS))

    def forward(self, crop: Tensor) -> dict[str, Tensor]:
        fine = self.fine(self.stem(crop * 2 - 1))
        middle = self.middle(self.to_middle(fine))
        coarse = self.coarse(self.to_coarse(middle))
        pooled = [pool for maps in (fine, middle, coarse) for pool in (maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3)))]
        hidden = self.hidden(torch.cat(pooled, dim=1))
        return {"kind": self.kind(hidden), "right": self.right(hidden)[:, 0], "parts": self.parts(hidden)}


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What the critic says of one object.

    kind: what it is a right drawing of; None where it is not drawn right. confidence: the probability that it is one of
    its most probable kind, in [0, 1]. parts: the named parts that it has.
    """

    kind: str | None
    confidence: float
    parts: frozenset[str]


class Critic:
    """Examines objects of pictures of any size, of each a crop of 48 pixels.

    right: the least probability of a kind at which an object counts as drawn right. part: that of a part. Both in
    [0, 1].
    """

    def __init__(self, net: CriticNet, right: float = RIGHT_THRESHOLD, part: float = PART_THRESHOLD) -> None:
        self.net, self.right, self.part = net.eval(), right, part

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Critic:
        """The critic whose weights lie in a folder.

        Raises:
            MasklessError: the weights are missing, damaged or of another architecture; it names the file.
        """
        net = CriticNet()
        load_weights(net, Path(folder), "critic")
        return cls(net)

    def save(self, folder: Path) -> None:
        """Write model.safetensors, in 16 bits, and config.json, which lists the kinds and parts that it knows."""
        save_weights(self.net, folder)
        description = {"kinds": KINDS, "parts": PARTS, "crop": CROP, "room": ROOM}
        (folder / "config.json").write_text(json.dumps(description, indent=2))

    @torch.no_grad()
    def probabilities(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Of crops [N, 3, 48, 48] in [0, 1]: of a right drawing of each kind [N, 24], and of each part [N, P]."""
        device = next(self.net.parameters()).device
        with torch.autocast(device.type, enabled=False):
            outs = [self.net(part.to(device)) for part in crops.split(64)]
        kind, right, parts = (torch.cat([out[name] for out in outs]).cpu() for name in ("kind", "right", "parts"))
        return kind.softmax(dim=1) * right.sigmoid()[:, None], parts.sigmoid()

    def examine(self, images: Sequence[Image.Image], boxes_xyxy: Sequence[Sequence[float]]) -> list[Opinion]:
        """What the critic says of the object in a box of each RGB picture, the boxes in pixels."""
        if not images:
            return []
        pairs = zip(images, boxes_xyxy, strict=True)
        drawn, parts = self.probabilities(torch.stack([to_tensor(crop_around(*pair)) for pair in pairs]))
        opinions = []
        for of_kinds, of_parts in zip(drawn, parts, strict=True):
            best = int(of_kinds.argmax())
            confidence = float(of_kinds[best])
            opinions.append(
                Opinion(
                    kind=KINDS[best] if confidence >= self.right else None,
                    confidence=confidence,
                    parts=frozenset(PARTS[i] for i in torch.nonzero(of_parts >= self.part).flatten().tolist()),
                )
            )
        return opinions


def crop_around(image: Image.Image, box_xyxy: Sequence[float], room: float = ROOM) -> Image.Image:
    """The square around a box, `room` times its longer side and moved into the picture, as 48 x 48 pixels."""
    x0, y0, x1, y1 = box_xyxy
    width = min(max(x1 - x0, y1 - y0, 4) * room, *image.size)
    left = min(max((x0 + x1 - width) / 2, 0), image.width - width)
    top = min(max((y0 + y1 - width) / 2, 0), image.height - width)
    window = (left, top, left + width, top + width)
    return image.resize((CROP, CROP), Image.Resampling.BICUBIC, box=window)
