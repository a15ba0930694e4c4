"""MasklessInpaintPipeline: an edit without a mask as a pipeline of diffusers, around any inpainting pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils.outputs import BaseOutput
from PIL import Image
from torch import Tensor

from maskless.data.errors import require
from maskless.data.model_options import ModelOptions
from maskless.data.picture import ImageLike
from maskless.data.result import EditedImage, EditResult
from maskless.engine.editor import Editor
from maskless.interfaces.diffusers.anchor_net import AnchorNetModel
from maskless.interfaces.diffusers.components import components_of, edit_models, save_as_models_folder
from maskless.models.inpainters.denoising import completed_step, watched
from maskless.models.presets import BY_NAME
from maskless.models.pretrained import load_encoders, load_models
from maskless.models.sources import BUNDLED

OUTPUT_TYPES = ("pil", "np", "pt")
TENSOR_INPUTS = ("latents",)
ENCODERS_FOR_PHOTOGRAPHS = "sd15"
"""The preset whose DINO and CLIP `from_pipe` takes if none is named."""
Callback = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any] | None]


@dataclass
class MasklessPipelineOutput(BaseOutput):
    """What the pipeline returns.

    images: N edited pictures: a list of PIL images, an array [N, H, W, 3] or a tensor [N, 3, H, W] in [0, 1]; a list of
    arrays or tensors if the pictures have different sizes. boxes: the edited box (x0, y0, x1, y1) of each, in pixels,
    half-open. masks: for each a bool tensor [H, W], True where it may differ from the original; everywhere else they
    are equal. results: the whole result of each edit, with all candidates.
    """

    images: Any
    boxes: list[tuple[int, int, int, int]]
    masks: list[Tensor]
    results: list[EditResult]


class MasklessInpaintPipeline(DiffusionPipeline):
    """Finds the region that a caption names, inpaints it with the prompt, and leaves every other pixel as it was.

    pipe = MasklessInpaintPipeline.from_pretrained("storybook")
    output = pipe(prompt="a blue house", image=picture, caption="a red car", generator=torch.Generator().manual_seed(0))
    output.images[0].save("edited.png")

    Components: inpainting, a pipeline of one of the families that Maskless supports; dino and clip, which find the
    region, with clip_tokenizer; and, each optional, redraw, a pipeline that takes the picture, for the tasks style and
    texture, and anchor_net, from which learned searches start.
    """

    _optional_components = ["redraw", "anchor_net"]
    _callback_tensor_inputs = list(TENSOR_INPUTS)
    model_cpu_offload_seq = None

    def __init__(
        self,
        inpainting: Any,
        dino: Any,
        clip: Any,
        clip_tokenizer: Any,
        redraw: Any = None,
        anchor_net: AnchorNetModel | None = None,
        normalisation: dict[str, Any] | None = None,
        inpainting_settings: dict[str, Any] | None = None,
        redraw_settings: dict[str, Any] | None = None,
    ) -> None:
        """normalisation: {"dino": [mean, std], "clip": [mean, std]} of RGB in [0, 1]; None takes ImageNet's and CLIP's.
        inpainting_settings, redraw_settings: what docs/models.md describes under maskless.json."""
        super().__init__()
        self.register_modules(
            inpainting=inpainting, dino=dino, clip=clip, clip_tokenizer=clip_tokenizer, redraw=redraw,
            anchor_net=anchor_net,
        )  # fmt: skip
        self.register_to_config(
            normalisation=normalisation, inpainting_settings=inpainting_settings, redraw_settings=redraw_settings
        )
        self._interrupt = False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> MasklessInpaintPipeline:
        """Load the pipeline.

        pretrained_model_name_or_path: a folder or hub id that `save_pretrained` has written; or what
        `Editor.from_pretrained` takes: "storybook" or another preset, or a folder with inpainting/, dino/ and clip/.
        kwargs: for the first, diffusers' own; for the others, fields of ModelOptions, and torch_dtype or dtype. The
        models are loaded to the CPU unless `device` says otherwise.

        Raises:
            MasklessError: unknown or damaged models.
        """
        name = str(pretrained_model_name_or_path)
        folder = Path(name)
        own = folder.is_dir() and not (folder / "model_index.json").is_file()
        if not (own or (not folder.exists() and name in (BUNDLED, *BY_NAME))):
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        dtype = kwargs.pop("torch_dtype", None) or kwargs.pop("dtype", None) or torch.float32
        options = {"device": "cpu", "dtype": str(dtype).removeprefix("torch."), **kwargs}
        known = sorted({field.name for field in fields(ModelOptions)} - {"models"})
        unknown = ", ".join(sorted(set(options) - set(known)))
        require(not unknown, f"the options of loading {name} are {', '.join(known)}; got {unknown}")
        return cls(**components_of(load_models(ModelOptions(models=name, **options))))

    @classmethod
    def from_pipe(cls, pipeline: Any, **kwargs: Any) -> MasklessInpaintPipeline:
        """A pipeline around one that is loaded, whose networks it shares.

        pipeline: an inpainting pipeline of a supported family, or a MasklessInpaintPipeline. kwargs: components that
        replace those of `pipeline`; for an inpainting pipeline also `encoders`, a preset or a folder whose DINO and
        CLIP are taken (default: those for photographs).
        """
        if isinstance(pipeline, MasklessInpaintPipeline):
            kept = {name: pipeline.config[name] for name in ("normalisation", "inpainting_settings", "redraw_settings")}
            return cls(**{**pipeline.components, **kept, **kwargs})
        encoders = kwargs.pop("encoders", ENCODERS_FOR_PHOTOGRAPHS)
        found = load_encoders(ModelOptions(models=str(encoders), device="cpu"))
        made = cls(**{**components_of(found), "inpainting": pipeline, **kwargs})
        for network in (made.dino, made.clip):
            network.to(pipeline.device)
        return made

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write every component to its folder, and model_index.json.

        `maskless edit --models` and `Editor.from_pretrained` read the same folder.
        """
        super().save_pretrained(str(save_directory), **kwargs)
        save_as_models_folder(self, Path(save_directory))

    def to(self, *args: Any, **kwargs: Any) -> MasklessInpaintPipeline:
        """Move the networks. A number format is only for the pipelines that draw: DINO and CLIP stay in float32."""
        self.inpainting.to(*args, **kwargs)
        if self.redraw is not None:
            self.redraw.to(*args, **kwargs)
        for network in (self.dino, self.clip):
            network.to(self.inpainting.device)
        return self

    @property
    def device(self) -> torch.device:
        """The device that the pipeline computes on."""
        return self.inpainting.device

    @property
    def interrupt(self) -> bool:
        """Whether the edit stops after the present denoising step."""
        return self._interrupt

    def __call__(
        self,
        prompt: str | Sequence[str] = "",
        image: ImageLike | Sequence[ImageLike] | None = None,
        caption: str | Sequence[str] = "",
        mask_image: ImageLike | None = None,
        box: Sequence[int] | None = None,
        task: str = "replace",
        negative_prompt: str | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = TENSOR_INPUTS,
        **options: Any,
    ) -> MasklessPipelineOutput | tuple[Any, ...]:
        """Edit one or several pictures.

        Args:
            prompt, image, caption: what should be in the picture; the picture, with values in [0, 1] if it is an array
                [H, W, 3] or a tensor [3, H, W]; what is there now. Each is one value or a list of N; one value holds
                for all. A tensor [N, 3, H, W] is N pictures.
            mask_image: bright where to edit, instead of a search. box: (x0, y0, x1, y1) in pixels, half-open.
            task: see `Editor.edit`.
            num_images_per_prompt: number of edits of each picture, each with a seed of its own.
            generator: the seeds of the noise are drawn from it, or each from its own in a list of N *
                num_images_per_prompt. None takes torch's global generator, as in diffusers.
            output_type: pil, np or pt.
            return_dict: False returns (images, boxes, masks, results).
            callback_on_step_end: called as callback(pipe, step, timestep, {"latents": …}) after each denoising step of
                each drawing. What it returns is not used. If it sets `pipe._interrupt`, the edit stops.
            options: fields of EditConfig, such as search="learned" or budget=3.
        Raises:
            MasklessError: unusable input. EditCancelled: the callback has set `_interrupt`.
        """
        require(image is not None, "image must be the picture to edit, got None")
        require(output_type in OUTPUT_TYPES, f"output_type must be one of {OUTPUT_TYPES}, got {output_type!r}")
        unknown = set(callback_on_step_end_tensor_inputs) - set(TENSOR_INPUTS)
        require(not unknown, f"callback_on_step_end_tensor_inputs can have {TENSOR_INPUTS}, got {sorted(unknown)}")
        rows = _rows(image, prompt, caption)
        seeds = _seeds(generator, len(rows) * num_images_per_prompt)
        chosen = {"steps": num_inference_steps, "guidance_scale": guidance_scale, "negative_prompt": negative_prompt}
        options |= {name: value for name, value in chosen.items() if value is not None}
        self._interrupt = False
        editor = Editor(edit_models(self))
        on_step = self._watcher(callback_on_step_end, callback_on_step_end_tensor_inputs)
        results = []
        for number, (picture, text, there) in enumerate(rows):
            view = editor.look(picture)
            for seed in seeds[number * num_images_per_prompt : (number + 1) * num_images_per_prompt]:
                request = editor.request(
                    view, caption=there, prompt=text, task=task, mask=mask_image, box=box, seed=seed
                )
                net = self.anchor_net if options.get("search") == "learned" else None
                state = None if net is None else {"anchor_net": net.net.state_dict()}
                run = editor.start(request, state=state, **options)
                with self.progress_bar(total=run.total_steps) as bar, on_step():
                    for step in run:
                        bar.update(step.step - bar.n)
                    results.append(run.result())
        best = [result.best for result in results]
        output = MasklessPipelineOutput(
            images=_images(best, output_type),
            boxes=[each.box_xyxy for each in best],
            masks=[each.touched() for each in best],
            results=results,
        )
        return output if return_dict else (output.images, output.boxes, output.masks, output.results)

    def _watcher(self, callback: Callback | None, names: Sequence[str]) -> Callable[[], Any]:
        """A context manager's constructor: in it, `callback` is called after each denoising step."""
        if callback is None:
            return nullcontext

        def on_step(step: int, _total: int) -> bool:
            timestep, latents = completed_step()
            callback(self, step - 1, timestep, {name: latents for name in names})
            return self._interrupt

        return lambda: watched(on_step)


