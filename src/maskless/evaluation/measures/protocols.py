"""What published benchmarks measure of one edited picture, exactly as they do it, and corrected figures beside it.

PIE-Bench's figures (github.com/cure-lab/PnPInversion, evaluation/) have its own names and all of its peculiarities:

    black background   *_unedit_part: both pictures are black in the edited part and scored over the whole frame, so
                       pixels that were masked out count as perfect, and the larger the mask the better the score.
    black edges        lpips and ssim also see the edge between picture and black, which is the same in both.
    range 0 to 255     structure_distance: pixels of 0 to 255 are normalised as if they were 0 to 1.
    black frame        clip_similarity_target_image_edit_part: all but the edited part is black and the frame stays
                       whole, so a small edit is a small spot.
    scale of 100       clip_similarity_*: 100 times the cosine, and 0 where that is negative.
    border             the outermost pixels belong to every mask (benchmarks.decode_mask).
    last square        of a result that is not square only the last 512 x 512 pixels count, because some tools write a
                       row of pictures (`last_square`).
    infinite PSNR      where nothing differs PSNR is infinite, which has no mean; here it is PERFECT_DB. This is the
                       only departure.

The corrected figures score only the pixels of the background, with the source in the edited part of both pictures;
structure is measured on normalised pixels, and CLIP on a crop of the edited part. MagicBrush's figures compare the
result with a target picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.data.masks import mask_box
from maskless.evaluation.measures import figures, metrics
from maskless.evaluation.measures.lpips import Lpips
from maskless.evaluation.measures.metrics import Mask, Pixels, capped_psnr, unit
from maskless.method.alignment import align
from maskless.models.clip import Clip
from maskless.models.dino import Dino

LAST_SQUARE_PX = 512


@dataclass(frozen=True, kw_only=True, eq=False)
class Instruments:
    """The networks that measure; the figures of a network that is None are left out.

    PIE-Bench's are CLIP ViT-L/14, DINO ViT-B/8 and LPIPS with SqueezeNet. Figures of other networks cannot be compared
    with published ones.
    """

    clip: Clip | None = None
    dino: Dino | None = None
    lpips: Lpips | None = None


def last_square(pixels: Pixels) -> UInt8[np.ndarray, "h w 3"]:
    """PIE-Bench's rule for results: the last 512 x 512 pixels of a picture that is not square, else the whole picture.

    Raises:
        MasklessError: a picture that is not square is smaller than that.
    """
    height, width = pixels.shape[:2]
    if height == width:
        return pixels
    if min(height, width) < LAST_SQUARE_PX:
        raise MasklessError(f"a result that is not square must be at least 512 x 512, got {width} x {height}")
    return pixels[height - LAST_SQUARE_PX :, width - LAST_SQUARE_PX :]


def pie_figures(tools: Instruments, source: Pixels, result: Pixels, edited: Mask, prompt: str) -> dict[str, float]:
    """PIE-Bench's seven figures, under its names; NaN where PIE-Bench writes "nan"."""
    before, after = unit(source), unit(result)
    found = {
        figures.PSNR_UNEDIT_PART: capped_psnr(metrics.background_psnr(before, after, edited)),
        figures.MSE_UNEDIT_PART: metrics.background_mse(before, after, edited),
        figures.SSIM_UNEDIT_PART: metrics.background_ssim(before, after, edited),
    }
    if tools.lpips is not None:
        everything = bool(edited.all())
        distance = math.nan if everything else tools.lpips.distance(before * ~edited, after * ~edited)
        found[figures.LPIPS_UNEDIT_PART] = distance
    if tools.dino is not None:
        found[figures.PIE_STRUCTURE_DISTANCE] = _structure(tools.dino, 255 * before, 255 * after)
    if tools.clip is not None:
        found[figures.PIE_CLIP] = clip_score(tools.clip, result, prompt)
        part = result * edited.numpy()[:, :, None].astype(np.uint8)
        found[figures.PIE_CLIP_PART] = clip_score(tools.clip, part, prompt) if bool(edited.any()) else math.nan
    return found


def corrected_figures(
    tools: Instruments, source: Pixels, result: Pixels, edited: Mask, caption: str, prompt: str
) -> dict[str, float]:
    """Figures for the same purposes, of only the background's pixels and only the edited part."""
    before, after = unit(source), unit(result)
    found = {
        figures.BACKGROUND_PSNR: capped_psnr(metrics.psnr_outside(before, after, edited)),
        figures.BACKGROUND_MSE: metrics.mse_outside(before, after, edited),
        figures.BACKGROUND_SSIM: metrics.ssim_outside(before, after, edited),
        figures.BACKGROUND_IDENTICAL: metrics.exact_outside(before, after, edited),
    }
    if tools.lpips is not None:
        put_back = torch.where(edited, before, after)
        found[figures.BACKGROUND_LPIPS] = float(tools.lpips.spatial(before, put_back)[~edited].mean())
    return found | whole_figures(tools, source, result, caption, prompt) | _part_figures(tools, result, edited, prompt)


