"""Ranks edits of a picture that any tool has made, by the losses that a search compares its candidates with."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from maskless.data.boxes import Box
from maskless.data.config import EditConfig
from maskless.data.errors import require
from maskless.data.paste import resize
from maskless.engine.scoring import ClipScorer
from maskless.locating.view import PictureView
from maskless.method.ranking import Ranking


def rank_pictures(
    view: PictureView,
    pictures: Float[Tensor, "N 3 H W"],
    *,
    caption: str = "",
    prompt: str,
    box_xyxy: Box | None = None,
    config: EditConfig | None = None,
) -> Ranking:
    """The pictures ordered by their loss (method step 8), the best first.

    The loss weighs the distance to the prompt, the direction of the change from the caption, the change of structure,
    and what the edited region alone shows.

    Args:
        view: of the picture that was edited.
        pictures: its edits, in [0, 1], of any size.
        box_xyxy: what was edited, in pixels of the picture that `view` shows, half-open; None for the whole picture.
        config: the weights of the losses; None takes the defaults.
    Raises:
        MasklessError: no picture, or an empty prompt.
    """
    require(len(pictures) > 0, "there must be at least one picture to rank")
    require(bool(prompt.strip()), "prompt must say what the edit should show, got an empty one")
    height, width = view.size_yx
    box = torch.tensor([list(box_xyxy or (0, 0, width, height))])
    with torch.no_grad():
        scorer = ClipScorer(view, view.small, (caption, prompt), (config or EditConfig()).resolved())
        small = torch.stack([resize(each, view.small_yx) for each in pictures])
        total = scorer.losses(small, view.scaled(box).expand(len(pictures), -1)).total
    order = torch.argsort(total, stable=True).tolist()
    return Ranking(score=-total, order=tuple(order))
