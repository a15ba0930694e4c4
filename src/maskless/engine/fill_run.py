"""One fill from a known region to ranked results: for every task that knows where before anything is inpainted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from maskless.data.boxes import scale_boxes, square_window
from maskless.data.config import EditConfig
from maskless.data.masks import crop_mask, mask_box, seam_step
from maskless.data.paste import crop_window, met, resize, spread
from maskless.data.result import Candidates, Cost, EditedImage, EditResult, StepRecord
from maskless.data.types import EditRequest, Losses, Regions
from maskless.engine.batching import Batches, batch_size_for
from maskless.engine.scoring import Appraiser
from maskless.engine.stopwatch import Stopwatch, peak_memory_mb
from maskless.locating.view import VIEW_PX, at_most
from maskless.method.losses import join
from maskless.method.ranking import rank_fills
from maskless.models.inpainters.flowedit import can_redraw, redraw
from maskless.models.inpainters.latent_unet import StableDiffusionInpainter
from maskless.models.pretrained import EditModels

TRIES = 4
DETAIL_STRENGTH = 0.35
"""A window larger than the model is first drawn whole, then once more in tiles, from that picture at this strength."""
WORTH_DETAIL = 1.25
MOST_DETAIL, FINEST_DETAIL = 2, 4
"""Largest side of the tiled picture, in sides of the model's own: for a fill, and for one of fine marks."""
TILE_STRIDE = 0.75
MOST_CONTRAST = 8.0
"""Guidance scale from one text to another, of which more gave no more (docs/results.md); a Stable Diffusion's own is
usually 7.5 already."""


@dataclass(frozen=True, kw_only=True)
class DrawnOver:
    """How what is there is drawn over in place: by a model that sees it, else as models/inpainters/flowedit.py does.

    strengths: of the tries. contrast: of the usual guidance scale, how far the prompt leads, though not beyond
    MOST_CONTRAST: from the caption, or where the model sees what is there from no text. finer: of the usual steps, how
    many a drawing from pure noise would take: the fewer of them a small strength leaves, the coarser they are.
    magnified: how many times its own size the window is drawn at, in tiles where that is more than the model draws.
    """

    strengths: tuple[float, ...]
    contrast: float = 1.0
    finer: int = 1
    magnified: int = 1

    def guidance_scale(self, usual: float) -> float:
        """The guidance scale where `usual` is the one of a fill."""
        return max(usual, min(self.contrast * usual, MOST_CONTRAST))


