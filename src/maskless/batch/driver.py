"""The driver: it takes a checked manifest to a finished tree, and leaves nothing half done when it is stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from maskless.batch.contact_sheet import INDEX, index_page
from maskless.batch.journal import SUMMARY, Journal, Plan
from maskless.batch.keys import Keys, model_identity
from maskless.batch.locks import locked
from maskless.batch.manifest import Manifest
from maskless.batch.options import BatchOptions
from maskless.batch.places import digest, is_url
from maskless.batch.rows import Row
from maskless.batch.shards import Shard
from maskless.batch.state import RunState, begin_state
from maskless.batch.stores import Store, open_store
from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError, require
from maskless.data.files import require_writable, write_bytes
from maskless.data.keep_options import KeepOptions
from maskless.data.model_options import ModelOptions
from maskless.records.credentials import Signer

if TYPE_CHECKING:
    from maskless.batch.anchor_training import Trained
    from maskless.batch.engine import Reporter
    from maskless.batch.worker import Worker


SHARED, LESSONS = "anchor_net.pth", "lessons"
"""Among the checkpoints: the AnchorNet of `share_anchornet`, and what each picture teaches it."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch that can be run: the manifest, the share of it that this process does, and all options.

    anchor_net: a checkpoint whose AnchorNet every search starts from, or None.
    """

    manifest: Manifest
    shard: Shard
    options: BatchOptions
    models: ModelOptions
    config: EditConfig
    keep: KeepOptions
    anchor_net: str | None = None

    @property
    def rows(self) -> list[Row]:
        """The rows that this process does."""
        return self.shard.of(self.manifest.rows)


def check_places(batch: Batch) -> Store:
    """The outputs' store, after a check of everything that is cheap to check.

    Raises:
        MasklessError: a folder cannot be written to, a URL cannot be opened, or an option does not fit.
    """
    require_writable(batch.keep.checkpoint_dir)
    require(batch.keep.image_id == "0", "image_id is not an option of a batch: each row has an id of its own")
    require(
        not batch.options.share_anchornet or batch.anchor_net is None,
        "give share_anchornet or load_checkpoint, not both: each is the AnchorNet that every search starts from",
    )
    if batch.options.share_anchornet:
        batch.config.require_learning("share_anchornet")
    if batch.anchor_net is not None:
        batch.config.require_learning("load_checkpoint")
    Signer.of(batch.keep)
    store = open_store(batch.keep.output_dir)
    if batch.keep.tensorboard:
        require(not is_url(store.place), "tensorboard can be written to a folder only, not to a URL")
    return store


def run_batch(batch: Batch, reporter: Reporter, *, loaded: Callable[[Worker], None]) -> Plan:
    """Edit the rows that are missing, and write the tables and the contact sheet; returns what is finished.

    Raises:
        MasklessError: another run uses the outputs, they hold a batch and neither `resume` nor `retry_failed` is set,
            or the models cannot be loaded.
        StorageError: the outputs cannot be written. Everything that is finished stays.
        KeyboardInterrupt: the user stopped the batch. Everything that is finished stays, and so do checkpoints.
    """
    store, rows = check_places(batch), batch.rows
    with locked(store, batch.shard):
        journal = Journal(store)
        journal.refresh()
        again = batch.options.resume or batch.options.retry_failed
        if journal.has_any(rows) and not again:
            raise MasklessError(
                f"{store.place} holds this batch, or a part of it: add --resume to do what is missing, or choose "
                "another --output-dir"
            )
        identity = model_identity(batch.models)
        if batch.options.share_anchornet:
            shared = Path(batch.keep.checkpoint_dir) / SHARED
            if not shared.is_file():
                train(batch, shared, identity, reporter)
            batch = replace(batch, anchor_net=str(shared))
        anchor_net = None if batch.anchor_net is None else digest(batch.anchor_net)
        keys = Keys.of(identity, batch.models, batch.config, batch.keep, anchor_net)
        store.clear_staging(batch.shard.name)
        plan = journal.plan(rows, keys, retry_failed=batch.options.retry_failed)
        _edit(batch, store, journal, keys, plan, reporter, loaded)
        whole = write_results(batch.manifest, store, keys)
    mine = {row.id for row in rows}
    return Plan(
        todo=tuple(row for row in whole.todo if row.id in mine),
        done={row_id: record for row_id, record in whole.done.items() if row_id in mine},
        failed={row_id: record for row_id, record in whole.failed.items() if row_id in mine},
    )


def train(batch: Batch, file: Path, identity: Mapping[str, str], reporter: Reporter) -> Trained:
    """Train one AnchorNet on all rows of the manifest, and write its checkpoint.

    A placed search edits too few regions to learn from, so the learned search is made in its place.

    identity: of the models, from `model_identity`.

    Raises:
        MasklessError: the models cannot be loaded, or no row searches for a region.
    """
    from maskless.batch.anchor_training import train_shared
    from maskless.batch.worker import Worker, WorkerSettings

    config = replace(batch.config, search="learned") if batch.config.search == "placed" else batch.config
    keys = Keys.of(identity, batch.models, config, batch.keep)
    settings = WorkerSettings(
        output=batch.keep.output_dir, models=batch.models, config=config, keep=batch.keep, keys=keys,
        threads=batch.options.threads,
    )  # fmt: skip
    lessons = Path(batch.keep.checkpoint_dir) / LESSONS
    trained = train_shared(batch.manifest.rows, Worker(settings), lessons, progress=reporter.training)
    write_bytes(file, trained.content)
    reporter.note(
        f"AnchorNet learned from {trained.lessons} pictures: mean expected cost {trained.before:.3f} before and "
        f"{trained.after:.3f} after, in standard deviations"
    )
    return trained


def _edit(
    batch: Batch, store: Store, journal: Journal, keys: Keys, plan: Plan, reporter: Reporter,
    loaded: Callable[[Worker], None],
) -> None:  # fmt: skip
    """Run the engine over the rows that are left, and keep the state file."""
    from maskless.batch.engine import Queue
    from maskless.batch.worker import WorkerSettings

    state = RunState(
        engine=batch.options.engine,
        shard=batch.shard.name,
        rows=len(batch.manifest.rows),
        total=len(batch.rows),
        invalid=len(batch.manifest.problems),
        done=len(plan.done),
        failed=len(plan.failed),
    )
    file, tries = begin_state(store, state, batch.shard)
    settings = WorkerSettings(
        output=batch.keep.output_dir,
        models=batch.models,
        config=batch.config,
        keep=replace(batch.keep, image_id="0"),
        keys=keys,
        owner=batch.shard.name,
        threads=batch.options.threads,
        row_seconds=batch.options.row_timeout,
        anchor_net=batch.anchor_net,
    )
    queue = Queue(plan.todo, journal=journal, keys=keys, state=file, reporter=reporter, tries=tries)
    reporter.skipped(len(plan.done), len(plan.failed))
    try:
        if plan.todo and batch.options.engine == "local":
            from maskless.batch.local import run_local

            run_local(queue, settings, reporter, loaded=loaded)
        elif plan.todo:
            from maskless.batch.ray_engine import run_ray

            run_ray(queue, settings, reporter, options=batch.options, state=file)
    except BaseException:
        file.ended(complete=False)
        raise
    file.ended(complete=True)


def write_results(manifest: Manifest, store: Store, keys: Keys) -> Plan:
    """Write the tables, the summary and the contact sheet of the whole batch, from the markers of all shards."""
    journal = Journal(store)
    plan = journal.write_tables(manifest.rows, keys)
    store.write(INDEX, index_page(manifest.rows, plan))
    records = [*plan.done.values(), *plan.failed.values()]
    summary = {
        "manifest": manifest.source,
        "rows": len(manifest.rows) + len(manifest.problems),
        "done": len(plan.done),
        "failed": len(plan.failed),
        "invalid": [{"line": problem.line, "problem": problem.text} for problem in manifest.problems],
        "left": len(plan.todo),
        "seconds": round(sum(record["seconds"] for record in records), 3),
        "inpaintings": sum(record["cost"]["inpaintings"] for record in plan.done.values()),
        "workers": len({record["worker"] for record in plan.done.values()}),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    store.write(SUMMARY, (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass"))
    return plan
