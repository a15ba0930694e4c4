"""How exactly a picture that drifted is aligned with its original again, and what is refused.

    python benchmarks/alignment.py [--sizes 128 256 512] [--pictures FOLDER] [--noise 2]

Each picture gets noise of another colour in its middle, drifts by a known amount, and gets Gaussian noise of a model's
autoencoder (standard deviation in levels of 0 to 255). The error is the largest displacement that remains at a corner
of the region, in pixels. Without --pictures, the bundled samples are used.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from maskless.data.config import EditConfig
from maskless.data.paste import resize
from maskless.data.picture import load_image
from maskless.evaluation.measures.drift import Drift
from maskless.method.alignment import align
from maskless.method.registration import displacement_px, register

SAMPLES = Path(str(resources.files("maskless"))) / "assets" / "samples"
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif"}
WARM, COLD = ((1.1, 0.95, 0.85), (0.02, -0.03, 0.05)), ((0.9, 1.0, 1.1), (-0.02, 0.0, 0.03))
KINDS: dict[str, list[Drift]] = {
    "nothing": [Drift()],
    "a shift of 0.5 to 6": [Drift(shift_xy_px=shift) for shift in ((0.5, 0.0), (1.0, -1.0), (-2.5, 3.0), (6.0, 2.0))],
    "a shift of 12 to 24": [Drift(shift_xy_px=shift) for shift in ((12.0, 5.0), (-18.0, 0.0), (0.0, 24.0))],
    "a zoom of 0.9 to 1.1": [Drift(scale=scale) for scale in (0.9, 0.97, 1.03, 1.1)],
    "a colour cast": [Drift(gain_rgb=gain, offset_rgb=offset) for gain, offset in (WARM, COLD)],
    "a blur of 1": [Drift(shift_xy_px=(3.0, -2.0), blur_px=1.0)],
    "a blur of 2": [Drift(shift_xy_px=(3.0, -2.0), blur_px=2.0)],
    "shift, zoom, cast and blur": [
        Drift(shift_xy_px=(8.0, -5.0), scale=1.05, gain_rgb=WARM[0], offset_rgb=WARM[1], blur_px=1.0),
        Drift(shift_xy_px=(-14.0, 9.0), scale=0.93, gain_rgb=COLD[0], offset_rgb=COLD[1], blur_px=1.0),
    ],
}


def main() -> None:
    """Print one table for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--pictures", type=Path, default=SAMPLES)
    parser.add_argument("--noise", type=float, default=2.0)
    chosen = parser.parse_args()
    files = sorted(file for file in chosen.pictures.iterdir() if file.suffix.lower() in SUFFIXES)
    for side in chosen.sizes:
        pictures = [square(load_image(file).rgb, side) for file in files]
        print(f"\n{len(pictures)} pictures of {side} x {side} pixels\n")
        print("| what the editor does | median error | largest error | moved back | aligned | residual |")
        print("|---|---|---|---|---|---|")
        for kind, drifts in KINDS.items():
            print(row(kind, pictures, drifts, chosen.noise))
        print(unrelated(pictures))


def row(kind: str, pictures: Sequence[Tensor], drifts: Sequence[Drift], noise: float) -> str:
    """A line of the table: a kind of drift, over all pictures."""
    errors, residuals, warped, aligned = [], [], 0, 0
    for number, picture in enumerate(pictures):
        for drift in drifts:
            region = middle(picture)
            generator = torch.Generator().manual_seed(number)
            returned = drift(edited(picture, region, generator))
            returned = (returned + noise / 255 * torch.randn(returned.shape, generator=generator)).clamp(0, 1)
            found, taken = register(returned, picture, region), align(returned, picture, region, limit=LIMIT)
            assert found is not None and taken is not None
            aligned += taken.alignment.aligned
            warped += taken.alignment.warped
            matrix = found.matrix if taken.alignment.warped else np.eye(3)
            left = np.linalg.inv(drift.matrix(region.shape)) @ matrix
            errors.append(displacement_px(left / left[2, 2], region))
            residuals.append(found.residual)
    count = len(errors)
    return (
        f"| {kind} | {median(errors):.2f} | {max(errors):.2f} | {warped} of {count} | {aligned} of {count} | "
        f"up to {max(residuals):.2f} |"
    )


def unrelated(pictures: Sequence[Tensor]) -> str:
    """A line about pictures that cannot be aligned: three of the others upside down, its own, and noise."""
    taken = []
    for number, picture in enumerate(pictures):
        noise = torch.rand(picture.shape, generator=torch.Generator().manual_seed(number))
        others = [other for other in pictures if other is not picture]
        for other in [*(each.flip(1) for each in [picture, *others[:3]]), noise]:
            found = align(other, picture, middle(picture), limit=LIMIT)
            assert found is not None
            taken.append(found.alignment)
    refused = sum(not each.aligned for each in taken)
    least = min(each.residual for each in taken)
    return f"\nOf {len(taken)} unrelated pictures {refused} are refused; the least residual is {least:.2f}."


def square(picture: Tensor, side: int) -> Tensor:
    """The middle of a picture, of this side."""
    shorter = min(picture.shape[1:])
    top, left = ((length - shorter) // 2 for length in picture.shape[1:])
    return resize(picture[:, top : top + shorter, left : left + shorter].contiguous(), (side, side))


def middle(picture: Tensor) -> Tensor:
    """The region: two fifths of each side, a little off the middle."""
    side = picture.shape[1]
    region = torch.zeros(side, side, dtype=torch.bool)
    region[int(0.35 * side) : int(0.75 * side), int(0.28 * side) : int(0.68 * side)] = True
    return region


def edited(picture: Tensor, region: Tensor, generator: torch.Generator) -> Tensor:
    """The picture with noise of another colour in the region."""
    noise = torch.rand(picture.shape, generator=generator)
    return torch.where(region, 0.3 * noise + torch.tensor([0.6, 0.1, 0.4])[:, None, None], picture)


LIMIT = EditConfig().align_limit

if __name__ == "__main__":
    main()
