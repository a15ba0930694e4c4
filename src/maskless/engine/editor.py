"""The editor: it turns pictures and texts into ranked edits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, cast

from maskless.data.canvas import Extend
from maskless.data.config import EditConfig, KeepOptions, ModelOptions
from maskless.data.errors import MasklessError
from maskless.data.options import OptionValue
from maskless.data.picture import ImageLike, load_image
from maskless.data.result import EditResult, StepRecord
from maskless.data.types import EditRequest
from maskless.engine.requests import Box, make_request
from maskless.engine.run import Run
from maskless.engine.tasks import start_run
from maskless.locating.view import PictureView
from maskless.method.search import State
from maskless.models.pretrained import EditModels, load_models

EDIT, MODEL, KEEP = ({option.name for option in fields(kind)} for kind in (EditConfig, ModelOptions, KeepOptions))


class Editor:
    """Edits pictures with one set of frozen models.

    editor = Editor.from_pretrained("storybook")
    result = editor.edit("scene.png", caption="a red car", prompt="a blue house")
    result.best.save("edited.png")

    An editor only has its models and options, and no edit changes them. Several threads can therefore use one editor at
    the same time, each with its own runs.
    """

    def __init__(self, models: EditModels, config: EditConfig | None = None) -> None:
        self.models = models
        self.config = config or EditConfig()

    @classmethod
    def from_pretrained(
        cls, models: str = "storybook", *, config: EditConfig | None = None, **options: OptionValue
    ) -> Editor:
        """Load models and choose options.

        Args:
            models: "storybook" (bundled) or another preset (`maskless models` lists them), a folder with inpainting/,
                dino/ and clip/, or an inpainting model alone, by folder, .safetensors file or hub id, with the options
                `dino` and `clip`.
            config: the options of every edit; None takes the defaults.
            options: fields of ModelOptions, such as device="cpu" or redraw="owner/name", and fields of EditConfig that
                replace those of `config`, such as iterations=5.
        Raises:
            MasklessError: unknown or damaged models, a device that is not available, an option that is unknown or out
                of range.
        """
        for name in options:
            if name not in EDIT | MODEL:
                raise MasklessError(f"unknown option {name!r}; the options are {', '.join(sorted(EDIT | MODEL))}")
        edit: dict[str, Any] = {name: value for name, value in options.items() if name in EDIT}
        chosen = replace(config or EditConfig(), **edit)
        rest: dict[str, Any] = {name: value for name, value in options.items() if name not in EDIT}
        return cls(load_models(ModelOptions(models=str(models), **rest)), chosen)

    def look(self, image: ImageLike) -> PictureView:
        """A view of a picture that many edits of it can share, so that its features are computed only once.

        view = editor.look("scene.png")
        first = editor.edit(view, caption="a red car", prompt="a blue house")
        second = editor.edit(view, caption="a tree", prompt="a tent")
        """
        source = load_image(image)
        return PictureView(source.rgb, self.models, source=source)

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

    def start(
        self,
        request: EditRequest,
        *,
        view: PictureView | None = None,
        state: State | None = None,
        **options: OptionValue,
    ) -> Run:
        """A run to iterate over, from the beginning or from the `state` of a run that was stopped.

        view: a view of the same picture, from `look`. options: fields of EditConfig to change for this edit.
        """
        return start_run(request, self.models, _changed(self.config, options), view=view, state=state)

    def stream(self, request: EditRequest, **options: OptionValue) -> Iterator[StepRecord]:
        """The steps of an edit as they are made. To get the result as well, use `start` and keep the run."""
        yield from start_run(request, self.models, _changed(self.config, options))

    def edit(
        self,
        image: ImageLike | EditRequest | PictureView,
        *,
        caption: str = "",
        prompt: str = "",
        task: str = "replace",
        mask: ImageLike | None = None,
        box: Box | None = None,
        extend: Extend | None = None,
        seed: int | None = None,
        **options: OptionValue,
    ) -> EditResult:
        """Edit a picture.

        Args:
            image: a path, a PIL image, an array, a tensor, a view from `look`, or a whole request.
            caption: what is in the picture at the location of the edit.
            prompt: what should be there instead.
            task: complete, add, remove, replace, extend, repair, style, background, texture, creative or generate.
            mask: a picture of the same size, bright where it may change, or a bool array [H, W]. With a mask, no region
                is searched.
            box: (x0, y0, x1, y1) in pixels, half-open, instead of a mask.
            extend: canvas to add for the task extend: 0.25 of each side, 64 pixels, or "left=0.5,top=40".
            seed: seed of the noise and of the search; None takes that of the config.
            options: fields of EditConfig to change for this edit.
        Raises:
            MasklessError: an unusable input; the message says what was expected and what was given.
        """
        config = _changed(self.config, options)
        if isinstance(image, EditRequest):
            return start_run(image, self.models, config).result()
        view, picture = (image, image.source or image.image) if isinstance(image, PictureView) else (None, image)
        request = self.request(
            picture, caption=caption, prompt=prompt, task=task, mask=mask, box=box, extend=extend, seed=seed
        )
        return start_run(request, self.models, config, view=view).result()


def _changed(config: EditConfig, options: Mapping[str, OptionValue]) -> EditConfig:
    """The options of one edit.

    Raises:
        MasklessError: an option that does not belong to an edit; the message says where it belongs, if it exists.
    """
    for name in options:
        if name in MODEL:
            raise MasklessError(
                f"{name} is an option of loading models: give it to Editor.from_pretrained, not to an edit"
            )
        if name in KEEP:
            raise MasklessError(f"{name} is an option of KeepOptions, for what is kept on the disk, not of an edit")
        if name not in EDIT:
            raise MasklessError(f"unknown option {name!r}; the options are {', '.join(config.to_dict())}")
    return replace(config, **cast(dict[str, Any], dict(options)))
