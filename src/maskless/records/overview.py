"""overview.png: one picture of a whole edit, with its maps and anchors, its candidates and what AnchorNet learned."""

from __future__ import annotations

import io
import math
import textwrap
import threading
import warnings
from collections.abc import Sequence
from importlib import import_module
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from maskless.data.result import EditResult, Placement, SearchStep
from maskless.data.tasks import FACTS
from maskless.data.types import Anchors
from maskless.records.names import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import Image

INK, FAINT, PAPER, ACCENT, SECOND = "#1f2430", "#8b91a1", "#ffffff", "#e4572e", "#3b7dd8"
MAX_COLUMNS = 6
SHOWN_RESULTS = 12
THUMB_PX = 384
"""Longer side of the pictures in the overview, which shows them at about half of this size."""

STYLE = {
    "font.family": "sans-serif", "font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": "#c9cdd6",
    "axes.titlesize": 9.5, "axes.titlecolor": INK, "axes.titlepad": 5, "xtick.color": FAINT, "ytick.color": FAINT,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "axes.linewidth": 0.8, "axes.spines.top": False,
    "axes.spines.right": False, "text.parse_math": False,
}  # fmt: skip


def thumbnail(pixels: np.ndarray, *, longest_px: int = THUMB_PX) -> Image.Image:
    """A small RGB picture of [H, W, 3] pixels of 8 or 16 bits; its longer side is at most `longest_px`."""
    from PIL import Image

    pixels = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
    image = Image.fromarray(pixels)
    image.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    return image


def import_meanwhile() -> None:
    """Begin to import matplotlib in a thread, for a process that draws an overview after a computation. Torch's threads
    do not need the interpreter while they compute, so this costs the computation little."""
    threading.Thread(target=import_module, args=("matplotlib.backends.backend_agg",), daemon=True).start()


def draw_overview(result: EditResult, source: Image.Image, edited: Sequence[Image.Image]) -> bytes:
    """The bytes of overview.png.

    source: thumbnail of the input. edited: thumbnail of each candidate, by position (not by rank).
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = list(result.order[:SHOWN_RESULTS])
    rows = math.ceil(len(shown) / MAX_COLUMNS)
    columns = MAX_COLUMNS if rows == 1 else math.ceil(len(shown) / rows)
    # Rows are as high as the aspect ratio of the picture needs, within limits.
    aspect = min(max(source.height / source.width, 0.45), 1.5)
    heights = [3.05 * aspect + 0.5, *[(12.0 / columns - 0.15) * aspect + 0.5] * rows, 2.5]
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # emoji and scripts that the font does not have
        figure = Figure(figsize=(13, sum(heights) + 1.25), dpi=110, facecolor=PAPER)
        FigureCanvasAgg(figure)
        _titles(figure, result)
        top = 1 - 1.05 / figure.get_figheight()
        grid = figure.add_gridspec(
            len(heights), 1, height_ratios=heights, left=0.045, right=0.975, top=top, bottom=0.055, hspace=0.22
        )
        _maps(figure, grid[0], result, source)
        for row in range(rows):
            cells = grid[1 + row].subgridspec(1, columns, wspace=0.08)
            for column, index in enumerate(shown[row * columns : (row + 1) * columns]):
                rank = row * columns + column + 1
                _result(figure.add_subplot(cells[column]), result, index, rank, edited[index])
        _charts(figure, grid[len(heights) - 1], result)
        file = io.BytesIO()
        figure.savefig(file, format="png", facecolor=PAPER)
    return file.getvalue()


def _titles(figure: Figure, result: EditResult) -> None:
    inch = 1 / figure.get_figheight()
    request = result.request
    title = textwrap.shorten(_one_line(request.prompt) or request.task, 110, placeholder=" …")
    figure.text(0.045, 1 - 0.28 * inch, title, fontsize=15, fontweight="bold", va="top")
    caption = textwrap.shorten(_one_line(request.caption), 90, placeholder=" …")
    replaces = FACTS[request.task].replaces_caption
    no_caption = "location chosen by attention alone" if replaces and result.anchors else ""
    parts = [request.task, f"“{caption}”" if caption else no_caption]
    parts += [f"seed {result.config.seed}", f"ranking “{result.used.ranking}”" if result.anchors else ""]
    seconds = sum(result.cost.seconds.values())
    made = counted(result.cost.inpaintings, "inpainting")
    parts.append(made + (f" in {seconds:.1f} s" if result.cost.seconds else ""))
    figure.text(
        0.045, 1 - 0.62 * inch, "   ·   ".join(part for part in parts if part), fontsize=10, color=FAINT, va="top"
    )


def _maps(figure: Figure, cell: Any, result: EditResult, source: Image.Image) -> None:
    """The source, the attention and the relevance to the caption with the anchors (if the result has them), and the
    candidates' boxes or the mask."""
    maps = {"attention": result.attention, "relevance": result.relevance}
    panels = ["source", *(name for name, heat in maps.items() if heat is not None), "boxes"]
    cells = cell.subgridspec(1, len(panels), wspace=0.06)
    height, width = result.request.size_yx
    extent = (0, width, height, 0)
    for column, panel in enumerate(panels):
        axes = figure.add_subplot(cells[column])
        _picture(axes, source, extent)
        if panel == "source":
            axes.set_title(f"Source · {width} × {height}")
        elif panel == "boxes":
            _regions(axes, result, extent)
        else:
            heat = maps[panel]
            assert heat is not None
            _heat(axes, heat.float().cpu().numpy(), extent)
            title = "DINO’s attention" if panel == "attention" else "Relevance to the caption"
            axes.set_title(f"{title}, {len(result.anchors)} anchors" if result.anchors else title)
            if result.anchors is not None:
                _anchors(axes, result.anchors, width, height)


