"""Presets: sets of models under a short name, with their sources, licences and sizes.

Commits are pinned if public code names them (docs/models.md). For other models, the commit of the first download is
kept. Sizes are approximate: the numbers of parameters of the published architectures times the bytes of each.
"""

from __future__ import annotations

from dataclasses import dataclass

MIGAN, MIGAN_M, CLIPSEG = "andraniksargsyan/migan", 7.0, "CIDAS/clipseg-rd64-refined"
"""Hub ids of the eraser and of the detector of the light sets. The eraser has 28 MB."""
ONNX_FILES = ("migan_pipeline_v2.onnx",)
"""The ONNX files that are downloaded; a repository may hold others."""
TAESD, TAESD_M = "madebyollin/taesd", 2.4
"""Hub id of the small autoencoder that shows what the light sets draw, for the latents of Stable Diffusion 1 and 2, and
its millions of parameters."""
DINO, CLIP = "facebook/dino-vitb8", "openai/clip-vit-base-patch16"
ENCODERS_M = 85.8 + 149.6
"""Millions of parameters of DINO ViT-B/8 and CLIP ViT-B/16 together. Both are stored and computed in float32."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One set of models.

    inpainting: hub id of the inpainting model, followed by its mirrors; empty for the bundled models. denoiser_m,
    text_m, autoencoder_m, encoders_m: millions of parameters of the denoiser, the text encoders, the autoencoder, and
    DINO and CLIP together. stored_bytes: bytes of each parameter in the download. native_px: side in pixels of the
    pictures that the model draws. gated: whether its licence must be accepted on the hub first. kind: "inpainting" for
    models that fill a mask, "instruction" for models that follow an instruction, "erase" for one that continues the
    surroundings. dino, clip: hub ids. erase: hub id of the model for remove, complete and repair; empty where the
    inpainting model does them. erase_m: its millions of parameters, in float32. grounder: hub id of a detector of what
    words name; empty for none. preview_vae: hub id of the small autoencoder for previews; empty for none. preview_m:
    its millions of parameters, in float32. steps: how many the inpainting model works best with, where its folder does
    not say so.
    """

    name: str
    inpainting: tuple[str, ...] = ()
    licence: str
    denoiser_m: float
    text_m: float
    autoencoder_m: float
    stored_bytes: int
    native_px: int
    gated: bool = False
    kind: str = "inpainting"
    dino: str = DINO
    clip: str = CLIP
    encoders_m: float = ENCODERS_M
    erase: str = ""
    erase_m: float = 0.0
    grounder: str = ""
    preview_vae: str = ""
    preview_m: float = 0.0
    steps: int | None = None

    @property
    def download_gb(self) -> float:
        """Gigabytes of weights to download; 0 for the bundled models."""
        if not self.inpainting:
            return 0.0
        of_pipeline = (self.denoiser_m + self.text_m + self.autoencoder_m) * self.stored_bytes
        return (of_pipeline + (self.encoders_m + self.erase_m + self.preview_m) * 4) / 1e3

    @property
    def memory_gb(self) -> float:
        """Gigabytes of weights at --memory full with the denoiser in 16 bits. An edit's activations are extra."""
        rest = 2 if self.stored_bytes == 2 else 4
        others = (self.text_m + self.autoencoder_m) * rest + (self.encoders_m + self.erase_m + self.preview_m) * 4
        return (self.denoiser_m * 2 + others) / 1e3


