"""CLIP, frozen: what a picture shows and what a text says, in one space. Everything on images is differentiable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from maskless.data.paste import resize
from maskless.models.memory import execution_device

BATCH = 64
CROP_SHARES = (0.25, 0.4, 0.6)
"""Sides of the crops that `relevance` looks at, as shares of the picture's shorter side."""
CROP_STRIDE = 0.5
MOST_CROPS = 400
GENERIC_TEXTS = ("a picture", "a background", "nothing", "an empty place")
"""What a text is held against, so that a crop scores for showing the text and not for being easy to like."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageEncoding:
    """embedding: E_v, of length 1. tokens: last-layer patch tokens, for the structure loss."""

    embedding: Float[Tensor, "N D"]
    tokens: Float[Tensor, "N T C"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewEncoding:
    """embedding: E_v of every view, of length 1. tokens: last-layer patch tokens of the first view."""

    embedding: Float[Tensor, "N V D"]
    tokens: Float[Tensor, "N T C"]


@dataclass(frozen=True, kw_only=True)
class View:
    """One augmentation, the same for every candidate of an image: a box in shares of the sides, perhaps mirrored."""

    x0: float
    y0: float
    x1: float
    y1: float
    mirrored: bool


WHOLE = View(x0=0.0, y0=0.0, x1=1.0, y1=1.0, mirrored=False)


def draw_views(count: int, generator: torch.Generator) -> tuple[View, ...]:
    """The whole picture, then random boxes of 80 to 100 % of each side, every other one mirrored."""
    views = [WHOLE]
    for number in range(1, count):
        share, x, y = torch.rand(3, generator=generator).tolist()
        share = 0.8 + 0.2 * share
        x0, y0 = x * (1 - share), y * (1 - share)
        views.append(View(x0=x0, y0=y0, x1=x0 + share, y1=y0 + share, mirrored=number % 2 == 1))
    return tuple(views)


class Clip:
    """A CLIPModel or a SiglipModel (SigLIP, SigLIP 2) of transformers, its tokenizer and its preprocessing."""

    def __init__(self, model: Any, tokenizer: Any, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """mean, std: of RGB in [0, 1]. The image size and the text's context come from the model's config."""
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.image_px = int(model.config.vision_config.image_size)
        self.context = int(model.config.text_config.max_position_embeddings)
        self.mean = torch.tensor(mean).view(1, 3, 1, 1)
        self.std = torch.tensor(std).view(1, 3, 1, 1)
        # SigLIP has no CLS token and no projection: its towers' pooling gives the embeddings.
        self._siglip = model.config.model_type == "siglip"

    @property
    def device(self) -> torch.device:
        return execution_device(self.model)

    def preprocess(self, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 S S"]:
        """Images in [0, 1] (mistake 7) as CLIP wants them. The whole picture is squeezed into the square: a centre crop
        would not see an edit near the end of a long side."""
        size = (self.image_px, self.image_px)
        if tuple(images.shape[2:]) != size:
            images = F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        return (images - self.mean) / self.std

    def encode(self, images: Float[Tensor, "N 3 H W"]) -> ImageEncoding:
        """Embeddings and patch tokens of images in [0, 1]; carries gradients to the images. On the CPU."""
        embeddings, tokens = [], []
        for batch in images.split(BATCH):
            output = self.model.vision_model(pixel_values=self.preprocess(batch).to(self.device))
            pooled = output.pooler_output
            projected = pooled if self._siglip else self.model.visual_projection(pooled)
            embeddings.append(F.normalize(projected.float(), dim=-1).cpu())
            tokens.append(output.last_hidden_state[:, 0 if self._siglip else 1 :].float().cpu())
        return ImageEncoding(embedding=torch.cat(embeddings), tokens=torch.cat(tokens))

    def encode_views(self, images: Float[Tensor, "N 3 H W"], views: Sequence[View]) -> ViewEncoding:
        """Every view of every image in [0, 1]; carries gradients."""
        encoded = [self.encode(_seen_by(view, images)) for view in views]
        return ViewEncoding(
            embedding=torch.stack([each.embedding for each in encoded], dim=1), tokens=encoded[0].tokens
        )

    @torch.no_grad()
    def encode_text(self, text: str) -> Float[Tensor, " D"]:
        """E_t, of length 1. A text longer than the context is read in pieces, whose embeddings are averaged with their
        numbers of tokens as weights: nothing is cut off."""
        if self._siglip:  # trained on small letters, and without a token that starts a text
            pieces = text_pieces(self.tokenizer, text.lower(), self.context, start=False)
        else:
            pieces = text_pieces(self.tokenizer, text, self.context)
        ids = torch.tensor([piece.ids for piece in pieces], device=self.device)
        pooled = self.model.text_model(input_ids=ids).pooler_output
        projected = (pooled if self._siglip else self.model.text_projection(pooled)).float().cpu()
        weights = torch.tensor([float(max(piece.length, 1)) for piece in pieces])
        return F.normalize((F.normalize(projected, dim=-1) * weights[:, None]).sum(dim=0), dim=-1)

    def knows(self, word: str) -> bool:
        """Whether the tokenizer has the word whole: one that it must spell out was hardly in the texts of training."""
        return len(self.tokenizer(word, add_special_tokens=False, verbose=False).input_ids) == 1

    @torch.no_grad()
    def encode_crops(self, image: Float[Tensor, "3 H W"], boxes_xyxy: Int[Tensor, "N 4"]) -> Float[Tensor, "N D"]:
        """Embedding of each box of an image, looked at alone."""
        size = (self.image_px, self.image_px)
        crops = [resize(image[:, y0:y1, x0:x1], size) for x0, y0, x1, y1 in boxes_xyxy.tolist()]
        return self.encode(torch.stack(crops)).embedding

    @torch.no_grad()
    def encode_without(self, image: Float[Tensor, "3 H W"], boxes_xyxy: Int[Tensor, "N 4"]) -> Float[Tensor, "N D"]:
        """Embedding of the image with each box painted over in the image's mean colour."""
        copies = image.expand(len(boxes_xyxy), -1, -1, -1).clone()
        mean = image.mean(dim=(1, 2), keepdim=True)
        for copy, (x0, y0, x1, y1) in zip(copies, boxes_xyxy.tolist(), strict=True):
            copy[:, y0:y1, x0:x1] = mean
        return self.encode(copies).embedding

    @torch.no_grad()
    def contrast(self, embeddings: Float[Tensor, "N D"], text: str) -> Float[Tensor, " N"]:
        """Cosine with the text less the mean cosine with generic texts."""
        generic = torch.stack([self.encode_text(other) for other in GENERIC_TEXTS])
        return embeddings @ self.encode_text(text) - (embeddings @ generic.T).mean(dim=1)

    @torch.no_grad()
    def relevance(self, image: Float[Tensor, "3 H W"], caption: str) -> Float[Tensor, "h w"]:
        """How relevant each place is to the caption, from crops at several sizes: read before any inpainting.

        Crops as square boxes; a place gets the mean score of the crops over it, those that it is the centre of counting
        most. From 0 to 1, at a quarter of the smallest crop's side; constant 0 for an empty caption.
        """
        height, width = image.shape[1:]
        shorter = min(height, width)
        cell = max(1.0, shorter * CROP_SHARES[0] / 4)
        rows, columns = max(1, round(height / cell)), max(1, round(width / cell))
        if not caption.strip():
            return torch.zeros(rows, columns)
        enough_px = round(self.image_px / CROP_SHARES[0])  # then the smallest crop has all the pixels that CLIP takes
        if shorter > enough_px:
            height, width = round(height * enough_px / shorter), round(width * enough_px / shorter)
            image = resize(image, (height, width))
        boxes = relevance_boxes((height, width))
        scores = self.contrast(self.encode_crops(image, boxes), caption)
        boxes_f = boxes.to(torch.float32)
        x0, y0, x1, y1 = (edge[:, None, None] for edge in boxes_f.unbind(1))
        ys = ((torch.arange(rows) + 0.5) * height / rows)[None, :, None]
        xs = ((torch.arange(columns) + 0.5) * width / columns)[None, None, :]
        sigma = (x1 - x0) / 4
        distance = ((ys - (y0 + y1) / 2) / sigma).square() + ((xs - (x0 + x1) / 2) / sigma).square()
        weight = torch.exp(-distance / 2)
        total = (weight * scores[:, None, None]).sum(dim=0) / weight.sum(dim=0).clamp(min=1e-12)
        return (total - total.min()) / (total.max() - total.min()).clamp(min=1e-12)


