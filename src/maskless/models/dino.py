"""The frozen DINO: patch features, and attention that shows where the objects in a picture are. Method step 1."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from maskless.data.types import PatchFeatures
from maskless.models.memory import execution_device
from maskless.models.parts import one_line_model_errors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_GRID = 2
"""Maximum number of patches, as a multiple of a square picture's. The cost of attention grows with its square."""
QUERY_LAYERS, KEY_LAYERS = ("q_proj", "query"), ("k_proj", "key")
"""Names of a block's projections in transformers: in the current version and in earlier ones."""
FAILED = "the DINO model cannot be computed, its settings and files do not fit together"


class Dino:
    """A ViT of transformers with its preprocessing.

    Pictures are resized with their aspect ratio, apart from rounding the sides to multiples of the patch size, and
    normalised with the mean and standard deviation that the model was trained with.
    """

    def __init__(
        self, model: PreTrainedModel, *, mean: tuple[float, ...], std: tuple[float, ...], shorter_px: int
    ) -> None:
        """model: a ViTModel (DINO), a Dinov2Model or a Dinov2WithRegistersModel. mean, std: of RGB in [0, 1], for
        normalisation. shorter_px: shorter side of the input in pixels.

        All blocks use the fused attention kernel, which keeps no weights. Those of the CLS token in the last block are
        computed from its query and the keys, since the weights of all tokens would take most of DINO's memory."""
        self.model = model.eval().requires_grad_(False)
        self.model.set_attn_implementation("sdpa")
        self.patch_px = int(model.config.patch_size)
        # The CLS token comes first, then the register tokens; neither belongs to a patch.
        self._before_patches = 1 + int(getattr(model.config, "num_register_tokens", 0))
        self.shorter_px = shorter_px
        self.mean = torch.tensor(mean).view(3, 1, 1)
        self.std = torch.tensor(std).view(3, 1, 1)

    @property
    def device(self) -> torch.device:
        """The device that DINO computes on."""
        return execution_device(self.model)

    def input_size_yx(self, size_yx: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of DINO's input for a picture of this size, in pixels; multiples of the patch size."""
        height, width = size_yx
        scale = self.shorter_px / min(height, width)
        cells = scale * scale * height * width / self.patch_px**2
        allowed = MAX_GRID * (self.shorter_px / self.patch_px) ** 2
        scale *= min(1.0, math.sqrt(allowed / cells))
        return _rounded(height * scale, self.patch_px), _rounded(width * scale, self.patch_px)

    def preprocess(self, image: Float[Tensor, "3 H W"]) -> Float[Tensor, "1 3 h w"]:
        """DINO's input for an image in [0, 1]: resized and normalised (mistake 8)."""
        size = self.input_size_yx((image.shape[1], image.shape[2]))
        if tuple(image.shape[1:]) != size:
            resized = F.interpolate(image[None], size=size, mode="bicubic", antialias=True, align_corners=False)
            image = resized[0].clamp(0, 1)
        return ((image - self.mean) / self.std)[None]

    @one_line_model_errors(FAILED)
    @torch.no_grad()
    def features(self, image: Float[Tensor, "3 H W"]) -> PatchFeatures:
        """Patch features, and the last block's attention from the CLS token to the patches.

        Args:
            image: RGB in [0, 1], of any size and aspect ratio.
        Returns:
            Features [D, h, w] and attention [h, w], averaged over the heads and with a sum of 1; always in float32 on
            the CPU.
        """
        pixels = self.preprocess(image).to(self.device)
        rows, columns = pixels.shape[2] // self.patch_px, pixels.shape[3] // self.patch_px
        with self._last_outputs(QUERY_LAYERS) as queries, self._last_outputs(KEY_LAYERS) as keys:
            tokens = self._forward(pixels).last_hidden_state[0, self._before_patches :]
        attention = self._attention_of_cls(queries[0][0], keys[0][0])[:, self._before_patches :].mean(dim=0)
        attention = attention / attention.sum()
        return PatchFeatures(
            features=tokens.T.reshape(-1, rows, columns).float().cpu(),
            attention=attention.reshape(rows, columns).float().cpu(),
            patch_px=self.patch_px,
        )

    @one_line_model_errors(FAILED)
    @torch.no_grad()
    def keys(self, image: Float[Tensor, "3 H W"]) -> Float[Tensor, "T D"]:
        """The keys of all tokens in the last block, CLS first, with the heads concatenated.

        The structure distance of Splice (arXiv 2201.00424) compares them. image: RGB in [0, 1].
        """
        with self._last_outputs(KEY_LAYERS) as keys:
            self._forward(self.preprocess(image).to(self.device))
        return keys[0][0].float().cpu()

    @contextmanager
    def _last_outputs(self, names: tuple[str, ...]) -> Iterator[list[Tensor]]:
        """A list that receives the outputs [1, T, D] of the model's last layer of one of these names, as long as the
        context is open. Other threads that compute with the model at the same time have lists of their own."""
        layers = [part for name, part in self.model.named_modules() if name.rpartition(".")[2] in names]
        outputs: list[Tensor] = []
        thread = get_ident()

        def keep(_layer: nn.Module, _given: tuple[Tensor, ...], output: Tensor) -> None:
            if get_ident() == thread:
                outputs.append(output)

        hook = layers[-1].register_forward_hook(keep)
        try:
            yield outputs
        finally:
            hook.remove()

    def _attention_of_cls(self, queries: Float[Tensor, "T D"], keys: Float[Tensor, "T D"]) -> Float[Tensor, "heads T"]:
        """softmax(q_CLS K^T / sqrt(d)) of each head, where d is its width; the CLS token is the first of the T tokens.

        The attention of the ViT (Dosovitskiy et al., ICLR 2021, equation 6)."""
        heads = int(self.model.config.num_attention_heads)
        query, of_heads = queries[0].reshape(heads, -1), keys.reshape(len(keys), heads, -1)
        return (torch.einsum("hd,thd->ht", query, of_heads) / math.sqrt(query.shape[1])).softmax(dim=1)

    def _forward(self, pixels: Tensor) -> Any:
        # DINOv2 always interpolates its position embeddings to the input's size; DINO's ViT needs the argument.
        fit = {"interpolate_pos_encoding": True} if self.model.config.model_type == "vit" else {}
        return self.model(pixel_values=pixels, **fit)


def _rounded(length: float, multiple: int) -> int:
    """The length rounded to a multiple, at least one."""
    return max(1, round(length / multiple)) * multiple
