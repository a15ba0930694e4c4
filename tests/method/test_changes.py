"""What a drawing changes: the object and what it replaces, without the background and halos around it."""

from __future__ import annotations

import torch
from torch import Tensor

from maskless.data.masks import box_mask
from maskless.method.changes import changed

SIDE = 64
REGION = box_mask((12, 12, 52, 52), (SIDE, SIDE))


def picture(**boxes: tuple[tuple[int, int, int, int], float]) -> Tensor:
    """A grey picture with boxes, each of one brightness, drawn one after the other."""
    result = torch.full((3, SIDE, SIDE), 0.5)
    for (x0, y0, x1, y1), value in boxes.values():
        result[:, y0:y1, x0:x1] = value
    return result


def share(mask: Tensor, box: tuple[int, int, int, int]) -> float:
    x0, y0, x1, y1 = box
    return float(mask[y0:y1, x0:x1].float().mean())


OBJECT = (24, 24, 40, 40)


def test_an_object_has_changed_and_a_slightly_paler_background_has_not() -> None:
    drawn = picture(background=((12, 12, 52, 52), 0.56), new=(OBJECT, 0.9))
    found = changed(picture(), drawn, REGION)
    assert share(found, OBJECT) == 1
    assert not bool((found & ~box_mask((21, 21, 43, 43), (SIDE, SIDE))).any())


def test_a_halo_around_the_object_has_not_changed() -> None:
    """A difference of 0.15 does not count beside one of 0.4. It does where it is connected with one that is clear."""
    halo = (19, 19, 45, 45)
    found = changed(picture(), picture(halo=(halo, 0.65), new=(OBJECT, 0.9)), REGION)
    assert share(found, OBJECT) == 1
    assert not bool((found & ~box_mask((22, 22, 42, 42), (SIDE, SIDE))).any())
    alone = changed(picture(), picture(halo=(halo, 0.65), new=((30, 30, 34, 34), 0.75)), REGION)
    assert share(alone, halo) == 1


def test_all_of_a_replaced_object_has_changed_although_a_part_of_it_changes_less() -> None:
    """The lower half of the old object is slightly darker than the background that is drawn over it."""
    old = (20, 20, 44, 44)
    source = picture(old=(old, 0.1), lower=((20, 34, 44, 44), 0.42))
    drawn = picture(new=((26, 20, 38, 34), 0.9))
    assert share(changed(source, drawn, REGION, box_mask(old, (SIDE, SIDE))), old) == 1
    assert share(changed(source, drawn, REGION), (20, 40, 44, 44)) < 0.5


def test_nothing_remains_of_an_old_object_that_was_not_found() -> None:
    """The drawing has a haze beside the new object, where the old one was: less different from it than the new one."""
    old = (22, 28, 26, 36)
    drawn = picture(haze=((20, 24, 44, 40), 0.4), new=((26, 24, 40, 40), 0.9))
    assert share(changed(picture(old=(old, 0.25)), drawn, REGION), old) == 1
    assert share(changed(picture(old=(old, 0.5)), drawn, REGION), (22, 28, 24, 36)) == 0, "a halo on the background"


def test_weak_specks_do_not_count_and_holes_in_an_object_do() -> None:
    hole, speck = (30, 30, 34, 34), (14, 14, 18, 18)
    drawn = picture(new=(OBJECT, 0.9), hole=(hole, 0.5), speck=(speck, 0.62))
    found = changed(picture(), drawn, REGION)
    assert share(found, hole) == 1
    assert share(found, speck) == 0


def test_a_new_object_has_no_cracks_where_it_covers_background_beside_a_contrasting_old_one() -> None:
    """The new object differs by 0.38 from the background and by 0.88 from the old object, which is next to it."""
    new, bar = (16, 20, 48, 48), (16, 28, 48, 34)
    source = picture(upper=((16, 20, 48, 28), 0.0), lower=((16, 34, 48, 48), 0.0))
    found = changed(source, picture(new=(new, 0.88)), REGION)
    assert share(found, bar) == 1


def test_a_narrow_gap_is_closed_and_a_wide_one_is_not() -> None:
    halves = {"upper": ((20, 16, 44, 26), 0.9), "lower": ((20, 36, 44, 48), 0.9)}
    assert share(changed(picture(), picture(**halves), REGION), (20, 26, 44, 36)) < 0.6
    near = halves | {"lower": ((20, 31, 44, 48), 0.9)}
    assert share(changed(picture(), picture(**near), REGION), (22, 26, 42, 31)) == 1


def test_nothing_outside_the_region_counts_and_without_a_change_the_whole_region_does() -> None:
    found = changed(picture(), picture(new=((0, 0, 30, 30), 0.9)), REGION)
    assert bool(found.any()) and not bool((found & ~REGION).any())
    assert torch.equal(changed(picture(), picture(), REGION), REGION)
