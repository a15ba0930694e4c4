"""The suite `aspect`: its pictures, the ways to see them, and that it runs on small models."""

import numpy as np
import torch

from maskless.evaluation.measures import figures
from maskless.evaluation.suites.aspect import WAYS, PaddedClip, TiledClip, draw_tasks, measure


def test_pictures_are_two_scenes_and_only_the_named_object_changes():
    for axis, size in ((1, (256, 128)), (0, (128, 256))):
        task = draw_tasks("validation", 1, axis)[0]
        x0, y0, x1, y1 = task.box_xyxy
        assert task.image.size == size and 0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]
        before, edited, wrong = (np.asarray(each) for each in (task.image, task.edited, task.wrong))
        half = (slice(None), slice(0, 128)) if axis == 1 else (slice(0, 128), slice(None))
        other = half if (x0, y0)[1 - axis] >= 128 else tuple(
            slice(128, None) if part == slice(0, 128) else part for part in half
        )  # fmt: skip
        assert np.array_equal(before[other], edited[other]) and np.array_equal(before[other], wrong[other])
        assert (before != edited).any() and (edited != wrong).any()


def test_padding_keeps_the_aspect_ratio_and_tiles_are_averaged(editor):
    clip, image = editor.models.clip, torch.rand(1, 3, 40, 80, generator=torch.Generator().manual_seed(0))
    given = {"mean": tuple(clip.mean.flatten().tolist()), "std": tuple(clip.std.flatten().tolist())}
    padded, tiled = (way(clip.model, clip.tokenizer, **given) for way in (PaddedClip, TiledClip))
    flat = padded.preprocess(torch.full((1, 3, 40, 80), 0.3))
    assert float((flat - flat[..., :1, :1]).abs().max()) < 1e-5, "a flat picture has no border"
    tiles = [clip.encode(image[..., start : start + 40]).embedding for start in (0, 20, 40)]
    mean = torch.nn.functional.normalize(torch.cat(tiles).mean(dim=0), dim=-1)
    assert torch.allclose(tiled.encode(image).embedding[0], mean, atol=1e-5)
    square = image[..., :40]
    for way in (padded, tiled):
        assert torch.allclose(way.encode(square).embedding, clip.encode(square).embedding, atol=1e-5)


def test_each_way_is_measured(editor):
    found = measure(editor, draw_tasks("validation", 1, 1)[0])
    assert set(found) == set(WAYS)
    for measured in found.values():
        assert measured[figures.TRUE_EDIT_CLOSER] in (True, False)
