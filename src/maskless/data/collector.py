"""Python's search for reference cycles, which is a waste of time while libraries are imported and models are read."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """A block in which the garbage collector does not run.

    Importing the model libraries makes very many objects that stay, and the collector would walk them all again and
    again (docs/performance.md). What was made in the block counts as old afterwards, so that the next collection does
    not walk it either. A collector that is off stays off.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:  # what the program has frozen itself stays frozen
            gc.freeze()
            gc.unfreeze()  # together they move all objects to the oldest generation, without a look at them
        gc.enable()
