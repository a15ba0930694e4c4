"""DINO, frozen: patch features and the attention that says where a picture's things are. Method step 1."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maskless.data.types import PatchFeatures
from maskless.models.memory import execution_device

LARGEST_GRID = 2
"""A picture may have this many times the cells of a square one: attention grows with their square."""

KEY_LAYERS = ("k_proj", "key")
"""What transformers calls a block's key projection, now and in former versions."""


class Dino:
    """A ViT of transformers and its preprocessing: aspect kept, sides rounded to the patch, ImageNet-normalised."""

    def __init__(self, model: Any, *, mean: tuple[float, ...], std: tuple[float, ...], shorter_px: int) -> None:
        """model: a ViTModel (DINO), a Dinov2Model or a Dinov2WithRegistersModel, with eager attention. mean, std: of
        RGB in [0, 1]. shorter_px: the shorter side's size."""
        self.model = model.eval().requires_grad_(False)
        self.patch_px = int(model.config.patch_size)
        # CLS comes first, then the registers, which belong to no place in the picture.
        self._before_patches = 1 + int(getattr(model.config, "num_register_tokens", 0))
        self.shorter_px = shorter_px
        self.mean = torch.tensor(mean).view(3, 1, 1)
        self.std = torch.tensor(std).view(3, 1, 1)

    @property
    def device(self) -> torch.device:
        return execution_device(self.model)

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
        rows, columns = pixels.shape[2] // self.patch_px, pixels.shape[3] // self.patch_px
        hidden, attentions = self._run(pixels)
        tokens = hidden[0, self._before_patches :]
        attention = attentions[0, :, 0, self._before_patches :].mean(dim=0)
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
            self._forward(self.preprocess(image).to(self.device))
        finally:
            hook.remove()
        return caught[0][0].float().cpu()

    def _run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [1, T, D] and the last block's attention [1, heads, T, T]. Asked for all blocks' attention, the model
        would keep twelve such squares at once; the others are let go of here."""
        kind = self.model._can_record_outputs["attentions"]
        last = [module for module in self.model.modules() if isinstance(module, kind)][-1]
        kept: list[Tensor] = []
        hook = last.register_forward_hook(lambda _module, _inputs, output: kept.append(output[1]))
        try:
            output = self._forward(pixels)
        finally:
            hook.remove()
        return output.last_hidden_state, kept[0]

    def _forward(self, pixels: Tensor) -> Any:
        # DINOv2 always fits its position embeddings to the picture; the first DINO's ViT has to be asked to.
        fit = {"interpolate_pos_encoding": True} if self.model.config.model_type == "vit" else {}
        return self.model(pixel_values=pixels, **fit)


def _rounded(length: float, multiple: int) -> int:
    return max(1, round(length / multiple)) * multiple
