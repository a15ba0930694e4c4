"""What a region's edit is worth: inpaint, composite, losses. It knows the frozen models and no policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maskless.data.boxes import context_window, scale_boxes
from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.data.masks import soft_box_mask, window_mask
from maskless.data.paste import crop_window, met, paste_back
from maskless.data.result import Candidates
from maskless.data.types import LOSS_NAMES, EditRequest, Losses, Regions, Scores
from maskless.engine.batching import Batches, batch_size_for
from maskless.engine.scoring import Appraiser
from maskless.engine.stopwatch import Stopwatch
from maskless.locating.view import VIEW_PX, at_most
from maskless.models.pretrained import EditModels

SOFT_EDGE_SHARE = 1 / 64
"""Softness of the straight-through masks' edges, as a share of the picture's shorter side."""


class RegionEvaluator:
    """Edits regions of one picture, each at most once, and keeps what came out.

    A region is named by its position among `regions`. All of them are inpainted from the same noise.
    """

    def __init__(
        self,
        request: EditRequest,
        regions: Regions,
        models: EditModels,
        config: EditConfig,
        *,
        seed: int,
        stopwatch: Stopwatch,
    ) -> None:
        """config: with steps and guidance_scale resolved."""
        assert config.steps is not None and config.guidance_scale is not None
        self._request, self._regions, self._models, self._config = request, regions, models, config
        self._steps, self._guidance = config.steps, config.guidance_scale
        self._seed, self._stopwatch = seed, stopwatch
        self.native_px = models.inpainter.native_px
        self.windows_xyxy = torch.tensor(
            [context_window(box, request.size_yx, context=config.context) for box in regions.boxes_xyxy.tolist()]
        )
        fitting = batch_size_for(models.device, self.native_px, models.memory)
        self._batches = Batches(config.batch_size or fitting, models.memory)
        self._small = at_most(request.image, VIEW_PX)
        small_yx = (self._small.shape[1], self._small.shape[2])
        self._small_boxes = scale_boxes(regions.boxes_xyxy, request.size_yx, small_yx)
        self._small_windows = scale_boxes(self.windows_xyxy, request.size_yx, small_yx)
        self._crops: dict[int, Tensor] = {}
        self._losses: dict[int, Tensor] = {}
        with stopwatch.stage("losses"):
            self._appraiser = Appraiser(self._small, request.caption, request.prompt, models.clip, config, seed=seed)
        with stopwatch.stage("inpainting"):
            self._conditioning = models.inpainter.encode_prompt(request.prompt, config.negative_prompt)

    @property
    def inpaintings(self) -> int:
        """Regions inpainted so far."""
        return len(self._crops)

    def __call__(self, cells: list[int]) -> Float[Tensor, " n"]:
        """Total losses of these regions; those not seen before are inpainted now."""
        unseen = [cell for cell in cells if cell not in self._crops]
        if unseen:
            with self._stopwatch.stage("inpainting"):
                crops = self._batches.run(len(unseen), lambda batch: self._inpaint(unseen[batch]))
            self._crops.update(zip(unseen, crops, strict=True))
            with self._stopwatch.stage("losses"), torch.no_grad():
                pictures = torch.stack([self.composite(cell) for cell in unseen])
                found = self._appraiser.losses(pictures, self._small_boxes[unseen])
            self._losses.update(zip(unseen, found.rows, strict=True))
        return self.losses(cells).total

    def losses(self, cells: Sequence[int]) -> Losses:
        """The losses of regions seen before."""
        return Losses.from_rows(torch.stack([self._losses[cell] for cell in cells]))

    def candidates(self, cells: list[int]) -> Candidates:
        """The edits of regions seen before."""
        return Candidates(
            regions=self._regions[cells],
            windows_xyxy=self.windows_xyxy[cells],
            crops=torch.stack([self._crops[cell] for cell in cells]),
            seeds=(self._seed,) * len(cells),
        )

    def composite(self, cell: int) -> Float[Tensor, "3 h w"]:
        """The edited picture at the resolution that CLIP looks at, in [0, 1] (mistake 7)."""
        crop = self._crops[cell].to(torch.float32) / 255
        window, box = self._small_windows[cell].tolist(), self._small_boxes[cell].tolist()
        return paste_back(self._small, crop, window, box, feather=self._config.feather)

    def soft_losses(self, chosen: Int[Tensor, " K"], weights: Float[Tensor, "K M"]) -> Float[Tensor, " K"]:
        """Total losses of composites through soft masks, for the straight-through estimator.

        The edit of the chosen size shows through sum_m weights[k, m] mask(k, m), so the gradient of the losses reaches
        every size's weight through the composite.
        """
        size_count = weights.shape[1]
        size_yx = (self._small.shape[1], self._small.shape[2])
        sharpness = SOFT_EDGE_SHARE * min(size_yx)
        pictures, boxes = [], []
        for anchor, size in enumerate(chosen.tolist()):
            row = slice(anchor * size_count, (anchor + 1) * size_count)
            masks = soft_box_mask(self._small_boxes[row], size_yx, sharpness)
            mask = (weights[anchor][:, None, None] * masks).sum(dim=0)
            cell = self._same_box(anchor * size_count + size)
            window = self._small_windows[cell].tolist()
            crop = self._crops[cell].to(torch.float32) / 255
            edited = paste_back(self._small, crop, window, window, feather=0.0)
            pictures.append(mask * edited + (1 - mask) * self._small)
            boxes.append(self._small_boxes[cell])
        return self._appraiser.losses(torch.stack(pictures), torch.stack(boxes)).total

    @torch.no_grad()
    def scores(self, cells: list[int], place: Float[Tensor, " R"]) -> Scores:
        """What a ranking looks at, of regions seen before. place: `place_score` of all regions."""
        known = self._appraiser
        embedding = self._models.clip.encode(torch.stack([self.composite(cell) for cell in cells])).embedding
        return Scores(
            text_to_image=embedding @ known.prompt,
            image_to_image=embedding @ known.source.embedding[0, 0],
            place=place[cells],
        )

    def to_dict(self) -> dict[str, Any]:
        """What was computed, as plain values and tensors."""
        cells = list(self._crops)
        return {
            "cells": cells,
            "crops": torch.stack([self._crops[cell] for cell in cells]) if cells else torch.zeros(0),
            "losses": torch.stack([self._losses[cell] for cell in cells]) if cells else torch.zeros(0),
            "batch_size": self._batches.size,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Take over what `to_dict` gave, so that nothing is inpainted again.

        Raises:
            MasklessError: it is of a version that had other losses.
        """
        if any(len(row) != len(LOSS_NAMES) for row in saved["losses"]):
            raise MasklessError(
                f"the checkpoint must hold {len(LOSS_NAMES)} losses of each region ({', '.join(LOSS_NAMES)}), "
                f"got {len(saved['losses'][0])}: another version wrote it"
            )
        self._crops = dict(zip(saved["cells"], saved["crops"], strict=True))
        self._losses = dict(zip(saved["cells"], saved["losses"], strict=True))
        self._batches.size = saved["batch_size"]

    def _inpaint(self, cells: list[int]) -> Tensor:
        boxes, windows = self._regions.boxes_xyxy[cells].tolist(), self.windows_xyxy[cells].tolist()
        size = self.native_px
        pictures = torch.stack([crop_window(self._request.image, window, size) for window in windows])
        masks = torch.stack([window_mask(box, window, size) for box, window in zip(boxes, windows, strict=True)])
        drawn = self._models.inpainter.inpaint(
            pictures,
            masks,
            self._conditioning,
            seed=self._seed,
            steps=self._steps,
            guidance_scale=self._guidance,
        )
        fitted = [met(new / 255, old, mask > 0) for new, old, mask in zip(drawn, pictures, masks, strict=True)]
        return (torch.stack(fitted) * 255).round().to(torch.uint8)

    def _same_box(self, cell: int) -> int:
        """The region that was inpainted for this one: itself, or another with the very same box."""
        if cell in self._crops:
            return cell
        box = self._regions.boxes_xyxy[cell]
        return next(other for other in self._crops if torch.equal(self._regions.boxes_xyxy[other], box))
