"""Previews by a small autoencoder (TAESD): what a drawing is expected to become, while it is made.

A small autoencoder of the same latents as the inpainting model's own decodes them roughly, in a fraction of the time.
It decodes previews alone: every picture that is scored, ranked or saved is decoded by the model's own autoencoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from maskless.data.errors import MasklessError, shown
from maskless.models.parts import SETTINGS_BYTES, one_line_model_errors, open_network, read_json

if TYPE_CHECKING:
    from diffusers import AutoencoderTiny

KIND = "AutoencoderTiny"
FAILED = "the preview autoencoder cannot be computed, its settings and files do not fit together"


class PreviewDecoder:
    """Decodes the latents of an inpainting model by a small autoencoder, on the device that the latents are on."""

    def __init__(self, network: AutoencoderTiny, own: Any, *, cell_px: int) -> None:
        """network: the small autoencoder. own: the inpainting model's autoencoder. cell_px: side in pixels of the
        square that one latent stands for.

        Raises:
            MasklessError: the small autoencoder has latents of another number of channels or of another size.
        """
        self._network = network.eval().requires_grad_(False)
        self._scale = float(own.config.scaling_factor) / float(network.config.scaling_factor)
        self._shift = float(network.config.shift_factor)
        mine, its = int(own.config.latent_channels), int(network.config.latent_channels)
        if mine != its:
            raise MasklessError(
                f"the preview autoencoder must decode the inpainting model's latents of {mine} channels, got one for "
                f"{its}; name the small autoencoder of this kind of model (--preview-vae)"
            )
        with one_line_model_errors(FAILED):
            side = self.picture(torch.zeros(1, mine, 8, 8)).shape[-1] / 8
        if side != cell_px:
            raise MasklessError(
                f"the preview autoencoder must make {cell_px} x {cell_px} pixels of each latent, as the inpainting "
                f"model's own does, got {side:g} x {side:g} (--preview-vae)"
            )

    @torch.no_grad()
    def picture(self, latents: Float[Tensor, "1 C h w"]) -> UInt8[Tensor, "3 S S"]:
        """The picture of unscaled latents, as the model's own autoencoder decodes them; RGB 0..255 on the CPU."""
        network = self._network
        if network.device != latents.device:
            network.to(latents.device)  # it is so small that it stays there at every memory level
        scaled = (latents * self._scale + self._shift).to(network.dtype)
        decoded = network.decode(scaled).sample[0].float()
        return ((decoded / 2 + 0.5).nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def load_preview_vae(source: Path, *, allow_pickle: bool = False) -> AutoencoderTiny:
    """A small autoencoder from its folder in diffusers' format, in float32 on the CPU.

    allow_pickle: also read weights that are not safetensors.

    Raises:
        MasklessError: another kind of model, or missing or damaged files.
    """
    kind = read_json(source / "config.json", limit=SETTINGS_BYTES).get("_class_name")
    if kind != KIND:
        raise MasklessError(f"the preview autoencoder must be an {KIND}, such as TAESD, got {shown(kind)} in {source}")
    import diffusers

    network: AutoencoderTiny = open_network(
        diffusers.AutoencoderTiny, source, allow_pickle=allow_pickle, dtype=torch.float32
    )  # type: ignore[assignment]
    return network
