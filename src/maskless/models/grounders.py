"""Grounders: detectors that find what words name in a picture. OWLv2, Grounding DINO and CLIPSeg of transformers.

The preprocessing is that of each model's authors, on tensors: the image processors of transformers need torchvision.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maskless.data.boxes import scale_boxes, without_overlaps
from maskless.data.errors import MasklessError, shown
from maskless.data.masks import components, mask_box
from maskless.data.paste import resize
from maskless.data.types import Detections
from maskless.models.encoders import Grounder, normalisation
from maskless.models.memory import execution_device
from maskless.models.parts import SETTINGS_BYTES, one_line_model_errors, open_network, opening, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_OVERLAP, MAX_DETECTIONS = 0.5, 20
"""Of two boxes with a larger intersection over union, the one with the lower score is left out; and at most so many
boxes are kept."""
DINO_SHORTER_PX, DINO_LONGER_PX = 800, 1333
"""Sides of Grounding DINO's input if its preprocessor_config.json does not say them."""
MIN_PART_SHARE = 0.001
"""Minimum area of a part that CLIPSeg finds, as a share of its map."""


class _Detector:
    """What the three share: the network, its tokenizer and the normalisation of its input."""

    threshold: float
    """Scores below this are not reported."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: Path) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        mean, std = normalisation(source)
        self._mean, self._std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
        self._failed = f"the grounder {source} cannot be computed, its settings and files do not fit together"

    def _on_device(self, image: Float[Tensor, "3 h w"]) -> Float[Tensor, "1 3 h w"]:
        normalised = (image.to(self._mean) - self._mean) / self._std
        return normalised[None].to(execution_device(self.model))

    def _tokens(self, text: str, **options: Any) -> dict[str, Tensor]:
        found = self.tokenizer(text, return_tensors="pt", truncation=True, **options)
        return {name: value.to(execution_device(self.model)) for name, value in found.items()}

    def find(self, image: Float[Tensor, "3 H W"], text: str) -> Detections:
        """See `Grounder`."""
        with one_line_model_errors(self._failed), torch.no_grad():
            boxes, scores = self._detect(image, text)
        kept = scores >= self.threshold
        return _in_pixels(boxes[kept].cpu(), scores[kept].cpu(), (image.shape[1], image.shape[2]))

    def _detect(self, image: Tensor, text: str) -> tuple[Float[Tensor, "N 4"], Float[Tensor, " N"]]:
        """(x0, y0, x1, y1) as shares of the picture's width and height, and scores from 0 to 1."""
        raise NotImplementedError


class Owlv2(_Detector):
    """OWLv2. Its input is a square: the picture with grey below it or beside it."""

    threshold = 0.1

    def _detect(self, image: Tensor, text: str) -> tuple[Tensor, Tensor]:
        height, width = image.shape[1:]
        longest = max(height, width)
        side = int(self.model.config.vision_config.image_size)
        small = resize(image, (max(1, round(side * height / longest)), max(1, round(side * width / longest))))
        square = F.pad(small, (0, side - small.shape[2], 0, side - small.shape[1]), value=0.5)
        context = int(self.model.config.text_config.max_position_embeddings)
        tokens = self._tokens(text, padding="max_length", max_length=context)
        found = self.model(pixel_values=self._on_device(square), **tokens)
        to_picture = torch.tensor([longest / width, longest / height] * 2).to(found.pred_boxes)
        return _corners(found.pred_boxes[0]) * to_picture, found.logits[0, :, 0].sigmoid()


class GroundingDino(_Detector):
    """Grounding DINO. It reads a text in lower case that ends with a full stop, and its score is that of the token that
    fits a box best."""

    threshold = 0.25

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: Path) -> None:
        super().__init__(model, tokenizer, source)
        size = read_json(source / "preprocessor_config.json", limit=SETTINGS_BYTES).get("size")
        sides = size if isinstance(size, dict) else {}
        shorter, longer = sides.get("shortest_edge", DINO_SHORTER_PX), sides.get("longest_edge", DINO_LONGER_PX)
        good = all(isinstance(side, int) and 32 <= side <= 4096 for side in (shorter, longer)) and shorter <= longer
        if not good:
            raise MasklessError(f"size in {source} must hold shortest_edge and longest_edge, got {shown(size)}")
        self._sides = shorter, longer

    def _detect(self, image: Tensor, text: str) -> tuple[Tensor, Tensor]:
        height, width = image.shape[1:]
        scale = min(self._sides[0] / min(height, width), self._sides[1] / max(height, width))
        small = self._on_device(resize(image, (max(32, int(height * scale)), max(32, int(width * scale)))))
        mask = torch.ones(1, *small.shape[2:], dtype=torch.long, device=small.device)
        tokens = self._tokens(f"{text.lower().strip().rstrip('.')}.", max_length=self.model.config.max_text_len)
        found = self.model(pixel_values=small, pixel_mask=mask, **tokens)
        return _corners(found.pred_boxes[0]), found.logits[0].sigmoid().max(dim=1).values


