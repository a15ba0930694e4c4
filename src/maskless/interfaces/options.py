"""What the commands are asked by: the instruction and the flags of a request, and the folders they share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from maskless.data.config import TASKS, EditConfig

OUTPUT, CHECKPOINTS, MODELS, DISPLAY = "Output", "Checkpoints", "Models", "Display"
"""The help's groups."""

Instructed = Annotated[
    str | None,
    typer.Argument(
        metavar="[INSTRUCTION]",
        help="What to do, such as “replace the red car with a blue house” or “remove the cat”.",
        show_default=False,
    ),
]
TaskName = Annotated[
    str | None, typer.Option(help=f"One of {', '.join(TASKS)} [default: replace].", show_default=False)
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
    typer.Option(help="A picture of the same size, bright where to edit; no search then.", show_default=False),
]
BoxText = Annotated[
    str | None,
    typer.Option(metavar="X0,Y0,X1,Y1", help="A box to edit, in pixels; no search then.", show_default=False),
]
ExtendText = Annotated[
    str | None,
    typer.Option(help="Canvas to add: 0.25 of each side, 64 pixels, or left=0.5,top=40.", show_default=False),
]
OutputDir = Annotated[Path, typer.Option(help="Where the pictures go.", rich_help_panel=OUTPUT)]
CheckpointDir = Annotated[
    Path, typer.Option(help="Where last.pth, run.json and the numbered checkpoints go.", rich_help_panel=CHECKPOINTS)
]
ModelsName = Annotated[
    str,
    typer.Option(
        help="A preset (see maskless models), a folder with inpainting/, dino/, clip/ (and redraw/), or for the "
        "inpainting alone a hub id, a folder or a .safetensors file.",
        rich_help_panel=MODELS,
    ),
]
DinoName = Annotated[
    str | None, typer.Option(help="Folder or hub id of the DINO model.", rich_help_panel=MODELS, show_default=False)
]
ClipName = Annotated[
    str | None, typer.Option(help="Folder or hub id of the CLIP model.", rich_help_panel=MODELS, show_default=False)
]
RedrawName = Annotated[
    str | None,
    typer.Option(
        help="Folder or hub id of an InstructPix2Pix model, for style and texture.",
        rich_help_panel=MODELS,
        show_default=False,
    ),
]


def config_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one flag for every field of EditConfig, in place of its parameter `options`; one that is
    named `invoked` gets the context."""
    signature = inspect.signature(command, eval_str=True)
    parameters = []
    for parameter in signature.parameters.values():
        parameters += [_flag(option) for option in fields(EditConfig)] if parameter.name == "options" else [parameter]

    def with_config(**given: Any) -> None:
        options = {option.name: given.pop(option.name) for option in fields(EditConfig)}
        command(**given, options=options)

    for at, parameter in enumerate(parameters):
        if parameter.name == "invoked":
            parameters[at] = parameter.replace(annotation=typer.Context)
    with_config.__name__, with_config.__doc__ = command.__name__, command.__doc__
    with_config.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_config.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_config


def _flag(option: Field[Any]) -> inspect.Parameter:
    """The command-line flag of one field. Ranges are left to EditConfig, whose message says more than click's."""
    base, _, optional = str(option.type).partition(" | ")
    kind: Any = {"int": int, "float": float, "str": str, "bool": bool}[base]
    choices = option.metadata["choices"]
    told = option.metadata["help"] + (f" One of {', '.join(choices)}." if choices else "")
    name = option.name.replace("_", "-")
    flag = typer.Option(
        f"--{name}/--no-{name}" if option.default is True else f"--{name}",
        help=escape(told),
        rich_help_panel=option.metadata["group"],
        show_default=option.default not in (None, "", False),
    )
    annotation = Annotated[kind | None if optional else kind, flag]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=annotation)
