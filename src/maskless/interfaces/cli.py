"""The command line: it parses arguments, calls the Python API and writes the results.

What imports the model libraries is imported inside the functions, so that help and wrong input take no time.
"""

from __future__ import annotations

import atexit
import gc
import shlex
import sys
import time
import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from maskless.data.collector import collector_paused
from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError, MasklessWarning, one_line
from maskless.data.instructions import parse_instruction, read_texts
from maskless.data.keep_options import KeepOptions
from maskless.data.model_options import ModelOptions
from maskless.data.tasks import FACTS
from maskless.interfaces import commands, servers
from maskless.interfaces.batch import batch, train
from maskless.interfaces.checks import (
    one_region,
    print_in_any_encoding,
    require_file,
    require_folders,
    require_picture,
    require_task,
    require_texts,
    require_transformer,
)
from maskless.interfaces.console import EditConsole, Interrupted
from maskless.interfaces.doctor import doctor
from maskless.interfaces.find import find
from maskless.interfaces.options import (
    CHECKPOINTS,
    DISPLAY,
    BoxText,
    Caption,
    ExtendText,
    Instructed,
    MaskFile,
    MaskMode,
    Prompt,
    SoftMask,
    TaskName,
    with_options,
)
from maskless.interfaces.tables import printable

if TYPE_CHECKING:
    from maskless.data.result import EditResult
    from maskless.data.types import EditRequest
    from maskless.engine.editor import Editor
    from maskless.engine.run import Run

EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130
# Typer carries its own copy of click or uses the installed one; this is the base of the errors that either raises.
USAGE_ERROR: type[Exception] = cast(type[Exception], typer.BadParameter.__mro__[2])
WRONG_NUMBERS = {
    "int": "a whole number",
    "float": "a number",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
}
"""What a number must be, by how the kind of Typer's error begins."""
NOT_REPEATED = {"quiet", "json_only", "load_checkpoint"}
"""Parameters of `edit` that do not change its result: a run that is continued ends as one that was never stopped."""

CONTINUED_LINE = " \\\n  "
"""Between two lines of one shell command."""

