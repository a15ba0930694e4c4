"""The finder: it says where in a picture something is, without any model that draws."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from maskless.data.boxes import corners
from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError, require
from maskless.data.finding import Finding, FoundRegion
from maskless.data.model_options import FOR_DRAWING, ModelOptions
from maskless.data.options import OptionValue, require_unicode
from maskless.data.picture import ImageLike
from maskless.data.types import LocationSigns
from maskless.locating.location import Proposals, is_clear, locate, looks_like, propose
from maskless.locating.named_mask import named_mask
from maskless.locating.view import PictureView
from maskless.method.placed import best_different
from maskless.method.ranking import standardised_signs
from maskless.models.encoders import Encoders
from maskless.models.pretrained import load_encoders

MAX_ALTERNATIVES = 100
NOTABLE = 0.5
"""A sign is mentioned in a reason if it is at least this many standard deviations from the mean of all regions."""
FOR: dict[str, str] = {
    "shown": "seen alone, it is more like the caption than most regions",
    "focus": "the parts of the picture that fit the caption most lie inside it",
    "fit": "it agrees with the outline of the object",
    "detected": "the grounder finds it there",
}
AGAINST: dict[str, str] = {
    "shown": "seen alone, it is less like the caption than most regions",
    "focus": "the parts of the picture that fit the caption most lie outside of it",
    "fit": "it does not agree with the outline of the object",
    "detected": "the grounder finds it elsewhere",
}
NOT_SHOWN = "Nothing in the picture looks like the caption; of the regions that were compared, this one fits best."


class Finder:
    """Finds what a caption names, for editors and other programs that take a box or a mask.

    finder = Finder.from_pretrained("storybook")
    finding = finder.find("scene.png", "a red car")
    finding.box_xyxy, finding.mask, finding.reason
    finding.save("found")

    It loads DINO and CLIP, and no model that draws. Several threads can use one finder at the same time.
    """

    def __init__(self, models: Encoders, config: EditConfig | None = None) -> None:
        """models: from `load_encoders`; those of an Editor serve as well. config: its options for the regions are used,
        such as `anchors` and `fit_edges`; None takes the defaults."""
        self.models = models
        # Every region is compared, so that the scores and the signs have the same units.
        self.config = replace((config or EditConfig()).resolved(), search="exhaustive")

    @classmethod
    def from_pretrained(cls, models: str = "storybook", **options: OptionValue) -> Finder:
        """Load the models.

        Args:
            models: "storybook" (bundled) or another preset (`maskless models` lists them), whose DINO and CLIP are
                taken, or a folder with dino/ and clip/.
            options: fields of ModelOptions that do not concern drawing, such as device="cpu" or clip="owner/name".
        Raises:
            MasklessError: unknown or damaged models, a device that is not available, an unknown option.
        """
        known = [field.name for field in fields(ModelOptions) if field.name not in (*FOR_DRAWING, "models")]
        for name in options:
            if name not in known:
                raise MasklessError(f"a finder has no option {name!r}; its options are {', '.join(known)}")
        given: dict[str, Any] = dict(options)
        return cls(load_encoders(ModelOptions(models=str(models), **given)))

    def look(self, image: ImageLike) -> PictureView:
        """A view of a picture, with which several captions can be found in it while its features are computed once."""
        return PictureView(image, self.models)

    def find(self, image: ImageLike | PictureView, caption: str, *, alternatives: int = 3) -> Finding:
        """Find what a caption names.

        Args:
            image: a path, a PIL image, an array, a tensor, or a view from `look`.
            caption: what to find, such as "a red car".
            alternatives: how many other regions to return at most, 0 to MAX_ALTERNATIVES.
        Returns:
            The best region, whatever the picture shows. `looks_like` is False if it does not look like the caption.
        Raises:
            MasklessError: an unusable picture, an empty caption, or a view that was made with other models.
        """
        require(isinstance(caption, str) and bool(caption.strip()), f"caption must say what to find, got {caption!r}")
        require_unicode("caption", caption)
        good = isinstance(alternatives, int) and 0 <= alternatives <= MAX_ALTERNATIVES
        require(good, f"alternatives must be a whole number from 0 to {MAX_ALTERNATIVES}, got {alternatives!r}")
        view = image if isinstance(image, PictureView) else self.look(image)
        require(view.made_with(self.models), "the view must be one that this finder has made, with its models")
        with torch.no_grad():
            location = locate(view, caption, self.config)
            proposals = propose(view, caption, location, self.config)
            best = best_different(proposals.score, proposals.regions.boxes_xyxy, 1 + alternatives)
            signs = view.location_signs(proposals.regions.boxes_xyxy, caption, outline_xyxy=location.outline_xyxy)
            shown = looks_like(view, caption, proposals)
            return Finding(
                source=view.source,
                caption=caption,
                regions=_described(proposals, torch.tensor(best), signs, note="" if shown else NOT_SHOWN),
                mask=named_mask(view, caption, location),
                looks_like=shown,
                clear=is_clear(view, location, proposals),
            )


def _described(
    proposals: Proposals, chosen: Int[Tensor, " N"], signs: LocationSigns, *, note: str
) -> tuple[FoundRegion, ...]:
    """The chosen ones of the proposed regions. signs: of all proposed regions. note: what the reason of the first one
    begins with."""
    values = {name: sign[chosen] for name, sign in standardised_signs(signs).items()}
    boxes, scores = proposals.regions.boxes_xyxy[chosen], proposals.score[chosen].tolist()
    found = []
    for number, score in enumerate(scores):
        own = {name: float(value[number]) for name, value in values.items()}
        reason = f"{note} {reason_of(own)}" if note and not number else reason_of(own)
        found.append(FoundRegion(box_xyxy=corners(boxes[number]), score=score, signs=own, reason=reason))
    return tuple(found)


def reason_of(signs: dict[str, float]) -> str:
    """In one sentence, what speaks for a region and what against it.

    signs: in standard deviations over the regions that were compared, by the names of `LocationSigns`.
    """
    ordered = sorted(signs, key=lambda name: -abs(signs[name]))
    speaks_for = [FOR[name] for name in ordered if signs[name] >= NOTABLE]
    against = [AGAINST[name] for name in ordered if signs[name] <= -NOTABLE]
    parts = [_joined(speaks_for)] if speaks_for else []
    if against:
        parts.append(f"{'but ' if speaks_for else ''}{_joined(against)}")
    text = ", ".join(parts) or "no sign distinguishes it from the other regions that were compared"
    return f"{text[0].upper()}{text[1:]}."


def _joined(clauses: list[str]) -> str:
    """Clauses as one: a; b; and c."""
    return clauses[0] if len(clauses) == 1 else f"{'; '.join(clauses[:-1])}; and {clauses[-1]}"
