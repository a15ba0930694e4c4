"""Edits and scores regions: inpaints them, pastes them back and computes their losses. Independent of the policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from maskless.data.alignment import Alignment
from maskless.data.boxes import Box, context_window, corners
from maskless.data.config import ResolvedConfig
from maskless.data.errors import MasklessError
from maskless.data.masks import box_mask, crop_mask, enlarge_mask, soft_box_mask, window_mask
from maskless.data.paste import crop_source, match_surroundings, paste_back
from maskless.data.result import Candidates
from maskless.data.types import EditRequest, Losses, Regions, Scores
from maskless.engine.batching import Batches
from maskless.engine.refine import refine
from maskless.engine.region_lock import given_masks, lock, redraws_window
from maskless.engine.scoring import ClipScorer
from maskless.engine.stopwatch import Stopwatch
from maskless.locating.view import PictureView
from maskless.method.changes import SEAM, changed
from maskless.method.losses import NAMES
from maskless.method.search import State
from maskless.models.inpainters.denoising import Sampling, predicted_picture
from maskless.models.pretrained import EditModels

FindMask = Callable[[Box], Bool[Tensor, "h w"] | None]
"""Finds something in the picture for a box of `view.small`, as a mask of its size; None if it is not there."""
SOFT_EDGE_SHARE = 1 / 64
"""Softness of the straight-through masks' edges, as a share of the picture's shorter side."""


class RegionEdits:
    """Edits of regions of one picture, each made at most once and kept.

    A region is identified by its position in `regions`, its cell. All regions are inpainted from the same noise
    (mistake 9). Losses and scores are those of the inpainted regions; only `candidates` are refined, if the models have
    a refinement.

    windows_xyxy: the square of context around each region, half-open, in pixels.

    `find_neighbours` finds what an edit of a region leaves as it is, `find_replaced` the object that it replaces.
    """

    def __init__(
        self,
        request: EditRequest,
        view: PictureView,
        regions: Regions,
        models: EditModels,
        config: ResolvedConfig,
        stopwatch: Stopwatch,
        find_neighbours: FindMask | None = None,
        find_replaced: FindMask | None = None,
    ) -> None:
        self._request, self._view, self._regions = request, view, regions
        self._models, self._config, self._stopwatch = models, config, stopwatch
        self.windows_xyxy = torch.tensor(
            [context_window(box, request.size_yx, context=config.context) for box in regions.boxes_xyxy.tolist()]
        )
        self._batches = Batches(config.batch_size, models.memory)
        self._small_boxes = view.scaled(regions.boxes_xyxy)
        self._small_windows = view.scaled(self.windows_xyxy)
        self._find_neighbours, self._find_replaced = find_neighbours, find_replaced
        self._neighbours: dict[int, Tensor | None] = {}
        self._inpainting_forwards = self._refining_forwards = 0
        self._crops: dict[int, Tensor] = {}
        self._alignments: dict[int, Alignment | None] = {}
        self._refined: dict[int, Tensor] = {}
        self._losses: dict[int, Tensor] = {}
        self._read: dict[tuple[int, int], Tensor] = {}
        self._drawn_cell: int | None = None
        with stopwatch.stage("losses"):
            self._scorer = ClipScorer(view, view.small, (request.caption, request.prompt), config)
        with stopwatch.stage("inpainting"):
            self._conditioning = models.inpainter.encode_prompt(request.prompt, config.negative_prompt)

    @property
    def inpaintings(self) -> int:
        """The number of regions inpainted so far."""
        return len(self._crops)

    @property
    def unet_forwards(self) -> int:
        """Calls of the denoisers so far, counted per picture, those of the refinement included."""
        return self._inpainting_forwards + self._refining_forwards

    def __call__(self, cells: list[int]) -> Float[Tensor, " n"]:
        """The total losses of these regions. Those without an edit are inpainted first."""
        new_cells = [cell for cell in cells if cell not in self._crops]
        if new_cells:
            with self._stopwatch.stage("inpainting"):
                before = self._models.inpainter.unet_forwards
                crops = self._batches.run(len(new_cells), lambda batch: self._inpaint(new_cells[batch]))
                self._inpainting_forwards += self._models.inpainter.unet_forwards - before
            self._crops.update(zip(new_cells, crops, strict=True))
            with self._stopwatch.stage("losses"), torch.no_grad():
                pictures = torch.stack([self.composite(cell) for cell in new_cells])
                found = self._scorer.losses(pictures, self._small_boxes[new_cells])
            self._losses.update(zip(new_cells, found.rows, strict=True))
        return self.losses(cells).total

    def losses(self, cells: Sequence[int]) -> Losses:
        """The losses of regions that have an edit."""
        return Losses.from_rows(NAMES, torch.stack([self._losses[cell] for cell in cells]))

    def candidates(self, cells: list[int]) -> Candidates:
        """The edits of regions that have one, as candidates. They are refined first if the models have a refinement and
        the region was drawn from pure noise."""
        refined = self._models.refinement is not None and self._config.strength >= 1
        crops = self._refined_crops(cells) if refined else self._crops
        feather, trimmed = self._config.feather, self._config.keep_unchanged
        return Candidates(
            regions=self._regions[cells],
            windows_xyxy=self.windows_xyxy[cells],
            crops=torch.stack([crops[cell] for cell in cells]),
            seeds=(self._config.seed,) * len(cells),
            feather=min(feather, SEAM) if trimmed else feather,
            masks=self._masks(cells, [self._changed(cell, crops[cell]) if trimmed else None for cell in cells]),
            alignments=tuple(self._alignments.get(cell) for cell in cells),
        )

    def composite(self, cell: int) -> Float[Tensor, "3 h w"]:
        """The edited picture at the size of `view.small`, in [0, 1] (mistake 7)."""
        return self._pasted(self._crops[cell], cell)

    def drawing(self) -> Float[Tensor, "3 h w"] | None:
        """What the first of the regions that are being drawn is expected to become, as `composite` gives it; None
        without a preview autoencoder."""
        predicted = None if self._drawn_cell is None else predicted_picture()
        return None if predicted is None or self._drawn_cell is None else self._pasted(predicted, self._drawn_cell)

    def _pasted(self, drawn: UInt8[Tensor, "3 S S"], cell: int) -> Float[Tensor, "3 h w"]:
        crop = drawn.to(torch.float32) / 255
        window, box = self._small_windows[cell].tolist(), self._small_boxes[cell].tolist()
        kept = self._kept(cell)
        mask = None if kept is None else box_mask(box, self._view.small_yx) & ~kept
        return paste_back(self._view.small, crop, window, box, feather=self._config.feather, mask=mask)

    def soft_losses(self, chosen: Int[Tensor, " K"], weights: Float[Tensor, "K M"]) -> Float[Tensor, " K"]:
        """The total losses of composites through soft masks, for the straight-through estimator.

        The edit of the chosen size is pasted through the mask sum_m weights[k, m] mask(k, m), so that the gradient of
        the losses reaches the weight of every size through the composite.
        """
        small, size_count = self._view.small, weights.shape[1]
        sharpness = SOFT_EDGE_SHARE * min(self._view.small_yx)
        pictures, boxes = [], []
        for anchor, size in enumerate(chosen.tolist()):
            row = slice(anchor * size_count, (anchor + 1) * size_count)
            masks = soft_box_mask(self._small_boxes[row], self._view.small_yx, sharpness)
            mask = (weights[anchor][:, None, None] * masks).sum(dim=0)
            cell = self._inpainted_cell(anchor * size_count + size)
            window = self._small_windows[cell].tolist()
            crop = self._crops[cell].to(torch.float32) / 255
            edited = paste_back(small, crop, window, window, feather=0.0)
            pictures.append(mask * edited + (1 - mask) * small)
            boxes.append(self._small_boxes[cell])
        return self._scorer.losses(torch.stack(pictures), torch.stack(boxes)).total

    @torch.no_grad()
    def scores(self, cells: list[int], location: Float[Tensor, " R"]) -> Scores:
        """The scores that a ranking uses, of regions that have an edit. location: `location_score` of all regions."""
        scorer, clip = self._scorer, self._models.clip
        composites = torch.stack([self.composite(cell) for cell in cells])
        embedding = clip.encode(composites).embedding
        gone = torch.zeros(len(cells))
        if self._request.caption.strip() and len(cells) > 1:
            boxes = self._small_boxes[cells]
            edited = [clip.encode_crops(each, box[None])[0] for each, box in zip(composites, boxes, strict=True)]
            gone = -(torch.stack(edited) @ scorer.caption)
        return Scores(
            text_to_image=embedding @ scorer.prompt,
            image_to_image=embedding @ scorer.source.embedding[0, 0],
            location=location[cells],
            gone=gone,
        )

    def to_dict(self) -> State:
        """All edits and their losses, as plain values and tensors; refined edits are made again."""
        cells = list(self._crops)
        return {
            "cells": cells,
            "crops": torch.stack([self._crops[cell] for cell in cells]) if cells else torch.zeros(0),
            "losses": torch.stack([self._losses[cell] for cell in cells]) if cells else torch.zeros(0),
            "alignments": {cell: None if own is None else asdict(own) for cell, own in self._alignments.items()},
            "batch_size": self._batches.size,
            "unet_forwards": self._inpainting_forwards,
        }

    def restore(self, saved: State) -> None:
        """Restore the edits and losses that `to_dict` returned, so that nothing is inpainted again.

        Raises:
            MasklessError: another version of this package wrote them, with other losses.
        """
        columns = len(NAMES) + 1
        if any(len(row) != columns for row in saved["losses"]):
            raise MasklessError(
                f"the checkpoint must hold {columns} losses of each region ({', '.join(NAMES)}, total), "
                f"got {len(saved['losses'][0])}: another version wrote it"
            )
        self._crops = dict(zip(saved["cells"], saved["crops"], strict=True))
        self._losses = dict(zip(saved["cells"], saved["losses"], strict=True))
        self._alignments = {
            cell: None if own is None else Alignment.from_dict(own) for cell, own in saved.get("alignments", {}).items()
        }
        self._refined = {}
        self._batches.size, self._inpainting_forwards = saved["batch_size"], saved["unet_forwards"]

    def _inpaint(self, cells: list[int]) -> Tensor:
        """The inpainted windows of regions, [n, 3, S, S] in 0..255, with colours matched to their surroundings."""
        config = self._config
        pictures, masks = self._windows(cells, self._models.inpainter.native_px)
        sampling = Sampling(
            seed=config.seed, steps=config.steps, guidance_scale=config.guidance_scale, strength=config.strength
        )
        given = given_masks(self._models.inpainter, masks, config)
        self._drawn_cell = cells[0]
        drawn = self._models.inpainter.inpaint(pictures, given, self._conditioning, sampling)
        self._drawn_cell = None
        if redraws_window(self._models.inpainter, config):
            locked = lock(drawn, pictures, masks, config)
            drawn = locked.drawn
            for cell, own in zip(cells, locked.alignments, strict=True):
                x0, _y0, x1, _y1 = self.windows_xyxy[cell].tolist()
                self._alignments[cell] = own and own.resized((x1 - x0) / pictures.shape[-1])
        return self._matched(cells, drawn, pictures)

    def _refined_crops(self, cells: list[int]) -> dict[int, Tensor]:
        """The refined edits so far and those of these cells, each [3, S, S] in 0..255, S = the redrawer's native_px."""
        redrawer = self._models.redrawer
        assert redrawer is not None
        new_cells = [cell for cell in dict.fromkeys(cells) if cell not in self._refined]
        if new_cells:
            pictures, masks = self._windows(new_cells, redrawer.native_px)
            crops = torch.stack([self._crops[cell] for cell in new_cells])
            texts = (self._request.prompt, self._config.negative_prompt)
            with self._stopwatch.stage("inpainting"):
                before = redrawer.unet_forwards
                drawn = refine(
                    self._models, pictures, masks, crops, *texts, seed=self._config.seed, batches=self._batches
                )
                self._refining_forwards += redrawer.unet_forwards - before
            self._refined.update(zip(new_cells, self._matched(new_cells, drawn, pictures), strict=True))
        return self._refined

    def _windows(self, cells: list[int], side: int) -> tuple[Tensor, Tensor]:
        """The windows of regions, [n, 3, side, side] in [0, 1], and masks of the regions in them, 0 or 1."""
        boxes, windows = self._regions.boxes_xyxy[cells].tolist(), self.windows_xyxy[cells].tolist()
        pictures = torch.stack([self._window(cell, side) for cell in cells])
        masks = torch.stack([window_mask(box, window, side) for box, window in zip(boxes, windows, strict=True)])
        for mask, cell in zip(masks, cells, strict=True):
            kept = self._kept(cell)
            if kept is not None:
                mask *= ~crop_mask(kept, self._small_windows[cell].tolist(), side)
        return pictures, masks

    def _window(self, cell: int, side: int) -> Float[Tensor, "3 side side"]:
        """The window of a region in [0, 1], read once for each side, which takes a while in a large picture."""
        if (cell, side) not in self._read:
            window = self.windows_xyxy[cell].tolist()
            self._read[cell, side] = crop_source(self._request.source, window, side)
        return self._read[cell, side]

    def _matched(self, cells: list[int], drawn: Tensor, pictures: Tensor) -> Tensor:
        """Drawn windows [n, 3, S, S] in 0..255 with their colours matched to the surroundings of the regions.

        They are compared around the boxes only. Along the outline of a neighbour the slightest displacement of its edge
        would count as another colour, which would then spread over the drawing.
        """
        fitted = []
        for cell, new, old in zip(cells, drawn, pictures, strict=True):
            box, window = self._regions.boxes_xyxy[cell].tolist(), self.windows_xyxy[cell].tolist()
            fitted.append(match_surroundings(new / 255, old, window_mask(box, window, old.shape[-1]) > 0))
        return (torch.stack(fitted) * 255).round().to(torch.uint8)

    def _kept(self, cell: int) -> Tensor | None:
        """The neighbours that reach into a region, at the size of `view.small`; None if there are none."""
        if self._find_neighbours is None:
            return None
        if cell not in self._neighbours:
            with self._stopwatch.stage("features"):
                self._neighbours[cell] = self._find_neighbours(corners(self._small_boxes[cell]))
        return self._neighbours[cell]

    def _changed(self, cell: int, crop: UInt8[Tensor, "3 S S"]) -> Bool[Tensor, "h w"]:
        """Where the edit of a region shows something else than the source, in the region's box at full size."""
        pictures, masks = self._windows([cell], crop.shape[-1])
        box, window = self._regions.boxes_xyxy[cell].tolist(), self._small_windows[cell].tolist()
        found = None if self._find_replaced is None else self._find_replaced(corners(self._small_boxes[cell]))
        replaced = None if found is None else crop_mask(found, window, crop.shape[-1])[0]
        mask = changed(pictures[0], crop.to(torch.float32) / 255, masks[0, 0] > 0, replaced)
        return enlarge_mask(mask, self.windows_xyxy[cell].tolist(), box)

    def _masks(self, cells: list[int], changes: Sequence[Bool[Tensor, "_ _"] | None]) -> Bool[Tensor, "n H W"] | None:
        """The pixels that the edits of these regions may change; None if that is each region's whole box.

        changes: where each edit changes anything, in its box; None if that does not matter.
        """
        kept = [self._kept(cell) for cell in cells]
        if all(each is None for each in (*kept, *changes)):
            return None
        (height, width), (small_height, small_width) = self._request.size_yx, self._view.small_yx
        masks = torch.zeros(len(cells), height, width, dtype=torch.bool)
        for mask, cell, each, new in zip(masks, cells, kept, changes, strict=True):
            x0, y0, x1, y1 = self._regions.boxes_xyxy[cell].tolist()
            ys, xs = torch.arange(y0, y1) * small_height // height, torch.arange(x0, x1) * small_width // width
            inside = mask[y0:y1, x0:x1]  # only here, because the picture may be large
            inside[:] = True if each is None else ~each[ys][:, xs]
            if new is not None and bool((inside & new).any()):
                inside &= new
        return masks

    def _inpainted_cell(self, cell: int) -> int:
        """The cell whose edit this region has: its own, or another one with the same box."""
        if cell in self._crops:
            return cell
        box = self._regions.boxes_xyxy[cell]
        return next(other for other in self._crops if torch.equal(self._regions.boxes_xyxy[other], box))
