"""The plot of success against cost: which methods are on the line, and that every label is written once."""

from __future__ import annotations

import io

import pytest
from matplotlib.axes import Axes
from PIL import Image

from maskless.evaluation.measures.cost_plot import draw_success_against_cost, frontier
from maskless.evaluation.measures.figures import SUCCESS, UNET_FORWARDS
from maskless.evaluation.measures.rows import Row, difference_row, mean_row, share_row


def rows(method: str, forwards: float, successes: int) -> list[Row]:
    """A method's rows for ten requests, as a suite writes them."""
    names = {"suite": "storybook", "method": method, "task": "replace"}
    succeeded = [number < successes for number in range(10)]
    return [
        share_row(succeeded, metric=SUCCESS, **names),
        difference_row(succeeded, [True] * 10, "ours", metric=SUCCESS, **names),
        mean_row([forwards] * 10, metric=UNET_FORWARDS, **names),
    ]


def test_a_method_is_on_the_frontier_if_no_other_is_better_for_the_same_cost_or_less() -> None:
    points = {"cheap": (10.0, 80.0), "worse": (10.0, 60.0), "ours": (20.0, 90.0), "dear": (400.0, 90.0)}
    assert frontier(points) == ["cheap", "ours"]
    assert frontier(points | {"best": (500.0, 91.0)}) == ["cheap", "ours", "best"]
    assert frontier({}) == []


def test_the_plot_names_every_method_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods at one point share a label; one without forwards is left out; the true box is not on the line."""
    written, lines = [], []
    annotate, plot = Axes.annotate, Axes.plot
    monkeypatch.setattr(
        Axes, "annotate", lambda axes, text, *a, **k: written.append(text) or annotate(axes, text, *a, **k)
    )
    monkeypatch.setattr(Axes, "plot", lambda axes, *a, **k: lines.append(a) or plot(axes, *a, **k))
    measured = rows("ours", 20, 9) + rows("cheap_box", 10, 5) + rows("same", 10, 5) + rows("truth", 10, 10)
    refused = rows("refused", 10, 0)[:2]
    png = draw_success_against_cost(measured + refused, ours="ours", knows_the_truth=["truth"])
    assert Image.open(io.BytesIO(png)).format == "PNG"
    assert set(written) == {"ours", "cheap box, same", "truth"}
    assert ((10.0, 20.0), (50.0, 90.0)) in lines, "the line of the frontier"


def test_labels_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = []
    annotate = Axes.annotate

    def spy(self: Axes, *arguments: object, **options: object) -> object:
        label = annotate(self, *arguments, **options)
        remove = label.remove
        boxes.append(label.get_window_extent())
        label.remove = lambda: (boxes.pop(), remove())
        return label

    monkeypatch.setattr(Axes, "annotate", spy)
    close = [row for number in range(5) for row in rows(f"a method with number {number}", 100 + number, 5)]
    draw_success_against_cost(close, ours="a method with number 0", knows_the_truth=[])
    assert len(boxes) == 5
    assert not any(a.overlaps(b) for number, a in enumerate(boxes) for b in boxes[:number])


def test_a_suite_without_forwards_gives_an_empty_plot() -> None:
    assert draw_success_against_cost([], ours="ours", knows_the_truth=[])[:4] == b"\x89PNG"