def _heat(axes: Axes, heat: np.ndarray, extent: tuple[float, float, float, float]) -> None:
    """Draw a map, scaled from its minimum to its maximum. The picture shows through where the values are low."""
    span = float(heat.max() - heat.min())
    level = (heat - heat.min()) / span if span > 0 else np.zeros_like(heat)
    axes.imshow(level, extent=extent, cmap="inferno", alpha=0.35 + 0.5 * level, interpolation="bilinear")


def _anchors(axes: Axes, anchors: Anchors, width: int, height: int) -> None:
    rows, columns = anchors.grid_yx
    for number, (y, x) in enumerate(anchors.points_yx.tolist()):
        at_xy = ((x + 0.5) / columns * width, (y + 0.5) / rows * height)
        axes.plot(*at_xy, "o", markersize=11, markerfacecolor=PAPER, markeredgecolor=INK, markeredgewidth=0.8,
                  clip_on=False)  # fmt: skip
        axes.annotate(str(number), at_xy, ha="center", va="center_baseline", fontsize=7, color=INK)


def _regions(axes: Axes, result: EditResult, extent: tuple[float, float, float, float]) -> None:
    """Draw the candidates' boxes, or the mask of the best candidate if all have the same region."""
    if result.candidates.masks is None or result.placement is not None:
        axes.set_title(f"Candidate boxes, the best in red · {len(result.candidates)}")
        _boxes(axes, result)
        return
    mask = result.best.touched()
    axes.set_title(f"Region, {100 * float(mask.float().mean()):.0f} % of the picture")
    axes.imshow(np.where(mask.numpy(), 1.0, np.nan), extent=extent, cmap="autumn", vmin=1, vmax=2, alpha=0.55)


def _boxes(axes: Axes, result: EditResult) -> None:
    from matplotlib.patches import Rectangle

    for rank, index in reversed(list(enumerate(result.order))):  # the best is drawn last, so it lies on top
        x0, y0, x1, y1 = result.candidates.regions.boxes_xyxy[index].tolist()
        best = rank == 0
        halo = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=PAPER, linewidth=4.2 if best else 2.6)
        line = Rectangle(
            (x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=ACCENT if best else INK, linewidth=2.4 if best else 1.0
        )
        axes.add_patch(halo)
        axes.add_patch(line)


def _result(axes: Axes, result: EditResult, index: int, rank: int, picture: Image.Image) -> None:
    number = int(result.candidates.regions.anchor_index[index])
    name = f"place {number}" if result.placement else f"anchor {number}" if result.anchors else f"try {number}"
    height, width = result.request.size_yx
    _picture(axes, picture, (0, width, height, 0))
    axes.set_title(
        f"{rank}.  score {float(result.scores[index]):.3f}", fontweight="bold" if rank == 1 else "normal",
        color=ACCENT if rank == 1 else INK,
    )  # fmt: skip
    axes.set_xlabel(f"{name} · loss {float(result.losses.total[index]):.3f}", fontsize=8, color=FAINT)
    x0, y0, x1, y1 = result.candidates.regions.boxes_xyxy[index].tolist()
    # Short ticks at the corners show the box; a whole frame would hide the seam.
    for x, y, dx, dy in ((x0, y0, 1, 1), (x1, y0, -1, 1), (x0, y1, 1, -1), (x1, y1, -1, -1)):
        arm_x, arm_y = dx * (x1 - x0) * 0.14, dy * (y1 - y0) * 0.14
        for line in (("white", 2.6), (ACCENT if rank == 1 else INK, 1.2)):
            axes.plot([x, x, x + arm_x], [y + arm_y, y, y], color=line[0], linewidth=line[1], solid_capstyle="butt")


def _charts(figure: Figure, cell: Any, result: EditResult) -> None:
    """Draw AnchorNet's distribution before and after, and the loss of each iteration; the scores of the regions that a
    placed search considered; for a fill only the losses."""
    if result.placement is not None:
        _considered(figure.add_subplot(cell), result.placement)
        return
    if result.anchor_net is None:
        _curve(figure.add_subplot(cell), result)
        return
    cells = cell.subgridspec(1, 3, wspace=0.2, width_ratios=(1, 1, 1.35))
    learned = result.anchor_net
    before, after = learned.probabilities_before.cpu().numpy(), learned.probabilities_after.cpu().numpy()
    top = max(float(before.max()), float(after.max()), 1e-6)
    for column, (table, title, expected) in enumerate(
        ((before, "before", learned.expected_loss_before), (after, "after", learned.expected_loss_after))
    ):
        axes = figure.add_subplot(cells[column])
        image = axes.imshow(table, cmap="Blues", vmin=0, vmax=top, aspect="auto")
        axes.set_title(f"AnchorNet {title} · expected loss with location cost {_number(expected)}", fontsize=8.5)
        axes.set_xlabel("half-size of the box (32nds of the shorter side)")
        axes.set_xticks(range(table.shape[1]), [str(size) for size in _size_labels(result, table.shape[1])])
        if table.shape[0] <= 16:
            axes.set_yticks(range(table.shape[0]))
            _cell_labels(axes, table, top)
        axes.set_ylabel("anchor")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if column == 1 and table.shape[0] > 16:
            figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02).outline.set_visible(False)
    _curve(figure.add_subplot(cells[2]), result)