def whole_figures(tools: Instruments, source: Pixels, result: Pixels, caption: str, prompt: str) -> dict[str, float]:
    """The figures that need no mask: structure distance on normalised pixels, the cosine of the picture and the prompt,
    and, where there is a caption, the cosine of the change of the picture and the change of the text."""
    found = {}
    if tools.dino is not None:
        found[figures.STRUCTURE_DISTANCE] = _structure(tools.dino, unit(source), unit(result))
    if tools.clip is not None:
        before, after = tools.clip.encode(torch.stack([unit(source), unit(result)])).embedding
        wanted = tools.clip.encode_text(prompt)
        found[figures.CLIP_WHOLE] = float(after @ wanted)
        if caption.strip():
            change = wanted - tools.clip.encode_text(caption)
            found[figures.CLIP_DIRECTIONAL] = float(F.cosine_similarity(after - before, change, dim=0))
    return found


def target_figures(tools: Instruments, target: Pixels, result: Pixels) -> dict[str, float]:
    """MagicBrush's figures (github.com/OSU-NLP-Group/MagicBrush): how far the result is from the target picture.

    L1 and L2 are means of absolute and squared differences of values in [0, 1]; CLIP-I and DINO are cosines of
    embeddings, for DINO those of its CLS token.
    """
    wanted, made = unit(target), unit(result)
    found = {
        figures.TARGET_L1: float((wanted - made).abs().mean()),
        figures.TARGET_L2: float((wanted - made).square().mean()),
    }
    if tools.clip is not None:
        a, b = tools.clip.encode(torch.stack([wanted, made])).embedding
        found[figures.TARGET_CLIP] = float(a @ b)
    if tools.dino is not None:
        tokens = _cls_token(tools.dino, wanted), _cls_token(tools.dino, made)
        found[figures.TARGET_DINO] = float(F.cosine_similarity(*tokens, dim=0))
    return found


def displacement_figures(source: Pixels, result: Pixels, edited: Mask) -> dict[str, float]:
    """By how much the whole picture was displaced, measured outside the edited part; nothing where too little lies
    outside. Shift and zoom are NaN where the two pictures cannot be aligned."""
    found = align(unit(result), unit(source), edited, limit=EditConfig().align_limit)
    if found is None:
        return {}
    own = found.alignment
    return {
        figures.OUTSIDE_SHIFT: math.hypot(*own.shift_xy_px) if own.aligned else math.nan,
        figures.OUTSIDE_ZOOM: 100 * abs(own.scale - 1) if own.aligned else math.nan,
        figures.OUTSIDE_RESIDUAL: own.residual,
        figures.OUTSIDE_ALIGNED: own.aligned,
    }


def region_figures(region: Mask, edited: Mask) -> dict[str, float]:
    """How well the region that an editor changed fits the benchmark's mask."""
    precision, recall = metrics.precision_recall(region, edited)
    return {
        figures.REGION_IOU: metrics.mask_iou(region, edited),
        figures.REGION_PRECISION: precision,
        figures.REGION_RECALL: recall,
        figures.REGION_SIZE: float(region.float().mean()),
    }


def clip_score(clip: Clip, pixels: Pixels, text: str) -> float:
    """torchmetrics' CLIPScore: 100 times the cosine, at least 0.

    The picture is prepared as CLIP's own processor does it: its shorter side is resized by Pillow and its centre cut
    out. All of a text counts, also where it is longer than the context.
    """
    side, (height, width) = clip.image_px, pixels.shape[:2]
    scale = side / min(height, width)
    size = max(side, int(width * scale)), max(side, int(height * scale))
    resized = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    cropped = unit(np.asarray(resized.crop((left, top, left + side, top + side))))
    return max(0.0, 100 * float(clip.encode(cropped[None]).embedding[0] @ clip.encode_text(text)))


def _part_figures(tools: Instruments, result: Pixels, edited: Mask, prompt: str) -> dict[str, float]:
    if tools.clip is None or not bool(edited.any()):
        return {}
    box = torch.tensor([mask_box(edited)])
    part = tools.clip.encode_crops(unit(result), box)[0]
    return {figures.CLIP_PART: float(part @ tools.clip.encode_text(prompt))}


def _structure(dino: Dino, before: Tensor, after: Tensor) -> float:
    """Structure distance at DINO's own size; values of any range, normalised by ImageNet's mean and standard
    deviation."""
    keys = []
    for image in (before, after):
        size = dino.input_size_yx((image.shape[1], image.shape[2]))
        # Resized here, because Dino's own preprocessing clamps to [0, 1].
        resized = F.interpolate(image[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]
        keys.append(dino.keys(resized))
    return metrics.structure_distance(*keys)


@torch.no_grad()
def _cls_token(dino: Dino, image: Float[Tensor, "3 H W"]) -> Float[Tensor, " D"]:
    output = dino.model(pixel_values=dino.preprocess(image).to(dino.device), interpolate_pos_encoding=True)
    return output.last_hidden_state[0, 0].float().cpu()
