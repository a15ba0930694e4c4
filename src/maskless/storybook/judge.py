"""The judge: a network that detects the objects of a drawn picture, and the comparison of what it finds with the truth.

Only evaluation uses it, to check whether an edit did what was requested. `training/judge.py` trains it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from maskless.data.errors import MasklessError
from maskless.storybook.world.backgrounds import BACKGROUNDS
from maskless.storybook.world.graph import COLOURS, KINDS, TEXTURES
from maskless.storybook.world.scenes import VisibleObject
from maskless.storybook.world.sheets import to_tensor
from maskless.storybook.world.styles import STYLES

STRIDE = 4  # pixels of the input along a cell of the output maps
SIDE = 128  # pixels along the input


class Block(nn.Module):
    """A residual block of a wide depthwise convolution and a pointwise bottleneck (ConvNeXt, arXiv 2201.03545)."""

    def __init__(self, width: int, kernel: int = 5) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.BatchNorm2d(width)
        self.grow = nn.Conv2d(width, 3 * width, 1)
        self.shrink = nn.Conv2d(3 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shrink(F.relu(self.grow(self.norm(self.spatial(x)))))


class JudgeNet(nn.Module):
    """A convolutional detector of object centres, after CenterNet (arXiv 1904.07850).

    From pictures [N, 3, H, W] in [0, 1] it computes maps at a quarter of the resolution: "heat" (logits of object
    centres), "kind", "colour" and "texture" (logits), "box" (logarithms of the distances from the cell's centre to the
    left, top, right and bottom edge, in cells); and for the whole picture the logits "background" and "style".
    """

    def __init__(self, widths: tuple[int, int, int] = (64, 128, 192)) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(24, fine, 3, stride=2, padding=1)
        )
        self.fine = nn.Sequential(Block(fine), Block(fine))
        self.to_middle = nn.Conv2d(fine, middle, 2, stride=2)
        self.middle = nn.Sequential(*[Block(middle) for _ in range(3)])
        self.to_coarse = nn.Conv2d(middle, coarse, 2, stride=2)
        self.coarse = nn.Sequential(*[Block(coarse) for _ in range(3)])
        self.up_middle = nn.Conv2d(coarse, middle, 1)
        self.join_middle = nn.Sequential(Block(middle), Block(middle))
        self.up_fine = nn.Conv2d(middle, fine, 1)
        self.join_fine = nn.Sequential(Block(fine), Block(fine))
        self.sizes = {"heat": 1, "kind": len(KINDS), "colour": len(COLOURS), "texture": len(TEXTURES), "box": 4}
        self.head = nn.Sequential(
            nn.Conv2d(fine, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, sum(self.sizes.values()), 1)
        )
        self.background, self.style = nn.Linear(coarse, len(BACKGROUNDS)), nn.Linear(coarse, len(STYLES))
        nn.init.constant_(self.head[-1].bias[:1], -4.0)  # type: ignore[index]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        fine = self.fine(self.stem(image * 2 - 1))
        middle = self.middle(self.to_middle(fine))
        coarse = self.coarse(self.to_coarse(middle))
        pooled = coarse.mean(dim=(2, 3))
        middle = self.join_middle(middle + F.interpolate(self.up_middle(coarse), scale_factor=2.0))
        fine = self.join_fine(fine + F.interpolate(self.up_fine(middle), scale_factor=2.0))
        maps = dict(zip(self.sizes, self.head(fine).split(list(self.sizes.values()), dim=1), strict=True))
        return {**maps, "background": self.background(pooled), "style": self.style(pooled)}


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One detected object; its box is (x0, y0, x1, y1) in pixels of the picture, its confidence in [0, 1]."""

    kind: str
    colour: str
    texture: str
    box_xyxy: tuple[float, float, float, float]
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Everything that the judge recognises in one picture, the most confident object first."""

    objects: tuple[Detection, ...]
    background: str
    style: str


@dataclass(frozen=True, kw_only=True)
class Match:
    """The comparison of detections with the truth.

    `right` counts the true objects detected in their kind and colour at an IoU of at least 0.5, `extra` the detections
    that remain when each true object has been assigned its own.
    """

    right: int
    extra: int


def load_weights(net: nn.Module, folder: Path, name: str) -> None:
    """Load a network's model.safetensors from a folder. name: what the network is, for messages.

    Raises:
        MasklessError: the weights are missing, damaged or of another architecture; it names the file.
    """
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise MasklessError(f"{weights}: no such file (expected the {name}'s weights)")
    try:
        net.load_state_dict({key: value.float() for key, value in load_file(weights).items()})
    except (SafetensorError, RuntimeError, OSError) as error:
        raise MasklessError(
            f"{weights}: damaged, or not of the {name}'s architecture ({type(error).__name__})"
        ) from error


def save_weights(net: nn.Module, folder: Path) -> None:
    """Write a network's model.safetensors, in 16 bits, into a folder, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.half() if value.is_floating_point() else value for key, value in net.state_dict().items()}
    save_file({key: value.contiguous().cpu() for key, value in state.items()}, folder / "model.safetensors")


