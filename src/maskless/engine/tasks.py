"""The kinds of edit. Each is one function from a request to a run: a search for the place, or a fill of a known one.

They differ in the request they build, the region they allow and what the ranking asks for. A mask in the request always
stands in for the search. To add a kind, write its function, name it in RUNS and in TASKS of data/config.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.data.instructions import phrases
from maskless.data.masks import grown
from maskless.data.types import EditRequest
from maskless.engine.fill_run import DrawnOver, FillRun
from maskless.engine.search_run import EditRun
from maskless.engine.sequence_run import SequenceRun, for_newcomer
from maskless.locating.named_mask import named_mask
from maskless.locating.objects import things_in
from maskless.locating.proposals import find_places
from maskless.locating.view import VIEW_PX, at_most
from maskless.models.inpainters.flowedit import can_redraw
from maskless.models.pretrained import EditModels

Run = EditRun | FillRun | SequenceRun
PLACES = ("meadow", "beach", "snow", "desert", "night", "sea", "forest", "city", "room", "street", "sky", "mountains")
"""Where a picture may have been taken; CLIP says which it is, when the background has to go on and is not named."""
STYLE_STRENGTHS = (0.35, 0.5, 0.65, 0.8)
TEXTURE_STRENGTHS = (0.5, 0.65, 0.8, 1.0)
STYLE_DRAWN_OVER = DrawnOver(strengths=(0.3, 0.4, 0.5), contrast=2.5, finer=2)
TEXTURE_DRAWN_OVER = DrawnOver(strengths=(0.6, 0.8, 1.0), contrast=3.2)
"""In place of the two above where a model can draw over what is there; by validation scenes (docs/results.md)."""
STYLE_SEEN = DrawnOver(strengths=(1.0,) * 2, magnified=2)
TEXTURE_SEEN, TEXTURE_CONTEXT = DrawnOver(strengths=(1.0,) * 4), 0.15
"""In place of all of these where a model sees what it draws over, and what it sees around a thing at most."""
REPAIR_STRENGTHS = (0.25, 0.5, 1.0)
REMOVE_MARGIN = 0.03
"""Of the shorter side, by which a thing that goes is grown, so that its rim goes too."""
CRISP = 0.008
"""Of the shorter side, a pixel of a small picture: by which things are grown that stand before a new place, and how
wide its seam is. With more, a rim of the old place stays around them."""
KEEP_MARGIN = 0.015
"""Of the shorter side, by which things that stay are grown."""


def start_run(
    request: EditRequest, models: EditModels, config: EditConfig, *, state: dict[str, Any] | None = None
) -> Run:
    """The run that does the request's task; nothing is inpainted yet.

    state: what `state()` of an earlier run of the same request gave.

    Raises:
        MasklessError: a state for a task that does not learn a region, or of another edit.
    """
    if state is None:
        return RUNS[request.task](request, models, config)
    if request.mask is not None or request.task not in ("replace", "add"):
        raise MasklessError(f"only a search for a region can go on from a checkpoint, got the task {request.task}")
    config = for_newcomer(config) if request.task == "add" else config
    return EditRun(request, models, config, occupied=_occupied(request, models), state=state)


def replace_object(request: EditRequest, models: EditModels, config: EditConfig) -> Run:
    """The paper's edit: the region of the caption is learned, and shows the prompt."""
    return EditRun(request, models, config) if request.mask is None else FillRun(request, models, config)


def add_object(request: EditRequest, models: EditModels, config: EditConfig) -> Run:
    """A newcomer where nothing stands: the learned region keeps away from the things that are there."""
    if request.mask is not None:
        return FillRun(request, models, config)
    return EditRun(request, models, for_newcomer(config), occupied=_occupied(request, models))


def creative(request: EditRequest, models: EditModels, config: EditConfig) -> Run:
    """A newcomer for every thing that the prompt lists, one search each, on one picture."""
    if request.mask is not None:
        return FillRun(request, models, config)
    return SequenceRun(request, phrases(request.prompt) or (request.prompt,), models, config)


def remove(request: EditRequest, models: EditModels, config: EditConfig) -> Run:
    """What the caption names goes, and the background goes on there."""
    place = _place(request, models, REMOVE_MARGIN)
    return FillRun(place.request, models, config, void=True, attention=place.attention, relevance=place.relevance)


def texture(request: EditRequest, models: EditModels, config: EditConfig) -> Run:
    """What the caption names keeps its shape and takes on the prompt's texture."""
    place, models = _place(request, models, 0.0), _drawing_over(models)
    if models.inpainter.sees_picture:
        config = replace(config, context=min(config.context, TEXTURE_CONTEXT))
    return FillRun(
        place.request,
        models,
        config,
        **_tries(models, TEXTURE_STRENGTHS, TEXTURE_DRAWN_OVER, TEXTURE_SEEN),
        attention=place.attention,
        relevance=place.relevance,
    )


