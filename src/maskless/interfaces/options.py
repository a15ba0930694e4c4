"""What the commands share: the arguments and flags of a request, and the flags that are made from the options."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable, Collection
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.markup import escape

from maskless.batch.options import BatchOptions, ManifestOptions
from maskless.data.config import EditConfig
from maskless.data.keep_options import KeepOptions
from maskless.data.model_options import ModelOptions
from maskless.data.provenance import ProvenanceOptions
from maskless.data.tasks import TASKS
from maskless.interfaces.web.options import ServeOptions

OUTPUT, CHECKPOINTS, MODELS, DISPLAY = "Output", "Checkpoints", "Models", "Display"
"""Groups of flags in the help."""

RANDOM_NUMBERS = 2**32
"""How many numbers there are to choose from at random; they are short enough to be typed."""

Instructed = Annotated[
    str | None,
    typer.Argument(
        metavar="[INSTRUCTION]",
        help="What to do, such as “replace the red car with a blue house” or “remove the cat”.",
        show_default=False,
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option(help=escape(f"The kind of edit: one of {', '.join(TASKS)} [default: replace]."), show_default=False),
]
Caption = Annotated[
    str, typer.Option("--caption", "-c", help="What is there now, such as “a red car”.", show_default=False)
]
Prompt = Annotated[
    str | None,
    typer.Option("--prompt", "-p", help="What should be there, such as “a blue house”.", show_default=False),
]
MaskFile = Annotated[
    Path | None,
    typer.Option(help="A picture of the same size, bright where to edit, in place of a search.", show_default=False),
]
MaskMode = Annotated[
    str | None,
    typer.Option(
        help="Where a mask with transparent parts says to edit: bright, opaque or transparent.", show_default=False
    ),
]
SoftMask = Annotated[
    bool,
    typer.Option(
        "--soft-mask", help="Grey in the mask means a partial change; without it, the mask is cut at one half."
    ),
]
BoxText = Annotated[
    str | None,
    typer.Option(metavar="X0,Y0,X1,Y1", help="A box to edit, in pixels, in place of a search.", show_default=False),
]
ExtendText = Annotated[
    str | None,
    typer.Option(help="Canvas to add: 0.25 of each side, 64 pixels, or left=0.5,top=40.", show_default=False),
]
OutputDir = Annotated[str, typer.Option(help="Folder that the pictures are written to.", rich_help_panel=OUTPUT)]
CheckpointDir = Annotated[
    str, typer.Option(help="Folder of the checkpoints, with a folder for each picture.", rich_help_panel=CHECKPOINTS)
]
Options = EditConfig | ModelOptions | KeepOptions | ProvenanceOptions | ServeOptions | BatchOptions | ManifestOptions


def with_options(command: Callable[..., None], *, without: Collection[str] = ()) -> Callable[..., None]:
    """Replace each parameter of a command that is one of Options by a flag for every field.
    A parameter that is named `invoked` gets the context of the command.

    without: names of fields that have no flag and keep their default.
    """
    signature = inspect.signature(command, eval_str=True)
    parameters, kinds = [], {}
    for name, parameter in signature.parameters.items():
        if name == "invoked":
            parameters.append(parameter.replace(annotation=typer.Context))
        elif parameter.annotation in get_args(Options):
            kinds[name] = parameter.annotation
            parameters += [_flag(option) for option in _flagged(parameter.annotation, without)]
        else:
            parameters.append(parameter)

    def with_flags(**given: Any) -> None:
        built = {
            name: kind(**{option.name: given.pop(option.name) for option in _flagged(kind, without)})
            for name, kind in kinds.items()
        }
        command(**given, **built)

    with_flags.__name__, with_flags.__doc__ = command.__name__, command.__doc__
    with_flags.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_flags.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_flags


def _flagged(kind: Any, without: Collection[str]) -> list[Field[Any]]:
    """The fields of a class of options that have a flag."""
    return [option for option in fields(kind) if option.name not in without]


def _number_or_random(text: str | int) -> int:
    """A whole number from the command line or the default, or one that is chosen for the word random."""
    if text == "random":
        return secrets.randbelow(RANDOM_NUMBERS)
    try:
        return int(text)
    except ValueError as error:
        raise typer.BadParameter(f"it must be a whole number or the word random, got {text!r}") from error


def _flag(option: Field[Any]) -> inspect.Parameter:
    """The command-line flag of one field. The dataclass checks the range, as its message says more than click's."""
    base, _, optional = str(option.type).partition(" | ")
    kind: Any = {"int": int, "float": float, "str": str, "bool": bool}[base]
    reading: dict[str, Any] = {}
    if option.metadata["random"]:
        reading = {"parser": _number_or_random, "metavar": "INTEGER|random"}
    choices = option.metadata["choices"]
    text = option.metadata["help"] + (f" One of {', '.join(choices)}." if choices else "")
    name = option.name.replace("_", "-")
    flag = typer.Option(
        f"--{name}/--no-{name}" if option.default is True or kind is bool and optional else f"--{name}",
        help=escape(text),
        rich_help_panel=option.metadata["group"],
        show_default=option.default not in (None, "", False),
        **reading,
    )
    allowed: Any = kind | None if optional else kind
    annotation = Annotated[allowed, flag]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=annotation)
