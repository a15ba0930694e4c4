"""The tokenizer: one token for each word of the captions, and tokens for any other text."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import CLIPTokenizer

from maskless.storybook.training.tokenizer import CONTEXT, build_tokenizer
from maskless.storybook.world.captions import NUMBERS, describe_scene, plural
from maskless.storybook.world.graph import COLOURS, KINDS, TEXTURES, sample


@pytest.fixture(scope="module")
def tokens() -> CLIPTokenizer:
    return build_tokenizer()


def test_every_caption_fits_the_context_and_known_words_are_one_token(tokens: CLIPTokenizer) -> None:
    rng = np.random.default_rng(1)
    longest = max(len(tokens(describe_scene(sample(seed), rng)).input_ids) for seed in range(400))
    assert longest <= 2 * CONTEXT
    for word in (*KINDS, *map(plural, KINDS), *COLOURS, *TEXTURES, *NUMBERS):
        assert len(tokens.tokenize(word)) == 1, word


def test_unknown_words_have_tokens_too(tokens: CLIPTokenizer) -> None:
    for text in ("xylophone", "Zürich 🙂", "", "a" * 500, "日本語"):
        ids = tokens(text).input_ids
        assert ids[0] == tokens.bos_token_id and ids[-1] == tokens.eos_token_id
        assert max(ids) < len(tokens)


def test_case_and_spaces_do_not_matter(tokens: CLIPTokenizer) -> None:
    assert tokens("A  Red\nCAR").input_ids == tokens("a red car").input_ids
