"""The kinds of edit: for each, a function that turns a request into a run.

A run searches for the region of the edit or draws in a known one. If the request has a mask, no region is searched. To
add a kind of edit, write its function here, name it in RUNS and add its facts to data/tasks.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from maskless.data.config import EditConfig, ResolvedConfig
from maskless.data.errors import MasklessError
from maskless.data.instructions import phrases
from maskless.data.masks import dilate
from maskless.data.options import OptionValue
from maskless.data.types import EditRequest
from maskless.engine.fill_canvas import NamedRegion
from maskless.engine.fill_run import FillRun
from maskless.engine.painters import FillPlan, RedrawPlan
from maskless.engine.parts_run import PartsRun
from maskless.engine.run import Run, resolved
from maskless.engine.search_run import SearchPlan, SearchRun
from maskless.engine.sequence_run import SequenceRun, new_object_size
from maskless.locating.location import locate
from maskless.locating.named_mask import named_mask
from maskless.locating.objects import objects_in
from maskless.locating.view import PictureView
from maskless.method.search import State
from maskless.models.inpainters.protocol import InpaintingModel
from maskless.models.pretrained import EditModels

ERASES = ("remove", "complete", "repair")
"""The tasks that an eraser does where the models have one and the request has no prompt."""
CONTINUES = (*ERASES, "extend")
"""The tasks that a model without a prompt can do."""
SCENERY = ("meadow", "beach", "snow", "desert", "night", "sea", "forest", "city", "room", "street", "sky", "mountains")
"""Kinds of background. If the prompt is empty, CLIP chooses one for the background to continue."""
REPAIR = FillPlan(strengths=(0.25, 0.5, 1.0), erase=True, thin_marks=True)
OBJECT = FillPlan(refine=True)
"""The plan for an object in the user's own mask."""
REMOVE_MARGIN = 0.03
"""Margin around an object that is removed, as a share of the picture's shorter side, so that its rim is removed too."""
BACKGROUND_MARGIN = 0.008
"""Margin around objects in front of a new background, as a share of the picture's shorter side, and maximum width of
the seam. It is about a pixel of a small picture. A larger margin leaves a rim of the old background around the
objects."""
KEEP_MARGIN = 0.015
"""Margin around the existing objects that a new object should not cover, as a share of the picture's shorter side."""
TEXTURE_CONTEXT = 0.15
"""Maximum of the option `context` for a texture that is changed by a model that takes the picture."""


@dataclass(frozen=True, kw_only=True)
class RedrawPlans:
    """How a task redraws the content of its region, for each kind of model.

    by_instruction: for a model that takes the picture. by_flowedit: for another model with a denoiser.
    by_partial_noise: for the rest: the region is filled from the picture's own latents with some noise. The values were
    chosen on validation scenes (docs/results.md).
    """

    by_instruction: FillPlan
    by_flowedit: FillPlan
    by_partial_noise: FillPlan

    def plan(self, inpainter: InpaintingModel) -> FillPlan:
        """The plan for a model."""
        if inpainter.takes_picture:
            return self.by_instruction
        return self.by_partial_noise if inpainter.denoiser is None else self.by_flowedit


