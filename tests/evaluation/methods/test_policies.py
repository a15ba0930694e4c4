"""Every policy on planted tables: what it looks at, what it picks, what it pays."""

import numpy as np
import pytest
import torch

from maskless.evaluation.methods import policies as p
from planted_tables import K, M, planted_table

# Anchor 1 is the good one, its size 2 (column 6) the best of all; the middle of the picture is no proposal.
LOSSES = [9, 8, 7, 6, 3, 2, 1, 4, 9.5, 8.5, 7.5, 6.5, 0.5]


def _rng():
    return np.random.default_rng(0)


def _table(**changes):
    return planted_table([LOSSES, [v + 0.1 for v in LOSSES]], **changes)


def test_the_search_learns_the_planted_sizes():
    made = p.maskless_by_loss(_table(), 0, _rng())
    assert made.picked == 6
    assert made.inpaintings == K * M, "six iterations see all of four sizes an anchor"
    assert made.forwards == 16 * K * M and made.seconds == pytest.approx(0.8 * K * M)


def test_a_box_that_two_proposals_share_is_paid_once():
    table = planted_table([LOSSES[:11] + [0.5]], shared=True)
    assert table.proposals == 11
    assert p.maskless_by_loss(table, 0, _rng()).inpaintings == 11
    assert p.exhaustive(table, 0, _rng()).inpaintings == 11


def test_ours_and_the_release_pick_by_their_rankings():
    text = torch.zeros(2, 13)
    text[:, 4:8] = torch.tensor([0.1, 0.2, 0.9, 0.3])
    names = ("image_to_image", "location", "gone")
    table = _table(scores={"text_to_image": text, **{name: torch.zeros(2, 13) for name in names}})
    assert p.maskless(table, 0, _rng()).picked == 6
    made = p.release(table, 0, _rng())
    assert made.picked in (4, 5, 6, 7) and made.inpaintings == K, "the anchor whose edits show the prompt"


def test_the_caption_alone_costs_one_inpainting():
    place = torch.zeros(2, 13)
    place[:, 5] = 1
    names = ("text_to_image", "image_to_image", "gone")
    table = _table(scores={"location": place, **{name: torch.zeros(2, 13) for name in names}})
    made = p.by_caption(table, 0, _rng())
    assert (made.picked, made.inpaintings, made.forwards) == (5, 1, 16)


def test_simple_policies_by_hand():
    table = _table()
    assert p.centre(table, 0, _rng()).picked == 12
    first = p.all_sizes_of_the_first_anchor(table, 0, _rng())
    assert (first.picked, first.inpaintings) == (3, M)
    then = p.one_size_then_all(table, 0, _rng())
    assert (then.picked, then.inpaintings) == (6, K + M - 1)
    assert p.exhaustive_one_noise(table, 0, _rng()).forwards == 16 * 12
    assert p.exhaustive(table, 0, _rng()).inpaintings == 24


def test_random_finds_the_best_as_often_as_it_looks_there():
    rng, table = _rng(), _table()
    hits = [p.random_n(table, 0, rng, count=4).picked == 6 for _ in range(600)]
    assert np.mean(hits) == pytest.approx(4 / 12, abs=0.07)
    assert p.random_n(table, 0, rng, count=12).picked == 6


def test_halving_by_hand():
    """12 looked at in one step, 6 in two; 3 are finished. The first preview is right about halves and no more."""
    one = [9, 9, 9, 5, 3, 3, 4, 4, 9, 9, 9, 5, 0]
    two = [9, 9, 9, 9, 3, 2, 4, 9, 9, 9, 9, 9, 0]
    table = _table(previews={1: [one] * 2, 2: [two] * 2})
    made = p.halving(table, 0, _rng())
    assert (made.picked, made.inpaintings) == (6, 3)
    assert made.forwards == 12 * 2 + 6 * 4 + 3 * 16
    assert made.seconds == pytest.approx(12 * 0.1 + 6 * 0.2 + 3 * 0.8)


def test_a_funnel_picks_the_best_of_what_the_preview_lets_through():
    misled = [0, 0.1, 0.2, *[5] * 10]
    table = _table(previews={1: [misled] * 2})
    made = p.funnel(table, 0, _rng(), steps=1, finalists=3)
    assert (made.picked, made.inpaintings, made.forwards) == (2, 3, 12 * 2 + 3 * 16)


def test_ucb_pulls_the_good_arm_most_and_gp_finds_it():
    rng, table = _rng(), _table()
    for policy in (p.ucb, p.gaussian_process):
        found = [policy(table, 0, rng, count=7) for _ in range(60)]
        assert all(made.inpaintings == 7 for made in found)
        hits = np.mean([made.picked == 6 for made in found])
        assert hits > 7 / 12 + 0.1, f"{policy.__name__} must beat random search, which finds it in 58 %"
        assert policy(table, 0, rng, count=99).inpaintings == 12


def test_every_policy_runs_and_sees_one_noise_only():
    """What another noise would have given changes nothing but what exhaustive search over all noises picks."""
    previews = {1: [LOSSES] * 2, 2: [LOSSES] * 2}
    table = _table(previews=previews)
    changed = planted_table([LOSSES, LOSSES[::-1]], previews=previews)
    for name, policy in p.policies((1, 2), 12).items():
        made, again = policy(table, 0, _rng()), policy(changed, 0, _rng())
        assert made.forwards > 0 and made.seconds > 0
        assert name == "exhaustive" or made == again