class ClipSeg(_Detector):
    """CLIPSeg. It gives a map, each of whose parts becomes a box; the score is the mean of the map in the part."""

    threshold = 0.3

    def _detect(self, image: Tensor, text: str) -> tuple[Tensor, Tensor]:
        side = int(self.model.config.vision_config.image_size)
        context = int(self.model.config.text_config.max_position_embeddings)
        tokens = self._tokens(text, padding="max_length", max_length=context)
        found = self.model(pixel_values=self._on_device(resize(image, (side, side))), **tokens)
        heat = found.logits.reshape(found.logits.shape[-2:]).sigmoid().cpu()
        parts = components(heat >= self.threshold) if bool((heat >= self.threshold).any()) else []
        parts = [part for part in parts if int(part.sum()) >= MIN_PART_SHARE * part.numel()][:MAX_DETECTIONS]
        boxes = torch.tensor([mask_box(part) for part in parts], dtype=torch.float32).reshape(-1, 4)
        rows, columns = heat.shape
        scores = torch.tensor([float(heat[part].mean()) for part in parts])
        return boxes / torch.tensor([columns, rows, columns, rows]), scores


KINDS: dict[str, tuple[str, str, Callable[[Any, Any, Path], Grounder]]] = {
    "owlv2": ("Owlv2ForObjectDetection", "CLIPTokenizer", Owlv2),
    "grounding-dino": ("GroundingDinoForObjectDetection", "BertTokenizer", GroundingDino),
    "clipseg": ("CLIPSegForImageSegmentation", "CLIPTokenizer", ClipSeg),
}
"""From a model_type to the classes of the network and its tokenizer in transformers, and the class here."""


def load_grounder(source: Path, *, allow_pickle: bool = False) -> Grounder:
    """A grounder from a folder in transformers' format, in float32 on the CPU.

    allow_pickle: also read weights that are not safetensors.

    Raises:
        MasklessError: another kind of model, or missing weights or settings.
    """
    import transformers

    kind = shown(read_json(source / "config.json", limit=SETTINGS_BYTES).get("model_type"))
    if kind not in KINDS:
        raise MasklessError(f"the grounder must be an OWLv2, a Grounding DINO or a CLIPSeg, got {kind} in {source}")
    network, tokenizer, wrapped = KINDS[kind]
    model = open_network(getattr(transformers, network), source, allow_pickle=allow_pickle, dtype=torch.float32)
    with opening(source):
        reader = getattr(transformers, tokenizer)
        texts = reader.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        return wrapped(model, texts, source)


def _corners(boxes: Float[Tensor, "N 4"]) -> Float[Tensor, "N 4"]:
    """Boxes (centre x, centre y, width, height) as (x0, y0, x1, y1)."""
    middle, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([middle - half, middle + half], dim=1)


def _in_pixels(boxes: Float[Tensor, "N 4"], scores: Float[Tensor, " N"], size_yx: tuple[int, int]) -> Detections:
    """The best boxes that do not overlap much, in pixels of a picture of this size. boxes: as shares of its sides."""
    boxes = boxes.clamp(0, 1)
    good = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1) & scores.isfinite()
    fine = (boxes[good].to(torch.float64) * 2**20).round().to(torch.long)
    scores = scores[good].to(torch.float32)
    kept = without_overlaps(fine, scores, max_iou=MAX_OVERLAP, count=MAX_DETECTIONS)
    return Detections(boxes_xyxy=scale_boxes(fine[kept], (2**20, 2**20), size_yx), score=scores[kept])