def _considered(axes: Axes, placement: Placement) -> None:
    """Draw how well each region that was considered fits the caption; those that were inpainted are in colour."""
    scores = placement.score.tolist()
    colours = [ACCENT if number < placement.drawn else FAINT for number in range(len(scores))]
    axes.barh(range(len(scores)), scores, color=colours, height=0.6)
    axes.set_yticks(range(len(scores)), [f"place {number}" for number in range(len(scores))])
    axes.invert_yaxis()
    axes.set_xlabel("fit to the caption before anything is drawn, in standard deviations")
    axes.set_title(f"Regions considered, the inpainted ones in red: {placement.reason}")
    axes.tick_params(axis="y", length=0)


def _cell_labels(axes: Axes, table: np.ndarray, top: float) -> None:
    for (row, column), value in np.ndenumerate(table):
        colour = PAPER if value > 0.6 * top else INK
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=colour)


def _curve(axes: Axes, result: EditResult) -> None:
    from matplotlib.ticker import MaxNLocator

    searched = result.anchor_net is not None
    axes.set_title("Loss over the iterations" if searched else "Loss of each try")
    steps = [record.step for record in result.drawn_steps]
    if not steps:
        axes.text(0.5, 0.5, "no iterations", transform=axes.transAxes, ha="center", va="center", color=FAINT)
        axes.set_xticks([]), axes.set_yticks([])
        return
    style: dict[str, Any] = {"marker": "o", "markersize": 4} if len(steps) <= 40 else {}
    name, second = second_curve(result)
    losses = [record.loss for record in result.drawn_steps]
    axes.plot(steps, losses, color=SECOND, alpha=0.5, label="loss", **style)
    axes.plot(*zip(*second, strict=True), color=ACCENT, linewidth=2, label=name, **style)
    axes.set_xlabel("iteration" if searched else "try")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#eceef2", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8, loc="best")


def second_curve(result: EditResult) -> tuple[str, list[tuple[int, float]]]:
    """Name and points (step, value) of the curve next to that of the loss.

    For a search it is the value that AnchorNet minimises, which includes the cost of the location; for a fill, the
    lowest loss so far.
    """
    search_steps = [step for step in result.drawn_steps if isinstance(step, SearchStep)]
    if search_steps:
        return "expected loss with location cost", [(step.step, step.expected_loss) for step in search_steps]
    lowest = accumulate((step.loss for step in result.drawn_steps), min)
    return "lowest loss so far", [(step.step, loss) for step, loss in zip(result.drawn_steps, lowest, strict=True)]


def _picture(axes: Axes, picture: Image.Image, extent: tuple[float, float, float, float]) -> None:
    """Show a thumbnail with the coordinates of the original's pixels, (x, y) with y downwards."""
    axes.imshow(np.asarray(picture), extent=extent, interpolation="antialiased")
    axes.set_xlim(extent[0], extent[1])
    axes.set_ylim(extent[2], extent[3])
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _size_labels(result: EditResult, count: int) -> list[int]:
    sizes = list(result.used.sizes)
    return sizes if len(sizes) == count else list(range(count))


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _one_line(text: str) -> str:
    return " ".join(text.split())
