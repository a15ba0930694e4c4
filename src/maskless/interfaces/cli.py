"""The command line: parses, calls the Python API, writes. Imports of the models wait until a command needs them."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from maskless.data.config import NEED_NO_PROMPT, TASKS, EditConfig
from maskless.data.errors import MasklessError
from maskless.data.instructions import Instruction, parse_instruction
from maskless.interfaces import commands
from maskless.interfaces.console import EditConsole
from maskless.interfaces.options import (
    CHECKPOINTS,
    DISPLAY,
    OUTPUT,
    BoxText,
    Caption,
    CheckpointDir,
    ClipName,
    DinoName,
    ExtendText,
    Instructed,
    MaskFile,
    ModelsName,
    OutputDir,
    Prompt,
    RedrawName,
    TaskName,
    config_options,
)

if TYPE_CHECKING:
    from maskless.data.result import EditResult
    from maskless.data.types import EditRequest
    from maskless.engine.editor import Editor
    from maskless.engine.tasks import Run
    from maskless.records.checkpoints import Checkpoint
    from maskless.records.outputs import SavedEdit
    from maskless.records.tensorboard import TensorBoardLog

EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130
# Typer carries its own copy of click or uses the installed one; this is the base of the errors that either raises.
USAGE_ERROR: type[Exception] = cast(type[Exception], typer.BadParameter.__mro__[2])
NOT_REPEATED = {"quiet", "json_only", "load_checkpoint"}
"""Parameters of `edit` that change nothing in what it makes: a run that goes on ends as one that was never stopped."""

app = typer.Typer(
    help="Edit pictures with words, without masks: the region to edit is learned and everything outside it stays.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0 done, 2 bad input (one line on stderr), 130 interrupted."""
    import warnings

    # Advice of libraries to their developers; what concerns the user is said in this package's own words.
    warnings.filterwarnings("ignore")
    command = typer.main.get_command(app)
    try:
        status = command.main(args=arguments, prog_name="maskless", standalone_mode=False)
    except MasklessError as error:
        status = _complain(str(error), EXIT_BAD_INPUT)
    except USAGE_ERROR as error:
        # Typer's way to print the help where no command is given is an error without a message.
        message = getattr(error, "format_message", error.__str__)()
        status = _complain(f"{message} (see maskless --help)", EXIT_BAD_INPUT) if message.strip() else EXIT_BAD_INPUT
    except (KeyboardInterrupt, typer.Abort):
        status = _complain("interrupted", EXIT_INTERRUPTED)
    except (MemoryError, RuntimeError) as error:
        from maskless.models.memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        status = _complain("out of memory; try a lower --memory level, or a smaller model (see maskless models)", 1)
    sys.exit(status if isinstance(status, int) else 0)


def _complain(message: str, status: int) -> int:
    print(f"maskless: {' '.join(message.split())}", file=sys.stderr)
    return status


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from maskless import __version__

        print(f"maskless {__version__}")
        raise typer.Exit()


@app.command()
@config_options
def edit(
    *,
    invoked: Any,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The picture to edit.", show_default=False)],
    instruction: Instructed = None,
    task: TaskName = None,
    caption: Caption = "",
    prompt: Prompt = None,
    mask: MaskFile = None,
    box: BoxText = None,
    extend: ExtendText = None,
    options: dict[str, Any],
    output_dir: OutputDir = Path("output"),
    image_id: Annotated[str, typer.Option(help="Begins the names of files.", rich_help_panel=OUTPUT)] = "0",
    draw_box: Annotated[
        bool, typer.Option("--draw-box", help="Also write the source with each box drawn.", rich_help_panel=OUTPUT)
    ] = False,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard", help="Log to tensorboard/ among the outputs, as it goes on.", rich_help_panel=OUTPUT
        ),
    ] = False,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    load_checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Go on from this file; one of another edit gives its AnchorNet to start from.",
            rich_help_panel=CHECKPOINTS,
            show_default=False,
        ),
    ] = None,
    models: ModelsName = "storybook",
    dino: DinoName = None,
    clip: ClipName = None,
    redraw: RedrawName = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say nothing but errors.", rich_help_panel=DISPLAY)
    ] = False,
    json_only: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on stdout, nothing else.", rich_help_panel=DISPLAY)
    ] = False,
) -> None:
    """Edit a picture: find the place, change it, and rank the results; every pixel outside stays as it was.

    [bold]maskless edit[/] scene.png --caption "a red car" --prompt "a blue house"

    [bold]maskless edit[/] scene.png "remove the cat"
    """
    config = EditConfig(**options)
    # Before the heavy imports, and long before the work: what would make it fail at the end.
    from maskless.data.files import require_writable
    from maskless.engine.requests import make_request

    asked = _asked(instruction, task=task, caption=caption, prompt=prompt, extend=extend)
    request = make_request(image, **asked, mask=mask, box=box)
    for folder in (output_dir, checkpoint_dir):
        require_writable(folder)
    console = EditConsole(quiet=quiet, json_only=json_only)

    if tensorboard:
        from maskless.records.tensorboard import summary_writer

        summary_writer()

    from maskless import Editor
    from maskless.records.checkpoints import load_checkpoint as open_checkpoint
    from maskless.records.outputs import save_edit

    checkpoint = open_checkpoint(load_checkpoint) if load_checkpoint is not None else None
    began = time.perf_counter()
    console.fetching(models, dino=dino, clip=clip, redraw=redraw, config=config)
    with console.waiting("Loading the models"):
        editor = Editor.from_pretrained(models, dino=dino, clip=clip, redraw=redraw, config=config)
    console.models_loaded(editor.models, time.perf_counter() - began)

    def save(run: Run) -> tuple[EditResult, SavedEdit]:
        result, command = run.result(), _command_line(invoked)
        return result, save_edit(result, output_dir, image_id=image_id, draw_box=draw_box, command=command)

    def start_log(run: Run) -> AbstractContextManager[TensorBoardLog | None]:
        from maskless.records.tensorboard import TensorBoardLog

        if not tensorboard:
            return nullcontext()
        return TensorBoardLog(output_dir, image_id=image_id, caption=request.caption, sizes=run.config.sizes)

    result, saved = _searched(console, editor, request, checkpoint, checkpoint_dir, start_log, save)
    console.finished(result, saved)


