"""The status of a batch, read from its files while it runs or afterwards. No model is loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from maskless.batch.journal import DONE, FAILED
from maskless.batch.places import is_url, local
from maskless.batch.state import RunState, read_states
from maskless.batch.stores import FolderStore, ObjectStore
from maskless.records.run_file import COMPLETE, INTERRUPTED, RUNNING


@dataclass(frozen=True, kw_only=True)
class BatchStatus:
    """The status of a batch.

    state: running (some shard is), complete, or interrupted. rows: good rows of the manifest. done, failed, left: of
    all shards. per_minute: of the shards that run now, together; None if none has finished a row. minutes_left: at that
    rate. runs: the latest run of each shard, with its workers.
    """

    output_dir: str
    state: str
    rows: int
    done: int
    failed: int
    left: int
    invalid: int
    per_minute: float | None
    minutes_left: float | None
    runs: tuple[RunState, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        alive = {run.shard: run.is_alive() for run in self.runs}
        runs = [asdict(run) | {"alive": alive[run.shard], "per_minute": run.per_minute} for run in self.runs]
        return asdict(self) | {"runs": runs}


def read_batch_status(output_dir: str) -> BatchStatus | None:
    """The status of the batch in a folder or behind a URL; None if there is none.

    Raises:
        MasklessError: the place cannot be read.
    """
    place = local(output_dir)
    store = ObjectStore(place) if is_url(place) else FolderStore(place)
    runs = read_states(store)
    if not runs:
        return None
    marked = {status: {name.partition("-")[0] for name in store.names(f"batch/{status}")} for status in (DONE, FAILED)}
    done, failed = len(marked[DONE]), len(marked[FAILED] - marked[DONE])
    newest = max(runs, key=lambda run: run.started)
    left = max(0, newest.rows - done - failed)
    alive = [run for run in runs if run.is_alive()]
    rates = [run.per_minute for run in alive if run.per_minute is not None]
    rate = sum(rates) if rates else None
    complete = not left and all(run.state == COMPLETE for run in runs)
    return BatchStatus(
        output_dir=output_dir,
        state=RUNNING if alive else COMPLETE if complete else INTERRUPTED,
        rows=newest.rows,
        done=done,
        failed=failed,
        left=left,
        invalid=newest.invalid,
        per_minute=None if rate is None else round(rate, 2),
        minutes_left=None if rate is None else round(left / rate, 1),
        runs=tuple(runs),
    )
