"""A small BPE tokenizer in CLIP's format: each word of the captions is one token, and any other text has tokens too."""

from __future__ import annotations

import json

import numpy as np
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

from maskless.storybook.world.captions import (
    BACKGROUND_WORDS,
    NUMBERS,
    describe_empty,
    describe_object,
    describe_scene,
    plural,
)
from maskless.storybook.world.graph import COLOURS, KINDS, TEXTURES, sample
from maskless.storybook.world.scenes import split_seed

CONTEXT = 32  # tokens of a text
# Words of instructions, beside those of the captions.
_WORDS = (
    "replace remove add change make turn into with without next to left right of top bottom centre center middle",
    "background picture photo image painting style texture grey light dark tiny large huge little several many some",
    "it is there no nothing",
)
_SPLIT = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def corpus() -> list[str]:
    """The texts that the vocabulary is learned from: captions, and every single word often enough to become a token."""
    rng = np.random.default_rng(0)
    graphs = [sample(split_seed("train", i)) for i in range(4000)]
    texts = [describe_scene(graph, rng) for graph in graphs]
    texts += [describe_object(item, rng) for graph in graphs for item in graph.objects]
    texts += [describe_empty(background, rng) for background in BACKGROUND_WORDS for _ in range(20)]
    words = [
        *KINDS,
        *(plural(kind) for kind in KINDS),
        *COLOURS,
        *TEXTURES,
        *BACKGROUND_WORDS,
        *NUMBERS,
        *" ".join(_WORDS).split(),
    ]
    return texts + [word for word in words for _ in range(50)]


def build_tokenizer() -> CLIPTokenizer:
    """Learn the tokenizer from the corpus; it comes out the same at every call."""
    learned = Tokenizer(BPE(end_of_word_suffix="</w>"))
    learned.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    learned.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    trainer = BpeTrainer(
        vocab_size=4000, min_frequency=20, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    learned.train_from_iterator(corpus(), trainer)
    merges = [tuple(pair) for pair in _merges(learned)]
    vocabulary = {token: i for i, token in enumerate(special)}
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    for token in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[token] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT)


def _merges(tokenizer: Tokenizer) -> list[list[str]]:
    """The merges [left, right] that a tokenizer has learned, in order; some versions write a merge as one string."""
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [merge if isinstance(merge, list) else merge.split(" ") for merge in merges]