app = typer.Typer(
    help="Edit pictures with words, without masks: the region to edit is learned and everything outside it stays.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    # --draw_box is --draw-box, as in the published release.
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: name.replace("_", "-"),
    },
)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its status: 0 for success, 1 for too little memory, 2 for bad input, 130 after
    Ctrl-C. Every failure prints one line on stderr."""
    print_in_any_encoding()
    # At its end, Python searches all objects for cycles, which takes a second with the model libraries and frees
    # nothing that the end of the process does not free. Frozen objects are not searched.
    atexit.register(gc.freeze)
    with warnings.catch_warnings():
        # The libraries' warnings are meant for developers; this package prints its own messages for users.
        warnings.filterwarnings("ignore")
        warnings.simplefilter("default", MasklessWarning)
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        status = _status_of(arguments)
    sys.exit(status if isinstance(status, int) else 0)


def _status_of(arguments: list[str] | None) -> object:
    """Run a command and return its exit status; None stands for 0."""
    command = typer.main.get_command(app)
    try:
        status = command.main(args=arguments, prog_name="maskless", standalone_mode=False)
    except MasklessError as error:
        status = _complain(str(error), EXIT_BAD_INPUT)
    except USAGE_ERROR as error:
        # Typer's way to print the help where no command is given is an error without a message.
        message = _usage_message(error)
        status = _complain(message, EXIT_BAD_INPUT) if message else EXIT_BAD_INPUT
    except Interrupted as error:
        print(f"maskless: interrupted; {error}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (KeyboardInterrupt, typer.Abort):
        status = EXIT_INTERRUPTED
    except (MemoryError, RuntimeError) as error:
        from maskless.models.memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        status = _complain("out of memory; try a lower --memory level, or a smaller model (see maskless models)", 1)
    if status == EXIT_INTERRUPTED:  # Typer turns Ctrl-C into this status without a word
        _complain("interrupted", EXIT_INTERRUPTED)
    return status


def _usage_message(error: Any) -> str:
    """What is wrong with the command line, as one line; empty if the help has been printed instead."""
    message = getattr(error, "format_message", error.__str__)().strip().rstrip(".")
    parameter, context = getattr(error, "param", None), getattr(error, "ctx", None)
    causes: list[Any] = getattr(error.__cause__, "errors", list)()  # pydantic's, which Typer converts values with
    if causes and parameter is not None:
        kind = next((kind for kind in WRONG_NUMBERS if causes[0]["type"].startswith(kind)), None)
        if kind is not None:
            wanted = WRONG_NUMBERS[kind].format(**causes[0].get("ctx", {}))
            return f"{parameter.name} must be {wanted}, got {causes[0]['input']!r}"
    command = context.command_path if context is not None else "maskless"
    similar = getattr(error, "possibilities", None)
    if similar:
        message = f"no such option: {error.option_name}; did you mean {' or '.join(sorted(similar))}?"
        return f"{message} See {command} --help"
    return f"{message[0].lower()}{message[1:]}; see {command} --help" if message else ""


def _show_warning(message: Warning | str, *_where: object) -> None:
    """Print a warning as one line on stderr."""
    print(f"maskless: {printable(' '.join(str(message).split()))}", file=sys.stderr)


def _complain(message: str, status: int) -> int:
    print(f"maskless: {one_line(message)}", file=sys.stderr)
    return status


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from maskless import __version__

        print(f"maskless {__version__}")
        raise typer.Exit()


@app.command()
@with_options
def edit(
    *,
    invoked: Any,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The picture to edit.", show_default=False)],
    instruction: Instructed = None,
    task: TaskName = None,
    caption: Caption = "",
    prompt: Prompt = None,
    mask: MaskFile = None,
    mask_mode: MaskMode = None,
    soft_mask: SoftMask = False,
    box: BoxText = None,
    extend: ExtendText = None,
    config: EditConfig,
    keep: KeepOptions,
    load_checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Continue from this file. A checkpoint of another edit gives its AnchorNet to start from.",
            rich_help_panel=CHECKPOINTS,
            show_default=False,
        ),
    ] = None,
    models: ModelOptions,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.", rich_help_panel=DISPLAY)] = False,
    json_only: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on stdout, nothing else.", rich_help_panel=DISPLAY)
    ] = False,
) -> None:
    """Edit a picture: find the region, change it, and rank the results. Every pixel outside stays as it was.

    [bold]maskless edit[/] scene.png --caption "a red car" --prompt "a blue house"

    [bold]maskless edit[/] scene.png "remove the cat"
    """
    if quiet:
        warnings.simplefilter("ignore", MasklessWarning)
    # What needs no large library is checked before they are imported, and everything long before the work.
    require_texts(instruction=instruction, caption=caption, prompt=prompt)
    require_task(task)
    arguments = _request_arguments(instruction, task=task, caption=caption, prompt=prompt, extend=extend)
    one_region(mask, box)
    for picture in (image, mask):
        require_picture(picture)
    require_file(load_checkpoint, "checkpoint")
    require_transformer(models.transformer)
    require_folders(keep.output_dir, keep.checkpoint_dir)
    region = {"mask": mask, "mask_mode": mask_mode, "soft_mask": soft_mask, "box": box}
    console = EditConsole(quiet=quiet, json_only=json_only)
    with collector_paused():
        request = _checked(image, {**arguments, **region}, keep)
        if load_checkpoint is not None and not request.searches:
            from maskless.engine.run import cannot_resume

            raise cannot_resume(request)

        from maskless.records.checkpoints import load_checkpoint as open_checkpoint
        from maskless.records.checkpoints import resume

        checkpoint = open_checkpoint(load_checkpoint) if load_checkpoint is not None else None
        editor = _loaded(console, models, config)
    run = editor.start(request)
    note = resume(run, checkpoint) if checkpoint is not None else None
    _finish(console, run, keep, note, command=_command_line(invoked))


def _checked(image: Path, arguments: dict[str, Any], keep: KeepOptions) -> EditRequest:
    """The request, after a check of everything that is cheap to check: picture, texts, region, format and log.

    arguments: those of `make_request`.
    """
    from maskless.data.files import require_no_links
    from maskless.data.picture import output_suffix
    from maskless.engine.requests import make_request
    from maskless.records.credentials import Signer
    from maskless.records.folders import picture_folder
    from maskless.records.outputs import written_folders

    request = make_request(image, **arguments)
    output_suffix(request.source, keep.format, keep.quality)
    Signer.of(keep)
    require_no_links(*written_folders(Path(keep.output_dir) / picture_folder(request, keep.image_id)))
    if keep.tensorboard:
        from maskless.records.tensorboard import summary_writer

        summary_writer()
    return request


def _loaded(console: EditConsole, models: ModelOptions, config: EditConfig) -> Editor:
    """An editor with the models; those that are not on this disk are downloaded first."""
    from maskless.engine.editor import Editor
    from maskless.models.pretrained import load_models

    began = time.perf_counter()
    console.fetching(models)
    with console.waiting("Loading the models"):
        editor = Editor(load_models(models), config)
    console.models_loaded(editor.models, time.perf_counter() - began)
    return editor


def _finish(console: EditConsole, run: Run, keep: KeepOptions, note: str | None, *, command: str) -> None:
    """Run an edit to its end and keep its checkpoints, log and pictures; on Ctrl-C print how to continue, and exit.

    The result is printed as soon as its pictures are written; its overview and report are drawn afterwards.

    note: which checkpoint the run continues from; None for a new run. command: what makes the edit again.
    """
    from maskless.data.picture import output_suffix
    from maskless.records.folders import edit_folder, identity
    from maskless.records.keeping import continues_from, kept
    from maskless.records.outputs import save_edit
    from maskless.records.overview import import_meanwhile
    from maskless.records.tensorboard import TensorBoardLog

    import_meanwhile()

    name = edit_folder(
        run.request, identity(run.request, run.config, run.models.options), output_dir=keep.output_dir,
        checkpoint_dir=keep.checkpoint_dir, image_id=keep.image_id, overwrite=keep.overwrite,
    )  # fmt: skip
    folder = Path(keep.checkpoint_dir) / name
    suffix = output_suffix(run.request.source, keep.format, keep.quality)
    with TensorBoardLog.of(run, keep) if keep.tensorboard else nullcontext() as log:

        def save(result: EditResult) -> None:
            progress.stop()
            saved = save_edit(
                result, keep.output_dir, image_id=keep.image_id, draw_box=keep.draw_box, command=command,
                suffix=suffix, quality=keep.quality, overwrite=keep.overwrite, folder_name=name, provenance=keep,
                announce=partial(console.finished, result),
            )  # fmt: skip
            if log is not None:
                log.finished(saved.overview, run.total_steps)

        try:
            with console.progress(run, note) as progress:
                for step in kept(run, folder, keep=keep, log=log, save=save):
                    progress.update(step)
        except KeyboardInterrupt:
            left = continues_from(run, folder)
            raise Interrupted(_how_to_continue(command, left)) from None


def _how_to_continue(command: str, checkpoint: Path | None) -> str:
    """What the user can do after an interruption. checkpoint: of the interrupted run; None if it left none."""
    if checkpoint is None:
        return "this edit leaves no checkpoint, so the same command starts it again"
    option = f"--load-checkpoint {shlex.quote(str(checkpoint))}"
    command = command.replace(CONTINUED_LINE, " ")
    # A command with control characters is not for a terminal.
    whole, separator, words = command.partition(" -- ")
    return f"continue with: {whole} {option}{separator}{words}" if command.isprintable() else f"continue with {option}"


def _request_arguments(
    instruction: str | None, *, task: str | None, caption: str, prompt: str | None, extend: str | None
) -> dict[str, Any]:
    """Task, texts and canvas: those of the instruction where there is one, and a flag overrides it."""
    _warn_of_overrides(instruction, {"task": task, "caption": caption or None, "prompt": prompt, "extend": extend})
    texts = read_texts(instruction, task=task, caption=caption, prompt=prompt, extend=extend)
    if prompt is None and not texts.prompt and texts.task in FACTS and FACTS[texts.task].needs_prompt:
        raise MasklessError(
            "say what to do: --prompt “a blue house”, or an instruction such as “remove the cat” "
            "(see maskless edit --help)"
        )
    return {
        "task": texts.task,
        "caption": texts.caption,
        "prompt": texts.prompt,
        "extend": texts.extend if extend is not None else texts.extend or None,
    }


def _warn_of_overrides(instruction: str | None, flags: dict[str, str | None]) -> None:
    """Warn of every flag that takes the place of something else that the instruction says."""
    if not instruction:
        return
    read = parse_instruction(instruction)
    for name, value in flags.items():
        said = getattr(read, name)
        if value is not None and said and value != said:
            warnings.warn(
                f"--{name} {shlex.quote(value)} takes the place of what the instruction says, {said!r}",
                MasklessWarning,
                stacklevel=2,
            )


def _command_line(invoked: Any) -> str:
    """The command that makes the same edit again: its arguments, and the options that differ from the default.

    invoked: the context of the command; its class is Typer's or click's.
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
        flag = max(parameter.secondary_opts if value is False else parameter.opts, key=len)
        given = () if isinstance(value, bool) else value if isinstance(value, (tuple, list)) else (value,)
        options.append(shlex.join([flag, *map(str, given)]))
    ending = any(text.startswith("-") for text in arguments)
    parts = [*options, shlex.join(["--", *arguments])] if ending else [shlex.join(arguments), *options]
    return CONTINUED_LINE.join([f"{invoked.command_path} {parts[0]}", *parts[1:]])


app.command("find")(find)
app.command("batch")(batch)
app.command("train")(train)
app.command("inspect")(commands.inspect_checkpoint)
app.command("status")(commands.show_status)
app.command("models")(commands.list_models)
app.command("doctor")(doctor)
app.command("evaluate")(commands.evaluate)
app.command("gallery")(commands.gallery)
app.command("serve")(servers.serve)
app.command("mcp")(servers.mcp)
