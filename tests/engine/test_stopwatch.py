"""Seconds by stage add up, also when a stage fails, and peak memory follows what is allocated."""

import time
from pathlib import Path

import pytest
import torch

from maskless.engine.stopwatch import Stopwatch, peak_memory_mb, reset_peak_memory

CPU = torch.device("cpu")
CLEAR = Path("/proc/self/clear_refs")


def test_seconds_of_a_stage_add_up_and_stages_are_apart():
    stopwatch = Stopwatch()
    for name in ("drawing", "looking", "drawing"):
        with stopwatch.stage(name):
            time.sleep(0.01)
    assert set(stopwatch.seconds) == {"drawing", "looking"}
    assert stopwatch.seconds["drawing"] >= 0.02 and 0.01 <= stopwatch.seconds["looking"]
    before = dict(stopwatch.seconds)
    time.sleep(0.01)
    assert stopwatch.seconds == before, "what is between two stages does not count"


def test_a_stage_that_fails_counts_and_its_error_goes_on():
    stopwatch = Stopwatch()
    with pytest.raises(KeyboardInterrupt), stopwatch.stage("drawing"):
        time.sleep(0.01)
        raise KeyboardInterrupt
    assert stopwatch.seconds["drawing"] >= 0.01


def test_it_continues_from_an_earlier_run_and_leaves_that_alone():
    earlier = {"drawing": 100.0, "looking": 7.0}
    stopwatch = Stopwatch(earlier)
    with stopwatch.stage("drawing"):
        pass
    assert 100 < stopwatch.seconds["drawing"] < 101 and stopwatch.seconds["looking"] == 7
    assert earlier == {"drawing": 100.0, "looking": 7.0}
    assert Stopwatch(None).seconds == {}


def test_peak_memory_grows_with_what_is_allocated():
    """In mebibytes: 300 more are at least 200 more, whatever else the process gave back meanwhile."""
    reset_peak_memory(CPU)
    before = peak_memory_mb(CPU)
    block = torch.ones(300 * 2**18)
    after = peak_memory_mb(CPU)
    assert before > 50 and after - before > 200
    del block
    assert peak_memory_mb(CPU) >= after, "a peak stays when the memory is free again"


@pytest.mark.skipif(not CLEAR.exists(), reason="only Linux lets a process begin its peak again")
def test_peak_memory_begins_again():
    block = torch.ones(300 * 2**18)
    peak = peak_memory_mb(CPU)
    del block
    reset_peak_memory(CPU)
    assert peak_memory_mb(CPU) < peak - 200