def _rows(image: Any, prompt: Any, caption: Any) -> list[tuple[Any, str, str]]:
    """(picture, prompt, caption) of each edit."""
    batch = isinstance(image, (Tensor, np.ndarray)) and image.ndim == 4
    columns = [list(image) if batch or isinstance(image, (list, tuple)) else [image]]
    columns += [[text] if isinstance(text, str) else list(text) for text in (prompt, caption)]
    count = max(map(len, columns))
    for name, column in zip(("image", "prompt", "caption"), columns, strict=True):
        require(len(column) in (1, count), f"{name} must be one value or a list of {count}, got {len(column)}")
    image, prompt, caption = (column * count if len(column) == 1 else column for column in columns)
    return list(zip(image, prompt, caption, strict=True))


def _seeds(generator: torch.Generator | Sequence[torch.Generator] | None, count: int) -> list[int]:
    """A seed for each edit."""
    if isinstance(generator, (list, tuple)):
        require(len(generator) == count, f"generator must be one or a list of {count}, got {len(generator)}")
        return [_seed(each) for each in generator]
    return [_seed(generator) for _ in range(count)]  # type: ignore[arg-type]


def _seed(generator: torch.Generator | None) -> int:
    device = None if generator is None else generator.device
    return int(torch.randint(2**63 - 1, (1,), generator=generator, device=device))


def _images(edited: list[EditedImage], output_type: str) -> list[Image.Image] | list[Any] | np.ndarray | Tensor:
    """The pictures in the form that the caller wants."""
    if output_type == "pil":
        return [each.pil() for each in edited]
    tensors = [each.tensor() for each in edited]
    alike = len({each.shape for each in tensors}) == 1
    if output_type == "pt":
        return torch.stack(tensors) if alike else tensors
    arrays = [each.movedim(0, -1).numpy() for each in tensors]
    return np.stack(arrays) if alike else arrays
