"""Editors that diffusers has as a ModularPipeline only, or also as one: FLUX.3, Qwen-Image and FLUX.2 klein.

Such a pipeline names its inputs. The region is given in the way that it takes: as `boxes`, as `mask_image`, or not at
all, when the editor gets the window around the region and redraws it whole. Method step 7.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from maskless.data.errors import MasklessError, shown
from maskless.data.masks import mask_box
from maskless.models.inpainters.denoising import Sampling, step_completed
from maskless.models.inpainters.flow import FAILED, FLOW_SCHEDULER, TRAINED_PX, PipelinePrompt, quiet_libraries
from maskless.models.inpainters.overflow import is_finite, not_finite
from maskless.models.inpainters.weighting import NOTATION, is_weighted, without_weights
from maskless.models.parts import SETTINGS_BYTES, one_line_model_errors, opening, read_json

if TYPE_CHECKING:
    from diffusers import ModularPipeline

INDEX = "modular_model_index.json"
PROCESSORS = ("AutoProcessor", "Qwen3VLProcessor")
"""The classes of processors that are read as one of Qwen-VL."""


@dataclass(frozen=True, kw_only=True)
class ModularFamily:
    """What is known of one kind of modular pipeline.

    title: its name for users. workflow: the workflow of its blocks that edits a picture. steps, guidance_scale: what
    the authors recommend. optional: blocks that are left out if the model's folder lacks the parts that they need.
    """

    title: str
    workflow: str
    steps: int
    guidance_scale: float
    optional: Mapping[str, tuple[str, ...]]


UPSAMPLER = {"prompt_upsampler": ("prompt_upsampler", "prompt_upsampler_processor")}
FAMILIES = {
    "Flux3ModularPipeline": ModularFamily(
        title="FLUX.3", workflow="image_conditioned", steps=50, guidance_scale=3.5, optional=UPSAMPLER
    ),
    "Flux3DistilledModularPipeline": ModularFamily(
        title="FLUX.3 distilled", workflow="image_conditioned", steps=16, guidance_scale=1.0, optional=UPSAMPLER
    ),
    "QwenImageModularPipeline": ModularFamily(
        title="Qwen-Image", workflow="inpainting", steps=50, guidance_scale=4.0, optional={}
    ),
    "Flux2KleinModularPipeline": ModularFamily(
        title="FLUX.2 klein", workflow="image_conditioned", steps=4, guidance_scale=1.0, optional={}
    ),
}
"""By the class that INDEX names."""


def modular_parts(folder: Path) -> tuple[str, dict[str, list[str]]]:
    """The class of a modular pipeline, and library and class of each of its parts that lie in its folder.

    Raises:
        MasklessError: a kind of pipeline that is not supported.
    """
    index = read_json(folder / INDEX, limit=SETTINGS_BYTES)
    kind = shown(index.get("_class_name"))
    if kind not in FAMILIES:
        titles = ", ".join(family.title for family in FAMILIES.values())
        raise MasklessError(f"{folder} is a {kind}, which cannot edit here; use a modular pipeline of {titles}")
    parts = {}
    for part, named in index.items():
        if isinstance(named, list) and len(named) == 3 and part.isidentifier() and (folder / part).is_dir():
            library, name = named[:2]
            parts[part] = [library, PROCESSORS[-1] if name in PROCESSORS else name]
    return kind, parts


def build_modular(
    kind: str, folder: Path, parts: Mapping[str, list[str]], networks: Mapping[str, torch.nn.Module]
) -> ModularPipeline:
    """A modular pipeline from its networks and the other parts of its folder. Its blocks are those of diffusers, never
    code of the folder.

    kind, parts: from `modular_parts`. networks: by part, read already.

    Raises:
        MasklessError: a part that is missing.
    """
    import diffusers

    pipeline_class = getattr(diffusers, kind)
    blocks = getattr(diffusers, pipeline_class.default_blocks_name)()
    for block, needed in FAMILIES[kind].optional.items():
        if not all(part in parts for part in needed):
            blocks.sub_blocks.pop(block)
    blocks = blocks.get_workflow(FAMILIES[kind].workflow)
    with opening(folder), quiet_libraries():
        pipeline = pipeline_class(blocks=blocks)
        expected = {spec.name for spec in blocks.expected_components if spec.default_creation_method != "from_config"}
        missing = sorted(expected - set(parts))
        if missing:
            raise MasklessError(f"{folder} lacks {', '.join(missing)}, which {FAMILIES[kind].title} needs")
        others = {part: _read(folder / part, *parts[part]) for part in sorted(expected - set(networks))}
        pipeline.update_components(**{part: networks[part] for part in expected & set(networks)}, **others)
    return pipeline


def _read(folder: Path, library: str, kind: str) -> Any:
    """A part that is no network: a scheduler, a tokenizer or a processor."""
    if kind == PROCESSORS[-1]:
        return _vision_processor(folder)
    if library == "diffusers":
        import diffusers

        return getattr(diffusers, kind).from_pretrained(folder, local_files_only=True)
    import transformers

    return getattr(transformers, kind).from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _vision_processor(folder: Path) -> Any:
    """Qwen3-VL's processor for pictures and texts only. That of transformers needs torchvision for videos."""
    from transformers import Qwen3VLProcessor
    from transformers.processing_utils import ProcessorMixin

    class PictureProcessor(Qwen3VLProcessor):
        def __init__(self, image_processor: Any, tokenizer: Any, chat_template: Any = None, **_ignored: Any) -> None:
            for name in ("image", "video"):
                setattr(self, f"{name}_token", f"<|{name}_pad|>")
                setattr(self, f"{name}_token_id", tokenizer.convert_tokens_to_ids(f"<|{name}_pad|>"))
            for name in ("vision_start", "vision_end"):
                setattr(self, f"{name}_token", f"<|{name}|>")
                setattr(self, f"{name}_token_id", tokenizer.convert_tokens_to_ids(f"<|{name}|>"))
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    processor: Any = PictureProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    processor.chat_template = processor.chat_template or processor.tokenizer.chat_template
    return processor