def _asked(
    instruction: str | None, *, task: str | None, caption: str, prompt: str | None, extend: str | None
) -> dict[str, Any]:
    """Task, texts and canvas, by the instruction where there is one; a flag wins over what it says."""
    read = Instruction(task="replace") if instruction is None else parse_instruction(instruction)
    chosen = read.task if task is None else task
    if prompt is None and not read.prompt and chosen in TASKS and chosen not in NEED_NO_PROMPT:
        raise MasklessError(
            "say what to do: --prompt “a blue house”, or an instruction such as “remove the cat” "
            "(see maskless edit --help)"
        )
    return {
        "task": chosen,
        "caption": caption or read.caption,
        "prompt": read.prompt if prompt is None else prompt,
        "extend": extend if extend is not None else read.extend or None,
    }


def _searched(
    console: EditConsole,
    editor: Editor,
    request: EditRequest,
    checkpoint: Checkpoint | None,
    checkpoint_dir: Path,
    start_log: Callable[[Run], AbstractContextManager[TensorBoardLog | None]],
    save: Callable[[Run], tuple[EditResult, SavedEdit]],
) -> tuple[EditResult, SavedEdit]:
    """Run an edit to its end, keeping its checkpoints and its log; on Ctrl-C say how to go on, and exit."""
    from maskless.engine.search_run import EditRun
    from maskless.records.checkpoints import CheckpointKeeper, ProgressKeeper, started_from

    keeper: CheckpointKeeper | ProgressKeeper | None = None
    try:
        with console.waiting("Looking at the picture"):
            run = editor.start(request)
            note = None
            if checkpoint is not None:
                if not isinstance(run, EditRun):
                    raise MasklessError(
                        f"only a search for a region goes on from a checkpoint, got the task {request.task}"
                    )
                different = checkpoint.difference(run)
                run = editor.start(run.request, state=started_from(checkpoint, run))
                after = f"after iteration {len(run.history)}"
                note = f"{checkpoint.path}: {after if different is None else f'its AnchorNet alone, as {different}'}"
        if isinstance(run, EditRun):
            console.started(len(run.anchors), len(run.config.sizes), note)
            keeper = CheckpointKeeper(checkpoint_dir, run)
        else:
            console.filling(run)
            keeper = ProgressKeeper(checkpoint_dir, run)
        with start_log(run) as log:
            with console.progress(len(run.history), run.total_iterations) as progress:
                for record in run:
                    keeper.after(record)
                    progress.update(record)
                    if log is not None:
                        log.after(record, run.probabilities)
            with console.waiting("Ranking and writing the pictures"):
                result, saved = save(run)
            if log is not None:
                log.finished(saved.overview, len(run.history))
        keeper.complete()
    except KeyboardInterrupt:
        message = "interrupted"
        left = None if keeper is None else keeper.interrupted()
        if left is not None:
            message += f"; go on with --load-checkpoint {left}"
        raise typer.Exit(_complain(message, EXIT_INTERRUPTED)) from None
    return result, saved


def _command_line(invoked: Any) -> str:
    """What was asked for, for a shell: the arguments, and those of the options that are not the default.

    invoked: the command's context; its class is Typer's or click's.
    """
    arguments, options = [], []
    for parameter in invoked.command.params:
        name = parameter.name or ""
        value = invoked.params.get(name)
        if value is None or name in NOT_REPEATED or str(value) == str(parameter.get_default(invoked)):
            continue
        if parameter.param_type_name == "argument":
            arguments.append(str(value))
            continue
        flag = max(parameter.opts, key=len)
        given = () if value is True else value if isinstance(value, (tuple, list)) else (value,)
        options.append(shlex.join([flag, *map(str, given)]))
    ending = any(text.startswith("-") for text in arguments)
    parts = [*options, shlex.join(["--", *arguments])] if ending else [shlex.join(arguments), *options]
    return " \\\n  ".join([f"{invoked.command_path} {parts[0]}", *parts[1:]])


app.command("inspect")(commands.inspect_checkpoint)
app.command("status")(commands.show_status)
app.command("models")(commands.list_models)
app.command("evaluate")(commands.evaluate)
app.command("gallery")(commands.gallery)
