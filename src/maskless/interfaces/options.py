"""What the commands are asked by: the instruction and the flags of a request, and the folders they share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskless.data.config import TASKS

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