class ModularInpainter:
    """A modular pipeline of one of FAMILIES. The attributes are those of InpaintingModel; unet_forwards counts calls of
    the transformer. Such a pipeline runs from its first step to its last, so `denoiser` is None.

    region: how it takes the region: "boxes", "mask_image", or "" if it gets the window alone.
    """

    denoiser, follows_prompt = None, True

    def __init__(
        self,
        pipeline: ModularPipeline,
        *,
        scheduler: str | None = None,
        native_px: int | None = None,
        recommended_steps: int | None = None,
        recommended_guidance: float | None = None,
    ) -> None:
        """scheduler: None or euler, which all of these use. Other arguments replace the family's values."""
        self._family = FAMILIES[type(pipeline).__name__]
        own = type(pipeline.scheduler).__name__
        if scheduler not in (None, "euler") or own != FLOW_SCHEDULER:
            wrong = own if scheduler in (None, "euler") else scheduler
            raise MasklessError(f"the scheduler of {self._family.title} must be {FLOW_SCHEDULER} (euler), got {wrong}")
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval().requires_grad_(False)
        self.pipeline = pipeline
        self._inputs = {each.name for each in pipeline.blocks.inputs if each.name is not None}
        self.region = next((name for name in ("boxes", "mask_image") if name in self._inputs), "")
        self.takes_picture = self.redraws_window = self.region != "mask_image"
        self.cell_px = int(pipeline.vae_scale_factor) * 2
        self.native_px = native_px or TRAINED_PX // self.cell_px * self.cell_px
        if self.native_px % self.cell_px:
            raise MasklessError(f"native_px must be a multiple of {self.cell_px} for this model, got {self.native_px}")
        self.recommended_steps: int | None = recommended_steps or self._family.steps
        self.recommended_guidance: float | None = recommended_guidance or self._family.guidance_scale
        self.unet_forwards = 0
        pipeline.transformer.register_forward_hook(self._count)

    @property
    def device(self) -> torch.device:
        return self.pipeline._execution_device

    def encode_prompt(self, prompt: str, negative_prompt: str = "") -> PipelinePrompt:
        """The texts as they are: the pipeline encodes them with the picture.

        Raises:
            MasklessError: a negative prompt, if the model has none, or words with a weight.
        """
        title = self._family.title
        if negative_prompt and "negative_prompt" not in self._inputs:
            raise MasklessError(f"{title} has no negative prompt; leave --negative-prompt out")
        if is_weighted(prompt, negative_prompt):
            raise MasklessError(f"weights such as {NOTATION} do not work with {title}; write the words without")
        texts = (without_weights(prompt), without_weights(negative_prompt))
        return PipelinePrompt(arguments={}, texts=texts)

    def draw_noise(self, seed: int, side_px: int | None = None) -> None:
        """None: the pipeline draws the noise from the seed itself."""

    @one_line_model_errors(FAILED)
    @torch.no_grad()
    def inpaint(
        self,
        images: Float[Tensor, "N 3 S S"],
        masks: Float[Tensor, "N 1 S S"],
        prompt: PipelinePrompt,
        sampling: Sampling,
    ) -> UInt8[Tensor, "N 3 S S"]:
        """Repaint the masked part of each picture, or all of it if the model takes no region; see
        InpaintingModel.inpaint. `sampling.noise` must be None."""
        assert sampling.noise is None
        pairs = zip(images, masks, strict=True)
        drawn = torch.cat([self._draw(image, mask[0] > 0.5, prompt.texts, sampling) for image, mask in pairs])
        size = (images.shape[2], images.shape[3])
        if tuple(drawn.shape[2:]) != size:
            drawn = F.interpolate(drawn, size=size, mode="bicubic", antialias=True, align_corners=False)
        return (drawn.clamp(0, 1) * 255).round().to(torch.uint8).cpu()

    def _draw(
        self, image: Float[Tensor, "3 S S"], mask: Bool[Tensor, "S S"], texts: tuple[str, str], sampling: Sampling
    ) -> Float[Tensor, "1 3 s s"]:
        """One call of the pipeline: the drawn picture in [0, 1], at the pipeline's own size."""
        prompt, negative_prompt = texts
        given: dict[str, Any] = {
            "prompt": prompt,
            "negative_prompt": negative_prompt or None,
            "image": _to_pil(image),
            "height": self.native_px,
            "width": self.native_px,
            "num_inference_steps": sampling.steps,
            "strength": sampling.strength,
            "guidance_scale": sampling.guidance_scale,
            "generator": torch.Generator().manual_seed(sampling.seed),
            "output_type": "pil",
        }
        if self.region == "mask_image":
            given["mask_image"] = Image.fromarray(mask.cpu().numpy().astype("uint8") * 255)
        elif self.region == "boxes" and not bool(mask.all()):
            given["boxes"] = [box_of(mask, prompt)]
        with quiet_libraries():
            pipeline = self._copy(sampling)
            taken = {name: value for name, value in given.items() if name in self._inputs and value is not None}
            found = pipeline(**taken, output=["images", "latents"])
        if not is_finite(found["latents"]):
            raise not_finite(self.pipeline.transformer.dtype)
        pixels = torch.from_numpy(np.array(found["images"][0].convert("RGB")))
        return pixels.movedim(-1, 0)[None].to(torch.float32) / 255

    def _copy(self, sampling: Sampling) -> ModularPipeline:
        """The pipeline with a scheduler and a guider of its own, which count their steps, for one call."""
        pipeline = copy.copy(self.pipeline)
        pipeline.scheduler = copy.deepcopy(self.pipeline.scheduler)
        step, made = pipeline.scheduler.step, [0]

        def counted(*arguments: Any, **named: Any) -> Any:
            output = step(*arguments, **named)
            made[0] += 1
            step_completed(made[0], len(pipeline.scheduler.timesteps))
            return output

        pipeline.scheduler.step = counted
        if getattr(self.pipeline, "guider", None) is not None:
            pipeline.guider = self.pipeline.guider.new(guidance_scale=sampling.guidance_scale)
        return pipeline

    def _count(self, *_call: Any) -> None:
        self.unet_forwards += 1


def box_of(mask: Bool[Tensor, "h w"], text: str) -> dict[str, Any]:
    """The entry of FLUX.3's `boxes` that draws what a text describes where a mask is True.

    Its box is [y_min, x_min, y_max, x_max], as shares of the picture's sides.
    """
    x0, y0, x1, y1 = mask_box(mask)
    height, width = mask.shape
    box = [y0 / height, x0 / width, y1 / height, x1 / width]
    return {"id": "obj_1", "desc": text, "from": "target", "src_bbox": None, "tgt_bbox": box}


def _to_pil(image: Float[Tensor, "3 S S"]) -> Image.Image:
    return Image.fromarray((image.clamp(0, 1) * 255).round().byte().movedim(0, -1).cpu().numpy())
