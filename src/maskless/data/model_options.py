"""The options of loading models: they hold as long as the models are loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from maskless.data.choices import DEVICES, DTYPES, MEMORY, SCHEDULERS
from maskless.data.errors import require
from maskless.data.options import OptionValue, check_all, option

FOR_DRAWING = ("redraw", "preview_vae", "scheduler", "lora", "dtype")
"""The options that concern only the models that draw; who only looks for a region does not take them."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The options of loading models: they hold for every edit that the loaded models make.

    Raises:
        MasklessError: a value of the wrong type, out of range or not among the choices.
    """

    models: str = option(
        "storybook",
        group="Models",
        help="A preset (see maskless models), a folder with inpainting/, dino/, clip/ (and redraw/), or for the "
        "inpainting alone a hub id, a folder or a .safetensors file.",
    )
    dino: str | None = option(None, group="Models", help="Folder or hub id of the DINO model.")
    clip: str | None = option(None, group="Models", help="Folder or hub id of the CLIP model.")
    grounder: str | None = option(
        None,
        group="Models",
        help="Folder or hub id of a detector that finds what the caption names: OWLv2, Grounding DINO or CLIPSeg.",
    )
    redraw: str | None = option(
        None, group="Models", help="Folder or hub id of an InstructPix2Pix model, for style and texture."
    )
    transformer: str | None = option(
        None,
        group="Models",
        help="A GGUF file with the denoiser, in place of the one of --models: FILE.gguf, or owner/name/FILE.gguf on "
        "the hub (FLUX.1, FLUX.2 klein, Stable Diffusion 3, Qwen-Image, Z-Image).",
    )
    erase: str | None = option(
        None,
        group="Models",
        help="An ONNX file, folder or hub id of MI-GAN, for remove, complete and repair without a prompt.",
    )
    preview_vae: str | None = option(
        None,
        group="Models",
        help="Folder or hub id of a small autoencoder (TAESD) that shows drawings while they are made, on the page and "
        "over HTTP; results do not change.",
    )
    scheduler: str | None = option(
        None,
        group="Models",
        choices=SCHEDULERS,
        help="The sampler of the inpainting model [default: the model's own].",
    )
    lora: str | None = option(
        None,
        group="Models",
        help="LoRA files to add to the inpainting model: FILE[:SCALE], separated by commas.",
    )
    device: str = option(
        "auto",
        group="Models",
        choices=DEVICES,
        help="The device that the models run on; auto takes a GPU where there is one.",
    )
    dtype: str = option(
        "auto",
        group="Models",
        choices=DTYPES,
        help="Number format of the inpainting model; auto takes the fastest that the device supports.",
    )
    memory: str = option(
        "full", group="Models", choices=MEMORY, help="How much memory the models may take; lower levels are slower."
    )
    compile: bool = option(
        False,
        group="Models",
        help="Compile the denoiser at its first drawing, which takes minutes and pays off only over many edits on a "
        "GPU; needs --memory full.",
    )
    offline: bool = option(
        False, group="Models", help="Use no network, only models on this disk; HF_HUB_OFFLINE=1 does the same."
    )
    allow_pickle: bool = option(
        False,
        group="Models",
        help="Also load weights that are not safetensors. Such files can run code: allow only those that you trust.",
    )

    def __post_init__(self) -> None:
        check_all(self)
        require(
            not self.compile or self.memory == "full",
            f"compile needs memory full, because the other levels move weights while they draw, got {self.memory}",
        )

    def to_dict(self) -> dict[str, OptionValue]:
        """Plain values by field name."""
        return asdict(self)
