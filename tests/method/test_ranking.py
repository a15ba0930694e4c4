"""Each ranking rule on scores with a known order."""

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.data.types import LocationSigns, Scores
from maskless.method.ranking import Ranking, location_score, prefer_unoccupied, rank, rank_fills


def scores(**values: list[float]) -> Scores:
    count = len(next(iter(values.values())))
    names = ("text_to_image", "image_to_image", "location", "gone")
    return Scores(**{name: torch.tensor(values.get(name, [0.0] * count)) for name in names})


def signs(**values: list[float]) -> LocationSigns:
    count = len(next(iter(values.values())))
    names = ("shown", "focus", "fit", "detected")
    return LocationSigns(**{name: torch.tensor(values.get(name, [0.0] * count)) for name in names})


def test_what_a_grounder_found_decides_and_nothing_found_changes_nothing():
    others = {"shown": [3.0, 1.0, 0.0, 0.5], "focus": [1.0, 0.0, 0.3, 0.2]}
    assert int(location_score(signs(**others)).argmax()) == 0
    score = location_score(signs(**others, detected=[0.1, 0.9, 0.0, 0.4]))
    assert int(score.argmax()) == 1
    assert torch.allclose(score - location_score(signs(**others)), torch.tensor([1.0, 9.0, 0.0, 4.0]))


def test_the_papers_rule_uses_the_sum_for_the_top_three_by_text_only():
    given = scores(text_to_image=[0.30, 0.29, 0.28, 0.10], image_to_image=[0.50, 0.60, 0.55, 0.99])
    ranking = rank(given, "paper", alpha=2.0, beta=1.0)
    assert ranking.order == (1, 2, 0, 3), "the last has the highest sum but is not among the three"
    assert torch.allclose(ranking.score, torch.tensor([1.10, 1.18, 1.11, 1.19]))


def test_the_papers_rule_uses_the_users_weights():
    given = scores(text_to_image=[0.3, 0.2], image_to_image=[0.1, 0.9])
    assert rank(given, "paper", alpha=1.0, beta=0.0).order == (0, 1)
    assert rank(given, "paper", alpha=0.0, beta=1.0).order == (1, 0)


def test_the_verified_rule_prefers_edits_that_remove_the_named_object_and_nothing_else():
    given = scores(gone=[-0.8, -0.2, -0.3], image_to_image=[0.9, 0.2, 0.8], location=[3.0, 2.0, 1.0])
    assert rank(given, "verified", alpha=2.0, beta=1.0).order == (2, 1, 0)
    unnamed = scores(location=[0.5, 1.5, -2.0])
    assert rank(unnamed, "verified", alpha=2.0, beta=1.0).order == rank(unnamed, "located", alpha=2.0, beta=1.0).order


def test_the_located_rule_prefers_the_region_of_the_captioned_object():
    given = scores(location=[0.5, 1.5, -2.0], text_to_image=[0.0, 0.0, 1.0])
    assert rank(given, "located", alpha=2.0, beta=1.0).order == (1, 0, 2)


def test_without_a_caption_the_located_rule_is_the_papers():
    given = scores(text_to_image=[0.1, 0.3, 0.2], image_to_image=[0.5, 0.5, 0.5])
    located, paper = (rank(given, rule, alpha=2.0, beta=1.0) for rule in ("located", "paper"))
    assert located.order == paper.order == (1, 2, 0)
    assert torch.equal(located.score, paper.score)


def test_equal_scores_keep_the_order_of_the_anchors():
    assert rank(scores(text_to_image=[0.5, 0.5, 0.5]), "located", alpha=2.0, beta=1.0).order == (0, 1, 2)


def test_an_unknown_rule_is_refused():
    with pytest.raises(MasklessError, match="ranking must be paper, located or verified"):
        rank(scores(location=[1.0]), "coin", alpha=2.0, beta=1.0)


def test_fills_are_ranked_by_the_given_signs():
    text, fit = torch.tensor([0.1, 0.3, 0.2]), torch.tensor([-0.5, -0.6, -0.1])
    assert rank_fills(text, None, None).order == (1, 2, 0)
    assert rank_fills(None, fit, None).order == (2, 0, 1)
    both = rank_fills(text, fit, torch.zeros(3))
    assert both.order == (2, 1, 0) and float(both.score.sum()) == pytest.approx(0, abs=1e-6)
    assert rank_fills(torch.ones(2), None, None).order == (0, 1)


def test_free_regions_come_first_and_the_rule_decides_among_them():
    ranked = Ranking(score=torch.tensor([3.0, 2.0, 1.0]), order=(0, 1, 2))
    assert prefer_unoccupied(ranked, torch.tensor([0.5, 0.001, 0.002])).order == (1, 2, 0)
    assert prefer_unoccupied(ranked, torch.zeros(3)).order == (0, 1, 2)


def test_the_location_score_sums_standardised_signs():
    given = signs(shown=[0.2, 0.1, 0.1], focus=[0.01, 0.0, -0.02], fit=[0.5, 0.5, 0.1])
    score = location_score(given)
    assert score.argmax() == 0 and score.argmin() == 2
    scaled = signs(shown=[20.0, 10.0, 10.0], focus=[0.01, 0.0, -0.02], fit=[0.5, 0.5, 0.1])
    assert torch.allclose(location_score(scaled), score, atol=1e-5), "the scale of a sign does not matter"
    assert not location_score(signs(shown=[0.5, 0.5])).any()
