"""The editor: pictures and words in, ranked edits out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from maskless.data.config import EditConfig
from maskless.data.result import EditResult, StepRecord
from maskless.data.types import EditRequest
from maskless.engine.requests import Box, Extend, make_request
from maskless.engine.tasks import Run, start_run
from maskless.models.pretrained import EditModels, load_models

if TYPE_CHECKING:
    from maskless.data.picture import ImageLike


class Editor:
    """Edits pictures with one set of frozen models.

    editor = Editor.from_pretrained("storybook")
    result = editor.edit("scene.png", caption="a red car", prompt="a blue house")
    result.best.save("edited.png")
    """

    def __init__(self, models: EditModels, config: EditConfig | None = None) -> None:
        self.models = models
        self.config = config or EditConfig()

    @classmethod
    def from_pretrained(
        cls,
        models: str = "storybook",
        *,
        dino: str | None = None,
        clip: str | None = None,
        redraw: str | None = None,
        config: EditConfig | None = None,
        **options: Any,
    ) -> Editor:
        """Load models and choose options.

        Args:
            models: "storybook" (bundled) or another preset (`maskless models` lists them), a folder with inpainting/,
                dino/ and clip/, or an inpainting model alone, by folder, .safetensors file or hub id, with `dino` and
                `clip` named as well.
            redraw: an InstructPix2Pix model, by folder or hub id, for the tasks style and texture.
            config: the options; the defaults where none are given.
            options: fields of EditConfig to change, such as iterations=5 or device="cpu".
        Raises:
            MasklessError: unknown or damaged models, a device that is not there, an option out of range.
        """
        chosen = _with_options(config or EditConfig(), options)
        loaded = load_models(
            str(models),
            dino=dino,
            clip=clip,
            redraw=redraw,
            device=chosen.device,
            dtype=chosen.dtype,
            memory=chosen.memory,
            offline=chosen.offline,
            allow_pickle=chosen.allow_pickle,
            scheduler=chosen.scheduler,
            lora=chosen.lora,
        )
        return cls(loaded, chosen)

    def request(
        self,
        image: ImageLike,
        *,
        caption: str = "",
        prompt: str = "",
        task: str = "replace",
        mask: ImageLike | None = None,
        box: Box | None = None,
        extend: Extend | None = None,
        seed: int | None = None,
    ) -> EditRequest:
        """A request from a path, a PIL image, an array or a tensor; see `edit` for the arguments."""
        return make_request(
            image, caption=caption, prompt=prompt, task=task, mask=mask, box=box, extend=extend, seed=seed
        )

    def start(self, request: EditRequest, *, state: dict[str, Any] | None = None, **options: Any) -> Run:
        """A run to iterate over, from the beginning or from the `state` of one that was stopped."""
        return start_run(request, self.models, _with_options(self.config, options), state=state)

    def stream(self, request: EditRequest, **options: Any) -> Iterator[StepRecord]:
        """StepRecords as they happen. For the result as well, keep the run: `run = editor.start(request)`."""
        yield from self.start(request, **options)

    def edit(
        self,
        image: ImageLike | EditRequest,
        *,
        caption: str = "",
        prompt: str = "",
        task: str = "replace",
        mask: ImageLike | None = None,
        box: Box | None = None,
        extend: Extend | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> EditResult:
        """Edit a picture.

        Args:
            image: a path, a PIL image, an array, a tensor, or a whole request.
            caption: what is there. prompt: what should be there.
            task: complete, add, remove, replace, extend, repair, style, background, texture, creative or generate.
            mask: a picture of the same size, bright where to edit, or a bool array [H, W]; it overrides the search.
            box: (x0, y0, x1, y1) in pixels, half-open, in place of a mask.
            extend: canvas to add for the task extend: 0.25 of each side, 64 pixels, or "left=0.5,top=40".
            seed: of the noise and the search; the config's where None.
            options: fields of EditConfig to change for this edit.
        Raises:
            MasklessError: an input that cannot be used, with what was expected and what came.
        """
        if not isinstance(image, EditRequest):
            image = self.request(
                image, caption=caption, prompt=prompt, task=task, mask=mask, box=box, extend=extend, seed=seed
            )
        run = self.start(image, **options)
        for _record in run:
            pass
        return run.result()


def _with_options(config: EditConfig, options: dict[str, Any]) -> EditConfig:
    from maskless.data.errors import MasklessError

    unknown = sorted(set(options) - set(config.to_dict()))
    if unknown:
        raise MasklessError(f"unknown option {unknown[0]!r}; the options are {', '.join(config.to_dict())}")
    return replace(config, **options)
