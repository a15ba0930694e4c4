"""Where an edit may go, on drawn scenes with the bundled encoders: the named thing is looked at first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from maskless.data.boxes import box_iou, propose_regions
from maskless.data.paste import LARGE_PX
from maskless.data.picture import load_image
from maskless.data.types import Detections
from maskless.engine.editor import Editor
from maskless.engine.finder import Finder
from maskless.evaluation.suites.search_study import draw_tasks, is_clean
from maskless.locating.location import LIKELY, SAMPLED, detected_boxes, locate, location_scores, propose
from maskless.locating.named_mask import named_mask
from maskless.locating.view import PictureView
from maskless.method.box_fitting import PROMISING
from maskless.method.ranking import location_score


@pytest.fixture(scope="module")
def storybook() -> Editor:
    return Editor.from_pretrained("storybook", device="cpu", dtype="float32")


def test_the_named_thing_is_outlined_and_its_middle_is_the_first_anchor(storybook):
    overlaps, inside = [], 0
    tasks = draw_tasks("validation", 10, offset=41_000)
    for task in tasks:
        view = storybook.look(task.image)
        found = locate(view, task.caption, storybook.config.resolved())
        x0, y0, x1, y1 = task.box_xyxy
        overlaps.append(float(box_iou(torch.tensor([found.outline_xyxy]), task.box_xyxy)[0]))
        y, x = ((found.anchors.points_yx[0] + 0.5) / torch.tensor(found.anchors.grid_yx) * 128).tolist()
        inside += x0 <= x < x1 and y0 <= y < y1
        assert len(found.anchors) == storybook.config.resolved().anchors
    assert sum(overlaps) / len(overlaps) > 0.5 and inside >= 7


def test_in_a_large_picture_the_named_thing_is_found_where_it_is_in_a_small_one(storybook):
    task = draw_tasks("validation", 1, offset=41_000)[0]
    image = load_image(task.image).rgb
    side = 3 * LARGE_PX
    large = torch.nn.functional.interpolate(image[None], size=(side, side), mode="bicubic")[0].clamp(0, 1)
    config = storybook.config.resolved()
    small_view, large_view = (PictureView(each, storybook.models) for each in (image, large))
    found, found_large = (locate(view, task.caption, config) for view in (small_view, large_view))
    assert found_large.outline is not None and tuple(found_large.outline.shape) == (LARGE_PX, LARGE_PX)
    box = [round(edge * side / image.shape[1]) for edge in found.outline_xyxy]
    assert float(box_iou(torch.tensor([found_large.outline_xyxy]), box)[0]) > 0.9
    assert torch.equal(found_large.anchors.points_yx[0], found.anchors.points_yx[0])
    mask = named_mask(large_view, task.caption, found_large)
    assert tuple(mask.shape) == (side, side)
    small_mask = named_mask(small_view, task.caption, found)
    shrunk = torch.nn.functional.interpolate(mask[None, None].float(), size=small_mask.shape, mode="area")[0, 0] > 0.5
    assert float((shrunk & small_mask).sum()) > 0.9 * float((shrunk | small_mask).sum())


def test_without_a_caption_or_by_the_papers_rule_attention_alone_decides(storybook):
    task = draw_tasks("validation", 1)[0]
    view = storybook.look(task.image)
    paper = replace(storybook.config.resolved(), anchor_source="attention")
    expected = locate(view, "", paper)
    for caption, config in (("", storybook.config.resolved()), (task.caption, paper)):
        found = locate(view, caption, config)
        assert found.relevance is None and found.outline_xyxy is None
        assert torch.equal(found.anchors.points_yx, expected.anchors.points_yx)


def test_the_edges_of_the_best_square_are_fitted_and_no_others(storybook):
    clean, covered = [], []
    config = replace(storybook.config.resolved(), search="learned")
    for task in draw_tasks("validation", 10, offset=41_000):
        view = storybook.look(task.image)
        found = locate(view, task.caption, config)
        squares = propose_regions(found.anchors, config.sizes, view.size_yx).boxes_xyxy
        score = location_scores(view, task.caption, squares, found)
        best = int(score.argmax())
        proposed = propose(view, task.caption, found, config)
        boxes = proposed.regions.boxes_xyxy
        assert (boxes != squares).any(dim=1).nonzero().flatten().tolist() == [best]
        assert proposed.score[best] >= score[best] and int(proposed.score.argmax()) == best
        others = torch.arange(len(score)) != best
        assert torch.equal(proposed.score[others], score[others])
        pair = squares[best].tolist(), boxes[best].tolist()
        clean.append([is_clean(box, task) for box in pair])
        covered.append([_share_inside(task.box_xyxy, box) for box in pair])
    before, after = torch.tensor(covered).mean(dim=0).tolist()
    assert after > before + 0.05, "of each thing, whose square is not its box"
    assert sum(now for _, now in clean) >= sum(was for was, _ in clean)


def test_a_placed_search_encodes_few_regions_and_the_others_rank_behind_them(storybook, monkeypatch):
    config = storybook.config.resolved()
    assert config.search == "placed"
    task = draw_tasks("validation", 1, offset=41_000)[0]
    view = storybook.look(task.image)
    found = locate(view, task.caption, config)
    known = len(view.cached("crops", dict))
    proposed = propose(view, task.caption, found, config)
    assert len(view.cached("crops", dict)) - known <= LIKELY + SAMPLED + 4 * PROMISING
    boxes = propose_regions(found.anchors, config.sizes, view.size_yx).boxes_xyxy
    cheap = location_score(view.location_signs(boxes, task.caption, outline_xyxy=found.outline_xyxy, encode=False))
    likeliest = proposed.score[cheap >= cheap.topk(2).values.min()]
    assert proposed.score.isfinite().all() and float(likeliest.min()) > float(proposed.score.min())
    assert len(proposed.score.unique()) > LIKELY, "the regions that CLIP has not encoded are ordered too"


def _share_inside(thing_xyxy, box_xyxy):
    x0, y0 = max(thing_xyxy[0], box_xyxy[0]), max(thing_xyxy[1], box_xyxy[1])
    x1, y1 = min(thing_xyxy[2], box_xyxy[2]), min(thing_xyxy[3], box_xyxy[3])
    area = (thing_xyxy[2] - thing_xyxy[0]) * (thing_xyxy[3] - thing_xyxy[1])
    return max(x1 - x0, 0) * max(y1 - y0, 0) / area


@pytest.mark.parametrize("why", ["no caption", "switched off"])
def test_squares_stay_where_nothing_is_named_or_fitted(storybook, why):
    task = draw_tasks("validation", 1)[0]
    caption = "" if why == "no caption" else task.caption
    config = replace(storybook.config.resolved(), search="learned", fit_edges=why == "no caption")
    view = storybook.look(task.image)
    found = locate(view, caption, config)
    proposed = propose(view, caption, found, config)
    squares = propose_regions(found.anchors, config.sizes, view.size_yx).boxes_xyxy
    assert torch.equal(proposed.regions.boxes_xyxy, squares)
    assert bool(proposed.score.any()) == bool(caption)
    assert torch.equal(proposed.score, location_scores(view, caption, squares, found))


class Oracle:
    """A grounder that knows the true box. box_xyxy: in pixels of a picture of 128 x 128; None finds nothing."""

    def __init__(self, box_xyxy: tuple[int, ...] | None) -> None:
        self.model, self._boxes = torch.nn.Identity(), [list(box_xyxy)] if box_xyxy is not None else []

    def find(self, image: torch.Tensor, text: str) -> Detections:
        boxes = torch.tensor(self._boxes, dtype=torch.long).reshape(-1, 4) * image.shape[2] // 128
        return Detections(boxes_xyxy=boxes, score=torch.full((len(boxes),), 0.2))


def test_a_grounder_that_gives_the_true_box_wins(storybook):
    tasks = draw_tasks("validation", 3, offset=41_000)
    for task, other in zip(tasks, tasks[1:] + tasks[:1], strict=True):
        knowing = Finder(replace(storybook.models, grounder=Oracle(task.box_xyxy)))
        for caption in ("a violin", other.caption, task.caption):
            finding = knowing.find(task.image, caption, alternatives=0)
            assert float(box_iou(torch.tensor([finding.box_xyxy]), task.box_xyxy)[0]) > 0.6, caption
            assert finding.looks_like and finding.regions[0].signs["detected"] > 1
        x0, y0, x1, y1 = task.box_xyxy
        assert finding.mask[y0:y1, x0:x1].sum() > 0.8 * finding.mask.sum()


def test_a_grounder_that_finds_nothing_changes_nothing(storybook):
    task = draw_tasks("validation", 1, offset=41_000)[0]
    without = Finder(storybook.models).find(task.image, task.caption)
    finding = Finder(replace(storybook.models, grounder=Oracle(None))).find(task.image, task.caption)
    assert finding.to_dict() == without.to_dict() and torch.equal(finding.mask, without.mask)


def test_each_phrase_is_found_once_in_a_picture_however_large_it_is(storybook):
    task = draw_tasks("validation", 1, offset=41_000)[0]
    large = torch.nn.functional.interpolate(load_image(task.image).rgb[None], size=(640, 640))[0]
    oracle, asked = Oracle(task.box_xyxy), []
    oracle.find = lambda image, text: asked.append(text) or Oracle.find(oracle, image, text)
    view = Finder(replace(storybook.models, grounder=oracle)).look(large)
    expected = [round(edge * view.small_yx[0] / 128) for edge in task.box_xyxy]
    assert view.detections("a cat and a dog").boxes_xyxy[0].tolist() == pytest.approx(expected, abs=1)
    assert view.small_view.detections("a dog").boxes_xyxy[0].tolist() == pytest.approx(expected, abs=1)
    assert asked == ["a cat", "a dog"] and len(view.detections("")) == 0
    scaled = [round(edge * 5) for edge in task.box_xyxy]
    assert detected_boxes(view, "a cat")[0].tolist() == pytest.approx(scaled, abs=2)


@pytest.mark.parametrize(
    ("found", "expected"),
    [((0, 0, 128, 2), (0, 0, 128, 10)), ((126, 126, 128, 128), (118, 118, 128, 128)), ((5, 9, 60, 70), (5, 9, 60, 70))],
)
def test_a_box_of_a_grounder_becomes_one_that_can_be_edited(storybook, found, expected):
    view = Finder(replace(storybook.models, grounder=Oracle(found))).look(torch.rand(3, 128, 128))
    assert tuple(detected_boxes(view, "a cat")[0].tolist()) == expected
    wide = Finder(replace(storybook.models, grounder=Oracle((0, 0, 128, 64)))).look(torch.rand(3, 64, 128))
    assert tuple(detected_boxes(wide, "a cat")[0].tolist()) == (32, 0, 96, 64)
