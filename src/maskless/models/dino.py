"""DINO, frozen: patch features and the attention that says where a picture's things are. Method step 1."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maskless.data.types import PatchFeatures

LARGEST_GRID = 2
"""A picture may have this many times the cells of a square one: attention grows with their square."""

KEY_LAYERS = ("k_proj", "key")
"""What transformers calls a block's key projection, now and in former versions."""


class Dino:
    """A ViT of transformers and its preprocessing: aspect kept, sides rounded to the patch, ImageNet-normalised."""

    def __init__(self, model: Any, *, mean: tuple[float, ...], std: tuple[float, ...], shorter_px: int) -> None:
        """model: a ViTModel with eager attention. mean, std: of RGB in [0, 1]. shorter_px: the shorter side's size."""
        self.model = model.eval().requires_grad_(False)
        self.patch_px = int(model.config.patch_size)
        self.shorter_px = shorter_px
        self.mean = torch.tensor(mean).view(3, 1, 1)
        self.std = torch.tensor(std).view(3, 1, 1)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def input_size_yx(self, size_yx: tuple[int, int]) -> tuple[int, int]:
        """Height and width of DINO's input for a picture of this size: multiples of the patch, at least one."""
        height, width = size_yx
        scale = self.shorter_px / min(height, width)
        cells = scale * scale * height * width / self.patch_px**2
        allowed = LARGEST_GRID * (self.shorter_px / self.patch_px) ** 2
        scale *= min(1.0, math.sqrt(allowed / cells))
        return _rounded(height * scale, self.patch_px), _rounded(width * scale, self.patch_px)

    def preprocess(self, image: Float[Tensor, "3 H W"]) -> Float[Tensor, "1 3 h w"]:
        """An image in [0, 1] as DINO wants it: resized and normalised (mistake 8)."""
        size = self.input_size_yx((image.shape[1], image.shape[2]))
        if tuple(image.shape[1:]) != size:
            resized = F.interpolate(image[None], size=size, mode="bicubic", antialias=True, align_corners=False)
            image = resized[0].clamp(0, 1)
        return ((image - self.mean) / self.std)[None]

    @torch.no_grad()
    def features(self, image: Float[Tensor, "3 H W"]) -> PatchFeatures:
        """Patch features [D, h, w] and the CLS -> patch attention of the last block, mean over heads, sum 1.

        image: RGB in [0, 1], any size and aspect. On the CPU, float32, whatever the device.
        """
        pixels = self.preprocess(image).to(self.device)
        output = self.model(pixel_values=pixels, interpolate_pos_encoding=True, output_attentions=True)
        rows, columns = pixels.shape[2] // self.patch_px, pixels.shape[3] // self.patch_px
        tokens = output.last_hidden_state[0, 1:]
        attention = output.attentions[-1][0, :, 0, 1:].mean(dim=0)
        attention = attention / attention.sum()
        return PatchFeatures(
            features=tokens.T.reshape(-1, rows, columns).float().cpu(),
            attention=attention.reshape(rows, columns).float().cpu(),
            patch_px=self.patch_px,
        )

    @torch.no_grad()
    def keys(self, image: Float[Tensor, "3 H W"]) -> Float[Tensor, "T D"]:
        """Keys of all tokens in the last block, heads side by side, CLS first: what a structure distance compares."""
        layers = [part for name, part in self.model.named_modules() if name.rpartition(".")[2] in KEY_LAYERS]
        caught: list[Tensor] = []
        hook = layers[-1].register_forward_hook(lambda _layer, _given, keys: caught.append(keys))
        try:
            self.model(pixel_values=self.preprocess(image).to(self.device), interpolate_pos_encoding=True)
        finally:
            hook.remove()
        return caught[0][0].float().cpu()


def _rounded(length: float, multiple: int) -> int:
    return max(1, round(length / multiple)) * multiple
