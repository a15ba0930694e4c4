"""What the published release, github.com/yuanze-lin/Learnable_Regions, effectively does, as a baseline.

This is our own code, written after reading its models/model.py, vis.py and engine.py.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from maskless.data.boxes import GRID_CELLS
from maskless.data.masks import window_mask
from maskless.data.paste import crop_window, resize
from maskless.data.types import Scores
from maskless.evaluation.measures.metrics import mask_of_box
from maskless.evaluation.methods.cases import Case, Outcome
from maskless.method.anchor_net import PROJECTED, AnchorNet, region_features
from maskless.method.ranking import rank_by_paper
from maskless.models.inpainters.denoising import Sampling

TEMPLATE = "a high quality image of {}."
"""The sentence that the release makes of every prompt, for the inpainting and for the ranking."""
SCALE = 0.125
"""The release divides boxes that are in cells by eight before it pools the features in them (mistake 4)."""


def release(case: Case) -> Outcome:
    """What the published code effectively does: it inpaints nine boxes of random size once each, and CLIP picks one.

    Its mistakes are part of this method (numbers as in tests/test_mistakes.py). AnchorNet never learns (1, 2, 5) and
    its choice is random (10), by the uneven probabilities of its first weights. Anchors are the highest cells of the
    attention, without suppression, computed from pixels that were not normalised (8); the few cells far enough from the
    border come first (6), and rows are taken for x (3). Only the centre square is edited, all of it passes through the
    autoencoder, and nothing is pasted back (11): the rest of the picture is lost and here black. Each box has a noise
    of its own (9), and every prompt becomes TEMPLATE. Similarities go through a softmax over the candidates before they
    are added. The release makes 99 inpaintings, 90 of which do not change the result; they are left out here.
    """
    request, models = case.request, case.models
    height, width = request.size_yx
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = request.image[:, top : top + side, left : left + side]
    raw = (square * models.dino.std + models.dino.mean).clamp(0, 1)
    seen, cells = models.dino.features(raw), (GRID_CELLS, GRID_CELLS)
    attention, features = (
        F.interpolate(each[None], cells, mode="bilinear", align_corners=False)[0]
        for each in (seen.attention[None], seen.features)
    )
    points = release_anchors(attention[0], case.config.anchors, case.config.max_window_size)
    sizes = untrained_sizes(features, points, case.config.sizes, torch.Generator().manual_seed(case.seed))
    prompt = TEMPLATE.format(request.prompt)
    boxes = release_boxes(points, sizes, side)
    frames = torch.cat([_whole_frame(case, square, box, prompt, case.seed + i) for i, box in enumerate(boxes.tolist())])
    frames = torch.stack([resize(frame, (side, side)) for frame in frames])
    embedding = models.clip.encode(torch.cat([square[None], frames])).embedding
    scores = Scores(
        text_to_image=(embedding[1:] @ models.clip.encode_text(prompt)).softmax(dim=0),
        image_to_image=(embedding[1:] @ embedding[0]).softmax(dim=0),
        location=torch.zeros(len(frames)),
        gone=torch.zeros(len(frames)),
    )
    best = rank_by_paper(scores, alpha=case.config.ranking_alpha, beta=case.config.ranking_beta).order[0]
    picture = torch.zeros_like(request.image)
    picture[:, top : top + side, left : left + side] = frames[best]
    x0, y0, x1, y1 = boxes[best].tolist()
    return Outcome(
        pixels=_pixels(picture),
        region=mask_of_box((x0 + left, y0 + top, x1 + left, y1 + top), request.size_yx),
        inpaintings=len(frames),
    )


def release_anchors(attention: Float[Tensor, "g g"], count: int, window: int) -> Int[Tensor, "K 2"]:
    """(row, column) of the release's anchors: first the cells around which the largest box stays on the grid, in order
    of attention, then the highest cells of all, neighbours or not, which may be the same ones (mistake 6)."""
    side = attention.shape[0]
    order = torch.argsort(attention.flatten(), descending=True, stable=True)
    points = torch.stack([order // side, order % side], dim=1)
    inner = ((points >= window) & (points + window <= side - 1)).all(dim=1)
    return torch.cat([points[inner], points])[:count] if inner.sum() < count else points[inner][:count]


def untrained_sizes(
    features: Float[Tensor, "D g g"],
    points_yx: Int[Tensor, "K 2"],
    sizes: tuple[int, ...],
    generator: torch.Generator,
) -> Int[Tensor, " K"]:
    """The half-size of each anchor's box, drawn by the release's AnchorNet with PyTorch's own first weights, which
    prefers some sizes to others. features: DINO's, on the grid of the anchors."""
    projection = _uniform((PROJECTED, features.shape[0], 1, 1), features.shape[0], generator)
    around = [release_cells(points_yx, torch.full((len(points_yx),), size)) for size in sizes]
    boxes = torch.stack(around, dim=1).flatten(0, 1) * SCALE
    network = AnchorNet(len(sizes), generator)
    with torch.no_grad():
        for layer in network.layers:
            for parameter in layer.parameters():
                fan_in = layer.weight[0].numel()  # type: ignore[union-attr, index, operator]
                parameter.copy_(_uniform(tuple(parameter.shape), fan_in, generator))
        log_probs = network(region_features(features, boxes, projection, len(points_yx)))
    return torch.tensor(sizes)[torch.multinomial(log_probs.exp(), 1, generator=generator)[:, 0]]


def _uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
    """PyTorch's default first weights and biases of linear and convolution layers."""
    return (torch.rand(shape, generator=generator) * 2 - 1) / math.sqrt(fan_in)


def release_cells(points_yx: Int[Tensor, "K 2"], sizes: Int[Tensor, " K"]) -> Int[Tensor, "K 4"]:
    """The release's boxes in cells of its grid: the row is taken for x (mistake 3), edges are clipped to the last
    cell."""
    row, column = points_yx.unbind(1)
    return torch.stack([row - sizes, column - sizes, row + sizes, column + sizes], dim=1).clamp(0, GRID_CELLS - 1)


def release_boxes(points_yx: Int[Tensor, "K 2"], sizes: Int[Tensor, " K"], side_px: int) -> Int[Tensor, "K 4"]:
    """The release's boxes in pixels of its square: its cells 0 to 31 become pixels 0 to side - 1, rounded up."""
    edges = release_cells(points_yx, sizes)
    # Whole-number division, because ceil of a product of floats is off by one where the product is whole.
    return -((-edges * (side_px - 1)) // (GRID_CELLS - 1))


def _whole_frame(case: Case, square: Tensor, box_xyxy: list[int], prompt: str, seed: int) -> Float[Tensor, "1 3 S S"]:
    """The whole square as the model gives it back, at the model's size, in [0, 1]."""
    inpainter, config = case.models.inpainter, case.resolved
    side, frame = inpainter.native_px, (0, 0, square.shape[1], square.shape[2])
    drawn = inpainter.inpaint(
        crop_window(square, frame, side)[None],
        window_mask(box_xyxy, frame, side)[None],
        inpainter.encode_prompt(prompt, config.negative_prompt),
        Sampling(seed=seed, steps=config.steps, guidance_scale=config.guidance_scale),
    )
    return drawn.to(torch.float32) / 255


def _pixels(picture: Float[Tensor, "3 H W"]) -> np.ndarray:
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
