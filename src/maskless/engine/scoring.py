"""What CLIP makes of one picture: where the captioned thing is, and the losses of edited versions, method step 8."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maskless.data.config import EditConfig
from maskless.data.paste import crop_window
from maskless.data.types import Losses
from maskless.locating.view import with_margin
from maskless.method import losses as method_losses
from maskless.models.clip import Clip, draw_views


class Appraiser:
    """Knows the source and the texts of one edit, and appraises pictures by them.

    prompt, caption: embeddings of the texts. source: of the source picture, every view.
    """

    def __init__(
        self, picture: Float[Tensor, "3 h w"], caption: str, prompt: str, clip: Clip, config: EditConfig, *, seed: int
    ) -> None:
        """picture: the source, in [0, 1], at most VIEW_PX wide or high. seed: of the augmented views."""
        self._clip, self._config = clip, config
        self._views = draw_views(config.views, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            self.source = clip.encode_views(picture[None], self._views)
            self.prompt = clip.encode_text(prompt)
            self.caption = clip.encode_text(caption)

    def losses(self, pictures: Float[Tensor, "N 3 h w"], boxes_xyxy: Int[Tensor, "N 4"]) -> Losses:
        """Method step 8 for composites in [0, 1], each edited in its box, in pixels; carries gradients."""
        config = self._config
        views = self._clip.encode_views(pictures, self._views)
        return method_losses.combine(
            method_losses.clip_loss(views.embedding, self.prompt),
            method_losses.directional_loss(views.embedding, self.source.embedding[0], self.prompt, self.caption),
            method_losses.structure_loss(views.tokens, self.source.tokens[0]),
            method_losses.local_loss(self.regions(pictures, boxes_xyxy), self.prompt),
            alpha=config.alpha,
            beta=config.beta,
            gamma=config.gamma,
            delta=config.delta,
        )

    def regions(self, pictures: Float[Tensor, "N 3 h w"], boxes_xyxy: Int[Tensor, "N 4"]) -> Float[Tensor, "N D"]:
        """Embedding of each picture's box, seen with a margin around it; carries gradients."""
        size, size_yx = self._clip.image_px, (pictures.shape[2], pictures.shape[3])
        windows = [with_margin(box, size_yx) for box in boxes_xyxy.tolist()]
        seen = [crop_window(each, window, size) for each, window in zip(pictures, windows, strict=True)]
        return self._clip.encode(torch.stack(seen)).embedding
