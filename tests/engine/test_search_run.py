"""The search for a region as a run: what it looks at, what it keeps, where it continues, and what its plan changes."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from maskless.data.errors import MasklessError
from maskless.engine.run import resolved
from maskless.engine.search_run import BORDER_COST, BORDER_SHARE, OCCUPIED_COST, SearchPlan, SearchRun, fingerprint

TEXTS = {"caption": "a red square", "prompt": "a blue house"}
FAST = {"search": "learned", "iterations": 2, "updates": 5, "anchors": 4}


@pytest.fixture(scope="module")
def image() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (72, 120, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def view(editor, image):
    """What the models read from the picture, once for all runs of this file."""
    return editor.look(image)


@pytest.fixture(scope="module")
def search(editor, view):
    """A search of its own plan, not yet iterated."""

    def search(plan: SearchPlan | None = None, texts=TEXTS, **options) -> SearchRun:
        request = editor.request(view.source, **texts)
        config = resolved(replace(editor.config, **FAST | options), request, editor.models)
        return SearchRun(request, editor.models, config, plan=plan, view=view)

    return search


@pytest.fixture(scope="module")
def done(search):
    """A search that has come to its end, and its result."""
    run = search()
    return run, run.result()


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class TestTheWholeRun:
    def test_the_most_probable_size_of_each_anchor_is_a_candidate(self, done):
        run, result = done
        tried = ~run.objective.isnan()
        chosen = (run.probabilities * tried).argmax(dim=1).tolist()  # a size that was never tried is not chosen
        assert bool((tried.sum(dim=1) >= 2).all()) and not tried.all()
        boxes = run.regions.boxes_xyxy.reshape(4, 6, 4)
        expected = [boxes[anchor, size].tolist() for anchor, size in enumerate(chosen)]
        assert result.candidates.regions.boxes_xyxy.tolist() == expected
        assert torch.equal(result.anchor_net.probabilities_after, run.probabilities)
        assert torch.allclose(run.probabilities.sum(dim=1), torch.ones(4), atol=1e-5)

    def test_anchors_that_choose_the_same_box_are_candidates_of_their_own(self, editor):
        """In the smallest picture every large box is the whole of it."""
        image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8))
        result = editor.edit(image, **TEXTS, **FAST, min_window_size=16, max_window_size=16)
        assert len({tuple(box) for box in result.candidates.regions.boxes_xyxy.tolist()}) == 1
        assert result.candidates.regions.anchor_index.tolist() == [0, 1, 2, 3]
        assert result.cost.inpaintings == 1

    def test_the_straight_through_estimator_runs_on_the_same_models(self, search):
        result = search(estimator="straight-through", updates=20).result()
        before, after = result.anchor_net.probabilities_before, result.anchor_net.probabilities_after
        assert not torch.equal(before, after) and bool(after.isfinite().all())
        assert result.cost.inpaintings <= 12

    @pytest.mark.parametrize(
        "options", [{"iterations": 0}, {"anchors": 1}, {"max_window_size": 4}, {"ranking": "located"}]
    )
    def test_small_budgets_work(self, search, options):
        result = search(**options).result()
        assert len(result.candidates) == (FAST | options)["anchors"]
        assert bool(result.scores.isfinite().all())

    def test_another_ranking_inpaints_nothing_and_is_recorded(self, done, editor):
        run, result = done
        forwards = editor.models.inpainter.unet_forwards
        other = run.result("paper")
        assert editor.models.inpainter.unet_forwards == forwards
        assert (result.used.ranking, other.used.ranking, other.config.ranking) == ("located", "paper", "located")
        assert torch.equal(other.candidates.crops, result.candidates.crops)
        assert not torch.equal(other.scores, result.scores)

    def test_the_preview_is_the_region_with_the_least_objective(self, done):
        """With the location counted in, which the losses alone do not see."""
        run, _ = done
        cost = run.objective.flatten()
        seen = [cell for cell in range(len(cost)) if bool(cost[cell].isfinite())]
        least = min(seen, key=lambda cell: float(cost[cell]))
        drawn = int(run.setup.search.same_as[least])  # of regions with the same box the first one is drawn
        assert seen and torch.equal(run.preview(), run.edits.composite(drawn))

    def test_the_location_costs_nothing_where_the_option_or_the_caption_is_left_out(self, search, done):
        plain, captionless = search(location_weight=0.0), search(texts={"prompt": "a blue house"})
        assert bool(done[0].setup.search.location_cost.any())
        assert not plain.setup.search.location_cost.any() and not captionless.setup.search.location_cost.any()


class TestAPlacedSearch:
    PLACED = {"search": "placed", "budget": 3}

    @pytest.fixture(scope="class")
    def placed(self, search):
        """A placed search of three regions, and its result."""
        run = search(**self.PLACED)
        run.setup.search.found, run.setup.search.clear = True, False
        return run, run.result()

    def test_the_regions_that_fit_best_are_the_candidates_and_the_best_comes_first(self, placed):
        run, result = placed
        assert [type(step).__name__ for step in result.history] == ["StepRecord", "DrawnStep"]
        assert run.total_steps == 1 and run.probabilities is None and result.anchor_net is None
        placement, boxes = result.placement, result.candidates.regions.boxes_xyxy
        assert placement.drawn == len(boxes) == result.cost.inpaintings == 3
        assert torch.equal(placement.boxes_xyxy[:3], boxes)
        cells = [run.regions.boxes_xyxy.tolist().index(box) for box in boxes.tolist()]
        located = run.result("located")
        assert located.order == (0, 1, 2) and torch.equal(located.scores, run.setup.search.prior.flatten()[cells])
        assert result.used.ranking == "verified" and sorted(result.order) == [0, 1, 2]
        assert result.candidates.regions.anchor_index.tolist() == [0, 1, 2], "files are named by this number"

    def test_it_continues_and_repeats_itself(self, editor, search, placed):
        run, result = placed
        again = search(**self.PLACED)
        again.setup.search.found, again.setup.search.clear = True, False
        for _ in again:
            pass
        resumed = search(**self.PLACED)
        resumed.resume(through_a_file(again.state()))
        resumed.setup.search.found, resumed.setup.search.clear = True, False
        forwards = editor.models.inpainter.unet_forwards
        end = resumed.result()
        assert editor.models.inpainter.unet_forwards == forwards, "nothing is inpainted again"
        assert torch.equal(end.candidates.crops, result.candidates.crops) and end.order == result.order

    def test_a_preview_draws_nothing(self, placed):
        run, _ = placed
        assert run.preview().shape == run.view.small.shape

    def test_a_region_for_a_new_object_is_the_largest_free_one(self, search):
        avoided = torch.zeros(72, 120)
        avoided[:, :60] = 1
        run = search(SearchPlan(avoid=lambda _view: avoided), {"prompt": "a cat"}, search="placed", budget=1)
        (x0, _, x1, _) = run.result().best.box_xyxy
        assert x0 >= 55, "it lies in the free right half"
        assert x1 - x0 >= 40


class TestAnExhaustiveSearch:
    def test_every_region_is_inpainted(self, search):
        run = search(search="exhaustive", anchors=2, window_step=8)
        result = run.result()
        different = len({tuple(box) for box in run.regions.boxes_xyxy.tolist()})
        assert result.cost.inpaintings == different and len(result.candidates) == 2 and result.anchor_net is None


class TestThePlan:
    def test_a_search_around_given_anchors_on_regions_that_are_known(self, search, done, editor):
        """A run on the same anchors that is given what another run inpainted inpaints nothing and ends the same."""
        run, result = done
        second = search(SearchPlan(anchors=result.anchors))
        second.edits.restore(run.edits.to_dict())
        forwards = editor.models.inpainter.unet_forwards
        assert np.array_equal(second.result().best.pixels(), result.best.pixels())
        assert editor.models.inpainter.unet_forwards == forwards

    def test_it_changes_the_options_that_the_run_works_with_and_no_others(self, search):
        run = search(SearchPlan(changes={"max_window_size": 6}))
        assert run.used.sizes == (4, 6) and run.config.max_window_size == 15
        assert run.config.differences(run.used) == {"max_window_size": 6}
        assert len(run.regions) == 4 * 2 and run.probabilities.shape == (4, 2)

    def test_regions_pay_for_their_share_of_what_is_avoided(self, search):
        """The left half is avoided: anchors lie in the right half, and a region pays for what it covers of the left."""
        avoided = torch.zeros(72, 120)
        avoided[:, :60] = 1
        run = search(SearchPlan(avoid=lambda _view: avoided))
        columns = run.anchors.points_yx[:, 1] / run.anchors.grid_yx[1]
        assert bool((columns > 0.5).all())
        shares = run.setup.occupied
        for (x0, _y0, x1, _y1), share in zip(run.regions.boxes_xyxy.tolist(), shares.tolist(), strict=True):
            assert share == pytest.approx(max(0, min(60, x1) - x0) / (x1 - x0), abs=1e-4)
        costly = int(shares.argmax())
        assert shares[costly] > 0.1 and float(run._cost_of([costly])[0]) == pytest.approx(
            float(run.edits.losses([costly]).total[0] + OCCUPIED_COST * shares[costly]), abs=1e-5
        )
        assert not run.setup.search.location_cost.any(), "a new object does not belong where the caption's object is"

    def test_a_region_for_a_new_object_loses_at_the_border(self, search):
        """Nothing is occupied, so only the area counts and whether the region is close to the border."""
        run = search(SearchPlan(avoid=lambda _view: torch.zeros(72, 120)))
        prior = run.setup.search.prior.flatten()
        x0, y0, x1, y1 = run.regions.boxes_xyxy.unbind(1)
        to_border = torch.stack([x0, y0, 120 - x1, 72 - y1]).min(dim=0).values
        area, inside = (x1 - x0) * (y1 - y0), to_border >= BORDER_SHARE * 72
        assert bool(inside.any()) and not bool(inside.all())
        assert torch.allclose(prior, area / area.max() - BORDER_COST * (~inside).float())

    def test_candidates_on_free_ground_come_first(self, search):
        avoided = torch.zeros(72, 120)
        avoided[:, :100] = 1
        run = search(SearchPlan(avoid=lambda _view: avoided))
        result = run.result()
        boxes = result.candidates.regions.boxes_xyxy.tolist()
        shares = [max(0, min(100, x1) - x0) / (x1 - x0) for x0, _y0, x1, _y1 in boxes]
        assert shares[result.order[0]] == min(shares)


class TestContinuing:
    @pytest.mark.parametrize("stop_after", [1, 2, 3])
    def test_a_run_that_was_stopped_ends_with_the_same_bytes(self, editor, view, done, stop_after):
        result, request = done[1], editor.request(view.source, **TEXTS)
        run = editor.start(request, view=view, **FAST)
        for _, _record in zip(range(stop_after), run, strict=False):
            pass
        resumed = editor.start(request, view=view, state=through_a_file(run.state()), **FAST)
        assert len(resumed.history) == stop_after
        end = resumed.result()
        assert [step.step for step in end.history] == [0, 1, 2]
        assert torch.equal(end.candidates.crops, result.candidates.crops)
        assert torch.equal(end.scores, result.scores) and end.order == result.order
        assert torch.equal(end.anchor_net.probabilities_after, result.anchor_net.probabilities_after)
        assert end.cost.inpaintings == result.cost.inpaintings
        assert end.cost.unet_forwards == result.cost.unet_forwards

    def test_seconds_of_the_run_before_count(self, search):
        run = search()
        next(iter(run))
        state = dict(run.state()) | {"seconds": {"inpainting": 1000.0}}
        later = search(iterations=0)
        later.resume(state)
        assert later.result().cost.seconds["inpainting"] > 1000

    def test_a_state_does_not_change_with_the_run(self, search):
        run = search()
        steps = iter(run)
        next(steps)
        state = run.state()
        kept = through_a_file(state)
        next(steps)
        assert state["search"]["iteration"] == 0 == len(state["evaluated"]["cells"]) and len(state["history"]) == 1
        assert torch.equal(state["search"]["generator"], kept["search"]["generator"])
        for name, value in kept["search"]["anchor_net"].items():
            assert torch.equal(state["search"]["anchor_net"][name], value)

    def test_an_anchor_net_alone_is_a_beginning(self, search, done):
        run, _ = done
        learned = run.setup.search.anchor_net.state_dict()
        later, fresh = search(), search()
        later.resume({"anchor_net": learned})
        assert later.history == () and next(iter(later)).step == 0 and next(iter(fresh)).step == 0
        assert torch.equal(later.probabilities, run.probabilities)
        assert not torch.equal(fresh.probabilities, run.probabilities)
        assert later.edits.inpaintings == 0

    def test_a_state_of_another_edit_is_refused(self, editor, image, search, done):
        assert search().state() is None, "nothing was looked at yet"
        other = editor.request(image, caption="a red square", prompt="a cat")
        with pytest.raises(MasklessError, match="same task, picture, caption, prompt and seed"):
            editor.start(other, state=done[0].state(), **FAST)

    def test_a_fingerprint_tells_pictures_texts_tasks_and_seeds_apart(self, editor, image):
        pixels = np.asarray(image).copy()
        pixels[0, 0, 0] ^= 1
        first = fingerprint(editor.request(image, **TEXTS), 1)
        assert first == fingerprint(editor.request(np.asarray(image), **TEXTS), 1)
        others = [
            (editor.request(pixels, **TEXTS), 1),
            (editor.request(image, **TEXTS | {"caption": "a cat"}), 1),
            (editor.request(image, **TEXTS | {"prompt": "a cat"}), 1),
            (editor.request(image, **TEXTS, task="add"), 1),
            (editor.request(image, **TEXTS), 2),
        ]
        assert all(fingerprint(*other) != first for other in others)
