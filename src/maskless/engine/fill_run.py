"""The run that draws in a known region: for every task whose region is known before anything is inpainted."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from maskless.data.alignment import Alignment, worst
from maskless.data.boxes import Box, corners, scale_boxes, square_window
from maskless.data.config import ResolvedConfig
from maskless.data.masks import crop_mask, mask_box, seam_step
from maskless.data.paste import (
    crop_window,
    match_surroundings,
    paste_small,
    resize,
    shrunk_to,
    with_surroundings_continued,
)
from maskless.data.result import Candidates, DrawnStep, EditedImage, EditResult, StepRecord
from maskless.data.types import EditRequest, Losses, Regions
from maskless.engine.batching import Batches
from maskless.engine.fill_canvas import Canvas, Locate, NamedRegion
from maskless.engine.painters import FillPlan, painter
from maskless.engine.refine import refine
from maskless.engine.region_lock import given_masks, lock, redraws_window
from maskless.engine.run import Steps, cannot_resume, cost_of, gradients
from maskless.engine.scoring import ClipScorer
from maskless.engine.stopwatch import Stopwatch
from maskless.engine.tiles import Tile, blend_tiles, tiles_over, whole_tile
from maskless.locating.neighbours import replaced_object
from maskless.locating.view import VIEW_PX, PictureView
from maskless.method.changes import SEAM
from maskless.method.losses import join
from maskless.method.ranking import Ranking, aligned_first, rank_fills
from maskless.method.search import State
from maskless.models.inpainters.denoising import Sampling, predicted_picture
from maskless.models.pretrained import EditModels

DETAIL_STRENGTH = 0.35
"""Strength of the tiles of a large window: it is drawn as a whole first, and the tiles start from that picture."""
MIN_TILED_SIDE = 1.25
"""Minimum side of a window that is drawn in tiles, in multiples of the model's own side."""
MAX_FILL_SIDE, MAX_FINE_SIDE = 2, 4
"""Maximum side of a window that is drawn in tiles, in multiples of the model's own side: for a fill; and for thin marks
or a plan with a larger scale."""


