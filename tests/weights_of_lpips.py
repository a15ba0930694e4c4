"""Weights for LPIPS's SqueezeNet, random but named and shaped as the published ones."""

from pathlib import Path

import torch

from maskless.evaluation.measures.lpips import WIDTHS, Lpips


def squeezenet_weights(seed=0):
    """Random weights under the names that torchvision gives SqueezeNet 1.1's, and LPIPS its heads."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(value):
        return torch.randn(value.shape, generator=generator) * (2 / max(value[0].numel(), 1)) ** 0.5

    net = {f"features.{name}": drawn(value) for name, value in Lpips().features.state_dict().items()}
    net["classifier.1.weight"] = torch.zeros(1000, 512, 1, 1)
    heads = {f"lin{i}.model.1.weight": torch.rand(1, w, 1, 1, generator=generator) for i, w in enumerate(WIDTHS)}
    return net, heads


def write_lpips(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    net, heads = squeezenet_weights()
    torch.save(net, folder / "squeezenet1_1-b8a52dc0.pth")
    torch.save(heads, folder / "squeeze.pth")
    return folder
