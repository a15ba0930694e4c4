"""Masks of objects on planted features: parts are found, assigned to one phrase each, and completed to objects."""

from __future__ import annotations

import pytest
import torch

from maskless.method.object_masks import (
    FINER,
    Cells,
    all_objects,
    one_part_each,
    part_boxes,
    salient_parts,
    square_around_peak,
    whole_objects,
)


@pytest.fixture
def cells() -> Cells:
    """A background that continues sideways, and an object with other features and another colour."""
    features = torch.linspace(0, 1, 16)[None, :, None].expand(4, 16, 16).clone()
    colours = torch.full((3, 16, 16), 0.2)
    features[2:, 6:10, 5:9] = -1.0
    colours[:, 6:10, 5:9] = torch.tensor([0.9, 0.1, 0.1])[:, None, None]
    return Cells(features=features, colours=colours)


def picture_of(cells: Cells) -> torch.Tensor:
    return torch.nn.functional.interpolate(cells.colours[None], scale_factor=8, mode="nearest")[0]


def test_the_object_is_found_and_the_background_is_not(cells):
    found = all_objects(cells, picture_of(cells), (256, 256))
    truth = torch.zeros(256, 256, dtype=torch.bool)
    truth[96:160, 80:144] = True
    assert float(found[truth].float().mean()) > 0.9 and float(found[~truth].float().mean()) < 0.02


def test_parts_lie_on_the_finer_grid_and_their_boxes_have_a_margin(cells):
    parts = salient_parts(cells)
    assert parts and all(part.shape == (16 * FINER, 16 * FINER) for part in parts)
    tight = part_boxes(parts, (128, 128), margin=0.0)
    wide = part_boxes(parts, (128, 128), margin=0.25)
    assert bool((wide[:, :2] < tight[:, :2]).all() and (wide[:, 2:] > tight[:, 2:]).all())
    assert int(wide.min()) >= 0 and int(wide.max()) <= 128
    whole = whole_objects(parts[:1], cells, picture_of(cells), (128, 128))
    assert whole.shape == (128, 128) and bool(whole.any())


def test_two_phrases_do_not_get_the_same_object() -> None:
    left, right = torch.zeros(2, 4, dtype=torch.bool), torch.zeros(2, 4, dtype=torch.bool)
    left[:, :2], right[:, 2:] = True, True
    parts = [left, left.clone(), right]

    def assigned(*scores: list[float]) -> list[int]:
        """The position of the part that each phrase gets."""
        chosen = one_part_each([torch.tensor(row) for row in scores], parts[: len(scores[0])])
        return [next(index for index, part in enumerate(parts) if part is one) for one in chosen]

    assert assigned([3.0, 2.9, 0.0], [2.0, 1.9, 1.0]) == [0, 2]
    assert assigned([1.0, 0.0, 0.5], [2.0, 0.0, 0.0]) == [2, 0]
    assert assigned([1.0], [2.0]) == [0, 0], "no other part is left"
    assert one_part_each([], []) == []


def test_the_square_lies_around_the_highest_value() -> None:
    relevance = torch.zeros(4, 8)
    relevance[1, 6] = 1.0
    square = square_around_peak(relevance, (60, 120))
    rows, columns = square.any(dim=1).nonzero()[:, 0], square.any(dim=0).nonzero()[:, 0]
    assert (int(rows.min()), int(rows.max()) + 1) == (13, 32) or abs(len(rows) - 20) <= 1
    assert int(columns.float().mean()) in (96, 97) and abs(len(columns) - 20) <= 1
