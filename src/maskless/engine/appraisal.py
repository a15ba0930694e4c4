"""What CLIP makes of edited versions of one picture: the losses of method step 8."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from maskless.data.config import EditConfig
from maskless.data.regions import resize
from maskless.data.types import Losses
from maskless.method import losses as method_losses
from maskless.models.clip import Clip, draw_views

VIEW_PX = 512
"""CLIP looks at composites of at most this longer side; its own input is smaller still."""


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

    def losses(self, pictures: Float[Tensor, "N 3 h w"]) -> Losses:
        """Method step 8 for composites in [0, 1]; carries gradients."""
        config = self._config
        views = self._clip.encode_views(pictures, self._views)
        return method_losses.combine(
            method_losses.clip_loss(views.embedding, self.prompt),
            method_losses.directional_loss(views.embedding, self.source.embedding[0], self.prompt, self.caption),
            method_losses.structure_loss(views.tokens, self.source.tokens[0]),
            alpha=config.alpha,
            beta=config.beta,
            gamma=config.gamma,
        )


def at_most(image: Float[Tensor, "3 H W"], longer_px: int) -> Float[Tensor, "3 h w"]:
    """The image at its own size, or smaller so that its longer side is longer_px."""
    height, width = image.shape[1:]
    scale = min(1.0, longer_px / max(height, width))
    return resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))
