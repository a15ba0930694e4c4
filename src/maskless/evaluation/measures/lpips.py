"""LPIPS with SqueezeNet (arXiv 1801.03924), in plain torch: how different two pictures are in a network's features.

The weights are the published ones, from files: torchvision's SqueezeNet 1.1 (squeezenet1_1-*.pth, keys features.*) and
the linear heads of LPIPS 0.1 (squeeze.pth, keys lin0.model.1.weight to lin6.model.1.weight).
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from maskless.data.errors import MasklessError

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's normalisation, for pictures in [-1, 1]."""
WIDTHS = (64, 128, 256, 384, 384, 512, 512)
TAPS = (1, 4, 7, 9, 10, 11, 12)
"""The layers whose outputs are compared, by their numbers in SqueezeNet's features."""
SMALLEST_PX = 17
"""A shorter side would have no pixel left after three poolings."""
FILES = (".pth", ".pt", ".safetensors")


class _Fire(nn.Module):
    """SqueezeNet's module: a squeeze to a few channels, then 1x1 and 3x3 expansions side by side."""

    def __init__(self, channels: int, few: int, each: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, few, 1)
        self.expand1x1 = nn.Conv2d(few, each, 1)
        self.expand3x3 = nn.Conv2d(few, each, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], dim=1)


class Lpips(nn.Module):
    """The distance of two pictures: 0 where they are equal."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(64, 16, 64),
            _Fire(128, 16, 64),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(128, 32, 128),
            _Fire(256, 32, 128),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(256, 48, 192),
            _Fire(384, 48, 192),
            _Fire(384, 64, 256),
            _Fire(512, 64, 256),
        )
        self.heads = nn.ParameterList([nn.Parameter(torch.zeros(1, width, 1, 1)) for width in WIDTHS])
        self.eval().requires_grad_(False)

    @classmethod
    def from_folder(cls, folder: Path) -> Lpips:
        """The network with the weights that the files of a folder hold, whatever the files are called.

        Raises:
            MasklessError: there is no such folder, a file cannot be read, or weights are missing or of other shapes.
        """
        files = sorted(path for path in folder.iterdir() if path.suffix in FILES) if folder.is_dir() else []
        if not files:
            raise MasklessError(
                f"{folder}: must be a folder with SqueezeNet 1.1 (squeezenet1_1-*.pth) and LPIPS's heads (squeeze.pth)"
            )
        found: dict[str, Tensor] = {}
        for file in files:
            found |= _weights(file)
        net = cls()
        wanted = {f"features.{name}": value for name, value in net.features.state_dict().items()}
        wanted |= {f"lin{i}.model.1.weight": head for i, head in enumerate(net.heads)}
        for name, value in wanted.items():
            if name not in found:
                raise MasklessError(f"{folder}: lacks the weights {name} of SqueezeNet 1.1 and LPIPS's heads")
            if found[name].shape != value.shape:
                raise MasklessError(
                    f"{folder}: {name} must be {list(value.shape)} as in SqueezeNet 1.1, got {list(found[name].shape)}"
                )
            value.copy_(found[name])
        return net

    @torch.no_grad()
    def spatial(self, a: Float[Tensor, "3 H W"], b: Float[Tensor, "3 H W"]) -> Float[Tensor, "H W"]:
        """The distance of two pictures in [0, 1] at every pixel; each layer's map is enlarged bilinearly."""
        size = (a.shape[1], a.shape[2])
        return sum(
            F.interpolate(layer, size=size, mode="bilinear", align_corners=False)[0, 0] for layer in self._layers(a, b)
        )  # type: ignore[return-value]

    @torch.no_grad()
    def distance(self, a: Float[Tensor, "3 H W"], b: Float[Tensor, "3 H W"]) -> float:
        """LPIPS of two pictures in [0, 1]: the sum over the layers of each map's mean."""
        return float(sum(layer.mean() for layer in self._layers(a, b)))

    def _layers(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """Each layer's map of squared differences of unit vectors, weighted by its head: [1, 1, h, w]."""
        if a.shape != b.shape or min(a.shape[1:]) < SMALLEST_PX:
            raise MasklessError(
                f"LPIPS needs two pictures of one size, at least {SMALLEST_PX} pixels, got {list(a.shape)} and "
                f"{list(b.shape)}"
            )
        both = (torch.stack([a, b]) * 2 - 1 - _channels(SHIFT)) / _channels(SCALE)
        maps = []
        for number, layer in enumerate(self.features):
            both = layer(both)
            if number in TAPS:
                unit = both / (both.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()
                difference = (unit[:1] - unit[1:]).square()
                maps.append((difference * self.heads[TAPS.index(number)]).sum(dim=1, keepdim=True))
        return maps


def _channels(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


def _weights(file: Path) -> Mapping[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise MasklessError(f"{file}: cannot be read as weights ({type(error).__name__})") from error
    if not isinstance(loaded, dict):
        raise MasklessError(f"{file}: must hold named weights, got {type(loaded).__name__}")
    return loaded
