"""Who excludes whom: the whole excludes all, a shard excludes the whole and itself. A dead process keeps nothing."""

import os
import signal
import time

import pytest

from maskless.batch.locks import locked
from maskless.batch.shards import Shard
from maskless.batch.stores import open_store
from maskless.data.errors import MasklessError

WHOLE, FIRST, SECOND = Shard(), Shard(index=0, count=2), Shard(index=1, count=2)


@pytest.mark.parametrize(
    ("held", "wanted", "refused"),
    [(WHOLE, WHOLE, True), (WHOLE, FIRST, True), (FIRST, WHOLE, True), (FIRST, FIRST, True), (FIRST, SECOND, False)],
)
def test_who_excludes_whom(tmp_path, held, wanted, refused):
    store = open_store(str(tmp_path / "output"))
    with locked(store, held):
        if refused:
            with pytest.raises(MasklessError, match="is in use by"), locked(store, wanted):
                pass
        else:
            with locked(store, wanted):
                pass
    with locked(store, wanted):
        pass


def test_a_dead_process_keeps_no_lock(tmp_path):
    store = open_store(str(tmp_path / "output"))
    child = os.fork()
    if not child:
        with locked(store, FIRST):
            (tmp_path / "held").touch()
            time.sleep(60)
        os._exit(0)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with pytest.raises(MasklessError), locked(store, WHOLE):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with locked(store, WHOLE):
        pass