PRESETS = (
    Preset(
        name="storybook",
        licence="Apache-2.0",
        # The numbers include both the inpainting model and the redrawer.
        denoiser_m=29.4, text_m=2.6, autoencoder_m=1.7, stored_bytes=4, native_px=96, encoders_m=5.1,
    ),
    Preset(
        name="sd15",
        inpainting=("stable-diffusion-v1-5/stable-diffusion-inpainting", "sd-legacy/stable-diffusion-inpainting"),
        licence="CreativeML OpenRAIL-M",
        denoiser_m=859.5, text_m=123.1, autoencoder_m=83.7, stored_bytes=4, native_px=512,
    ),
    Preset(
        name="sd2",
        inpainting=("sd2-community/stable-diffusion-2-inpainting", "stabilityai/stable-diffusion-2-inpainting"),
        licence="CreativeML OpenRAIL++-M",
        denoiser_m=865.9, text_m=340.4, autoencoder_m=83.7, stored_bytes=4, native_px=512,
    ),
    Preset(
        name="sdxl",
        inpainting=("diffusers/stable-diffusion-xl-1.0-inpainting-0.1",),
        licence="CreativeML OpenRAIL++-M",
        denoiser_m=2567.5, text_m=123.1 + 694.7, autoencoder_m=83.7, stored_bytes=4, native_px=1024,
    ),
    Preset(
        name="sd3",
        inpainting=("stabilityai/stable-diffusion-3-medium-diffusers",),
        licence="Stability AI Community", gated=True,
        denoiser_m=2028.3, text_m=123.6 + 694.7 + 4762.3, autoencoder_m=83.8, stored_bytes=2, native_px=1024,
    ),
    Preset(
        name="flux-fill",
        inpainting=("black-forest-labs/FLUX.1-Fill-dev",),
        licence="FLUX.1-dev Non-Commercial", gated=True,
        denoiser_m=11902.4, text_m=123.1 + 4762.3, autoencoder_m=83.8, stored_bytes=2, native_px=1024,
    ),
    Preset(
        name="flux2-klein",
        inpainting=("black-forest-labs/FLUX.2-klein-4B",),
        licence="Apache-2.0",
        denoiser_m=3875.5, text_m=4022.5, autoencoder_m=84.0, stored_bytes=2, native_px=1024,
    ),
    Preset(
        name="qwen-image",
        inpainting=("Qwen/Qwen-Image",),
        licence="Apache-2.0",
        denoiser_m=20430.4, text_m=8292.2, autoencoder_m=126.9, stored_bytes=2, native_px=1024,
    ),
    Preset(
        name="z-image",
        inpainting=("Tongyi-MAI/Z-Image-Turbo",),
        licence="Apache-2.0",
        denoiser_m=6154.9, text_m=4022.5, autoencoder_m=83.8, stored_bytes=2, native_px=1024,
    ),
    Preset(
        name="kontext",
        inpainting=("black-forest-labs/FLUX.1-Kontext-dev",),
        licence="FLUX.1-dev Non-Commercial", gated=True, kind="instruction",
        denoiser_m=11901.4, text_m=123.1 + 4762.3, autoencoder_m=83.8, stored_bytes=2, native_px=1024,
    ),
    Preset(
        name="qwen-image-edit",
        inpainting=("Qwen/Qwen-Image-Edit",),
        licence="Apache-2.0", kind="instruction",
        denoiser_m=20430.4, text_m=8292.2, autoencoder_m=126.9, stored_bytes=2, native_px=1024,
    ),
    Preset(
        name="light",
        inpainting=("SimianLuo/LCM_Dreamshaper_v7",),
        licence="MIT (eraser and previews MIT)",
        denoiser_m=859.9, text_m=123.1, autoencoder_m=83.7, stored_bytes=4, native_px=512,
        erase=MIGAN, erase_m=MIGAN_M, grounder=CLIPSEG, preview_vae=TAESD, preview_m=TAESD_M, steps=4,
    ),
    Preset(
        name="light-tiny",
        inpainting=("nota-ai/bk-sdm-tiny",),
        licence="CreativeML OpenRAIL-M (eraser and previews MIT)",
        denoiser_m=323.4, text_m=123.1, autoencoder_m=83.7, stored_bytes=4, native_px=512,
        erase=MIGAN, erase_m=MIGAN_M, grounder=CLIPSEG, preview_vae=TAESD, preview_m=TAESD_M, steps=20,
    ),
    Preset(
        name="erase",
        inpainting=(MIGAN,),
        licence="MIT", kind="erase",
        denoiser_m=MIGAN_M, text_m=0.0, autoencoder_m=0.0, stored_bytes=4, native_px=512, grounder=CLIPSEG,
    ),
)  # fmt: skip