def relevance_boxes(size_yx: tuple[int, int]) -> Int[Tensor, "N 4"]:
    """Overlapping square crops of each share of the shorter side over the whole picture, (x0, y0, x1, y1) in pixels.

    On a long picture they step further, so that there are never many more than MOST_CROPS.
    """
    height, width = size_yx
    shorter = min(height, width)
    stretch = 1.0
    while True:
        boxes: list[list[int]] = []
        for share in CROP_SHARES:
            side = max(1, round(share * shorter))
            stride = max(1.0, side * CROP_STRIDE * stretch)
            for y0 in _starts(height, side, stride):
                boxes.extend([x0, y0, x0 + side, y0 + side] for x0 in _starts(width, side, stride))
        if len(boxes) <= MOST_CROPS:
            return torch.tensor(boxes)
        stretch *= 1.25


def _starts(length: int, side: int, stride: float) -> list[int]:
    """Evenly spread starts of intervals of this side, the first at 0 and the last at the end."""
    room = length - side
    steps = max(1, round(room / stride))
    return sorted({round(room * i / steps) for i in range(steps + 1)})


def _seen_by(view: View, images: Tensor) -> Tensor:
    height, width = images.shape[2:]
    seen = images[
        :, :, round(view.y0 * height) : round(view.y1 * height), round(view.x0 * width) : round(view.x1 * width)
    ]
    return seen.flip(3) if view.mirrored else seen


@dataclass(frozen=True, kw_only=True)
class TextPiece:
    """ids: a whole context, with the start, end and padding tokens. length: tokens of the text itself."""

    ids: list[int]
    length: int


def text_pieces(tokenizer: Any, text: str, context: int, *, start: bool = True) -> list[TextPiece]:
    """A text as one or more full contexts of token ids; an empty text is one piece of length 0.

    start: begin each piece with the tokenizer's token for that; its token for the end always follows the text.
    """
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    opening = [tokenizer.bos_token_id] if start else []
    room = context - len(opening) - 1
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    pieces = []
    for first in range(0, max(len(ids), 1), room):
        part = ids[first : first + room]
        filled = [*opening, *part, tokenizer.eos_token_id]
        pieces.append(TextPiece(ids=filled + [padding] * (context - len(filled)), length=len(part)))
    return pieces
