"""The search on planted tables of losses: it learns, wastes nothing, and goes on where it stopped."""

import io

import pytest
import torch

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.method.anchor_net import standardised
from maskless.method.search import (
    draw_sizes,
    expected_loss,
    final_sizes,
    objective,
    place_cost,
    planned_updates,
    policy,
    regions_seen,
    report,
    search,
    start_search,
)

K, M = 9, 6
BOXES = torch.arange(K * M * 4).reshape(K * M, 4)


def features(seed: int = 0) -> torch.Tensor:
    return standardised(torch.randn(K, M * 12, 8, 8, generator=torch.Generator().manual_seed(seed)))


def planted(best: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Losses of about 1.5, as real ones are, and 0.05 less where it is best."""
    table = 1.5 + 0.01 * torch.randn(K, M, generator=torch.Generator().manual_seed(seed))
    table[torch.arange(K), best] = 1.45 - 0.01
    return table


class Counter:
    """Looks losses up in a planted table and remembers what it was asked for."""

    def __init__(self, table: torch.Tensor) -> None:
        self.table, self.asked = table, []

    def __call__(self, cells: list[int]) -> torch.Tensor:
        self.asked.extend(cells)
        return self.table.flatten()[cells]


@pytest.mark.parametrize("seed", range(3))
def test_the_best_size_rises_from_one_in_six_to_nine_in_ten_within_the_defaults(seed):
    best = torch.full((K,), seed * 2)
    regions, config = features(seed), EditConfig()
    state = start_search(regions, BOXES, config, seed=seed)
    before = policy(state, regions)[torch.arange(K), best]
    list(search(state, regions, Counter(planted(best, seed)), config))
    after = policy(state, regions)[torch.arange(K), best]
    assert torch.allclose(before, torch.full((K,), 1 / M))
    assert float(after.min()) > 0.9
    learned = report(state, regions)
    assert learned.expected_loss_after < learned.expected_loss_before


def test_anchors_learn_sizes_of_their_own():
    found = 0
    for seed in range(3):
        best = torch.randint(0, M, (K,), generator=torch.Generator().manual_seed(seed))
        regions, config = features(seed), EditConfig()
        state = start_search(regions, BOXES, config, seed=seed)
        list(search(state, regions, Counter(planted(best, seed)), config))
        found += int((final_sizes(state, regions) == best).sum())
    assert found >= 0.8 * 3 * K


def test_no_region_is_evaluated_twice_and_boxes_that_coincide_are_one_region():
    boxes = BOXES.clone()
    boxes[M] = boxes[0]
    regions, config = features(), EditConfig()
    evaluate = Counter(planted(torch.zeros(K, dtype=torch.long)))
    state = start_search(regions, boxes, config, seed=0)
    list(search(state, regions, evaluate, config))
    assert sorted(evaluate.asked) == [cell for cell in range(K * M) if cell != M]
    assert regions_seen(state) == K * M - 1
    assert float(state.table[1, 0]) == float(state.table[0, 0])


def test_unseen_sizes_are_drawn_first():
    table = torch.full((2, 3), torch.nan)
    table[0, :2] = 1.0
    generator = torch.Generator().manual_seed(0)
    certain = torch.tensor([[0.98, 0.01, 0.01], [0.98, 0.01, 0.01]]).log()
    for _ in range(20):
        assert int(draw_sizes(certain, table, generator)[0]) == 2


def test_the_expected_loss_is_over_the_cells_seen():
    table = torch.tensor([[1.0, torch.nan], [2.0, 4.0], [torch.nan, torch.nan]])
    probabilities = torch.tensor([[0.1, 0.9], [0.75, 0.25], [0.5, 0.5]])
    assert expected_loss(probabilities, table) == pytest.approx((1.0 + 2.5) / 2)


@pytest.mark.parametrize("stop_after", [1, 3, 7])
def test_a_search_that_was_stopped_ends_like_one_that_was_not(stop_after):
    table, regions, config = planted(torch.full((K,), 3)), features(), EditConfig(updates=20)
    whole = start_search(regions, BOXES, config, seed=0)
    records = list(search(whole, regions, Counter(table), config))

    first = start_search(regions, BOXES, config, seed=0)
    for _, _record in zip(range(stop_after), search(first, regions, Counter(table), config), strict=False):
        pass
    file = io.BytesIO()
    torch.save(first.to_dict(), file)
    file.seek(0)
    second = start_search(regions, BOXES, config, seed=0)
    second.restore(torch.load(file, weights_only=True))
    list(search(second, regions, Counter(table), config))

    assert torch.equal(policy(second, regions), policy(whole, regions))
    assert torch.equal(second.table, whole.table)
    assert [record.chosen for record in second.history] == [record.chosen for record in records]


def test_a_state_of_another_shape_or_of_other_regions_is_refused():
    config, regions = EditConfig(), features()
    saved = start_search(regions, BOXES, config, seed=0).to_dict()
    with pytest.raises(MasklessError, match=r"\[3, 6\] anchors x sizes, got \[9, 6\]"):
        start_search(regions[:3], BOXES[: 3 * M], config, seed=0).restore(saved)
    other = BOXES.clone()
    other[1] = other[0]
    with pytest.raises(MasklessError, match="same regions"):
        start_search(regions, other, config, seed=0).restore(saved)


def test_the_same_seed_searches_alike_and_leaves_the_global_generator_alone():
    config, regions, table = EditConfig(updates=5), features(), planted(torch.full((K,), 1))
    torch.manual_seed(0)
    untouched = torch.random.get_rng_state()
    runs = []
    for seed in (4, 4, 5):
        state = start_search(regions, BOXES, config, seed=seed)
        runs.append([record.chosen for record in search(state, regions, Counter(table), config)])
    assert runs[0] == runs[1] != runs[2]
    assert torch.equal(torch.random.get_rng_state(), untouched)


def test_every_planned_update_is_made_and_nothing_else():
    for options in ({}, {"iterations": 1}, {"iterations": 7, "gradient_accumulation": 1}, {"epochs": 3}):
        config = EditConfig(updates=4, **options)
        regions = features()
        state = start_search(regions, BOXES, config, seed=0)
        list(search(state, regions, Counter(planted(torch.full((K,), 1))), config))
        assert state.updates == planned_updates(K, config) > 0


def test_losses_that_are_not_numbers_stop_the_search():
    config, regions = EditConfig(), features()
    state = start_search(regions, BOXES, config, seed=0)
    with pytest.raises(MasklessError, match="losses must be finite"):
        next(search(state, regions, Counter(torch.full((K, M), torch.inf)), config))


def test_the_straight_through_estimator_learns_from_a_gradient():
    config, regions = EditConfig(estimator="straight-through", lr=0.02, updates=4000), features()
    table = planted(torch.full((K,), 2))
    state = start_search(regions, BOXES, config, seed=0)

    def soft_losses(chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return (weights * table).sum(dim=1)

    list(search(state, regions, Counter(table), config, soft_losses=soft_losses))
    learned = report(state, regions)
    assert learned.expected_loss_after < learned.expected_loss_before
    assert float(learned.probabilities_after[:, 2].mean()) > 0.5


def test_the_place_decides_where_the_losses_do_not():
    """Three spreads for every size but one outweigh losses that prefer another; without them the losses decide."""
    wanted, tempting = torch.full((K,), 4), torch.full((K,), 1)
    cost = torch.full((K, M), 3.0)
    cost[:, 4] = 0.0
    found = {}
    for given in (cost, None):
        regions, config = features(), EditConfig()
        state = start_search(regions, BOXES, config, seed=0, place_cost=given)
        list(search(state, regions, Counter(planted(tempting)), config))
        found[given is None] = final_sizes(state, regions)
        learned = report(state, regions)
        assert learned.expected_loss_after < learned.expected_loss_before
    assert torch.equal(found[False], wanted) and torch.equal(found[True], tempting)


def test_the_place_counts_in_spreads_of_the_losses():
    """So the same cost decides alike whatever the scale of the losses is."""
    cost = torch.randn(K, M, generator=torch.Generator().manual_seed(3))
    state = start_search(features(), BOXES, EditConfig(), seed=0, place_cost=cost)
    state.table = planted(torch.zeros(K, dtype=torch.long))
    once = objective(state)
    state.table = 100 * state.table
    assert torch.allclose(objective(state), 100 * once, rtol=1e-4)
    spread = float((state.table - state.table.mean(dim=1, keepdim=True)).square().mean().sqrt())
    assert torch.allclose(objective(state), state.table + spread * cost, rtol=1e-4)


def test_what_is_the_thing_pays_least_in_its_anchors_own_spread():
    score = torch.tensor([0.0, 1.0, 2.0, 50.0, 52.0, 51.0])
    cost = place_cost(score, 3, 2.0)
    assert cost.shape == (2, 3) and cost.argmin(dim=1).tolist() == [2, 1]
    assert torch.allclose(cost.mean(dim=1), torch.zeros(2), atol=1e-5), "a poor anchor is not paid for"
    assert abs(float(cost.square().mean().sqrt()) - 2) < 1e-4
