"""maskless batch and maskless train: a manifest of pictures, on one machine, as shards, or on a Ray cluster."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskless.batch.options import BatchOptions, ManifestOptions
from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.data.keep_options import KeepOptions
from maskless.data.model_options import ModelOptions
from maskless.interfaces.batch_console import BatchConsole
from maskless.interfaces.options import (
    CHECKPOINTS,
    DISPLAY,
    BoxText,
    Caption,
    CheckpointDir,
    ExtendText,
    Instructed,
    MaskFile,
    Prompt,
    TaskName,
    with_options,
)

if TYPE_CHECKING:
    from maskless.batch.driver import Batch

EXIT_STOPPED, EXIT_SOME_FAILED, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 3, 130, 143


Manifested = Annotated[
    str,
    typer.Argument(
        metavar="MANIFEST",
        help="A .json, .jsonl or .csv file, a folder of pictures, or a pattern such as 'photos/*.jpg'.",
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.", rich_help_panel=DISPLAY)]


@with_options
def batch(
    *,
    manifest: Manifested,
    instruction: Instructed = None,
    task: TaskName = None,
    caption: Caption = "",
    prompt: Prompt = None,
    mask: MaskFile = None,
    box: BoxText = None,
    extend: ExtendText = None,
    options: BatchOptions,
    config: EditConfig,
    keep: KeepOptions,
    load_checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Start every search from the AnchorNet in this file.",
            rich_help_panel=CHECKPOINTS,
            show_default=False,
        ),
    ] = None,
    models: ModelOptions,
    quiet: Quiet = False,
    json_only: Annotated[
        bool, typer.Option("--json", help="Print the counts as JSON on stdout, nothing else.", rich_help_panel=DISPLAY)
    ] = False,
) -> None:
    """Edit many pictures. What is finished is never done twice, and a batch that was stopped continues with --resume.

    [bold]maskless batch[/] rows.jsonl --output-dir output

    [bold]maskless batch[/] photos/ --caption "a red car" --prompt "a blue house"

    Texts and options given here are for the rows that have none of their own.

    Exit status: 3 if some rows failed, 143 after SIGTERM, 130 after Ctrl-C.
    """
    from maskless.batch.shards import choose_gpu

    choose_gpu(os.environ)
    defaults = {"instruction": instruction, "task": task, "caption": caption, "prompt": prompt,
                "mask": None if mask is None else os.path.abspath(mask), "box": box, "extend": extend}  # fmt: skip
    whole = _read(manifest, defaults, options, config, keep, models, load_checkpoint)
    console = BatchConsole(quiet=quiet, json_only=json_only)
    console.checked(whole.manifest, len(whole.rows))
    _exit(_stoppable(lambda: _run(whole, console), console, "continue with --resume"))


@with_options
def train(
    *,
    manifest: Manifested,
    instruction: Instructed = None,
    task: TaskName = None,
    caption: Caption = "",
    prompt: Prompt = None,
    output: Annotated[Path, typer.Option(help="The checkpoint to write.", rich_help_panel=CHECKPOINTS)] = Path(
        "anchor_net.pth"
    ),
    options: ManifestOptions,
    config: EditConfig,
    checkpoint_dir: CheckpointDir = "checkpoints",
    models: ModelOptions,
    quiet: Quiet = False,
) -> None:
    """Train one AnchorNet on all pictures of a manifest, for --load-checkpoint. Training that was stopped continues.

    Each picture is searched by the learned search, unless --search says paper or exhaustive.

    [bold]maskless train[/] rows.jsonl --output anchor_net.pth

    [bold]maskless batch[/] more.jsonl --search learned --load-checkpoint anchor_net.pth
    """
    from maskless.batch import driver
    from maskless.batch.keys import model_identity
    from maskless.data.files import require_writable

    defaults = {"instruction": instruction, "task": task, "caption": caption, "prompt": prompt}
    chosen = BatchOptions(**asdict(options))
    whole = _read(manifest, defaults, chosen, config, KeepOptions(checkpoint_dir=checkpoint_dir), models)
    require_writable(output.parent)
    console = BatchConsole(quiet=quiet)

    def work() -> int:
        driver.train(whole, output, model_identity(models), console)
        console.note(f"written to {output}")
        return 0

    _exit(_stoppable(work, console, "repeat the command to continue"))


def _report_problems(batch: Batch) -> None:
    """List the bad rows, and stop unless they are to be left out."""
    manifest = batch.manifest
    problems = manifest.problems
    total = len(manifest.rows) + len(problems)
    if not manifest.rows and len({problem.text for problem in problems}) == 1:
        raise MasklessError(f"all {total} rows of {manifest.source} have the same problem: {problems[0].text}")
    for problem in problems:
        print(f"{manifest.source}:{problem.line}: {problem.text}", file=sys.stderr)
    if problems and (not batch.options.skip_invalid or not manifest.rows):
        hint = "; mend them, or leave them out with --skip-invalid" if manifest.rows else ""
        raise MasklessError(f"{len(problems)} of {total} rows of {manifest.source} are not valid{hint}")


def _read(
    manifest: str, defaults: dict[str, Any], options: BatchOptions, config: EditConfig, keep: KeepOptions,
    models: ModelOptions, load_checkpoint: Path | None = None,
) -> Batch:  # fmt: skip
    """The batch, after a check of the whole manifest and of everything else that is cheap to check."""
    from maskless.batch.driver import Batch, check_places
    from maskless.batch.manifest import read_manifest
    from maskless.batch.shards import chosen_shard

    shard = chosen_shard(options.shard, os.environ)
    rows = read_manifest(manifest, image_dir=options.image_dir, defaults=defaults, config=config)
    if load_checkpoint is not None and not load_checkpoint.is_file():
        raise MasklessError(f"no such checkpoint: {load_checkpoint}")
    whole = Batch(
        manifest=rows, shard=shard, options=options, models=models, config=config, keep=keep,
        anchor_net=None if load_checkpoint is None else str(load_checkpoint),
    )  # fmt: skip
    _report_problems(whole)
    check_places(whole)
    return whole


def _run(batch: Batch, console: BatchConsole) -> int:
    """Run a batch that was checked; returns the exit status."""
    from maskless.batch.driver import run_batch
    from maskless.batch.shards import under_torchrun
    from maskless.batch.state import wait_for_others
    from maskless.batch.stores import open_store

    plan = run_batch(batch, console, loaded=console.loaded)
    console.summary(plan, batch.keep.output_dir)
    if plan.failed and under_torchrun(os.environ):
        # torchrun ends all ranks as soon as one exits with an error.
        console.note("waiting for the other ranks, as rows of this one have failed")
        wait_for_others(open_store(batch.keep.output_dir), batch.shard)
    return EXIT_SOME_FAILED if plan.failed else 0


def _stoppable(work: Callable[[], int], console: BatchConsole, hint: str) -> int:
    """Do the work, and return its exit status or that of what stopped it. hint: how to continue."""
    from maskless.batch.stores import StorageError

    terminated: list[int] = []
    try:
        with _interrupted_by_sigterm(terminated), console.running():
            return work()
    except KeyboardInterrupt:
        word, status = ("terminated", EXIT_TERMINATED) if terminated else ("interrupted", EXIT_INTERRUPTED)
        return _stopped(f"{word}; {hint}", status)
    except StorageError as error:
        return _stopped(f"{error}; {hint}", EXIT_STOPPED)


def _exit(status: int) -> None:
    if status:
        raise typer.Exit(status)


def _stopped(message: str, status: int) -> int:
    print(f"maskless: {' '.join(message.split())}", file=sys.stderr)
    return status


@contextmanager
def _interrupted_by_sigterm(received: list[int]) -> Iterator[None]:
    """Let SIGTERM, which Slurm and Kubernetes send, interrupt the block as Ctrl-C does, and note it in `received`.

    Only the first one counts, so that the checkpoint that follows is not disturbed. A note and not an exception of its
    own, because Ray turns every interruption into a KeyboardInterrupt.
    """

    def interrupt(number: int, _frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        received.append(number)
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread, where no handler can be set
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
