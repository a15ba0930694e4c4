"""What published benchmarks measure of one edited picture, to the letter, and the same put right beside it.

PIE-Bench (github.com/cure-lab/PnPInversion, evaluation/) under its own names, with all that a reader may trip over:

    black background   *_unedit_part: both pictures are black in the edited part and scored over the whole frame, so
                       pixels that were masked out count as perfect, and the larger the mask the better the score.
    black edges        lpips and ssim also see the edge between picture and black, the same in both.
    range 0 to 255     structure_distance: pixels of 0 to 255 are normalised as if they were 0 to 1.
    black edit part    clip_similarity_target_image_edit_part: all but the edited part is black and the frame stays
                       whole, so a small edit is a small spot.
    scale of 100       clip_similarity_*: 100 times the cosine, and 0 where that is negative.
    border             the outermost pixels belong to every mask (benchmarks.decode_mask).
    last square        a result that is not square counts by its last 512 x 512 pixels, where others keep a row of
                       pictures (`last_square`).
    infinite PSNR      where nothing differs; infinity has no mean, so here it is PERFECT_DB. This is the one departure.

What is put right is scored on the background's own pixels, the source in the edited part of both pictures; structure on
normalised pixels; CLIP on a crop of the edited part. MagicBrush's measures are against the picture that was wanted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from maskless.data.errors import MasklessError
from maskless.data.masks import mask_box
from maskless.evaluation.measures import metrics
from maskless.evaluation.measures.figures import PERFECT_DB
from maskless.evaluation.measures.lpips import Lpips
from maskless.models.clip import Clip
from maskless.models.dino import Dino

Pixels = UInt8[np.ndarray, "H W 3"]
Mask = Bool[Tensor, "H W"]
LAST_SQUARE_PX = 512


@dataclass(frozen=True, kw_only=True, eq=False)
class Instruments:
    """The networks that measure; without one, what it measures is left out. PIE-Bench's are CLIP ViT-L/14, DINO ViT-B/8
    and LPIPS with SqueezeNet; figures of other networks cannot be compared with published ones."""

    clip: Clip | None = None
    dino: Dino | None = None
    lpips: Lpips | None = None


def last_square(pixels: Pixels) -> UInt8[np.ndarray, "h w 3"]:
    """PIE-Bench's rule for results: the last 512 x 512 pixels of what is not square, else all."""
    height, width = pixels.shape[:2]
    if height == width:
        return pixels
    if min(height, width) < LAST_SQUARE_PX:
        raise MasklessError(f"a result that is not square must be at least 512 x 512, got {width} x {height}")
    return pixels[height - LAST_SQUARE_PX :, width - LAST_SQUARE_PX :]


def pie_figures(tools: Instruments, source: Pixels, result: Pixels, edited: Mask, prompt: str) -> dict[str, float]:
    """PIE-Bench's seven, under its names; NaN where it writes "nan"."""
    before, after = unit(source), unit(result)
    psnr = metrics.background_psnr(before, after, edited)
    found = {
        "psnr_unedit_part": psnr if math.isnan(psnr) else min(psnr, PERFECT_DB),
        "mse_unedit_part": metrics.background_mse(before, after, edited),
        "ssim_unedit_part": metrics.background_ssim(before, after, edited),
    }
    if tools.lpips is not None:
        everything = bool(edited.all())
        found["lpips_unedit_part"] = math.nan if everything else tools.lpips.distance(before * ~edited, after * ~edited)
    if tools.dino is not None:
        found["structure_distance"] = _structure(tools.dino, 255 * before, 255 * after)
    if tools.clip is not None:
        found["clip_similarity_target_image"] = clip_score(tools.clip, result, prompt)
        part = result * edited.numpy()[:, :, None].astype(np.uint8)
        found["clip_similarity_target_image_edit_part"] = (
            clip_score(tools.clip, part, prompt) if bool(edited.any()) else math.nan
        )
    return found


def corrected_figures(
    tools: Instruments, source: Pixels, result: Pixels, edited: Mask, caption: str, prompt: str
) -> dict[str, float]:
    """The same questions, of the background's own pixels and of the edited part alone."""
    before, after = unit(source), unit(result)
    psnr = metrics.psnr_outside(before, after, edited)
    found = {
        "background PSNR dB": psnr if math.isnan(psnr) else min(psnr, PERFECT_DB),
        "background MSE": metrics.mse_outside(before, after, edited),
        "background SSIM": metrics.ssim_outside(before, after, edited),
        "background identical": metrics.exact_outside(before, after, edited),
    }
    if tools.lpips is not None:
        put_back = torch.where(edited, before, after)
        found["background LPIPS"] = float(tools.lpips.spatial(before, put_back)[~edited].mean())
    return found | whole_figures(tools, source, result, caption, prompt) | _of_the_part(tools, result, edited, prompt)


