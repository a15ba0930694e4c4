"""Weighted prompts."""

import sys

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.models.inpainters.weighting import is_weighted


def test_what_counts_as_weighted():
    for text in ("a (blue)1.4 house", "a (blue house)++", "(trees)-", "(a cat).5"):
        assert is_weighted("a tree", text), text
    for text in ("a house (blue) and 2 trees", "a C++ book", "(blue)", "a well-kept lawn", ""):
        assert not is_weighted(text), text


def test_without_compel_it_is_one_clear_line(family_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "compel", None)
    with pytest.raises(MasklessError, match="needs compel: pip install"):
        family_model("sd").encode_prompt("a (blue)1.4 house")


@pytest.mark.parametrize("name", ["sd", "sdxl-inpainting"])
def test_a_weight_changes_what_is_drawn(family_model, draw, name):
    pytest.importorskip("compel")
    model = family_model(name)
    plain, light = model.encode_prompt("a (blue)1.0 house"), model.encode_prompt("a (blue)1.5 house", "(trees)1.2")
    assert plain.prompt.shape == light.prompt.shape == light.negative.shape
    assert not torch.equal(plain.prompt, light.prompt)
    assert not torch.equal(draw(model, prompt="a (blue)1.5 house"), draw(model, prompt="a (blue)0.5 house"))
