"""The families of flow-matching models: how the pipeline of each is called, and how it reads a text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

T5_TOKENS, CHAT_TOKENS, QWEN_TOKENS = 512, 512, 1024
"""Numbers of tokens that a text may have: for T5, for FLUX.2 klein and Z-Image, and for Qwen-Image."""
SD3_TOKENS = 256
"""Number of tokens for SD 3's T5 if the text is no longer: what its pipeline takes by default."""


@dataclass(frozen=True, kw_only=True)
class FlowFamily:
    """How one family's pipeline is called.

    pipeline: class of diffusers. opens: the classes in model_index.json whose folders it opens. steps, guidance_scale:
    what the authors recommend. encode: from pipeline, prompt and negative prompt to arguments of the call. guidance:
    the argument that gets guidance_scale. settings: further arguments of every call. takes_picture: whether the
    transformer gets the latents of the whole picture beside those that it draws, as the reference that it edits.
    reads_picture: whether the pipeline encodes the prompt together with the picture, for one picture at a time. Every
    pipeline restores the picture's latents outside the mask at each step, but FLUX Fill's, which knows them. negative:
    whether it has a negative prompt. parts: from the source to components that replace those that the pipeline would
    load. reader: from the pipeline to the tokenizer of the encoder that reads the whole text, and the number of tokens
    of a text that it reads; None if it reads texts of any length.
    """

    pipeline: str
    opens: tuple[str, ...]
    steps: int
    guidance_scale: float
    encode: Callable[[DiffusionPipeline, str, str], dict[str, Any]]
    guidance: str = "guidance_scale"
    settings: dict[str, Any] = field(default_factory=dict)
    takes_picture: bool = False
    reads_picture: bool = False
    negative: bool = True
    parts: Callable[[str], dict[str, Any]] | None = None
    reader: Callable[[DiffusionPipeline], tuple[Any, int]] | None = None

    def split(self, pipeline: DiffusionPipeline, text: str) -> tuple[str, str]:
        """The part of a text that the model reads, and the rest, which it cannot."""
        if self.reader is None:
            return text, ""
        tokenizer, count = self.reader(pipeline)
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        if len(found.input_ids) <= count:
            return text, ""
        end = found.offset_mapping[count][0]
        return text[:end], text[end:]


def _encode_sd3(pipeline: DiffusionPipeline, prompt: str, negative_prompt: str) -> dict[str, Any]:
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    tokenizer, _count = _sd3_reader(pipeline)
    longest = max(len(tokenizer(text, verbose=False).input_ids) for text in (prompt, negative_prompt))
    length = SD3_TOKENS if longest <= SD3_TOKENS else T5_TOKENS
    encoded = pipeline.encode_prompt(
        prompt, prompt, prompt, negative_prompt=negative_prompt, max_sequence_length=length
    )
    return dict(zip(names, encoded, strict=True))


def _sd3_reader(pipeline: DiffusionPipeline) -> tuple[Any, int]:
    """T5, or CLIP if the pipeline was loaded without T5; their special tokens take one and two places."""
    if pipeline.text_encoder_3 is None:
        return pipeline.tokenizer, pipeline.tokenizer_max_length - 2
    return pipeline.tokenizer_3, T5_TOKENS - 1


def _flux_reader(pipeline: DiffusionPipeline) -> tuple[Any, int]:
    return pipeline.tokenizer_2, T5_TOKENS - 1


