"""The local engine: one worker in this process, which decodes the next picture while it edits the present one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from maskless.batch.engine import Queue, Reporter
from maskless.batch.rows import Row
from maskless.batch.worker import Prepared, Worker, WorkerSettings


def run_local(queue: Queue, settings: WorkerSettings, reporter: Reporter, *, loaded: Callable[[Worker], None]) -> None:
    """Edit all rows of a queue. loaded: called once with the worker, when its models are loaded.

    Raises:
        MasklessError: the models cannot be loaded.
        StorageError: the outputs cannot be written. Everything that is finished stays.
        KeyboardInterrupt: the user stopped the batch; the row in flight has its checkpoint.
    """
    import torch

    threads = torch.get_num_threads()
    try:
        _run(queue, Worker(settings), reporter, loaded)
    finally:
        torch.set_num_threads(threads)


def _run(queue: Queue, worker: Worker, reporter: Reporter, loaded: Callable[[Worker], None]) -> None:
    loaded(worker)
    ahead: tuple[Row, Future[Prepared]] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as pool:

        def decode_next() -> tuple[Row, Future[Prepared]] | None:
            row = queue.next()
            return None if row is None else (row, pool.submit(worker.prepare, row))

        while (ahead := ahead or decode_next()) is not None:
            row, prepared = ahead
            queue.begin(worker.name, row)
            ahead = decode_next()
            outcome = worker.attempt(prepared.result(), on_step=lambda step, row=row: reporter.step(row, step))  # type: ignore[misc]
            queue.end(worker.name, outcome)
