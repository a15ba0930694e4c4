"""The search on planted tables of losses: it learns, evaluates no region twice, and continues where it stopped."""

import io

import pytest
import torch

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.method.anchor_net import standardised
from maskless.method.search import (
    count_evaluated_regions,
    draw_sizes,
    expected_loss,
    final_sizes,
    location_cost,
    objective,
    planned_updates,
    policy,
    report,
    search,
    start_search,
)

K, M = 9, 6
BOXES = torch.arange(K * M * 4).reshape(K * M, 4)


def features(seed: int = 0) -> torch.Tensor:
    return standardised(torch.randn(K, M * 12, 8, 8, generator=torch.Generator().manual_seed(seed)))


def planted(best: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Losses of about 1.5, like real ones, and lower by about 0.06 for the best size of each anchor."""
    table = 1.5 + 0.01 * torch.randn(K, M, generator=torch.Generator().manual_seed(seed))
    table[torch.arange(K), best] = 1.45 - 0.01
    return table


class Counter:
    """Looks losses up in a planted table and remembers which cells were requested."""

    def __init__(self, table: torch.Tensor) -> None:
        self.table, self.requested = table, []

    def __call__(self, cells: list[int]) -> torch.Tensor:
        self.requested.extend(cells)
        return self.table.flatten()[cells]


@pytest.mark.parametrize("seed", range(3))
def test_the_probability_of_the_best_size_rises_from_a_sixth_to_over_nine_tenths(seed):
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


def test_each_anchor_learns_its_own_best_size():
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
    assert sorted(evaluate.requested) == [cell for cell in range(K * M) if cell != M]
    assert count_evaluated_regions(state) == K * M - 1
    assert float(state.table[1, 0]) == float(state.table[0, 0])


def test_sizes_that_were_not_evaluated_are_sampled_first():
    table = torch.full((2, 3), torch.nan)
    table[0, :2] = 1.0
    generator = torch.Generator().manual_seed(0)
    certain = torch.tensor([[0.98, 0.01, 0.01], [0.98, 0.01, 0.01]]).log()
    for _ in range(20):
        assert int(draw_sizes(certain, table, generator)[0]) == 2


def test_the_expected_loss_is_over_the_evaluated_cells():
    table = torch.tensor([[1.0, torch.nan], [2.0, 4.0], [torch.nan, torch.nan]])
    probabilities = torch.tensor([[0.1, 0.9], [0.75, 0.25], [0.5, 0.5]])
    assert expected_loss(probabilities, table) == pytest.approx((1.0 + 2.5) / 2)


@pytest.mark.parametrize("stop_after", [1, 3, 7])
def test_an_interrupted_search_ends_like_an_uninterrupted_one(stop_after):
    table, regions, config = planted(torch.full((K,), 3)), features(), EditConfig(updates=20)
    whole = start_search(regions, BOXES, config, seed=0)
    records = list(search(whole, regions, Counter(table), config))

    first = start_search(regions, BOXES, config, seed=0)
    steps = [step for _, step in zip(range(stop_after), search(first, regions, Counter(table), config), strict=False)]
    file = io.BytesIO()
    torch.save(first.to_dict(), file)
    file.seek(0)
    second = start_search(regions, BOXES, config, seed=0)
    second.restore(torch.load(file, weights_only=True))
    steps += search(second, regions, Counter(table), config)

    assert torch.equal(policy(second, regions), policy(whole, regions))
    assert torch.equal(second.table, whole.table)
    assert [step.chosen for step in steps] == [record.chosen for record in records]


def test_a_state_of_another_shape_or_of_other_regions_is_refused():
    config, regions = EditConfig(), features()
    saved = start_search(regions, BOXES, config, seed=0).to_dict()
    with pytest.raises(MasklessError, match=r"\[3, 6\] anchors x sizes, got \[9, 6\]"):
        start_search(regions[:3], BOXES[: 3 * M], config, seed=0).restore(saved)
    other = BOXES.clone()
    other[1] = other[0]
    with pytest.raises(MasklessError, match="same regions"):
        start_search(regions, other, config, seed=0).restore(saved)


def test_a_seed_always_makes_the_same_choices_and_the_global_generator_is_not_used():
    config, regions, table = EditConfig(updates=5), features(), planted(torch.full((K,), 1))
    torch.manual_seed(0)
    untouched = torch.random.get_rng_state()
    runs = []
    for seed in (4, 4, 5):
        state = start_search(regions, BOXES, config, seed=seed)
        runs.append([record.chosen for record in search(state, regions, Counter(table), config)])
    assert runs[0] == runs[1] != runs[2]
    assert torch.equal(torch.random.get_rng_state(), untouched)


def test_the_number_of_updates_is_the_planned_one():
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


def test_a_large_cost_of_the_location_outweighs_the_losses():
    """A cost of three standard deviations for every size but one decides; without it the losses decide."""
    cheap, best = torch.full((K,), 4), torch.full((K,), 1)
    cost = torch.full((K, M), 3.0)
    cost[:, 4] = 0.0
    sizes = []
    for cost_or_none in (cost, None):
        regions, config = features(), EditConfig()
        state = start_search(regions, BOXES, config, seed=0, location_cost=cost_or_none)
        list(search(state, regions, Counter(planted(best)), config))
        sizes.append(final_sizes(state, regions))
        learned = report(state, regions)
        assert learned.expected_loss_after < learned.expected_loss_before
    assert torch.equal(sizes[0], cheap) and torch.equal(sizes[1], best)


def test_the_cost_of_the_location_is_in_standard_deviations_of_the_losses():
    """So the same cost has the same effect on losses of any scale."""
    cost = torch.randn(K, M, generator=torch.Generator().manual_seed(3))
    state = start_search(features(), BOXES, EditConfig(), seed=0, location_cost=cost)
    state.table = planted(torch.zeros(K, dtype=torch.long))
    once = objective(state)
    state.table = 100 * state.table
    assert torch.allclose(objective(state), 100 * once, rtol=1e-4)
    deviation = float((state.table - state.table.mean(dim=1, keepdim=True)).square().mean().sqrt())
    assert torch.allclose(objective(state), state.table + deviation * cost, rtol=1e-4)


def test_the_region_that_fits_best_has_the_lowest_cost_of_its_anchor():
    score = torch.tensor([0.0, 1.0, 2.0, 50.0, 52.0, 51.0])
    cost = location_cost(score, 3, 2.0)
    assert cost.shape == (2, 3) and cost.argmin(dim=1).tolist() == [2, 1]
    assert torch.allclose(cost.mean(dim=1), torch.zeros(2), atol=1e-5), "an anchor as a whole has no cost"
    assert abs(float(cost.square().mean().sqrt()) - 2) < 1e-4
