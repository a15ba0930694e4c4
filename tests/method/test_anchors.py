"""Anchors are peaks, of attention, of relevance to the caption or of both, at a minimum distance from each other."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskless.data.errors import MasklessError
from maskless.method.anchors import find_anchors, find_free_anchors, suppressed_peaks


def peaks_at(*points: tuple[int, int], grid: int = 32) -> torch.Tensor:
    """A map with a peak at each point; the first is the highest."""
    scores = torch.zeros(grid, grid)
    for number, (row, column) in enumerate(points):
        scores[row, column] = 1.0 - 0.1 * number
    return scores


def test_the_peaks_are_found_highest_first():
    assert suppressed_peaks(peaks_at((5, 20), (25, 3), (0, 31)), 3) == [(5, 20), (25, 3), (0, 31)]


def test_a_neighbour_of_a_peak_is_suppressed():
    assert suppressed_peaks(peaks_at((10, 10), (11, 11), (20, 20)), 2) == [(10, 10), (20, 20)]


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), data=st.data())
def test_there_are_always_as_many_different_anchors_as_requested(rows, columns, data):
    count = data.draw(st.integers(1, min(rows * columns, 20)))
    scores = torch.rand(rows, columns, generator=torch.Generator().manual_seed(rows * 41 + columns))
    points = suppressed_peaks(scores, count)
    assert len(set(points)) == count
    assert all(0 <= row < rows and 0 <= column < columns for row, column in points)


def test_the_source_decides_which_map_the_anchors_come_from():
    attention, relevance = peaks_at((5, 5), (5, 15), (5, 25)), peaks_at((28, 28), (28, 10))
    by_attention = find_anchors(attention, relevance, count=2, source="attention")
    by_text = find_anchors(attention, relevance, count=2, source="text")
    both = find_anchors(attention, relevance, count=3, source="both")
    assert by_attention.points_yx.tolist() == [[5, 5], [5, 15]]
    assert by_text.points_yx.tolist() == [[28, 28], [28, 10]]
    assert both.points_yx.tolist() == [[28, 28], [28, 10], [5, 5]]


def test_without_a_caption_attention_decides():
    attention = peaks_at((5, 5), (5, 15))
    for relevance in (None, torch.zeros(16, 16)):
        anchors = find_anchors(attention, relevance, count=2, source="text")
        assert anchors.points_yx.tolist() == [[5, 5], [5, 15]]


def test_a_relevance_map_on_another_grid_has_its_peak_in_the_same_location():
    relevance = torch.zeros(8, 8)
    relevance[6, 1] = 1.0
    row, column = find_anchors(peaks_at((0, 0)), relevance, count=1, source="text").points_yx[0].tolist()
    assert 24 <= row <= 27 and 4 <= column <= 7


@pytest.mark.parametrize(("count", "source"), [(0, "both"), (1025, "both"), (3, "luck")])
def test_an_impossible_count_or_source_is_refused(count, source):
    with pytest.raises(MasklessError, match="anchors must be|source must be"):
        find_anchors(torch.ones(32, 32) / 1024, None, count=count, source=source)


def test_the_anchors_of_a_new_object_are_in_free_areas():
    occupied = torch.zeros(60, 90)
    occupied[:, :45] = 1
    anchors = find_free_anchors(occupied, (20, 30), count=3)
    assert bool((anchors.points_yx[:, 1] > 15).all()) and anchors.grid_yx == (20, 30)
    assert torch.equal(anchors.weight, anchors.weight.sort(descending=True).values)
    middle = find_free_anchors(torch.zeros(60, 90), (20, 30), count=1).points_yx[0].tolist()
    assert 3 <= middle[0] <= 16 and 3 <= middle[1] <= 26


def test_the_middle_of_the_named_object_is_the_captions_first_anchor():
    attention, relevance = torch.zeros(16, 16), torch.zeros(8, 8)
    attention[2, 2], relevance[6, 6] = 1.0, 1.0
    for source, count in (("text", 3), ("both", 4), ("both", 1)):
        anchors = find_anchors(attention, relevance, count=count, source=source, first_yx=(9, 4))
        assert len(anchors) == count and anchors.points_yx[0].tolist() == [9, 4]
        assert count == 1 or anchors.points_yx[1].tolist() == [12, 12]
    by_attention = find_anchors(attention, relevance, count=3, source="attention", first_yx=(9, 4))
    assert by_attention.points_yx[0].tolist() == [2, 2], "the caption contributes no anchor here"
