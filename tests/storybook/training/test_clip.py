"""CLIP: its examples and their labels, its losses, and what the bundled one recognises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from maskless.storybook.train import ASSETS
from maskless.storybook.training import clip
from maskless.storybook.training.clip import words_in
from maskless.storybook.training.loop import Run
from maskless.storybook.world.captions import STYLE_WORDS
from maskless.storybook.world.graph import COLOURS, KINDS, SceneGraph, SceneObject
from maskless.storybook.world.scenes import draw


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    """The bundled CLIP with new heads, and its tokenizer."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "models").symlink_to(ASSETS)
    built = clip.build(Run(name="clip", output=folder, minutes=1, device=torch.device("cpu"), workers=0))
    clip.restore(built, ASSETS)
    return built.eval()


def _graph(*objects: SceneObject, background: str = "snow") -> SceneGraph:
    return SceneGraph(objects=objects, background=background, style="flat", horizon=0.6, detail_seed=0)


def _object(kind: str, colour: str, x: float = 0.5, texture: str = "plain") -> SceneObject:
    return SceneObject(kind=kind, colour=colour, texture=texture, centre_xy=(x, 0.5), size=0.4)


def test_an_example_has_five_pairs_and_depends_on_its_seed_alone(model: nn.Module) -> None:
    first, again = clip.example(clip.FIRST_SEED), clip.example(clip.FIRST_SEED)
    shapes = {key: tuple(value.shape) for key, value in first.items()}
    assert shapes == {
        "image": (5, 3, 128, 128), "cover": (5, 2, 8, 8), "ids": (5, 32), "words": (5, len(clip.WORDS)), "label": (5,)
    }  # fmt: skip
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert first["cover"][:, 0].max() <= len(KINDS) and first["cover"][:, 1].max() <= len(COLOURS)


def test_the_words_of_a_caption_are_found_in_singular_and_plural() -> None:
    names = [forms[0] for forms in clip.WORDS]
    found = {names[i] for i in words_in("two red cars, a tree in the snow").nonzero().flatten().tolist()}
    assert found == {"red", "car", "tree", "snow"}
    assert words_in("").sum() == 0


def test_every_style_but_the_flat_drawing_has_a_word() -> None:
    plain = words_in("a drawing of a red car")
    for style, words in STYLE_WORDS.items():
        found = [words_in(f"a {word} of a red car") for word in words]
        assert style == "flat" or all((each - plain).sum() == 1 for each in found)
        assert all(torch.equal(each, found[0]) for each in found)


def test_the_cover_names_the_object_on_each_patch_and_nothing_elsewhere() -> None:
    scene = draw(_graph(_object("house", "blue", x=0.3)), 128)
    kind, colour = clip._cover(scene, (0, 0, 128, 128))
    assert kind[4, 2] == KINDS.index("house") and colour[4, 2] == list(COLOURS).index("blue")
    assert (kind[:, 6:] == len(KINDS)).all() and (colour[:, 6:] == len(COLOURS)).all()


def test_labels_are_equal_where_pictures_mean_the_same() -> None:
    car, cat, striped = _object("car", "red"), _object("cat", "red"), _object("car", "red", texture="striped")
    assert clip._label(_graph(car, cat), whole=True) == clip._label(_graph(cat, car), whole=True)
    assert clip._label(_graph(car), whole=True) != clip._label(_graph(striped), whole=True)
    assert clip._label(_graph(car), whole=True) != clip._label(_graph(car, background="sea"), whole=True)
    assert clip._label(_graph(car), whole=False) == clip._label(_graph(striped, background="sea"), whole=False)
    assert clip._label(_graph(), whole=False) != clip._label(_graph(background="sea"), whole=False)


def test_the_contrastive_loss_is_small_where_right_pairs_stand_out() -> None:
    right = 20 * torch.eye(4)[None]
    assert clip._symmetric_cross_entropy(right) < 1e-3 < clip._symmetric_cross_entropy(right.flip(1))
    assert clip._symmetric_cross_entropy(torch.zeros(1, 4, 4)).item() == pytest.approx(np.log(4))


def test_the_loss_trains_every_network(model: nn.Module) -> None:
    batch = {key: value[None] for key, value in clip.example(clip.FIRST_SEED + 1).items()}
    value = clip.loss(model, batch, torch.Generator().manual_seed(0))
    value.backward()
    assert torch.isfinite(value)
    assert all(part.grad is not None and part.grad.isfinite().all() for part in model["patches"].parameters())
    assert all(part.grad is not None for part in (*model["words"].parameters(), model["clip"].logit_scale))
    model.zero_grad(set_to_none=True)


def test_the_bundled_one_recognises_kind_and_colour(model: nn.Module) -> None:
    names = [("car", "red"), ("house", "blue"), ("tree", "green"), ("cat", "black"), ("fish", "orange")]
    pictures = torch.stack([clip._resize(draw(_graph(_object(k, c)), 128).image) for k, c in names])
    with torch.no_grad():
        texts = clip._text_features(model["clip"], [f"a {c} {k}" for k, c in names])
        images = clip._image_features(model["clip"], pictures)
    assert torch.allclose(images.norm(dim=1), torch.ones(5), atol=1e-4)
    assert (images @ texts.T).argmax(dim=1).tolist() == [0, 1, 2, 3, 4]


def test_the_scale_of_the_logits_is_limited(model: nn.Module) -> None:
    before = model["clip"].logit_scale.item()
    with torch.no_grad():
        model["clip"].logit_scale.fill_(9.0)
    clip.after_step(model, 1)
    assert model["clip"].logit_scale.exp().item() == pytest.approx(100, rel=1e-3)
    with torch.no_grad():
        model["clip"].logit_scale.fill_(before)
