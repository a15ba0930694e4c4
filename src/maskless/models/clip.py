"""The frozen CLIP: embeddings of pictures and texts in one space. Those of pictures are differentiable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from maskless.data.paste import resize
from maskless.models.memory import execution_device
from maskless.models.parts import one_line_model_errors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH, BATCH_ON_CPU = 64, 16
"""Maximum number of pictures that are encoded at once. On the CPU larger batches only take more memory and time."""
CROP_SHARES = (0.3, 0.6)
"""Sides of the crops that `relevance` compares with the caption, as shares of the picture's shorter side."""
CROP_STRIDE = 0.6
"""Distance between neighbouring crops, as a share of their side (docs/search.md has the measurements)."""
CELL_SHARE = 1 / 16
"""Side of a cell of the map of the relevance, as a share of the picture's shorter side."""
MAX_CROPS = 400
"""Maximum number of crops. On long pictures the crops are further apart."""
GENERIC_TEXTS = ("a picture", "a background", "nothing", "an empty place")
"""Texts whose mean similarity is subtracted, because some crops are similar to any text."""
FAILED = "the CLIP model cannot be computed, its settings and files do not fit together"


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageEncoding:
    """embedding: E_v of each picture, of length 1. tokens: patch tokens of the last layer, for the structure loss."""

    embedding: Float[Tensor, "N D"]
    tokens: Float[Tensor, "N T C"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewEncoding:
    """embedding: E_v of each of the V views, of length 1. tokens: patch tokens of the last layer, of the first view."""

    embedding: Float[Tensor, "N V D"]
    tokens: Float[Tensor, "N T C"]


@dataclass(frozen=True, kw_only=True)
class View:
    """One augmented view, the same for every candidate of an image.

    x0, y0, x1, y1: the visible box, as shares of the picture's width and height, 0 to 1. mirrored: whether it is
    flipped from left to right.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    mirrored: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class RelevanceCrops:
    """The crops of an image that are compared with a text, and CLIP's embeddings of them.

    boxes_xyxy: half-open, in pixels of the image shrunk to size_yx. embeddings: of length 1. grid_yx: rows and columns
    of the map that is made from them.
    """

    boxes_xyxy: Int[Tensor, "N 4"]
    embeddings: Float[Tensor, "N D"]
    size_yx: tuple[int, int]
    grid_yx: tuple[int, int]


WHOLE = View(x0=0.0, y0=0.0, x1=1.0, y1=1.0, mirrored=False)


def draw_views(count: int, generator: torch.Generator) -> tuple[View, ...]:
    """`count` views: the whole picture, then random boxes of 80 to 100 % of each side, every second one mirrored."""
    views = [WHOLE]
    for number in range(1, count):
        share, x, y = torch.rand(3, generator=generator).tolist()
        share = 0.8 + 0.2 * share
        x0, y0 = x * (1 - share), y * (1 - share)
        views.append(View(x0=x0, y0=y0, x1=x0 + share, y1=y0 + share, mirrored=number % 2 == 1))
    return tuple(views)


class Clip:
    """A CLIPModel or a SiglipModel (SigLIP, SigLIP 2) of transformers with its tokenizer and its preprocessing."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        """mean, std: of RGB in [0, 1], for normalisation. The side of the input in pixels and the context of a text in
        tokens are read from the model's config."""
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.image_px = int(model.config.vision_config.image_size)
        self.context = int(model.config.text_config.max_position_embeddings)
        self.mean = torch.tensor(mean).view(1, 3, 1, 1)
        self.std = torch.tensor(std).view(1, 3, 1, 1)
        # SigLIP has no CLS token and no projection: its embeddings are the pooled outputs of its towers.
        self._siglip = model.config.model_type == "siglip"

    @property
    def device(self) -> torch.device:
        """The device that CLIP computes on."""
        return execution_device(self.model)

    def preprocess(self, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 S S"]:
        """CLIP's input for images in [0, 1] (mistake 7): resized to its square and normalised.

        The aspect ratio is not kept, because a centre crop would leave out an edit near the end of a long side.
        """
        size = (self.image_px, self.image_px)
        if tuple(images.shape[2:]) != size:
            images = F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        return (images - self.mean) / self.std

    def encode(self, images: Float[Tensor, "N 3 H W"]) -> ImageEncoding:
        """Embeddings and patch tokens of images in [0, 1], on the CPU; gradients flow back to the images."""
        return self._encoded(self.preprocess(batch) for batch in images.split(self._at_once))

    def encode_views(self, images: Float[Tensor, "N 3 H W"], views: Sequence[View]) -> ViewEncoding:
        """Embeddings of every view of images in [0, 1], on the CPU; gradients flow back to the images."""
        inputs = torch.cat([self.preprocess(_apply_view(view, images)) for view in views])
        # All views together, because fewer pictures at a time take longer each.
        encoded = self._encoded(inputs.split(self._at_once))
        of_views = encoded.embedding.reshape(len(views), len(images), -1)
        return ViewEncoding(embedding=of_views.transpose(0, 1), tokens=encoded.tokens[: len(images)])

    @property
    def _at_once(self) -> int:
        return BATCH_ON_CPU if self.device.type == "cpu" else BATCH

    @one_line_model_errors(FAILED)
    def _encoded(self, batches: Iterable[Tensor]) -> ImageEncoding:
        """The encoding of all pictures of batches [N, 3, S, S] that `preprocess` has prepared."""
        embeddings, tokens = [], []
        for batch in batches:
            output = self.model.vision_model(pixel_values=batch.to(self.device))
            pooled = output.pooler_output
            projected = pooled if self._siglip else self.model.visual_projection(pooled)
            embeddings.append(F.normalize(projected.float(), dim=-1).cpu())
            tokens.append(output.last_hidden_state[:, 0 if self._siglip else 1 :].float().cpu())
        return ImageEncoding(embedding=torch.cat(embeddings), tokens=torch.cat(tokens))

    @one_line_model_errors(FAILED)
    @torch.no_grad()
    def encode_text(self, text: str) -> Float[Tensor, " D"]:
        """E_t, of length 1, on the CPU.

        A text longer than the context is encoded in pieces, so that nothing is cut off (mistake 12). Their embeddings
        are averaged, weighted by their numbers of tokens.
        """
        if self._siglip:  # SigLIP was trained on lower-case texts without a start token
            pieces = text_pieces(self.tokenizer, text.lower(), self.context, start=False)
        else:
            pieces = text_pieces(self.tokenizer, text, self.context)
        ids = torch.tensor([piece.ids for piece in pieces], device=self.device)
        pooled = self.model.text_model(input_ids=ids).pooler_output
        projected = (pooled if self._siglip else self.model.text_projection(pooled)).float().cpu()
        weights = torch.tensor([float(max(piece.length, 1)) for piece in pieces])
        return F.normalize((F.normalize(projected, dim=-1) * weights[:, None]).sum(dim=0), dim=-1)

    @one_line_model_errors(FAILED)
    def has_token(self, word: str) -> bool:
        """Whether the word is a single token. Words of several tokens are rare in the training texts."""
        return len(self.tokenizer(word, add_special_tokens=False, verbose=False).input_ids) == 1

    @torch.no_grad()
    def encode_crops(self, image: Float[Tensor, "3 H W"], boxes_xyxy: Int[Tensor, "N 4"]) -> Float[Tensor, "N D"]:
        """The embedding of each box of an image in [0, 1], cropped and resized; boxes half-open, in its pixels."""
        size = (self.image_px, self.image_px)
        crops = torch.stack([resize(image[:, y0:y1, x0:x1], size) for x0, y0, x1, y1 in boxes_xyxy.tolist()])
        if self._siglip or self.device.type != "cpu":  # elsewhere only a call of the model moves its weights there
            return self.encode(crops).embedding
        batches = [self._embeddings(self.preprocess(batch)) for batch in crops.split(self._at_once)]
        return torch.cat(batches)

    @one_line_model_errors(FAILED)
    def _embeddings(self, pixels: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N D"]:
        """The embeddings of pictures that `preprocess` has prepared, by CLIP's ViT on the CPU.

        They depend on the CLS token alone, so the last layer (Dosovitskiy et al., ICLR 2021, equations 2 and 3)
        computes no other, which saves most of its time.
        """
        vision = self.model.vision_model
        tokens = vision.pre_layrnorm(vision.embeddings(pixels))
        *layers, last = vision.encoder.layers
        for layer in layers:
            tokens = layer(tokens, None)
        attention, normed, cls = last.self_attn, last.layer_norm1(tokens), tokens[:, :1]
        projected = attention.q_proj(normed[:, :1]), attention.k_proj(normed), attention.v_proj(normed)
        of_heads = [each.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for each in projected]
        attended = F.scaled_dot_product_attention(*of_heads).transpose(1, 2).flatten(2)
        cls = cls + attention.out_proj(attended)
        cls = cls + last.mlp(last.layer_norm2(cls))
        pooled = vision.post_layernorm(cls[:, 0])
        return F.normalize(self.model.visual_projection(pooled).float(), dim=-1)

    @cached_property
    def generic_texts(self) -> Float[Tensor, "texts D"]:
        """The embeddings of GENERIC_TEXTS."""
        with torch.inference_mode(False):
            return torch.stack([self.encode_text(text) for text in GENERIC_TEXTS])

    @torch.no_grad()
    def contrast(self, embeddings: Float[Tensor, "N D"], text: Float[Tensor, " D"]) -> Float[Tensor, " N"]:
        """The cosine similarity to a text minus the mean cosine similarity to GENERIC_TEXTS."""
        return embeddings @ text - (embeddings @ self.generic_texts.T).mean(dim=1)

    @torch.no_grad()
    def relevance_crops(self, image: Float[Tensor, "3 H W"]) -> RelevanceCrops:
        """The crops of an image in [0, 1] that `relevance` compares with a text."""
        height, width = image.shape[1:]
        shorter = min(height, width)
        cell = max(1.0, shorter * CELL_SHARE)
        rows, columns = max(1, round(height / cell)), max(1, round(width / cell))
        enough_px = round(self.image_px / CROP_SHARES[0])  # at this size the smallest crop fills CLIP's input
        if shorter > enough_px:
            height, width = round(height * enough_px / shorter), round(width * enough_px / shorter)
            image = resize(image, (height, width))
        boxes = relevance_boxes((height, width))
        return RelevanceCrops(
            boxes_xyxy=boxes,
            embeddings=self.encode_crops(image, boxes),
            size_yx=(height, width),
            grid_yx=(rows, columns),
        )

    @torch.no_grad()
    def relevance(self, crops: RelevanceCrops, text: Float[Tensor, " D"]) -> Float[Tensor, "h w"]:
        """How relevant each location in an image is to a text, before anything is inpainted.

        Square crops of several sizes are compared with the text (`contrast`). The value of a cell of the map is the
        mean score of the crops, each weighted by a Gaussian around its centre whose standard deviation is a quarter of
        its side.

        Args:
            crops: of the image, from `relevance_crops`; they serve for any number of texts.
            text: embedding of the text, from `encode_text`.
        Returns:
            Relevance from 0 to 1, on a grid whose cells have CELL_SHARE of the picture's shorter side.
        """
        scores = self.contrast(crops.embeddings, text)
        (height, width), (rows, columns) = crops.size_yx, crops.grid_yx
        x0, y0, x1, y1 = (edge[:, None, None] for edge in crops.boxes_xyxy.to(torch.float32).unbind(1))
        ys = ((torch.arange(rows) + 0.5) * height / rows)[None, :, None]
        xs = ((torch.arange(columns) + 0.5) * width / columns)[None, None, :]
        sigma = (x1 - x0) / 4
        distance = ((ys - (y0 + y1) / 2) / sigma).square() + ((xs - (x0 + x1) / 2) / sigma).square()
        weight = torch.exp(-distance / 2)
        total = (weight * scores[:, None, None]).sum(dim=0) / weight.sum(dim=0).clamp(min=1e-12)
        return (total - total.min()) / (total.max() - total.min()).clamp(min=1e-12)


def relevance_boxes(size_yx: tuple[int, int]) -> Int[Tensor, "N 4"]:
    """Square crops that cover a picture, in each size of CROP_SHARES; (x0, y0, x1, y1) in pixels, half-open.

    They overlap. On a long picture they are further apart, so that there are at most MAX_CROPS.
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
        if len(boxes) <= MAX_CROPS:
            return torch.tensor(boxes)
        stretch *= 1.25


def _starts(length: int, side: int, stride: float) -> list[int]:
    """Evenly spaced starts of intervals of length `side`; the first interval starts at 0, the last ends at `length`."""
    room = length - side
    steps = max(1, round(room / stride))
    return sorted({round(room * i / steps) for i in range(steps + 1)})


def _apply_view(view: View, images: Tensor) -> Tensor:
    """The visible box of each image [N, 3, H, W], mirrored if the view is."""
    height, width = images.shape[2:]
    cropped = images[
        :, :, round(view.y0 * height) : round(view.y1 * height), round(view.x0 * width) : round(view.x1 * width)
    ]
    return cropped.flip(3) if view.mirrored else cropped


@dataclass(frozen=True, kw_only=True)
class TextPiece:
    """ids: one full context of token ids, with start, end and padding tokens. length: number of tokens of the text."""

    ids: list[int]
    length: int


def text_pieces(tokenizer: PreTrainedTokenizerBase, text: str, context: int, *, start: bool = True) -> list[TextPiece]:
    """A text as one or more full contexts of token ids. An empty text is one piece of length 0.

    Args:
        context: number of tokens in a context.
        start: whether each piece begins with the tokenizer's start token. The end token always follows the text.
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
