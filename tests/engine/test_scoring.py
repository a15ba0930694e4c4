"""The losses of edited pictures: what a picture is compared with, in which views, and where gradients go."""

from dataclasses import replace

import pytest
import torch

from maskless.data.config import EditConfig
from maskless.engine.scoring import ClipScorer
from maskless.locating.view import PictureView

TEXTS = ("a red square", "a blue house")
CONFIG = EditConfig(views=2).resolved()
BOXES = torch.tensor([[84, 20, 108, 44], [0, 0, 40, 40]])


@pytest.fixture
def view(editor, picture) -> PictureView:
    return PictureView(picture, editor.models)


@pytest.fixture
def scorer(view) -> ClipScorer:
    return ClipScorer(view, view.small, TEXTS, CONFIG)


@pytest.fixture
def edited(picture) -> torch.Tensor:
    """Two edits of the picture, each in its box."""
    pictures = picture.repeat(2, 1, 1, 1)
    for position, (x0, y0, x1, y1) in enumerate(BOXES.tolist()):
        pictures[position, :, y0:y1, x0:x1] = torch.tensor([0.1, 0.3, 0.9])[:, None, None]
    return pictures


def test_an_unchanged_picture_keeps_its_structure_and_goes_in_no_direction(scorer, view):
    """Views of a candidate are those of the source, so that what did not change is no loss."""
    losses = scorer.losses(view.small[None], BOXES[:1]).of(0)
    assert losses["structure"] < 1e-3, "not more than rounding"
    assert losses["directional"] == pytest.approx(1, abs=1e-4), "a direction of no length has cosine 0"


def test_the_loss_of_the_region_is_that_of_the_box_with_its_margin(scorer, edited, view):
    found = scorer.losses(edited, BOXES)
    column = found.terms[:, found.names.index("local")]
    # The first box is 24 pixels wide, and 15 percent of that is a margin of 4; the second is cut at two edges.
    for position, (x0, y0, x1, y1) in enumerate([(80, 16, 112, 48), (0, 0, 46, 46)]):
        alone = torch.nn.functional.interpolate(
            edited[position : position + 1, :, y0:y1, x0:x1], size=(64, 64), mode="bicubic", antialias=True
        ).clamp(0, 1)
        cosine = float(view.clip.encode(alone).embedding[0] @ view.clip.encode_text(TEXTS[1]))
        assert float(column[position]) == pytest.approx(1 - cosine, abs=1e-5)


def test_each_picture_has_its_own_losses(scorer, edited):
    """Together or alone they are the same, and none depends on its neighbours."""
    together = scorer.losses(edited, BOXES)
    alone = torch.cat([scorer.losses(edited[i : i + 1], BOXES[i : i + 1]).rows for i in (0, 1)])
    assert torch.allclose(together.rows, alone, atol=1e-5)
    assert not torch.allclose(together.rows[0], together.rows[1], atol=1e-3)


def test_the_total_is_weighted_by_the_options(view, edited):
    weights = {"alpha": 0.5, "beta": 0.0, "gamma": 2.0, "delta": 3.0}
    found = ClipScorer(view, view.small, TEXTS, replace(CONFIG, **weights)).losses(edited, BOXES)
    assert torch.allclose(found.total, found.terms @ torch.tensor([0.5, 0.0, 2.0, 3.0]), atol=1e-5)


def test_the_views_are_those_of_the_seed(view, edited):
    first, again, other = (
        ClipScorer(view, view.small, TEXTS, replace(CONFIG, seed=seed)).losses(edited, BOXES).rows for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=1e-6)


def test_a_source_with_something_erased_takes_the_place_of_the_views_own(view, edited):
    """Against a source that is the edit itself, that edit did not change anything."""
    losses = ClipScorer(view, edited[0], TEXTS, CONFIG).losses(edited[:1], BOXES[:1]).of(0)
    assert losses["structure"] < 1e-3


def test_gradients_reach_every_term_through_the_pictures(scorer, edited):
    pictures = edited.clone().requires_grad_()
    scorer.losses(pictures, BOXES).total.sum().backward()
    assert pictures.grad is not None and bool(pictures.grad.isfinite().all())
    assert all(float(pictures.grad[position].abs().max()) > 0 for position in (0, 1))
    assert not scorer.source.embedding.requires_grad, "the source is encoded once, without a gradient"


def test_edits_of_one_picture_share_the_views_of_the_source(view):
    first, again = (ClipScorer(view, view.small, ("a red square", prompt), CONFIG) for prompt in ("a fish", "a cup"))
    assert again.source is first.source
    assert ClipScorer(view, view.small, TEXTS, replace(CONFIG, seed=7)).source is not first.source
    continued = ClipScorer(view, view.small * 0.9, TEXTS, CONFIG)
    assert not torch.equal(continued.source.embedding, first.source.embedding), "a fill may have erased its region"
