"""Outlines on planted features: a thing among what goes on around it."""

import torch

from maskless.method.foreground import on_edges, outline, salience, threshold, unlike


def planted(top: int = 6, left: int = 8, height: int = 5, width: int = 4):
    """A field of two bands with a thing of its own features and colour; features, colours, truth on a 16 x 24 grid."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randn(3, 8, generator=generator)
    colour = torch.tensor([[0.4, 0.7, 0.9], [0.3, 0.6, 0.2], [0.9, 0.1, 0.1]])
    label = torch.zeros(16, 24, dtype=torch.long)
    label[8:] = 1
    truth = torch.zeros(16, 24, dtype=torch.bool)
    truth[top : top + height, left : left + width] = True
    label[truth] = 2
    features = kinds[label].permute(2, 0, 1) + 0.05 * torch.randn(8, 16, 24, generator=generator)
    return features, colour[label].permute(2, 0, 1), truth


def test_the_outline_is_the_things_own_not_the_regions():
    features, colours, truth = planted()
    region = torch.zeros_like(truth)
    region[4:13, 6:14] = True
    scores = outline(features, colours, region)
    assert torch.equal(scores > 0, truth) and bool((scores[~region] == -2).all())


def test_a_core_says_which_thing_is_meant():
    features, colours, truth = planted(left=6)
    region = torch.zeros_like(truth)
    region[4:13, 4:20] = True  # the thing is not in the middle of it
    assert torch.equal(outline(features, colours, region, truth) > 0, truth)


def test_a_region_that_is_the_whole_picture_is_all_thing():
    features, colours, truth = planted()
    everything = torch.ones_like(truth)
    assert bool((outline(features, colours, everything) > 0).all())
    assert not bool((outline(features, colours, ~everything) > 0).any())


def test_things_stand_out_and_bands_do_not():
    features, colours, truth = planted()
    scores = salience(features, colours)
    assert torch.equal(scores > threshold(scores), truth)


def test_the_threshold_parts_two_heaps():
    scores = torch.cat([torch.full((90,), 0.1), torch.full((10,), 0.8)])
    assert 0.1 < threshold(scores) < 0.8
    assert not bool((torch.full((10,), 0.3) > threshold(torch.full((10,), 0.3))).any())


def test_a_coarse_outline_moves_to_the_pictures_edges():
    rows, columns = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    truth = (rows - 48).square() + (columns - 48).square() < 22**2
    image = torch.where(truth, torch.tensor(0.8), torch.tensor(0.2)).expand(3, -1, -1).contiguous()
    coarse = torch.zeros(96, 96)
    coarse[28:76, 28:60] = 1  # a block that misses a side and has the corners too many
    refined = on_edges(coarse, image) > 0.5
    before, after = (((m & truth).sum() / (m | truth).sum()).item() for m in (coarse > 0, refined))
    assert after > before + 0.05
    flat = torch.full((3, 96, 96), 0.5)
    assert float((on_edges(coarse, flat) - coarse).abs().mean()) < 0.1, "without edges it stays about where it was"


def test_what_has_another_colour_than_its_surroundings_is_of_the_thing():
    picture = torch.full((3, 24, 24), 0.5)
    picture[:, :, 12:] = 0.9  # a place in two colours
    picture[0, 8:16, 8:16] = 0.0
    picture[:, 11:13, 11:13] = 0.53  # nearly as the place is
    region, around = torch.zeros(24, 24, dtype=torch.bool), torch.ones(24, 24, dtype=torch.bool)
    region[6:18, 6:18] = True
    around[4:20, 4:20] = False
    thing = torch.zeros_like(region)
    thing[8:16, 8:16] = True
    thing[11:13, 11:13] = False
    assert torch.equal(unlike(picture, region, around), thing)
    for no_region, none_around in ((torch.zeros_like(region), around), (region, torch.zeros_like(region))):
        assert not bool(unlike(picture, no_region, none_around).any())
