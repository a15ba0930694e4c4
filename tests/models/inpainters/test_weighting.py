"""Weighted prompts."""

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.models.inpainters.weighting import is_weighted, weighted_parts, without_weights


def test_what_counts_as_weighted():
    for text in ("a (blue:1.4) house", "a (blue house:.5)", "(trees: 0)", "(a cat:2)", "(C) 1999 (red:1.1)"):
        assert is_weighted("a tree", text), text
    for text in (
        "a poster (C)1999", "a house (blue) and 2 trees", "a C++ book", "(blue)1.4", "(a cat)++", "a map (scale 1:2)",
        "(ratio 16:9)", "(at noon: 12)", r"\(blue:1.4\)", r"(blue:1.4\)", "(:1.2)", "(blue:1.4", "(blue:-1)", "",
    ):  # fmt: skip
        assert not is_weighted(text), text


def test_the_parts_of_a_text():
    assert weighted_parts("a (blue:1.4) house, (no trees:0)") == [
        ("a ", 1.0), ("blue", 1.4), (" house, ", 1.0), ("no trees", 0.0)
    ]  # fmt: skip
    assert without_weights("a (blue:1.4) house (C)1999") == "a blue house (C)1999"
    assert without_weights(r"a film \(1999\) (blue:1.4)") == "a film (1999) blue"
    assert without_weights("") == ""


@pytest.mark.parametrize("name", ["sd", "sdxl-inpainting"])
def test_a_weight_changes_what_is_drawn_and_a_weight_of_one_does_not(family_model, draw, name):
    model = family_model(name)
    plain, one = model.encode_prompt("a blue house"), model.encode_prompt("a (blue:1.0) house")
    assert torch.equal(plain.prompt, one.prompt)
    strong, weak = model.encode_prompt("a (blue:1.5) house", "(trees:1.2)"), model.encode_prompt("a (blue:0.5) house")
    assert plain.prompt.shape == strong.prompt.shape == strong.negative.shape
    # The model's own states are the middle of those with weights on both sides of 1.
    assert torch.allclose((strong.prompt + weak.prompt) / 2, plain.prompt, atol=1e-4)
    assert not torch.equal(strong.negative, model.encode_prompt("", "trees").negative)
    assert not torch.equal(draw(model, prompt="a (blue:1.5) house"), draw(model, prompt="a (blue:0.5) house"))


def test_weights_in_a_prompt_longer_than_the_context(family_model):
    long = "a blue house with a red door and a green roof beside a tall (tree:1.5) at night"
    model = family_model("sd")
    weighted, plain = model.encode_prompt(long).prompt, model.encode_prompt(long.replace("(tree:1.5)", "tree")).prompt
    assert weighted.shape == plain.shape and weighted.shape[1] > 32
    changed = (weighted != plain).any(dim=-1)[0].nonzero()
    assert 0 < len(changed) <= 5 and int(changed.min()) > 32, "only the letters of one word, in a later piece"


def test_plain_brackets_are_plain_text(family_model):
    model = family_model("sd")
    assert not torch.equal(model.encode_prompt("a poster (C)1999").prompt, model.encode_prompt("a poster C1999").prompt)


@pytest.mark.parametrize("name", ["flux", "z-image"])
def test_a_flow_model_refuses_weights(family_model, name):
    model = family_model(name)
    with pytest.raises(MasklessError, match=r"weights such as \(words:1.3\) work with Stable Diffusion 1.5, 2 and XL"):
        model.encode_prompt("a (blue:1.4) house")
    model.encode_prompt("a poster (C)1999")