def background(request: EditRequest, models: EditModels, config: EditConfig) -> Run:
    """All but the things that the caption names, or all that stand out where it names none, becomes the prompt."""
    if request.mask is not None:
        return FillRun(request, models, config)
    place = _place(request, models, CRISP, kept=True)
    kept = place.request.mask
    assert kept is not None
    if bool(kept.all()):
        raise MasklessError("found no background around the things; give --mask FILE, bright where it is")
    around = replace(place.request, mask=~kept)
    # The seam is a share of the region's width, and this region is nearly all of the picture.
    config = replace(config, feather=min(config.feather, CRISP))
    return FillRun(around, models, config, attention=place.attention, relevance=place.relevance)


def style(request: EditRequest, models: EditModels, config: EditConfig) -> Run:
    """The whole picture in another manner: drawn over at several strengths, of which the one ranks first that shows the
    prompt and keeps the structure. What the caption names stays, so a prompt of the manner alone gets it too."""
    if request.caption.strip().lower() not in request.prompt.lower():
        request = replace(request, prompt=f"{request.caption.strip()}, {request.prompt}")
    models = _drawing_over(models)
    return FillRun(whole(request), models, config, **_tries(models, STYLE_STRENGTHS, STYLE_DRAWN_OVER, STYLE_SEEN))


def generate(request: EditRequest, models: EditModels, config: EditConfig) -> Run:
    """The whole frame from the prompt alone; of the picture only the size counts."""
    return FillRun(whole(request), models, config, void=request.mask is None)


def complete(request: EditRequest, models: EditModels, config: EditConfig) -> Run:
    """What is missing is filled so that it fits its surroundings."""
    return FillRun(_with_background_text(request, models), models, config, void=True)


def extend(request: EditRequest, models: EditModels, config: EditConfig) -> Run:
    """The canvas that was added is filled; the picture on it stays."""
    return FillRun(_with_background_text(request, models), models, config, void=True)


def repair(request: EditRequest, models: EditModels, config: EditConfig) -> Run:
    """Scratches and holes are filled, the less inventively the better: what is beside them goes on."""
    return FillRun(request, models, config, strengths=REPAIR_STRENGTHS, void=True, fine=True)


RUNS: dict[str, Callable[[EditRequest, EditModels, EditConfig], Run]] = {
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


@dataclass(frozen=True, kw_only=True, eq=False)
class _Place:
    """A request with its mask, and the maps that the mask came from, where it was not the user's."""

    request: EditRequest
    attention: Float[Tensor, "h w"] | None = None
    relevance: Float[Tensor, "rows columns"] | None = None


def _drawing_over(models: EditModels) -> EditModels:
    """The models where what is there is drawn over: with the redrawer, if there is one, in the inpainter's place."""
    return models if models.redrawer is None else replace(models, inpainter=models.redrawer)


def _tries(models: EditModels, noised: tuple[float, ...], drawn_over: DrawnOver, seen: DrawnOver) -> dict[str, Any]:
    """What is there, drawn over where the model sees it or can do without, else noised in part and filled."""
    if models.inpainter.sees_picture:
        return {"drawn_over": seen}
    return {"drawn_over": drawn_over} if can_redraw(models.inpainter) else {"strengths": noised}


def _place(request: EditRequest, models: EditModels, margin: float, *, kept: bool = False) -> _Place:
    """The things that the caption names, or all where it is empty, with a margin; or the user's own mask.

    kept: they are to stay and not to change, so it is worse to lose a part of one than to take along what is around it.
    """
    request = _with_background_text(request, models) if request.task == "remove" else request
    if request.mask is not None:
        return _Place(request=request)
    # A search cut short by its options is no reason to know a thing less well, so the places are the usual ones.
    found = find_places(request, models, EditConfig())
    if found.outline is None:
        mask = things_in(request.image, found.features)
    else:
        mask = named_mask(found, request, models, salient=things_in(request.image, found.features) if kept else None)
    return _Place(
        request=replace(request, mask=grown(mask, margin) if margin else mask),
        attention=found.features.attention,
        relevance=found.relevance,
    )


def _occupied(request: EditRequest, models: EditModels) -> Float[Tensor, "H W"] | None:
    """Where things stand, for a task that keeps away from them."""
    if request.task != "add":
        return None
    things: Bool[Tensor, "H W"] = things_in(request.image, models.dino.features(request.image))
    return grown(things, KEEP_MARGIN).to(torch.float32)


def whole(request: EditRequest) -> EditRequest:
    everything = torch.ones(request.size_yx, dtype=torch.bool)
    return request if request.mask is not None else replace(request, mask=everything)


def _with_background_text(request: EditRequest, models: EditModels) -> EditRequest:
    """The request with a prompt: where it is empty, the empty place that the picture most looks like."""
    if request.prompt.strip():
        return request
    small = at_most(request.image, VIEW_PX)
    embedding = models.clip.encode(small[None]).embedding[0]
    # The likeness of a word that the models do not know means nothing, and what is drawn for it neither.
    places = [place for place in PLACES if models.clip.knows(place)] or PLACES
    likeness = torch.stack([embedding @ models.clip.encode_text(f"empty {place}") for place in places])
    return replace(request, prompt=f"empty {places[int(likeness.argmax())]}")
