"""Pictures and editors that drift by known amounts, for the tests of the region lock."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F

from maskless.data.paste import resize
from maskless.data.picture import load_image
from maskless.evaluation.measures.drift import Drift

ASSETS = Path(str(resources.files("maskless"))) / "assets"
SAMPLES = ASSETS / "samples"
WARM = {"gain_rgb": (1.1, 0.95, 0.85), "offset_rgb": (0.02, -0.03, 0.05)}


def picture_of(name: str, side: int) -> torch.Tensor:
    """A bundled sample or photograph, squeezed into a square."""
    file = next(path for folder in ("samples", "photographs") for path in (ASSETS / folder).glob(f"{name}.*"))
    return resize(load_image(file).rgb, (side, side))


def middle(side: int) -> torch.Tensor:
    region = torch.zeros(side, side, dtype=torch.bool)
    region[int(0.35 * side) : int(0.7 * side), int(0.3 * side) : int(0.65 * side)] = True
    return region


def edited(picture: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """The picture with noise of another colour in the region."""
    noise = torch.rand(picture.shape, generator=torch.Generator().manual_seed(0))
    return torch.where(region, 0.3 * noise + torch.tensor([0.6, 0.1, 0.4])[:, None, None], picture)


class DriftingEditor:
    """A real editor whose pictures drift before they are returned; whatever else is asked of it, the editor answers.

    drifts: by the seed of the noise, so that every candidate can have its own; a seed without an entry does not drift,
    and None as an entry returns noise.
    """

    takes_picture = redraws_window = True

    def __init__(self, editor: Any, drifts: dict[int, Drift | None]) -> None:
        self._editor, self._drifts = editor, drifts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._editor, name)

    def inpaint(self, images, masks, prompt, sampling):
        drawn = self._editor.inpaint(images, masks, prompt, sampling)
        drift = self._drifts.get(sampling.seed, Drift())
        if drift is None:
            return torch.randint(0, 256, drawn.shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        return torch.stack([(drift(each / 255) * 255).round().to(torch.uint8) for each in drawn])


def make_kontext_drift(pipeline: Any, cells: int) -> None:
    """Let a Kontext redraw its reference picture `cells` latents further right, whatever the prompt is.

    Its own pipeline runs as ever. The transformer is replaced by the velocity that leads to the moved reference, and
    the autoencoder by one whose latents are the picture at half of its size, because random weights show nothing.
    """

    def velocity(hidden_states, timestep, **_given):
        now, reference = hidden_states.chunk(2, dim=1)
        side = round(now.shape[1] ** 0.5)  # in patches of two by two latents
        grid = reference.unflatten(1, (side, side)).roll(cells // 2, dims=2)
        found = (now - grid.flatten(1, 2)) / timestep[:, None, None]
        return (torch.cat([found, torch.zeros_like(found)], dim=1),)

    def encode(pictures):
        small = F.avg_pool2d(pictures, 2)
        latents = torch.cat([small, small[:, :1]], dim=1)
        return SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda _generator: latents, mode=lambda: latents))

    def decode(latents, return_dict=True):
        return (F.interpolate(latents[:, :3], scale_factor=2.0, mode="bicubic").clamp(-1, 1),)

    pipeline.transformer.forward = velocity
    pipeline.vae.encode, pipeline.vae.decode = encode, decode