class FillRun:
    """One fill under way: iterate over it for StepRecords, one per try, then ask for `result()`.

    It has the face of EditRun: request, models, config, seed, history.
    """

    def __init__(
        self,
        request: EditRequest,
        models: EditModels,
        config: EditConfig,
        *,
        strengths: tuple[float, ...] = (1.0,) * TRIES,
        void: bool = False,
        fine: bool = False,
        drawn_over: DrawnOver | None = None,
        attention: Float[Tensor, "h w"] | None = None,
        relevance: Float[Tensor, "rows columns"] | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        """Nothing is inpainted yet.

        Args:
            request: with its mask, and with the prompt that the model gets.
            strengths: of each try. Where all are 1 the tries differ by their noise, else they share it.
            void: what is under the mask counts for nothing, so none of it may shine through at the seam.
            fine: the mask is of thin marks, which are filled in tiles and not in one view of the whole.
            drawn_over: what is there is drawn over in place, by a model that sees it or of which `can_redraw` says that
                it can; its strengths are the tries'.
            attention, relevance: maps that the mask came from, for the record.
        """
        assert request.mask is not None
        inpainter = models.inpainter
        self.request, self.models = request, models
        config = config.resolved(steps=inpainter.recommended_steps, guidance_scale=inpainter.recommended_guidance)
        self.config = replace(config, feather=0.0) if void else config
        self.seed = config.seed if request.seed is None else request.seed
        self.history: list[StepRecord] = []
        self._strengths, self._void, self._fine = drawn_over.strengths if drawn_over else strengths, void, fine
        self._drawn_over = drawn_over
        self._attention, self._relevance = attention, relevance
        self._stopwatch = stopwatch or Stopwatch()
        self._forwards_before = inpainter.unet_forwards
        self._mask = request.mask
        self._box = mask_box(self._mask)
        self._window = square_window(self._box, request.size_yx, context=self.config.context)
        self._source = _without(request.image, self._mask, self._window) if void else request.image
        fitting = batch_size_for(models.device, inpainter.native_px, models.memory)
        self._batches = Batches(self.config.batch_size or fitting, models.memory)
        self._crops: list[Tensor] = []
        self._losses: list[Losses] = []
        self._signs: list[tuple[float, float]] = []
        with self._stopwatch.stage("losses"):
            self._appraiser = Appraiser(
                at_most(self._source, VIEW_PX), request.caption, request.prompt, models.clip, config, seed=self.seed
            )
        self._seen = drawn_over is not None and inpainter.sees_picture
        with self._stopwatch.stage("inpainting"):
            left_behind = request.caption if drawn_over and not self._seen else ""
            avoided = ", ".join(text for text in (left_behind, config.negative_prompt) if text.strip())
            self._conditioning = inpainter.encode_prompt(request.prompt, avoided)
            self._there = inpainter.encode_prompt(request.caption) if drawn_over and not self._seen else None
        # As it is drawn away from the caption towards the prompt, so it is looked at: what both name tells nothing.
        self._asked = self._appraiser.prompt - (self._appraiser.caption if drawn_over else 0)
        self._cell = inpainter.cell_px
        self._inpaintings = 0

    @property
    def total_iterations(self) -> int:
        """How many tries, and so candidates, there will be."""
        return len(self._strengths)

    @property
    def probabilities(self) -> None:
        """A fill chooses no size."""
        return None

    def __iter__(self) -> Iterator[StepRecord]:
        """Inpaint the region once for every try that has not been made."""
        while len(self.history) < self.total_iterations:
            began = time.perf_counter()
            number = len(self._crops)
            with self._stopwatch.stage("inpainting"):
                self._crops.append(self._try(number))
            self._appraise(number)
            losses = [float(each.total) for each in self._losses]
            record = StepRecord(
                iteration=number + 1,
                total_iterations=self.total_iterations,
                epoch=1,
                loss=losses[-1],
                expected_loss=min(losses),
                chosen=(number,),
                inpaintings=self._inpaintings,
                updates=0,
                seconds=time.perf_counter() - began,
            )
            self.history.append(record)
            yield record

    def result(self) -> EditResult:
        """Every try, ranked; those not made yet are made now."""
        for _record in self:
            pass
        text, fit = torch.tensor(self._signs).unbind(1)
        losses = join(self._losses)
        # A model that sees the picture goes on across the outline anyway, which so tells nothing of its tries.
        edged = not bool(self._mask.all()) and not self._seen
        ranked = rank_fills(
            text if self.request.prompt.strip() else None,
            fit if edged or not self.request.prompt.strip() else None,
            -losses.structure if (self._seen or min(self._strengths) < 1) and not self._void else None,
        )
        with self._stopwatch.stage("ranking"):
            candidates = self._candidates()
        return EditResult(
            request=self.request,
            config=self.config,
            anchors=None,
            candidates=candidates,
            losses=losses,
            scores=ranked.score,
            order=ranked.order,
            attention=self._attention,
            relevance=self._relevance,
            anchor_net=None,
            history=tuple(self.history),
            cost=Cost(
                inpaintings=self._inpaintings,
                unet_forwards=self.models.inpainter.unet_forwards - self._forwards_before,
                seconds=dict(self._stopwatch.seconds),
                peak_memory_mb=peak_memory_mb(self.models.device),
            ),
        )

    def _candidates(self) -> Candidates:
        numbers = torch.arange(self.total_iterations)
        return Candidates(
            regions=Regions(
                boxes_xyxy=torch.tensor([self._box] * self.total_iterations),
                anchor_index=numbers,
                size_index=torch.zeros_like(numbers),
            ),
            windows_xyxy=torch.tensor([self._window] * self.total_iterations),
            crops=torch.stack(self._crops),
            seeds=tuple(self._seed_of(number) for number in range(self.total_iterations)),
            masks=self._mask.expand(self.total_iterations, -1, -1),
        )

    def _seed_of(self, number: int) -> int:
        return self.seed + number if min(self._strengths) == max(self._strengths) else self.seed

    def _appraise(self, number: int) -> None:
        """Losses and ranking signs of a try."""
        edited = EditedImage(
            request=self.request,
            box_xyxy=self._box,
            window_xyxy=self._window,
            crop=self._crops[number],
            feather=self.config.feather,
            mask=self._mask,
        )
        with self._stopwatch.stage("losses"), torch.no_grad():
            picture = edited.tensor()
            small = at_most(picture, VIEW_PX)
            box = scale_boxes(torch.tensor([self._box]), self.request.size_yx, (small.shape[1], small.shape[2]))
            self._losses.append(self._appraiser.losses(small[None], box))
            # The prompt may name what is in the region and nothing else, so there CLIP looks for it.
            side = min(VIEW_PX, self._window[2] - self._window[0])
            embedding = self.models.clip.encode(crop_window(picture, self._window, side)[None]).embedding[0]
            self._signs.append((float(embedding @ self._asked), -seam_step(picture, self._mask)))

    def _try(self, number: int) -> UInt8[Tensor, "3 S S"]:
        """The window, drawn once: whole, then in tiles where it has more pixels than the model draws at a time."""
        native, strength = self.models.inpainter.native_px, self._strengths[number]
        seed, side, drawn = self._seed_of(number), self._side_of_tiles(), None
        if not (self._fine or self._drawn_over) or side == native:
            drawn = self._inpaint([self._canvas(native)], seed, strength)[0]
        if side > native:
            drawn = self._in_tiles(drawn, side, seed, strength)
        assert drawn is not None
        if self._void:
            size = drawn.shape[1]
            surroundings = crop_window(self._source, self._window, size)
            drawn = met(drawn, surroundings, crop_mask(self._mask, self._window, size))
        return (drawn * 255).round().to(torch.uint8)

    def _side_of_tiles(self) -> int:
        """Side at which the window is drawn in tiles, in whole cells; the model's own where one piece will do."""
        native = self.models.inpainter.native_px
        larger, most = self._drawn_over.magnified if self._drawn_over else 1, native * MOST_DETAIL
        if larger > 1 or self._fine:
            most = native * FINEST_DETAIL
        side = larger * (self._window[2] - self._window[0])
        return native if side < native * WORTH_DETAIL else min(side, most) // self._cell * self._cell

    def _canvas(self, side: int) -> tuple[Tensor, Tensor]:
        """The window at this side, [3, S, S] in [0, 1], and what the model may draw in it, [1, S, S] of 0 and 1."""
        mask = crop_mask(self._mask, self._window, side).to(torch.float32)
        # A cell of the latents is drawn whole or not at all, so every cell that the mask touches is.
        grown = F.max_pool2d(mask[None], self._cell, ceil_mode=True)
        grown = F.interpolate(grown, scale_factor=self._cell)[0, :, :side, :side]
        return crop_window(self._source, self._window, side), grown

    def _inpaint(
        self, canvases: list[tuple[Tensor, Tensor]], seed: int, strength: float, noise: Tensor | None = None
    ) -> Float[Tensor, "N 3 S S"]:
        assert self.config.steps is not None and self.config.guidance_scale is not None
        pictures, masks = (torch.stack(parts) for parts in zip(*canvases, strict=True))
        inpainter, asked, over = self.models.inpainter, self._conditioning, self._drawn_over
        how: dict[str, Any] = {
            "seed": seed,
            "steps": self.config.steps * (over.finer if over else 1),
            "guidance_scale": over.guidance_scale(self.config.guidance_scale) if over else self.config.guidance_scale,
            "strength": strength,
        }

        def draw(batch: slice) -> UInt8[Tensor, "N 3 S S"]:
            if self._there is not None:
                assert can_redraw(inpainter)
                return redraw(inpainter, pictures[batch], masks[batch], self._there, asked, **how)
            own = {} if noise is None else {"noise": noise[batch]}
            return inpainter.inpaint(pictures[batch], masks[batch], asked, **how, **own)

        drawn = self._batches.run(len(canvases), draw)
        self._inpaintings += len(canvases)
        return drawn.to(torch.float32) / 255

    def _in_tiles(
        self, whole: Float[Tensor, "3 s s"] | None, side: int, seed: int, strength: float
    ) -> Float[Tensor, "3 S S"]:
        """The window at a larger side, drawn in overlapping tiles that fade into each other.

        whole: the window as drawn in one piece, whose layout the tiles keep; None draws straight onto the source.
        """
        native = self.models.inpainter.native_px
        picture, mask = self._canvas(side)
        if whole is not None:
            picture = torch.where(mask > 0, resize(whole, (side, side)), picture)
            strength = min(strength, DETAIL_STRENGTH)
        places = [
            (slice(y, y + native), slice(x, x + native))
            for y in _starts(side, native, self._cell)
            for x in _starts(side, native, self._cell)
            if bool(mask[0, y : y + native, x : x + native].any())
        ]
        tiles = self._inpaint(
            [(picture[:, y, x], mask[:, y, x]) for y, x in places], seed, strength, self._noise_at(places, side, seed)
        )
        ramp = torch.minimum(torch.arange(native) + 1, torch.arange(native, 0, -1)).clamp(max=native // 4)
        fade = (ramp[:, None] * ramp[None, :]).to(torch.float32)
        total, weight = torch.zeros_like(picture), torch.zeros(side, side)
        for (y, x), tile in zip(places, tiles, strict=True):
            total[:, y, x] += fade * tile
            weight[y, x] += fade
        return torch.where(weight > 0, total / weight.clamp(min=1e-6), picture)

    def _noise_at(self, places: list[tuple[slice, slice]], side: int, seed: int) -> Float[Tensor, "N C h w"] | None:
        """One noise for the whole canvas, cut as its tiles are, lest what is drawn repeat itself in each of them."""
        inpainter, cell = self.models.inpainter, self._cell
        if not (self._seen and isinstance(inpainter, StableDiffusionInpainter)):
            return None
        noise = inpainter.draw_noise(seed, side)
        parts = [[slice(edge.start // cell, edge.stop // cell) for edge in place] for place in places]
        return torch.cat([noise[:, :, rows, columns] for rows, columns in parts])


def _without(
    image: Float[Tensor, "3 H W"], mask: Bool[Tensor, "H W"], window_xyxy: tuple[int, int, int, int]
) -> Float[Tensor, "3 H W"]:
    """The picture with its surroundings continued under the mask, in the window; as it is where there are none."""
    x0, y0, x1, y1 = (max(0, edge) for edge in window_xyxy)
    known = ~mask[y0:y1, x0:x1]
    if not bool(known.any()):
        return image
    result = image.clone()
    result[:, y0:y1, x0:x1] = spread(image[:, y0:y1, x0:x1], known)
    return result


def _starts(side: int, tile: int, cell: int) -> list[int]:
    """Starts of overlapping tiles that cover a side, the first at 0, the last at its end, all on whole cells."""
    steps = max(1, -(-(side - tile) // int(tile * TILE_STRIDE)))
    return sorted({round((side - tile) * step / steps / cell) * cell for step in range(steps + 1)})
