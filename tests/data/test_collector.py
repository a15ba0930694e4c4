"""Garbage collection is paused while libraries and models are loaded, and is as before afterwards."""

import gc

import pytest

from maskless.data.collector import collector_paused


def test_the_collector_is_off_in_the_block_only():
    assert gc.isenabled()
    with pytest.raises(ValueError, match="in the block"), collector_paused():
        assert not gc.isenabled()
        raise ValueError("in the block")
    assert gc.isenabled() and gc.get_freeze_count() == 0


def test_what_the_block_made_is_old_afterwards():
    with collector_paused():
        made = [[] for _ in range(5000)]
    young = {id(each) for generation in (0, 1) for each in gc.get_objects(generation)}
    assert not young & {id(each) for each in made}


def test_cycles_of_the_block_are_still_collected():
    class Node:
        pass

    with collector_paused():
        node = Node()
        node.itself = node
        del node
    assert gc.collect() > 0


def test_a_collector_that_is_off_stays_off_and_what_is_frozen_stays_frozen():
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    gc.freeze()
    try:
        with collector_paused():
            pass
        assert gc.get_freeze_count() > 0 and gc.isenabled()
    finally:
        gc.unfreeze()
