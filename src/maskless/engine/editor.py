"""The editor: it turns pictures and texts into ranked edits."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from threading import Lock
from typing import Any, cast
from weakref import WeakValueDictionary

import numpy as np

from maskless.data.canvas import Extend
from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.data.keep_options import KeepOptions
from maskless.data.model_options import ModelOptions
from maskless.data.options import OptionValue
from maskless.data.picture import ImageLike
from maskless.data.result import EditResult, StepRecord
from maskless.data.types import EditRequest
from maskless.engine.requests import Box, make_request
from maskless.engine.run import Run
from maskless.engine.tasks import start_run
from maskless.locating.view import PictureView
from maskless.method.search import State
from maskless.models.inpainters.denoising import OnStep, watched
from maskless.models.pretrained import EditModels, load_models

KEPT_VIEWS = 2
"""How many pictures' views an editor keeps, so that another edit of the same picture pays for no features."""
KEPT_PIXELS = 16_000_000
"""Larger pictures are not kept: each would take over 190 MB, and its features are small beside it. `look` keeps any."""
EDIT, MODEL, KEEP = ({option.name for option in fields(kind)} for kind in (EditConfig, ModelOptions, KeepOptions))


class Editor:
    """Edits pictures with one set of frozen models.

    editor = Editor.from_pretrained("storybook")
    result = editor.edit("scene.png", caption="a red car", prompt="a blue house")
    result.best.save("edited.png")

    An editor has its models and options, which no edit changes, and keeps what was computed from the last KEPT_VIEWS
    pictures. Several threads can use one editor at the same time, each with its own runs.
    """

    def __init__(self, models: EditModels, config: EditConfig | None = None) -> None:
        self.models = models
        self.config = _checked_config(config)
        # The views that are in use, by the identity of their picture, so that a request from a view shares it.
        self._views: WeakValueDictionary[int, PictureView] = WeakValueDictionary()
        self._recent: OrderedDict[str, PictureView] = OrderedDict()
        self._lock = Lock()

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
        config = _checked_config(config)
        for name in options:
            if name in KEEP:
                raise _option_of_keeping(name)
            if name not in EDIT | MODEL:
                raise MasklessError(f"unknown option {name!r}; the options are {', '.join(sorted(EDIT | MODEL))}")
        edit: dict[str, Any] = {name: value for name, value in options.items() if name in EDIT}
        chosen = replace(config, **edit)
        rest: dict[str, Any] = {name: value for name, value in options.items() if name not in EDIT}
        return cls(load_models(ModelOptions(models=str(models), **rest)), chosen)

    def look(self, image: ImageLike) -> PictureView:
        """A view of a picture that many edits of it can share, so that its features are computed only once.

        view = editor.look("scene.png")
        first = editor.edit(view, caption="a red car", prompt="a blue house")
        second = editor.edit(view, caption="a tree", prompt="a tent")
        """
        view = PictureView(image, self.models)
        self._views[id(view.source)] = view
        return view

    def request(
        self,
        image: ImageLike | PictureView,
        *,
        caption: str = "",
        prompt: str = "",
        task: str = "replace",
        mask: ImageLike | None = None,
        mask_mode: str | None = None,
        soft_mask: bool = False,
        box: Box | None = None,
        extend: Extend | None = None,
        seed: int | None = None,
    ) -> EditRequest:
        """A request from a path, a PIL image, an array, a tensor or a view; see `edit` for the arguments.

        A run of the request uses the view as long as it exists.
        """
        if isinstance(image, PictureView):
            self._views[id(image.source)] = image
        return make_request(
            _picture(image), caption=caption, prompt=prompt, task=task, mask=mask, mask_mode=mask_mode,
            soft_mask=soft_mask, box=box, extend=extend, seed=seed,
        )  # fmt: skip

    def start(
        self,
        request: EditRequest,
        *,
        view: PictureView | None = None,
        state: State | None = None,
        **options: OptionValue,
    ) -> Run:
        """A run to iterate over, from the beginning or from the `state` of a run that was stopped.

        view: a view of the same picture, from `look`; None takes that which the request was made from, if any.
        options: fields of EditConfig to change for this edit.

        Raises:
            MasklessError: something else than a request, a view of another picture, or a state of another edit or of
                other options.
        """
        return self._start(request, _changed(self.config, options), view, state)

    def _start(
        self, request: EditRequest, config: EditConfig, view: PictureView | None = None, state: State | None = None
    ) -> Run:
        """See `start`. config: the options of this edit."""
        if not isinstance(request, EditRequest):
            raise MasklessError(f"start needs a request, from editor.request(image, ...), got {_shown(request)}")
        if state is not None and not isinstance(state, Mapping):
            raise MasklessError(
                f"state must be the state() of a run, got {_shown(state)}; to continue from a checkpoint file, start "
                "without it and call maskless.records.checkpoints.resume(run, load_checkpoint(file))"
            )
        return start_run(request, self.models, config, view=view or self._view_of(request), state=state)

    def _view_of(self, request: EditRequest) -> PictureView:
        """The view that a request was made from, if it still exists; else a recent one of the same pixels, or a new
        one."""
        view, source = self._views.get(id(request.source)), request.source
        if view is not None and view.source is source:
            return view
        if request.size_yx[0] * request.size_yx[1] > KEPT_PIXELS:
            return PictureView(request.source, self.models)
        pixels = source.pixels if source.floats is None else source.floats.contiguous().numpy()
        digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype}".encode())
        digest.update(np.ascontiguousarray(pixels).data)
        key = digest.hexdigest()
        with self._lock:
            view = self._recent.pop(key, None) or PictureView(request.source, self.models)
            self._recent[key] = view
            while len(self._recent) > KEPT_VIEWS:
                self._recent.popitem(last=False)
        return view

    def stream(self, request: EditRequest, **options: OptionValue) -> Iterator[StepRecord]:
        """The steps of an edit as they are made. To get the result as well, use `start` and keep the run."""
        yield from self._start(request, _changed(self.config, options))

    def edit(
        self,
        image: ImageLike | EditRequest | PictureView,
        *,
        caption: str = "",
        prompt: str = "",
        task: str = "replace",
        mask: ImageLike | None = None,
        mask_mode: str | None = None,
        soft_mask: bool = False,
        box: Box | None = None,
        extend: Extend | None = None,
        seed: int | None = None,
        on_step: OnStep | None = None,
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
            mask_mode: bright, opaque or transparent: what of the mask's picture says where to edit; needed only for a
                mask with transparent parts that could mean either.
            soft_mask: take the grey values of the mask as how much each pixel may change.
            box: (x0, y0, x1, y1) in pixels, half-open, instead of a mask.
            extend: canvas to add for the task extend: 0.25 of each side, 64 pixels, or "left=0.5,top=40".
            seed: seed of the noise and of the search; None takes that of the config.
            on_step: called after each denoising step with its number, from 1, and the number of steps of the drawing;
                the edit stops if it returns True. For a run use `maskless.models.inpainters.denoising.watched`.
            options: fields of EditConfig to change for this edit.
        Raises:
            MasklessError: an unusable input; the message says what was expected and what was given.
            EditCancelled: `on_step` returned True.
        """
        config = _changed(self.config, options)
        texts: dict[str, Any] = {"caption": caption, "prompt": prompt, "task": task, "soft_mask": soft_mask}
        others: dict[str, Any] = {"mask": mask, "mask_mode": mask_mode, "box": box, "extend": extend, "seed": seed}
        if isinstance(image, EditRequest):
            usual = {"caption": "", "prompt": "", "task": "replace", "soft_mask": False}
            extras = [name for name, value in texts.items() if value != usual[name]]
            extras += [name for name, value in others.items() if value is not None]
            if extras:
                raise MasklessError(
                    f"edit got a whole request, which has its own {extras[0]}: give {', '.join(extras)} to "
                    "editor.request instead"
                )
        request = image if isinstance(image, EditRequest) else self.request(image, **texts, **others)
        with watched(on_step):
            return self._start(request, config).result()


def _picture(image: ImageLike | PictureView) -> ImageLike:
    """What a request is made from: a picture, or that of a view."""
    return image.source if isinstance(image, PictureView) else image


def _shown(value: object) -> str:
    """A value that the user gave, short enough for a message."""
    return repr(value) if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"


def _checked_config(config: EditConfig | None) -> EditConfig:
    """The options of every edit; the defaults for None.

    Raises:
        MasklessError: something else than an EditConfig.
    """
    if config is not None and not isinstance(config, EditConfig):
        raise MasklessError(f"config must be an EditConfig, such as EditConfig(steps=20), got {_shown(config)}")
    return config or EditConfig()


def _option_of_keeping(name: str) -> MasklessError:
    return MasklessError(
        f"{name} is an option of KeepOptions, for what is kept on the disk: give it to "
        "maskless.records.keeping.kept(run, folder, keep=KeepOptions(...)), not to an edit"
    )


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
            raise _option_of_keeping(name)
        if name not in EDIT:
            raise MasklessError(f"unknown option {name!r}; the options are {', '.join(config.to_dict())}")
    return replace(config, **cast(dict[str, Any], dict(options)))