class Judge:
    """Detects objects in pictures of any size, which it resizes to 128 x 128 pixels.

    `threshold` is the least confidence of a detection, in [0, 1].
    """

    def __init__(self, net: JudgeNet, threshold: float = 0.3) -> None:
        self.net, self.threshold = net.eval(), threshold

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Judge:
        """The judge whose weights lie in a folder.

        Raises:
            MasklessError: the weights are missing, damaged or of another architecture; it names the file.
        """
        net = JudgeNet()
        load_weights(net, Path(folder), "judge")
        return cls(net)

    def save(self, folder: Path) -> None:
        """Write model.safetensors, in 16 bits, and config.json, which lists what the judge can recognise."""
        save_weights(self.net, folder)
        description = {
            "kinds": KINDS,
            "colours": list(COLOURS),
            "textures": TEXTURES,
            "backgrounds": list(BACKGROUNDS),
            "styles": list(STYLES),
            "stride": STRIDE,
            "side": SIDE,
        }
        (folder / "config.json").write_text(json.dumps(description, indent=2))

    @torch.no_grad()
    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """What each RGB picture shows."""
        device = next(self.net.parameters()).device
        verdicts: list[Verdict] = []
        for start in range(0, len(images), 32):
            part = images[start : start + 32]
            small = [
                image if image.size == (SIDE, SIDE) else image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                for image in part
            ]
            with torch.autocast(device.type, enabled=False):
                out = self.net(torch.stack([to_tensor(image) for image in small]).to(device))
            verdicts += [
                self._decode({k: v[i].float().cpu() for k, v in out.items()}, image) for i, image in enumerate(part)
            ]
        return verdicts

    def _decode(self, out: dict[str, Tensor], image: Image.Image) -> Verdict:
        """The network's output for one picture as detections: the local maxima of the heat map, overlaps left out."""
        heat = out["heat"].sigmoid()[0]
        peak = heat == F.max_pool2d(heat[None, None], 3, stride=1, padding=1)[0, 0]
        rows, columns = torch.nonzero(peak & (heat > self.threshold), as_tuple=True)
        objects: list[Detection] = []
        for row, column in sorted(zip(rows.tolist(), columns.tolist(), strict=True), key=lambda rc: -heat[rc].item()):
            left, top, right, bottom = (out["box"][:, row, column].exp() * STRIDE).tolist()
            x, y, sx, sy = (column + 0.5) * STRIDE, (row + 0.5) * STRIDE, image.width / SIDE, image.height / SIDE
            names = {
                name: options[int(out[name][:, row, column].argmax())]
                for name, options in (("kind", KINDS), ("colour", tuple(COLOURS)), ("texture", TEXTURES))
            }
            box = ((x - left) * sx, (y - top) * sy, (x + right) * sx, (y + bottom) * sy)
            if all(iou(box, other.box_xyxy) < 0.6 for other in objects):
                objects.append(Detection(box_xyxy=box, confidence=heat[row, column].item(), **names))
        return Verdict(
            objects=tuple(objects),
            background=tuple(BACKGROUNDS)[int(out["background"].argmax())],
            style=tuple(STYLES)[int(out["style"].argmax())],
        )


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(w, 0.0) * max(h, 0.0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def match_objects(found: Sequence[Detection], truth: Sequence[VisibleObject]) -> Match:
    """Assign to each true object, in order, the remaining detection that overlaps it most."""
    free, right = list(found), 0
    for item in truth:
        best = max(free, key=lambda d: iou(d.box_xyxy, item.box_xyxy), default=None)
        if best is None or iou(best.box_xyxy, item.box_xyxy) < 0.5:
            continue
        free.remove(best)
        right += (best.kind, best.colour) == (item.kind, item.colour)
    return Match(right=right, extra=len(free))