PINNED = {
    "stable-diffusion-v1-5/stable-diffusion-inpainting": "8a4288a76071f7280aedbdb3253bdb9e9d5d84bb",
    "sd2-community/stable-diffusion-2-inpainting": "5f74973cbb64c8568780732c17f43eb269d63a0d",
    "stabilityai/stable-diffusion-2-inpainting": "81a84f49b15956b60b4272a405ad3daef3da4590",
    "diffusers/stable-diffusion-xl-1.0-inpainting-0.1": "115134f363124c53c7d878647567d04daf26e41e",
    "stabilityai/stable-diffusion-3-medium-diffusers": "ea42f8cef0f178587cf766dc8129abd379c90671",
    "black-forest-labs/FLUX.1-Fill-dev": "358293da0354175698b67ec8299acf928313a78a",
    "black-forest-labs/FLUX.1-Kontext-dev": "af58063aa431f4d2bbc11ae46f57451d4416a170",
    "black-forest-labs/FLUX.2-klein-4B": "e7b7dc27f91deacad38e78976d1f2b499d76a294",
    "Qwen/Qwen-Image": "75e0b4be04f60ec59a75f475837eced720f823b6",
    "Qwen/Qwen-Image-Edit": "ac7f9318f633fc4b5778c59367c8128225f1e3de",
    "Tongyi-MAI/Z-Image-Turbo": "f332072aa78be7aecdf3ee76d5c247082da564a6",
    "madebyollin/taesd": "614f76814bbe30edbe2e627ace1c2234c81a2c0e",
    "facebook/dino-vitb16": "f205d5d8e640a89a2b8ef0369670dfc37cc07fc2",
    "openai/clip-vit-base-patch16": "57c216476eefef5ab752ec549e440a49ae4ae5f3",
    "google/siglip2-base-patch16-224": "75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2",
}
"""The commit of each model, as public repositories name it in their code. Each was found in at least two repositories
or under this exact hub id."""

_KLEIN, _Z_IMAGE, _SIGLIP2, _DINO16 = (
    PINNED[name]
    for name in (
        "black-forest-labs/FLUX.2-klein-4B",
        "Tongyi-MAI/Z-Image-Turbo",
        "google/siglip2-base-patch16-224",
        "facebook/dino-vitb16",
    )
)
SHA256_OF = {
    (_KLEIN, "transformer/diffusion_pytorch_model.safetensors"):
        "9f29f9edcfdae452a653ffb51a534ca4decd389952c225724ff3b94042612a6e",
    (_KLEIN, "text_encoder/model-00001-of-00002.safetensors"):
        "8c0506e7f4936fa7e26183a4fd8da4e2bdbc5990ba64ae441f965d51228f36ea",
    (_KLEIN, "text_encoder/model-00002-of-00002.safetensors"):
        "82f2bd839378541b0557bfabaf37c7d3d637071fdcb73302dedd7cf61162ce07",
    (_KLEIN, "vae/diffusion_pytorch_model.safetensors"):
        "ca70d2202afe6415bdbcb8793ba8cd99fd159cfe6192381504d6c4d3036e0f04",
    (_Z_IMAGE, "text_encoder/model-00001-of-00003.safetensors"):
        "328a91d3122359d5547f9d79521205bc0a46e1f79a792dfe650e99fc2d651223",
    (_Z_IMAGE, "text_encoder/model-00002-of-00003.safetensors"):
        "6cd087b316306a68c562436b5492edbcf6e16c6dba3a1308279caa5a58e21ca5",
    (_Z_IMAGE, "text_encoder/model-00003-of-00003.safetensors"):
        "7ca841ee75b9c61267c0c6148fd8d096d3d21b6d3e161256a9b878154f91fc52",
    (_Z_IMAGE, "transformer/diffusion_pytorch_model-00001-of-00003.safetensors"):
        "95facd593e2549e8252acb571c653d57f7ddb7f1060d4e81712f152555a88804",
    (_Z_IMAGE, "transformer/diffusion_pytorch_model-00002-of-00003.safetensors"):
        "a4bbe43ee184a1fb5af4b412d27555f532893bdc3165b1149e304ed82b5d7015",
    (_Z_IMAGE, "transformer/diffusion_pytorch_model-00003-of-00003.safetensors"):
        "aba4e37a590e63210878160a718d916d80398f4e1f78ab6c9b2b2a00d92769fa",
    (_Z_IMAGE, "vae/diffusion_pytorch_model.safetensors"):
        "f5b59a26851551b67ae1fe58d32e76486e1e812def4696a4bea97f16604d40a3",
    (_SIGLIP2, "model.safetensors"): "612923381c76ec5a9bed335d1c48827e3f2e506ac31b044b63b2031fadee6a0b",
    (_DINO16, "config.json"): "b87c0270b97db085fd82cf114a761fd0f62ae7914fbd407c752a2260646b689c",
}  # fmt: skip
"""The SHA-256 of files of these commits, by commit and name, as at least two public repositories name them. Of every
other file the first download keeps the hash that the hub lists."""

BY_NAME = {preset.name: preset for preset in PRESETS}


def with_mirrors(repo_id: str) -> tuple[str, ...]:
    """A hub id and its mirrors, in the order in which they are tried."""
    for preset in PRESETS:
        if preset.inpainting and repo_id == preset.inpainting[0]:
            return preset.inpainting
    return (repo_id,)
