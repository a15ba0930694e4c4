"""Outlines on planted features: an object in front of scenery that continues around it."""

import pytest
import torch

from maskless.method.foreground import colour_outliers, guided_filter, outline, salience, snap_to_edges, threshold


def planted(top: int = 6, left: int = 8, height: int = 5, width: int = 4):
    """Features, colours and true mask on a 16 x 24 grid: an object with its own features and colour on two bands."""
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


def test_the_outline_is_that_of_the_object_and_not_of_the_region():
    features, colours, truth = planted()
    region = torch.zeros_like(truth)
    region[4:13, 6:14] = True
    scores = outline(features, colours, region)
    assert torch.equal(scores > 0, truth) and bool((scores[~region] == -2).all())


def test_a_core_determines_which_object_is_meant():
    features, colours, truth = planted(left=6)
    region = torch.zeros_like(truth)
    region[4:13, 4:20] = True  # the object is not in the middle of the region
    assert torch.equal(outline(features, colours, region, truth) > 0, truth)


def test_a_region_that_is_the_whole_picture_counts_as_the_object():
    features, colours, truth = planted()
    everything = torch.ones_like(truth)
    assert bool((outline(features, colours, everything) > 0).all())
    assert not bool((outline(features, colours, ~everything) > 0).any())


def test_objects_are_salient_and_bands_are_not():
    features, colours, truth = planted()
    scores = salience(features, colours)
    assert torch.equal(scores > threshold(scores), truth)


def test_the_threshold_separates_two_clusters():
    scores = torch.cat([torch.full((90,), 0.1), torch.full((10,), 0.8)])
    assert 0.1 < threshold(scores) < 0.8
    assert not bool((torch.full((10,), 0.3) > threshold(torch.full((10,), 0.3))).any())


def test_a_coarse_outline_moves_to_the_pictures_edges():
    rows, columns = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    truth = (rows - 48).square() + (columns - 48).square() < 22**2
    image = torch.where(truth, torch.tensor(0.8), torch.tensor(0.2)).expand(3, -1, -1).contiguous()
    coarse = torch.zeros(96, 96)
    coarse[28:76, 28:60] = 1  # a block that misses one side of the disc and includes corners outside of it
    refined = snap_to_edges(coarse, image) > 0.5
    before, after = (((m & truth).sum() / (m | truth).sum()).item() for m in (coarse > 0, refined))
    assert after > before + 0.05
    flat = torch.full((3, 96, 96), 0.5)
    assert float((snap_to_edges(coarse, flat) - coarse).abs().mean()) < 0.1, "without edges the mask hardly changes"


def test_the_guided_filter_follows_its_formula():
    generator = torch.Generator().manual_seed(0)
    guide, values = torch.rand(3, 12, 15, generator=generator), torch.rand(12, 15, generator=generator)
    reach, epsilon = 2, 0.01
    around = torch.nn.functional.pad(torch.cat([guide, values[None]]), (2 * reach,) * 4, mode="reflect").double()
    rows, columns = 12 + 2 * reach, 15 + 2 * reach  # with the windows around the mirrored border
    slopes, offsets = torch.zeros(rows, columns, 3).double(), torch.zeros(rows, columns).double()
    for y in range(rows):
        for x in range(columns):
            window = around[:, y : y + 2 * reach + 1, x : x + 2 * reach + 1].flatten(1)
            colours, given = window[:3], window[3]
            sigma = torch.cov(colours, correction=0) + epsilon * torch.eye(3).double()
            both = ((colours - colours.mean(dim=1, keepdim=True)) * (given - given.mean())).mean(dim=1)
            slopes[y, x] = torch.linalg.inv(sigma) @ both
            offsets[y, x] = given.mean() - slopes[y, x] @ colours.mean(dim=1)
    expected = torch.zeros(12, 15)
    for y in range(12):
        for x in range(15):
            within = (slice(y, y + 2 * reach + 1), slice(x, x + 2 * reach + 1))
            mean_slope = slopes[within].flatten(0, 1).mean(dim=0)
            expected[y, x] = mean_slope @ guide[:, y, x].double() + offsets[within].mean()
    assert torch.allclose(guided_filter(values, guide, reach, epsilon), expected, atol=1e-4)


@pytest.mark.parametrize("at_once", [5, 10_000])
def test_pixels_with_a_colour_that_the_surroundings_lack_are_found(monkeypatch, at_once):
    monkeypatch.setattr("maskless.method.foreground.PIXELS_AT_ONCE", at_once)
    picture = torch.full((3, 24, 24), 0.5)
    picture[:, :, 12:] = 0.9  # scenery in two colours
    picture[0, 8:16, 8:16] = 0.0
    picture[:, 11:13, 11:13] = 0.53  # nearly the colour of the scenery
    region, around = torch.zeros(24, 24, dtype=torch.bool), torch.ones(24, 24, dtype=torch.bool)
    region[6:18, 6:18] = True
    around[4:20, 4:20] = False
    expected = torch.zeros_like(region)
    expected[8:16, 8:16] = True
    expected[11:13, 11:13] = False
    assert torch.equal(colour_outliers(picture, region, around), expected)
    nothing = torch.zeros_like(region)
    for some_region, some_surroundings in ((nothing, around), (region, nothing)):
        assert not bool(colour_outliers(picture, some_region, some_surroundings).any())
