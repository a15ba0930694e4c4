"""The losses compared with their equations, one value per candidate."""

import torch

from maskless.data.config import EditConfig
from maskless.method.losses import (
    TERMS,
    Encodings,
    clip_loss,
    directional_loss,
    join,
    local_loss,
    structure_loss,
    weighted,
    weights,
)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return values / values.norm(dim=-1, keepdim=True)


def test_clip_loss_is_one_minus_cosine_averaged_over_views():
    candidates, prompt = unit(5, 3, 8), unit(8, seed=1)
    expected = torch.stack([(1 - candidates[n] @ prompt).mean() for n in range(5)])
    assert torch.allclose(clip_loss(candidates, prompt), expected, atol=1e-6)
    assert torch.allclose(clip_loss(prompt.expand(1, 1, 8), prompt), torch.zeros(1), atol=1e-6)


def test_directional_loss_is_zero_along_the_texts_and_two_against_them():
    source, prompt, caption = unit(2, 8), unit(8, seed=1), unit(8, seed=2)
    step = 0.3 * (prompt - caption)
    losses = directional_loss(torch.stack([source + step, source - step]), source, prompt, caption)
    assert torch.allclose(losses, torch.tensor([0.0, 2.0]), atol=1e-5)


def test_an_unchanged_picture_has_no_direction():
    source = unit(2, 8)
    assert torch.allclose(directional_loss(source[None], source, unit(8, seed=1), unit(8, seed=2)), torch.ones(1))


def test_structure_loss_compares_self_similarity_not_appearance():
    tokens = torch.randn(6, 8, generator=torch.Generator().manual_seed(3))
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(4)))[0]
    other = torch.randn(6, 8, generator=torch.Generator().manual_seed(5))
    losses = structure_loss(torch.stack([tokens, tokens @ rotation, other]), tokens)
    assert float(losses[:2].max()) < 1e-3 < 0.1 < float(losses[2])


def encodings(count: int = 3) -> Encodings:
    return Encodings(
        candidates=unit(count, 2, 8),
        candidate_tokens=torch.randn(count, 6, 8, generator=torch.Generator().manual_seed(2)),
        regions=unit(count, 8, seed=3),
        source=unit(2, 8, seed=4),
        source_tokens=torch.randn(6, 8, generator=torch.Generator().manual_seed(5)),
        prompt=unit(8, seed=6),
        caption=unit(8, seed=7),
    )


def test_the_total_is_the_weighted_sum_of_the_terms_for_each_candidate():
    inputs = encodings()
    config = EditConfig(alpha=1, beta=10, gamma=100, delta=1000).resolved()
    losses = weighted(inputs, config)
    assert losses.names == ("clip", "directional", "structure", "local") and weights(config) == (1, 10, 100, 1000)
    by_hand = [
        clip_loss(inputs.candidates, inputs.prompt),
        directional_loss(inputs.candidates, inputs.source, inputs.prompt, inputs.caption),
        structure_loss(inputs.candidate_tokens, inputs.source_tokens),
        local_loss(inputs.regions, inputs.prompt),
    ]
    assert torch.equal(losses.terms, torch.stack(by_hand, dim=1))
    assert torch.allclose(losses.total, losses.terms @ torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    assert torch.equal(join([losses, losses]).rows, losses.rows.repeat(2, 1))


def test_each_term_has_a_weight_among_the_options():
    assert all(getattr(EditConfig().resolved(), term.weight) >= 0 and term.title for term in TERMS)


def test_the_local_loss_is_the_cosine_distance_of_each_region_from_the_prompt():
    prompt = torch.tensor([1.0, 0.0])
    regions = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert torch.allclose(local_loss(regions, prompt), torch.tensor([0.0, 1.0, 2.0]))
