"""One search after the other onto one picture: where the objects go, what is kept, and what the whole run says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.engine.run import resolved
from maskless.engine.sequence_run import MAX_CANDIDATES, NEW_OBJECT_SIZE, SequenceRun, new_object_size
from maskless.locating.objects import objects_in

PROMPTS = ("a yellow star", "a blue house")
FAST = {"search": "learned", "iterations": 1, "updates": 2, "anchors": 5, "steps": 1}
SIZE = (72, 120)


def scene(depth: type = np.uint8) -> np.ndarray:
    """Two bands with some grain and a red square on the right."""
    pixels = np.zeros((*SIZE, 3))
    pixels[:40], pixels[40:] = (0.5, 0.7, 0.9), (0.3, 0.6, 0.3)
    pixels += np.random.default_rng(0).uniform(-0.02, 0.02, pixels.shape)
    pixels[30:54, 76:100] = (0.9, 0.1, 0.1)
    return (pixels * np.iinfo(depth).max).round().astype(depth)


@pytest.fixture(scope="module")
def view(editor):
    return editor.look(scene())


@pytest.fixture(scope="module")
def start(editor, view):
    """A sequence that is not yet iterated; of the view's picture where no other is given."""

    def start(prompts: tuple[str, ...] = PROMPTS, pixels: np.ndarray | None = None, **options) -> SequenceRun:
        source = view.source if pixels is None else pixels
        request = editor.request(source, task="creative", prompt=" and ".join(prompts), seed=3)
        config = resolved(replace(editor.config, **FAST | options), request, editor.models)
        return SequenceRun(request, prompts, editor.models, config, view=view if pixels is None else None)

    return start


@pytest.fixture(scope="module")
def done(start):
    run = start()
    return run, run.result()


def test_steps_count_over_all_searches_and_the_picture_is_looked_at_once(done):
    run, result = done
    assert [step.step for step in result.history] == [0, 1, 2] and result.history == tuple(run)
    assert {step.total_steps for step in result.history} == {2} == {run.total_steps}
    assert len(result.drawn_steps) == 2


def test_every_object_has_a_region_of_its_own(done, view):
    """The best holds both objects: the second search kept away from the first one's region and from what was there."""
    run, result = done
    first = run._results[0].best.touched()
    for index in range(len(result.candidates)):
        touched = result.edited(index).touched()
        second = touched & ~first
        assert bool(touched[first].all()) and bool(second.any())
    added = result.best.touched()
    x0, y0, x1, y1 = result.best.box_xyxy
    assert int(added[y0:y1, x0:x1].sum()) == int(added.sum()), "the box holds both"
    assert float(objects_in(view)[added].float().mean()) < 0.25


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_outside_of_what_was_added_every_pixel_is_the_originals(start, depth):
    pixels = scene(depth)
    result = start(pixels=pixels, anchors=2).result()
    edited, touched = result.best.pixels(), result.best.touched().numpy()
    assert edited.dtype == depth and np.array_equal(edited[~touched], pixels[~touched])
    assert (edited[touched] != pixels[touched]).any(axis=1).mean() > 0.9


def test_inside_a_candidate_is_the_last_searchs_edit(done):
    """Pasting it onto the picture once more changes nothing, seams included."""
    run, result = done
    last = run._search.result()
    for position, index in enumerate(last.order[:MAX_CANDIDATES]):
        expected = (last.edited(index).tensor() * 255).round()
        assert torch.equal((result.edited(position).tensor() * 255).round(), expected)


def test_the_result_is_the_best_few_of_the_last_search_of_the_whole_request(done):
    run, result = done
    last = run._search.result()
    kept = list(last.order[:MAX_CANDIDATES])
    assert len(result.candidates) == MAX_CANDIDATES < len(last.candidates)
    assert result.order == (0, 1, 2) and torch.equal(result.scores, last.scores[kept])
    assert torch.equal(result.losses.rows, last.losses[kept].rows)
    assert result.request is run.request and result.request.prompt == "a yellow star and a blue house"
    assert last.request.prompt == "a blue house" and set(result.candidates.seeds) == {3}
    assert run.config.differences(result.used) == {"max_window_size": NEW_OBJECT_SIZE} and result.config == run.config


def test_the_cost_is_that_of_all_searches(done):
    run, result = done
    parts = [run._results[0].cost, run._search.result().cost]
    assert result.cost.inpaintings == sum(part.inpaintings for part in parts) >= 10
    assert result.cost.unet_forwards == sum(part.unet_forwards for part in parts)
    assert result.cost.seconds["inpainting"] == pytest.approx(sum(part.seconds["inpainting"] for part in parts))


def test_a_single_object_is_a_search_with_a_mask(start):
    result = start(PROMPTS[:1], anchors=2).result()
    assert [step.step for step in result.history] == [0, 1] and len(result.candidates) == 2
    for index in range(2):
        edited = result.edited(index)
        x0, y0, x1, y1 = edited.box_xyxy
        assert int(edited.touched().sum()) == (x1 - x0) * (y1 - y0)


def test_it_shows_the_search_that_is_under_way(start):
    run = start(anchors=2)
    assert run.probabilities is None and run.preview() is None and run.history == ()
    steps = iter(run)
    assert next(steps).step == 0 and run.probabilities.shape == (2, 3) and run.preview() is None
    assert next(steps).step == 1 and run.preview().shape == (3, *SIZE)
    first = run._search
    assert next(steps).step == 2 and run._search is not first
    assert torch.equal(run.preview(), run._search.preview())


def test_it_cannot_be_continued_later(start, done):
    assert done[0].state() is None
    with pytest.raises(MasklessError, match="only a search for a region can continue .* got the task creative"):
        start().resume({})


@pytest.mark.parametrize("place", ["maskless.engine.search_run.locate", "maskless.data.result.EditedImage.tensor"])
def test_an_interruption_between_two_searches_is_taken_up(start, monkeypatch, place):
    """Ctrl-C between the first search's result and the second one's first step: the run continues from there, and ends
    as it would have."""
    expected = start(anchors=2).result()
    run = start(anchors=2)
    steps = iter(run)
    next(steps), next(steps)

    def stopped(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place, stopped)
        with pytest.raises(KeyboardInterrupt):
            next(steps)
    assert [step.step for step in run.history] == [0, 1]
    result = run.result()
    assert [step.step for step in result.history] == [0, 1, 2]
    assert torch.equal(result.candidates.crops, expected.candidates.crops) and result.scores.equal(expected.scores)


@pytest.mark.parametrize("smallest,largest,expected", [(4, 15, 8), (4, 6, 6), (10, 15, 10)])
def test_regions_of_new_objects_leave_room(editor, smallest, largest, expected):
    config = replace(editor.config, min_window_size=smallest, max_window_size=largest)
    assert new_object_size(config.resolved(steps=1, guidance_scale=None, batch_size=1, seed=None)) == expected
