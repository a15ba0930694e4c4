"""`maskless find`: where something is in a picture, for editors and programs that take a box or a mask."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from maskless.data.errors import require
from maskless.data.model_options import FOR_DRAWING, ModelOptions
from maskless.interfaces.checks import json_text, require_folders, require_picture, require_texts
from maskless.interfaces.options import DISPLAY, OUTPUT, Caption, with_options
from maskless.interfaces.tables import printable

if TYPE_CHECKING:
    from maskless.data.finding import Finding

FOLDER = "regions"
"""The folder in the output folder that has one for each region that was found."""


@partial(with_options, without=FOR_DRAWING)
def find(
    *,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The picture to look at.", show_default=False)],
    caption: Caption = "",
    alternatives: Annotated[
        int, typer.Option(min=0, max=100, help="How many other regions to list at most, best first.")
    ] = 3,
    output_dir: Annotated[
        str, typer.Option(help="Folder that the region is written to, in regions/.", rich_help_panel=OUTPUT)
    ] = "output",
    models: ModelOptions,
    json_only: Annotated[
        bool, typer.Option("--json", help="Print the region as JSON on stdout, nothing else.", rich_help_panel=DISPLAY)
    ] = False,
) -> None:
    """Find what a caption names: its box, its mask, alternatives and reasons. No model that draws is loaded.

    [bold]maskless find[/] scene.png --caption "a red car"

    A caption that names nothing in the picture is no error: looks_like is then false.
    """
    require_texts(caption=caption)
    require(bool(caption.strip()), "say what to find: --caption “a red car”")
    require_picture(image)
    require_folders(Path(output_dir) / FOLDER)
    console = Console(stderr=True, highlight=False, emoji=False)
    with console.status("Loading the models") if console.is_terminal else nullcontext():
        from maskless.engine.finder import Finder
        from maskless.models.pretrained import load_encoders
        from maskless.models.sources import ENCODERS, fetch_models

        fetch_models(models, progress=console.is_terminal, wanted=ENCODERS)
        finder = Finder(load_encoders(models))
    with console.status("Looking at the picture") if console.is_terminal else nullcontext():
        finding = finder.find(image, caption, alternatives=alternatives)
    folder = _folder_of(finding, image, Path(output_dir) / FOLDER)
    finding.save(folder)
    if json_only:
        print(json_text({**finding.to_dict(), "folder": str(folder)}))
    else:
        _show(finding, folder)


def _folder_of(finding: Finding, image: Path, parent: Path) -> Path:
    """The folder of a region: {name of the picture}_{caption}, numbered where it holds that of another picture."""
    from maskless.data.files import require_no_links
    from maskless.data.finding import REGION_FILE
    from maskless.records.folders import identity_in, numbered
    from maskless.records.names import safe_name

    name = f"{safe_name(image.stem, empty='image')}_{safe_name(finding.caption)}"
    folders = (parent / candidate for candidate in numbered(name))
    chosen = next(each for each in folders if identity_in(each / REGION_FILE) in (None, finding.identity))
    require_no_links(parent, chosen)
    return chosen


def _show(finding: Finding, folder: Path) -> None:
    """Print a finding for people."""
    from maskless.data.finding import MASK_FILE, OVERLAY_FILE, REGION_FILE
    from maskless.records.names import counted

    out = Console(highlight=False, emoji=False, soft_wrap=True)
    x0, y0, x1, y1 = finding.box_xyxy
    other = counted(len(finding.alternatives), "alternative")
    rows = [
        ("Found", f"the {x1 - x0} × {y1 - y0} box at ({x0}, {y0}): score {finding.score:.2f}, {other}"),
        ("Why", finding.reason),
        ("Region", str(folder / REGION_FILE)),
        ("Mask", str(folder / MASK_FILE)),
        ("Overlay", str(folder / OVERLAY_FILE)),
    ]
    if not finding.looks_like:
        rows[0] = ("Not found", f"nothing looks like the caption; the nearest is {rows[0][1]}")
    for name, text in rows:
        out.print(f"[bold]{name:<10}[/]", end="")
        out.print(printable(text))
