"""The losses against their equations, one value per candidate."""

import torch

from maskless.method.losses import clip_loss, combine, directional_loss, join, local_loss, structure_loss


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


def test_the_total_weighs_the_parts_and_nothing_is_reduced():
    clip, directional, structure = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), torch.tensor([5.0, 6.0])
    local = torch.tensor([7.0, 8.0])
    losses = combine(clip, directional, structure, local, alpha=1, beta=10, gamma=100, delta=1000)
    assert losses.total.tolist() == [7531.0, 8642.0]
    assert join([losses, losses]).total.tolist() == [7531.0, 8642.0, 7531.0, 8642.0]
    assert join([losses, losses]).local.tolist() == [7.0, 8.0, 7.0, 8.0]


def test_the_local_loss_is_the_distance_of_each_region_alone_from_the_prompt():
    prompt = torch.tensor([1.0, 0.0])
    regions = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert torch.allclose(local_loss(regions, prompt), torch.tensor([0.0, 1.0, 2.0]))
