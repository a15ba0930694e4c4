"""The plot of what each method succeeds in against what it costs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from maskless.evaluation.measures.figures import SUCCESS, UNET_FORWARDS
from maskless.evaluation.measures.rows import Row
from maskless.records.overview import ACCENT, FAINT, INK, PAPER, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import BboxBase

Point = tuple[float, float]
"""The UNet forwards of a method for one request, and its success in percent."""
PLACES_PT = (
    *((7, -3, "left"), (-7, -3, "right"), (7, 5, "left"), (7, -12, "left"), (-7, 5, "right"), (-7, -12, "right")),
    *((7, 15, "left"), (7, -22, "left"), (-7, 15, "right"), (-7, -22, "right"), (7, 25, "left"), (7, -32, "left")),
)
"""Where a label may be written, in points from its method's mark: the first place that is free is taken."""
TOUCHING_PX = 8
"""Marks whose middles are closer than this, across and down, share a label."""


def draw_success_against_cost(rows: Sequence[Row], *, ours: str, knows_the_truth: Sequence[str]) -> bytes:
    """A PNG: the success of each method with its 95 % interval, against its UNet forwards for one request.

    A line connects the methods that no other one surpasses at the same cost or less.

    Args:
        rows: those of a suite; methods without a row of forwards are left out.
        ours: the method that is highlighted.
        knows_the_truth: methods that get the true box, which are hollow marks and never on the line.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measured = _measured(rows)
    points = {name: (forwards["value"], 100 * success["value"]) for name, (forwards, success) in measured.items()}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 5.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for name, (x, y) in points.items():
            colour, success = ACCENT if name == ours else FAINT, measured[name][1]
            axes.plot([x, x], [100 * success["low"], 100 * success["high"]], color=colour, linewidth=0.8, zorder=1)
            face = PAPER if name in knows_the_truth else ACCENT if name == ours else INK
            axes.plot(x, y, "o", color=face, markeredgecolor=ACCENT if name == ours else INK,
                      markersize=8 if name == ours else 5, zorder=3)  # fmt: skip
        best = frontier({name: point for name, point in points.items() if name not in knows_the_truth})
        if len(best) > 1:
            axes.plot(*zip(*(points[name] for name in best), strict=True), color=ACCENT, linewidth=1, zorder=2)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _position: f"{value:g}")
        axes.margins(x=0.12)
        axes.set_ylim(-4, 108)
        axes.set_xlabel("UNet forwards for one request, mean")
        axes.set_ylabel("success, %")
        count = next(iter(measured.values()))[1]["n"] if measured else 0
        hollow = "; hollow: knows the true box" * any(name in points for name in knows_the_truth)
        axes.set_title(f"Success against cost: {count} requests, 95 % intervals{hollow}", fontsize=11)
        figure.draw_without_rendering()
        _label(axes, points, ours)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def frontier(points: dict[str, Point]) -> list[str]:
    """The methods that no other one surpasses at the same cost or less, from the cheapest to the dearest."""
    best: list[str] = []
    for name in sorted(points, key=lambda name: (points[name][0], -points[name][1])):
        if not best or points[name][1] > points[best[-1]][1]:
            best.append(name)
    return best


def _measured(rows: Sequence[Row]) -> dict[str, tuple[Row, Row]]:
    """The rows of forwards and of success of each method that has both. Success has a second row, the difference from
    another method; the first one counts."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row["method"], {}).setdefault(row["metric"], row)
    return {name: (each[UNET_FORWARDS], each[SUCCESS]) for name, each in found.items() if UNET_FORWARDS in each}


def _label(axes: Axes, points: dict[str, Point], ours: str) -> None:
    """Write the methods' names beside their marks, none over another one or over a mark. Marks that touch share a
    label."""
    at = {name: axes.transData.transform(point) for name, point in points.items()}
    groups: list[list[str]] = []
    for name in sorted(points, key=lambda name: (name != ours, points[name])):
        near = [group for group in groups if abs(at[group[0]] - at[name]).max() < TOUCHING_PX and ours not in group]
        if near:
            near[0].append(name)
        else:
            groups.append([name])
    taken: list[BboxBase] = []
    for group in groups:
        text = ", ".join(name.replace("_", " ") for name in group)
        for x, y, side in PLACES_PT:
            label = axes.annotate(text, points[group[0]], xytext=(x, y), textcoords="offset points", ha=side,
                                  fontsize=8, color=ACCENT if ours in group else INK, zorder=4)  # fmt: skip
            box = label.get_window_extent()
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            if inside and not any(map(box.overlaps, taken)) and not any(box.contains(*mark) for mark in at.values()):
                break
            if (x, y, side) != PLACES_PT[-1]:
                label.remove()
        taken.append(box)
