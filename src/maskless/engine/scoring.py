"""Scores edited versions of a picture with CLIP: the losses of method step 8."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maskless.data.config import ResolvedConfig
from maskless.data.paste import crop_window
from maskless.data.types import Losses
from maskless.locating.view import PictureView, with_margin
from maskless.method.losses import Encodings, weighted
from maskless.models.clip import ViewEncoding, draw_views
from maskless.models.inpainters.weighting import without_weights


class ClipScorer:
    """Scores edited versions of one picture against the texts of one edit.

    prompt, caption: embeddings of the texts, [D], of length 1. source: the encoding of every augmented view of the
    source picture.
    """

    def __init__(
        self, view: PictureView, picture: Float[Tensor, "3 h w"], texts: tuple[str, str], config: ResolvedConfig
    ) -> None:
        """Encode the source picture and the texts.

        Args:
            view: the picture's view, from which the embeddings of the texts are taken.
            picture: the source picture in [0, 1] at the size of `view.small`; a fill that erases the region has
                continued its surroundings there.
            texts: caption and prompt.
            config: weights of the losses, number of augmented views, and their seed.
        """
        self._clip, self._config = view.clip, config
        self._views = draw_views(config.views, torch.Generator().manual_seed(config.seed))
        self.caption, self.prompt = (view.text(without_weights(text)) for text in texts)
        with torch.no_grad():
            self.source = self._source(view, picture)

    def _source(self, view: PictureView, picture: Float[Tensor, "3 h w"]) -> ViewEncoding:
        """The encoding of the source picture's augmented views. Edits of the same picture share it."""
        if picture is not view.small:
            return self._clip.encode_views(picture[None], self._views)
        key = f"{self._config.views} views by seed {self._config.seed}"
        return view.cached(key, lambda: self._clip.encode_views(picture[None], self._views))

    def losses(self, pictures: Float[Tensor, "N 3 h w"], boxes_xyxy: Int[Tensor, "N 4"]) -> Losses:
        """The losses (method step 8) of composites in [0, 1]; gradients flow back to the pictures.

        boxes_xyxy: the edited box of each picture, half-open, in its pixels.
        """
        views = self._clip.encode_views(pictures, self._views)
        encodings = Encodings(
            candidates=views.embedding,
            candidate_tokens=views.tokens,
            regions=self.regions(pictures, boxes_xyxy),
            source=self.source.embedding[0],
            source_tokens=self.source.tokens[0],
            prompt=self.prompt,
            caption=self.caption,
        )
        return weighted(encodings, self._config)

    def regions(self, pictures: Float[Tensor, "N 3 h w"], boxes_xyxy: Int[Tensor, "N 4"]) -> Float[Tensor, "N D"]:
        """The embedding of each picture's box with a margin around it; gradients flow back to the pictures."""
        size, size_yx = self._clip.image_px, (pictures.shape[2], pictures.shape[3])
        windows = [with_margin(box, size_yx) for box in boxes_xyxy.tolist()]
        crops = [crop_window(each, window, size) for each, window in zip(pictures, windows, strict=True)]
        return self._clip.encode(torch.stack(crops)).embedding