def _chat_reader(pipeline: DiffusionPipeline) -> tuple[Any, int]:
    """A language model that gets the text in a chat template, which takes some of the tokens."""
    message = [{"role": "user", "content": ""}]
    template = pipeline.tokenizer.apply_chat_template(
        message, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    return pipeline.tokenizer, CHAT_TOKENS - len(pipeline.tokenizer(template).input_ids)


def _qwen_reader(pipeline: DiffusionPipeline) -> tuple[Any, int]:
    """Qwen-Image's pipeline leaves out the beginning of its template and counts the end."""
    template = pipeline.tokenizer(pipeline.prompt_template_encode.format("")).input_ids
    return pipeline.tokenizer, QWEN_TOKENS + pipeline.prompt_template_encode_start_idx - len(template)


def _encode_flux(pipeline: DiffusionPipeline, prompt: str, negative_prompt: str) -> dict[str, Any]:
    hidden, pooled, _ids = pipeline.encode_prompt(prompt, prompt)
    found = {"prompt_embeds": hidden, "pooled_prompt_embeds": pooled}
    if negative_prompt:
        hidden, pooled, _ids = pipeline.encode_prompt(negative_prompt, negative_prompt)
        found |= {"negative_prompt_embeds": hidden, "negative_pooled_prompt_embeds": pooled}
        found["true_cfg_scale"] = TRUE_GUIDANCE
    return found


def _encode_klein(pipeline: DiffusionPipeline, prompt: str, negative_prompt: str) -> dict[str, Any]:
    texts = {"prompt_embeds": prompt, "negative_prompt_embeds": negative_prompt}
    return {name: pipeline.encode_prompt(text)[0] for name, text in texts.items()}


def _encode_qwen(pipeline: DiffusionPipeline, prompt: str, negative_prompt: str) -> dict[str, Any]:
    found = {}
    # An empty negative prompt is given as a space, as in the model's own examples.
    for name, text in {"prompt": prompt, "negative_prompt": negative_prompt or " "}.items():
        found[f"{name}_embeds"], found[f"{name}_embeds_mask"] = pipeline.encode_prompt(text)
    return found


def _pass_texts(_pipeline: DiffusionPipeline, prompt: str, negative_prompt: str) -> dict[str, Any]:
    return {"prompt": prompt, "negative_prompt": negative_prompt or " "}


def _picture_processor(source: str) -> dict[str, Any]:
    """Qwen-VL's processor for pictures and texts only. That of transformers needs torchvision for videos."""
    from transformers import Qwen2VLProcessor
    from transformers.processing_utils import ProcessorMixin

    class PictureProcessor(Qwen2VLProcessor):
        def __init__(self, image_processor: Any, tokenizer: Any, chat_template: Any = None, **_ignored: Any) -> None:
            self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    return {"processor": PictureProcessor.from_pretrained(source, subfolder="processor", local_files_only=True)}


def _encode_z_image(pipeline: DiffusionPipeline, prompt: str, negative_prompt: str) -> dict[str, Any]:
    encoded = pipeline.encode_prompt(prompt, negative_prompt=negative_prompt)
    return dict(zip(("prompt_embeds", "negative_prompt_embeds"), encoded, strict=True))


TRUE_GUIDANCE = 2.0
"""Guidance scale for negative prompts of FLUX. Its guidance_scale, an input of the network, does not affect them."""

FAMILIES = (
    FlowFamily(
        pipeline="StableDiffusion3InpaintPipeline",
        opens=("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"),
        steps=40,
        guidance_scale=7.0,
        encode=_encode_sd3,
        reader=_sd3_reader,
    ),
    FlowFamily(
        pipeline="FluxFillPipeline",
        opens=("FluxFillPipeline",),
        steps=50,
        guidance_scale=30.0,
        encode=_encode_flux,
        reader=_flux_reader,
        negative=False,
    ),
    FlowFamily(
        pipeline="FluxInpaintPipeline",
        opens=("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"),
        steps=28,
        guidance_scale=7.0,
        encode=_encode_flux,
        reader=_flux_reader,
    ),
    FlowFamily(
        pipeline="FluxKontextInpaintPipeline",
        opens=("FluxKontextPipeline", "FluxKontextInpaintPipeline"),
        steps=28,
        guidance_scale=3.5,
        encode=_encode_flux,
        reader=_flux_reader,
        settings={"_auto_resize": False},
        takes_picture=True,
    ),
    FlowFamily(
        pipeline="Flux2KleinInpaintPipeline",
        opens=("Flux2KleinPipeline", "Flux2KleinInpaintPipeline"),
        steps=50,
        guidance_scale=4.0,
        encode=_encode_klein,
        reader=_chat_reader,
        takes_picture=True,
    ),
    FlowFamily(
        pipeline="QwenImageInpaintPipeline",
        opens=("QwenImagePipeline", "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline"),
        steps=50,
        guidance_scale=4.0,
        guidance="true_cfg_scale",
        encode=_encode_qwen,
        reader=_qwen_reader,
        settings={"max_sequence_length": QWEN_TOKENS},
    ),
    FlowFamily(
        pipeline="QwenImageEditInpaintPipeline",
        opens=("QwenImageEditPipeline", "QwenImageEditPlusPipeline", "QwenImageEditInpaintPipeline"),
        steps=50,
        guidance_scale=4.0,
        guidance="true_cfg_scale",
        encode=_pass_texts,
        takes_picture=True,
        reads_picture=True,
        parts=_picture_processor,
    ),
    FlowFamily(
        pipeline="ZImageInpaintPipeline",
        opens=("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline"),
        steps=50,
        guidance_scale=5.0,
        encode=_encode_z_image,
        reader=_chat_reader,
    ),
)