def whole_figures(tools: Instruments, source: Pixels, result: Pixels, caption: str, prompt: str) -> dict[str, float]:
    """What needs no mask: structure distance on normalised pixels, cosines of the picture and the prompt, and of the
    change of the picture and the change of the text (where there is a caption)."""
    found = {}
    if tools.dino is not None:
        found["structure distance"] = _structure(tools.dino, unit(source), unit(result))
    if tools.clip is not None:
        was, now = tools.clip.encode(torch.stack([unit(source), unit(result)])).embedding
        asked = tools.clip.encode_text(prompt)
        found["CLIP whole"] = float(now @ asked)
        if caption.strip():
            change = asked - tools.clip.encode_text(caption)
            found["CLIP directional"] = float(F.cosine_similarity(now - was, change, dim=0))
    return found


def target_figures(tools: Instruments, target: Pixels, result: Pixels) -> dict[str, float]:
    """MagicBrush's (github.com/OSU-NLP-Group/MagicBrush): how far from the picture that was wanted. L1 and L2 are means
    of absolute and squared differences of values in [0, 1]; CLIP-I and DINO are cosines of embeddings, DINO's that of
    its CLS token."""
    wanted, made = unit(target), unit(result)
    found = {"L1": float((wanted - made).abs().mean()), "L2": float((wanted - made).square().mean())}
    if tools.clip is not None:
        a, b = tools.clip.encode(torch.stack([wanted, made])).embedding
        found["CLIP-I"] = float(a @ b)
    if tools.dino is not None:
        found["DINO"] = float(F.cosine_similarity(_cls(tools.dino, wanted), _cls(tools.dino, made), dim=0))
    return found


def region_figures(region: Mask, edited: Mask) -> dict[str, float]:
    """How well the part that an editor changed fits the benchmark's mask."""
    precision, recall = metrics.precision_recall(region, edited)
    return {
        "region IoU": metrics.mask_iou(region, edited),
        "region precision": precision,
        "region recall": recall,
        "region size": float(region.float().mean()),
    }


def clip_score(clip: Clip, pixels: Pixels, text: str) -> float:
    """torchmetrics' CLIPScore: 100 times the cosine, at least 0; the picture as CLIP's own processor takes it, its
    shorter side resized by Pillow and its centre cut out. Of a text longer than the context, all of it counts."""
    side, (height, width) = clip.image_px, pixels.shape[:2]
    scale = side / min(height, width)
    size = max(side, int(width * scale)), max(side, int(height * scale))
    resized = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    seen = unit(np.asarray(resized.crop((left, top, left + side, top + side))))
    return max(0.0, 100 * float(clip.encode(seen[None]).embedding[0] @ clip.encode_text(text)))


def _of_the_part(tools: Instruments, result: Pixels, edited: Mask, prompt: str) -> dict[str, float]:
    if tools.clip is None or not bool(edited.any()):
        return {}
    box = torch.tensor([mask_box(edited)])
    return {
        "CLIP of the edited part": float(tools.clip.encode_crops(unit(result), box)[0] @ tools.clip.encode_text(prompt))
    }


def _structure(dino: Dino, before: Tensor, after: Tensor) -> float:
    """Structure distance at DINO's own size; values of any range, normalised by ImageNet's mean and spread."""
    keys = []
    for image in (before, after):
        size = dino.input_size_yx((image.shape[1], image.shape[2]))
        # Resized here, because Dino's own preprocessing clamps to [0, 1].
        resized = F.interpolate(image[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]
        keys.append(dino.keys(resized))
    return metrics.structure_distance(*keys)


@torch.no_grad()
def _cls(dino: Dino, image: Float[Tensor, "3 H W"]) -> Float[Tensor, " D"]:
    output = dino.model(pixel_values=dino.preprocess(image).to(dino.device), interpolate_pos_encoding=True)
    return output.last_hidden_state[0, 0].float().cpu()


def unit(pixels: Pixels) -> Float[Tensor, "3 H W"]:
    """Values from 0 to 1, as every metric takes them."""
    return torch.from_numpy(pixels.astype(np.float32) / 255).movedim(-1, 0)