STYLE = RedrawPlans(
    by_instruction=FillPlan(strengths=(1.0,) * 2, redraw=RedrawPlan(scale=2)),
    by_flowedit=FillPlan(strengths=(0.3, 0.4, 0.5), redraw=RedrawPlan(guidance_factor=2.5, step_factor=2)),
    by_partial_noise=FillPlan(strengths=(0.35, 0.5, 0.65, 0.8)),
)
TEXTURE = RedrawPlans(
    by_instruction=FillPlan(strengths=(1.0,) * 4, redraw=RedrawPlan()),
    by_flowedit=FillPlan(strengths=(0.6, 0.8, 1.0), redraw=RedrawPlan(guidance_factor=3.2)),
    by_partial_noise=FillPlan(strengths=(0.5, 0.65, 0.8, 1.0)),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """Everything that a task needs to create its run. models: with the inpainter that the task draws with. view: of the
    request's picture."""

    request: EditRequest
    models: EditModels
    config: ResolvedConfig
    view: PictureView

    def fill(self, plan: FillPlan | None = None, locate: Callable[..., NamedRegion] | None = None) -> Run:
        """A run that draws in the request's own mask, or in the region that `locate` finds."""
        kind = PartsRun if self.config.each_part else FillRun
        return kind(self.request, self.models, self.config, plan, locate=locate, view=self.view)

    def search(self, plan: SearchPlan | None = None) -> SearchRun:
        """A run that searches for the region."""
        return SearchRun(self.request, self.models, self.config, plan=plan, view=self.view)


def start_run(
    request: EditRequest,
    models: EditModels,
    config: EditConfig,
    *,
    view: PictureView | None = None,
    state: State | None = None,
) -> Run:
    """The run for the request's task. Nothing is computed or drawn yet.

    Args:
        view: a view of the same picture, from another edit. It is not used if the task changes the picture first.
        state: the `state()` of an earlier run to continue.
    Raises:
        MasklessError: the view is of another picture or was made with other models, the state belongs to another edit,
            the task does not learn a region, or the models cannot do what the options ask for.
    """
    view = PictureView(request.source, models) if view is None else _fitting(view, request, models)
    models = _models_for(request, models)
    if request.amount is not None and models.inpainter.denoiser is None:
        raise MasklessError("a soft mask needs an inpainting model with a UNet (Stable Diffusion 1.5, 2 or XL)")
    if config.whole_window:
        _require_whole_window(request, models)
    run = RUNS[request.task](Job(request=request, models=models, config=resolved(config, request, models), view=view))
    if state is not None:
        run.resume(state)
    return run


def _models_for(request: EditRequest, models: EditModels) -> EditModels:
    """The models with the one that draws this request as the inpainter.

    Raises:
        MasklessError: they only continue surroundings, and the request asks for something new.
    """
    if request.task in REDRAWS:
        models = models.for_redrawing()
    elif request.task in ERASES and not request.prompt.strip():
        models = models.for_erasing()
    if not models.inpainter.follows_prompt and (request.task not in CONTINUES or request.prompt.strip()):
        raise MasklessError(
            f"the model {models.names['inpainting']} continues the surroundings of a region and draws nothing new: it "
            f"takes the tasks {', '.join(CONTINUES)}, without a prompt, got {request.task}"
        )
    return models


def _require_whole_window(request: EditRequest, models: EditModels) -> None:
    """Check that the model can redraw whole windows.

    Raises:
        MasklessError: it does not take the picture, or the mask is soft.
    """
    if not models.inpainter.takes_picture:
        raise MasklessError(
            "whole_window needs a model that takes the picture that it edits, such as Kontext, FLUX.2 klein, "
            f"Qwen-Image-Edit or InstructPix2Pix; the one that draws the task {request.task} here fills a mask"
        )
    if request.amount is not None:
        raise MasklessError("whole_window redraws all of the window, so it cannot be used together with soft_mask")


def _fitting(view: PictureView, request: EditRequest, models: EditModels) -> PictureView:
    """The user's view, or a new one if the task changes the picture before it is edited."""
    if not view.made_with(models):
        raise MasklessError("the view must be made with the same models, by look of the same editor")
    if view.source is request.source or view.source.shows_the_same(request.source):
        return view
    if request.task in CHANGE_THE_PICTURE:
        return PictureView(request.source, models)
    sizes = [" x ".join(map(str, reversed(size))) for size in (request.size_yx, view.size_yx)]
    raise MasklessError(f"the view must be of the request's picture, {sizes[0]}, got one of another, {sizes[1]}")


def replace_object(job: Job) -> Run:
    """The paper's edit: find the region of the caption's object, and draw the prompt there.

    Without a caption nothing says where the object is, so the region is learned from the edits.
    """
    if job.request.mask is not None:
        return job.fill(OBJECT)
    unnamed = job.config.search == "placed" and not job.request.caption.strip()
    return job.search(SearchPlan(changes={"search": "learned"}) if unnamed else None)


def add_object(job: Job) -> Run:
    """Add a new object: the region avoids the existing objects."""
    if job.request.mask is not None:
        return job.fill(OBJECT)
    return job.search(SearchPlan(changes={"max_window_size": new_object_size(job.config)}, avoid=_occupied_by_objects))


def creative(job: Job) -> Run:
    """Add a new object for each phrase of the prompt, with one search for each, on the same picture."""
    if job.request.mask is not None:
        return job.fill(OBJECT)
    prompts = phrases(job.request.prompt) or (job.request.prompt,)
    return SequenceRun(job.request, prompts, job.models, job.config, view=job.view)


def remove(job: Job) -> Run:
    """Remove the objects that the caption names, and continue the background there."""

    def region(view: PictureView, request: EditRequest) -> NamedRegion:
        return _named_region(view, _with_scenery(view, request), margin=REMOVE_MARGIN)

    return job.fill(_erasing(job), region)


def texture(job: Job) -> Run:
    """Give the objects that the caption names the prompt's texture; they keep their shape."""
    changes: dict[str, OptionValue] = {"keep_alpha": True}  # nothing is painted where nothing was
    if job.models.inpainter.takes_picture:
        changes["context"] = min(job.config.context, TEXTURE_CONTEXT)
    return job.fill(replace(TEXTURE.plan(job.models.inpainter), changes=changes), _named_region)


def background(job: Job) -> Run:
    """Replace everything except the objects that the caption names, or except all objects if it is empty."""
    # A new background is not refined, because the effect of that has not been measured.
    if job.request.mask is not None:
        return job.fill()

    def region(view: PictureView, request: EditRequest) -> NamedRegion:
        kept = _named_region(view, request, margin=BACKGROUND_MARGIN, kept=True)
        assert kept.request.mask is not None
        if bool(kept.request.mask.all()):
            raise MasklessError(
                "found no background around the objects; give --mask FILE, bright where the background is"
            )
        return replace(kept, request=replace(kept.request, mask=~kept.request.mask))

    # The seam's width is a share of the region's, and this region is nearly the whole picture, so it must be small.
    return job.fill(FillPlan(changes={"feather": min(job.config.feather, BACKGROUND_MARGIN)}), region)


def style(job: Job) -> Run:
    """Redraw the whole picture in another style.

    Candidates are ranked by the prompt and by how well they keep the structure. The caption is added to a prompt that
    does not contain it, because the objects that it names should stay.
    """
    request = job.request
    if request.caption.strip().lower() not in request.prompt.lower():
        request = replace(request, prompt=f"{request.caption.strip()}, {request.prompt}")
    plan = replace(STYLE.plan(job.models.inpainter), changes={"keep_alpha": True})
    return replace(job, request=whole(request)).fill(plan)


def generate(job: Job) -> Run:
    """Draw the whole frame from the prompt. Only the size of the given picture is used."""
    plan = _erasing(job) if job.request.mask is None else None  # not refined: that has not been measured
    return replace(job, request=whole(job.request)).fill(plan)


def complete(job: Job) -> Run:
    """Fill the missing part of the picture so that it fits its surroundings."""
    return job.fill(_erasing(job), _own_mask)


def extend(job: Job) -> Run:
    """Fill the added canvas; the picture on it does not change."""
    return job.fill(_erasing(job), _own_mask)


def repair(job: Job) -> Run:
    """Fill scratches and holes by continuing their surroundings, with as little new content as possible."""
    strengths = REPAIR.strengths if job.models.inpainter.follows_prompt else (1.0,)
    return job.fill(replace(REPAIR, strengths=strengths, changes={"feather": 0.0}))


RUNS: dict[str, Callable[[Job], Run]] = {
    "complete": complete,
    "add": add_object,
    "remove": remove,
    "replace": replace_object,
    "extend": extend,
    "repair": repair,
    "style": style,
    "background": background,
    "texture": texture,
    "creative": creative,
    "generate": generate,
}
CHANGE_THE_PICTURE = ("complete", "extend", "repair")
"""The tasks whose requests may have another picture than the file: with added canvas, or without transparency."""
REDRAWS = ("style", "texture")
"""The tasks that draw with the redrawer, if there is one."""


def whole(request: EditRequest) -> EditRequest:
    """The request, with a mask of the whole picture if it has no mask."""
    everything = torch.ones(request.size_yx, dtype=torch.bool)
    return request if request.mask is not None else replace(request, mask=everything)


def _erasing(job: Job) -> FillPlan:
    """The plan for a fill that erases the old content first, so that the seam needs no width."""
    # A model without a prompt has no noise either: every try would give the same.
    strengths = FillPlan.strengths if job.models.inpainter.follows_prompt else (1.0,)
    return FillPlan(strengths=strengths, erase=True, changes={"feather": 0.0})


def _own_mask(view: PictureView, request: EditRequest) -> NamedRegion:
    """The request's own mask. If the prompt is empty, the background is continued there."""
    return NamedRegion(request=_with_scenery(view, request))


def _named_region(view: PictureView, request: EditRequest, *, margin: float = 0.0, kept: bool = False) -> NamedRegion:
    """The request with the mask of the objects that the caption names, or of all objects if it is empty.

    If the request has a mask of its own, it stays as it is. margin: by how much the mask is dilated, as a share of the
    shorter side. kept: the objects will be kept, so their mask should rather include some background than miss a part.
    """
    if request.mask is not None:
        return NamedRegion(request=request)
    # The default options are used, because options that shorten a search should not make the mask worse.
    found = locate(view, request.caption, EditConfig().resolved())
    if found.outline is None:
        mask = objects_in(view)
    else:
        mask = named_mask(view, request.caption, found, salient=objects_in(view) if kept else None)
    return NamedRegion(
        request=replace(request, mask=dilate(mask, margin) if margin else mask),
        attention=view.features.attention,
        relevance=found.relevance,
    )


def _occupied_by_objects(view: PictureView) -> Float[Tensor, "H W"]:
    """The existing objects with a margin, 0 or 1, where a new object should not go."""
    objects: Bool[Tensor, "H W"] = objects_in(view)
    return dilate(objects, KEEP_MARGIN).to(torch.float32)


def _with_scenery(view: PictureView, request: EditRequest) -> EditRequest:
    """The request; if its prompt is empty, with "empty" and the most similar scenery as prompt."""
    if request.prompt.strip():
        return request
    # A rare word has a meaningless embedding, so the inpainting model would draw something arbitrary for it.
    known = [scenery for scenery in SCENERY if view.clip.has_token(scenery)] or SCENERY
    similarity = torch.stack([view.embedding @ view.text(f"empty {scenery}") for scenery in known])
    return replace(request, prompt=f"empty {known[int(similarity.argmax())]}")