class FillRun:
    """A run that draws several candidates for a known region; see `Run`. It learns nothing, so it has no state."""

    def __init__(
        self,
        request: EditRequest,
        models: EditModels,
        config: ResolvedConfig,
        plan: FillPlan | None = None,
        *,
        locate: Locate | None = None,
        view: PictureView | None = None,
    ) -> None:
        """Nothing is computed or drawn yet.

        Args:
            plan: how the candidates are drawn; the default plan if None.
            locate: finds the region; None takes the request's own mask.
            view: a view of the request's picture; None creates one.
        """
        assert locate is not None or request.mask is not None
        self.request, self.models, self.config = request, models, config
        self.plan = (plan or FillPlan()).limited(config.strength)
        self.used = replace(config, **self.plan.changes)
        self._view, self._locate = view or PictureView(request.source, models), locate
        self._stopwatch = Stopwatch()
        self._batches = Batches(self.used.batch_size, models.memory)
        self._steps = Steps(self._make_steps)
        self._canvas: Canvas | None = None
        self._crops: list[Tensor] = []
        self._pieces: list[Alignment | None] = []
        self._alignments: list[Alignment | None] = []
        self._masks: list[Tensor] = []
        self._losses: list[Losses] = []
        self._signs: list[tuple[float, float]] = []
        self._preview: Tensor | None = None
        self._drawn_on: tuple[Tensor, Tile] | None = None
        self._inpaintings = self._forwards = 0

    @property
    def history(self) -> tuple[StepRecord, ...]:
        """The steps so far."""
        return tuple(self._steps.history)

    @property
    def total_steps(self) -> int:
        """The number of candidates, each of which is one step."""
        return len(self.plan.strengths)

    @property
    def canvas(self) -> Canvas:
        """Everything that drawing needs; the region is found at the first access."""
        if self._canvas is None:
            with gradients():
                self._canvas = self._prepare()
        return self._canvas

    def __iter__(self) -> Iterator[StepRecord]:
        """Step 0 finds the region; then there is one step per candidate."""
        return iter(self._steps)

    def preview(self) -> Float[Tensor, "3 h w"] | None:
        """The candidate with the lowest loss so far, in [0, 1], with a longer side of at most VIEW_PX."""
        return self._preview

    def drawing(self) -> Float[Tensor, "3 h w"] | None:
        """The picture with the window, or the tile of it, that is being drawn."""
        predicted = None if self._drawn_on is None else predicted_picture()
        if predicted is None or self._drawn_on is None:
            return None
        (picture, tile), canvas = self._drawn_on, self.canvas
        crop = tile.replaced(picture, predicted.to(torch.float32) / 255)
        return paste_small(self._view.small, crop, canvas.window_xyxy, canvas.mask, self.used.feather)

    @property
    def probabilities(self) -> None:
        """None: a fill learns nothing."""

    def state(self) -> None:
        """None: a fill cannot be continued later."""

    def resume(self, state: State) -> None:
        """Always raises a MasklessError, because a fill cannot be continued."""
        raise cannot_resume(self.request)

    def result(self) -> EditResult:
        """All candidates, ranked."""
        self._steps.finish()
        canvas, losses = self.canvas, join(self._losses)
        ranked = aligned_first(self._ranked(canvas, losses), self._alignments)
        with self._stopwatch.stage("ranking"):
            candidates = self._candidates(canvas)
        return EditResult(
            request=canvas.region.request,
            config=self.config,
            used=self.used,
            models=self.models.options,
            anchors=None,
            candidates=candidates,
            losses=losses,
            scores=ranked.score,
            order=ranked.order,
            attention=canvas.region.attention,
            relevance=canvas.region.relevance,
            anchor_net=None,
            history=self.history,
            cost=cost_of(self.models, self._stopwatch, inpaintings=self._inpaintings, unet_forwards=self._forwards),
        )

    def _make_steps(self) -> Iterator[StepRecord]:
        """The steps that are still to be made."""
        began = time.perf_counter()
        canvas = self.canvas
        if not self._steps.history:
            yield StepRecord(step=0, total_steps=self.total_steps, inpaintings=0, seconds=time.perf_counter() - began)
        for number in range(len(self._steps.history) - 1, self.total_steps):
            began = time.perf_counter()
            with self._stopwatch.stage("inpainting"):
                crop = self._draw(canvas, number)
            with self._stopwatch.stage("losses"), torch.no_grad():
                self._score(canvas, number, crop)
            yield DrawnStep(
                step=number + 1,
                total_steps=self.total_steps,
                loss=float(self._losses[number].total),
                inpaintings=self._inpaintings,
                seconds=time.perf_counter() - began,
            )

    def _prepare(self) -> Canvas:
        """Find the region, and compute everything that drawing needs."""
        view, plan = self._view, self.plan
        with self._stopwatch.stage("features"):
            region = NamedRegion(request=self.request) if self._locate is None else self._locate(view, self.request)
        request = region.request
        assert request.mask is not None
        box = mask_box(request.mask)
        window = square_window(box, request.size_yx, context=self.used.context)
        picture = with_surroundings_continued(request.image, request.mask, window) if plan.erase else request.image
        if plan.erase and request.amount is not None:
            picture = torch.lerp(request.image, picture, request.amount)
        with self._stopwatch.stage("losses"):
            small = shrunk_to(picture, VIEW_PX) if plan.erase else view.small
            scorer = ClipScorer(view, small, (request.caption, request.prompt), self.used)
        with self._stopwatch.stage("inpainting"):
            paint = painter(self.models.inpainter, plan, request, self.used.negative_prompt)
        # A redrawing is guided from the caption to the prompt and is scored along the same direction, because content
        # that both texts name does not tell candidates apart.
        direction = scorer.prompt if plan.redraw is None else scorer.prompt - scorer.caption
        return Canvas(
            region=region, mask=request.mask, box_xyxy=box, window_xyxy=window, picture=picture, scorer=scorer,
            direction=direction, paint=paint, replaced=self._replaced(box) if self._trims else None,
        )  # fmt: skip

    def _replaced(self, box_xyxy: Box) -> Bool[Tensor, "H W"] | None:
        """The object that a new one in this box replaces; None if it replaces none."""
        view, size = self._view, self.request.size_yx
        box = scale_boxes(torch.tensor([box_xyxy]), size, view.small_yx)[0]
        found = replaced_object(view, corners(box)) if self.request.task == "replace" else None
        return None if found is None else F.interpolate(found[None, None].to(torch.uint8), size=size)[0, 0] > 0

    def _ranked(self, canvas: Canvas, losses: Losses) -> Ranking:
        text, fit = torch.tensor(self._signs).unbind(1)
        prompted = bool(canvas.region.request.prompt.strip())
        # A model that takes the picture always continues it across the outline, so the fit says nothing there.
        takes_picture = self.plan.redraw is not None and self.models.inpainter.takes_picture
        outlined = not bool(canvas.mask.all()) and not takes_picture
        keeps_layout = (takes_picture or self.plan.keeps_layout) and not self.plan.erase
        return rank_fills(
            text if prompted else None,
            fit if outlined or not prompted else None,
            -losses.terms[:, losses.names.index("structure")] if keeps_layout else None,
        )

    def _candidates(self, canvas: Canvas) -> Candidates:
        count = self.total_steps
        numbers = torch.arange(count)
        return Candidates(
            regions=Regions(
                boxes_xyxy=torch.tensor([canvas.box_xyxy] * count),
                anchor_index=numbers,
                size_index=torch.zeros_like(numbers),
            ),
            windows_xyxy=torch.tensor([canvas.window_xyxy] * count),
            crops=torch.stack(self._crops),
            seeds=tuple(self.plan.sampling(self.used, number).seed for number in range(count)),
            feather=self._feather,
            masks=torch.stack(self._masks) if self._trims else canvas.mask.expand(count, -1, -1),
            alignments=tuple(self._alignments),
        )

    def _score(self, canvas: Canvas, number: int, crop: Tensor) -> None:
        """Keep a drawn candidate, with its losses and the signs that it is ranked by. A candidate whose step was
        interrupted here is replaced."""
        mask = canvas.changed_by(crop) if self._trims else canvas.mask
        edited = EditedImage(
            request=canvas.region.request,
            box_xyxy=canvas.box_xyxy,
            window_xyxy=canvas.window_xyxy,
            crop=crop,
            feather=self._feather,
            mask=mask,
        )
        picture = edited.tensor()
        small = shrunk_to(picture, VIEW_PX)
        box = scale_boxes(torch.tensor([canvas.box_xyxy]), self.request.size_yx, (small.shape[1], small.shape[2]))
        losses = canvas.scorer.losses(small[None], box)
        # The prompt may only describe the region, so it is compared with the window and not with the whole picture.
        side = min(VIEW_PX, canvas.window_xyxy[2] - canvas.window_xyxy[0])
        window = crop_window(picture, canvas.window_xyxy, side)[None]
        embedding = self.models.clip.encode(window).embedding[0]
        if all(float(losses.total) < float(each.total) for each in self._losses[:number]):
            self._preview = small
        self._crops[number:] = [crop]
        self._alignments[number:] = [worst(self._pieces)]
        self._masks[number:] = [mask]
        self._losses[number:] = [losses]
        self._signs[number:] = [(float(embedding @ canvas.direction), -seam_step(picture, mask))]

    def _draw(self, canvas: Canvas, number: int) -> UInt8[Tensor, "3 S S"]:
        """One candidate: the drawn window, first as a whole, then refined if it is an object and the models have a
        refinement, else in tiles if it is larger than the model's size."""
        native, sampling = self.models.inpainter.native_px, self.plan.sampling(self.used, number)
        self._pieces = []
        side, drawn = self._drawn_side(canvas), None
        if not (self.plan.thin_marks or self.plan.redraw) or side == native:
            window, mask = canvas.crop(native, self.models.inpainter.cell_px)
            drawn = self._paint(canvas, window, mask, [whole_tile(native)], sampling)[0]
        if drawn is not None and self.plan.refine and self.models.refinement is not None:
            drawn = self._refine(canvas, drawn, sampling.seed)
        elif side > native:
            drawn = self._draw_in_tiles(canvas, drawn, side, sampling)
        assert drawn is not None
        if self.plan.erase:
            size = drawn.shape[1]
            surroundings = crop_window(canvas.picture, canvas.window_xyxy, size)
            drawn = match_surroundings(drawn, surroundings, crop_mask(canvas.mask, canvas.window_xyxy, size))
        return (drawn * 255).round().to(torch.uint8)

    def _refine(self, canvas: Canvas, drawn: Float[Tensor, "3 s s"], seed: int) -> Float[Tensor, "3 S S"]:
        """The drawn window as the redrawer refines it, S = the redrawer's native_px."""
        redrawer, request = self.models.redrawer, canvas.region.request
        assert redrawer is not None
        window, mask = canvas.crop(redrawer.native_px, self.models.inpainter.cell_px)
        as_bytes = (drawn * 255).round().to(torch.uint8)
        texts, before = (request.prompt, self.used.negative_prompt), redrawer.unet_forwards
        masks = (mask > 0).to(mask)[None]
        refined = refine(self.models, window[None], masks, as_bytes[None], *texts, seed=seed, batches=self._batches)
        self._forwards += redrawer.unet_forwards - before
        return refined[0].to(torch.float32) / 255

    @property
    def _trims(self) -> bool:
        """Whether only the pixels are pasted that show something new: of objects, if `keep_unchanged` is chosen. A soft
        mask says itself what is kept."""
        return self.plan.refine and self.used.keep_unchanged and self.request.amount is None

    @property
    def _feather(self) -> float:
        return min(self.used.feather, SEAM) if self._trims else self.used.feather

    def _drawn_side(self, canvas: Canvas) -> int:
        """The side in pixels that the window is drawn at, a multiple of the cell; native_px if it needs no tiles."""
        native, cell = self.models.inpainter.native_px, self.models.inpainter.cell_px
        scale = self.plan.redraw.scale if self.plan.redraw else 1
        largest = native * (MAX_FINE_SIDE if scale > 1 or self.plan.thin_marks else MAX_FILL_SIDE)
        side = scale * (canvas.window_xyxy[2] - canvas.window_xyxy[0])
        return native if side < native * MIN_TILED_SIDE else min(side, largest) // cell * cell

    def _paint(
        self,
        canvas: Canvas,
        picture: Float[Tensor, "3 S S"],
        mask: Float[Tensor, "1 S S"],
        tiles: Sequence[Tile],
        sampling: Sampling,
    ) -> Float[Tensor, "N 3 s s"]:
        """The drawn tiles of a window. Those that are redrawn as a whole are aligned."""
        inpainter, side = self.models.inpainter, picture.shape[-1]
        pictures, masks = (torch.stack([tile.crop(each) for tile in tiles]) for each in (picture, mask))
        given = given_masks(inpainter, masks, self.used)

        def draw(batch: slice) -> UInt8[Tensor, "N 3 S S"]:
            noise = sampling.noise
            own = sampling if noise is None else replace(sampling, noise=noise[batch])
            self._drawn_on = picture, tiles[batch.start]
            return canvas.paint(pictures[batch], given[batch], own)

        before = inpainter.unet_forwards
        drawn = self._batches.run(len(tiles), draw)
        self._drawn_on = None
        self._forwards += inpainter.unet_forwards - before
        self._inpaintings += len(tiles)
        if redraws_window(inpainter, self.used):
            locked = lock(drawn, pictures, masks, self.used)
            factor = (canvas.window_xyxy[2] - canvas.window_xyxy[0]) / side
            self._pieces += [own and own.resized(factor) for own in locked.alignments]
            drawn = locked.drawn
        return drawn.to(torch.float32) / 255

    def _draw_in_tiles(
        self, canvas: Canvas, whole: Float[Tensor, "3 s s"] | None, side: int, sampling: Sampling
    ) -> Float[Tensor, "3 S S"]:
        """The window at a larger side, drawn in tiles.

        whole: the window as drawn in one piece, whose layout the tiles keep; None draws directly on the picture.
        """
        inpainter = self.models.inpainter
        picture, mask = canvas.crop(side, inpainter.cell_px)
        if whole is not None:
            picture = torch.where(mask > 0, resize(whole, (side, side)), picture)
            sampling = replace(sampling, strength=min(sampling.strength, DETAIL_STRENGTH))
        tiles = tiles_over(mask, tile_px=inpainter.native_px, cell_px=inpainter.cell_px)
        if self.plan.redraw is not None and inpainter.takes_picture:
            # Noise for the whole canvas is cut into tiles, because the same noise in each would repeat its content.
            noise = inpainter.draw_noise(sampling.seed, side)
            if noise is not None:
                noise = torch.cat([tile.crop_latents(noise, inpainter.cell_px) for tile in tiles])
            sampling = replace(sampling, noise=noise)
        drawn = self._paint(canvas, picture, mask, tiles, sampling)
        return blend_tiles(picture, tiles, drawn)
