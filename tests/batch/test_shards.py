"""Shards: each row belongs to one of them, and torchrun sets the shard and the GPU."""

import pytest

from maskless.batch.shards import Shard, choose_gpu, chosen_shard
from maskless.data.errors import MasklessError

RANK = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}


def test_every_row_is_in_one_shard():
    rows = list(range(11))
    shards = [Shard(index=index, count=4).of(rows) for index in range(4)]
    assert sorted(sum(shards, [])) == rows and max(map(len, shards)) - min(map(len, shards)) <= 1


def test_the_flag_comes_before_torchrun_and_torchrun_before_the_whole():
    assert chosen_shard(" 1 / 2 ", RANK) == Shard(index=1, count=2)
    assert chosen_shard(None, RANK) == Shard(index=5, count=8)
    assert chosen_shard(None, {"RANK": "1"}) == Shard()


@pytest.mark.parametrize("text", ["2/2", "1", "a/b", "-1/2", "1/0", ""])
def test_other_texts_are_refused(text):
    with pytest.raises(MasklessError, match="i/n with i from 0"):
        chosen_shard(text, {})


@pytest.mark.parametrize(
    ("visible", "expected"), [(None, "1"), ("4,7", "7"), ("4", "4"), ("", ""), ("GPU-a,GPU-b", "GPU-b")]
)
def test_a_local_rank_has_its_gpu(visible, expected):
    environment = RANK | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    choose_gpu(environment)
    assert environment["CUDA_VISIBLE_DEVICES"] == expected
    alone: dict[str, str] = {}
    choose_gpu(alone)
    assert alone == {}
