"""One page of pictures: a row for each request, with its source and the result of every method."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from maskless.data.files import written_whole
from maskless.evaluation.measures.figures import FIGURES, SUCCESS

CELL_PX, GAP_PX, TEXT_PX, HEAD_PX, FOOT_PX = 144, 6, 150, 62, 30
INK, FAINT, GOOD, REGION, PAPER = "#1f2430", "#c9cdd6", "#1b9e5a", "#e4572e", "#ffffff"
FRAME_PX = 3
LEGEND = f"Outline: the region that the method edited. Green frame: {FIGURES[SUCCESS].meaning}."


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """One cell. picture: None where a method found nothing to edit. box_xyxy: the region, in pixels of the picture."""

    picture: Image.Image | None
    box_xyxy: Sequence[int] | None
    success: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """One request: its text, its source, and a cell for each method."""

    text: str
    source: Image.Image
    shown: Sequence[Shown]


def write_page(lines: Sequence[Line], methods: Sequence[str], file: Path) -> None:
    """Write the page as a JPEG or PNG, by the suffix of its name.

    Raises:
        MasklessError: the file cannot be written.
    """
    page = draw_page(lines, methods)
    with written_whole(file) as temporary:
        page.save(temporary, quality=92)


def draw_page(lines: Sequence[Line], methods: Sequence[str]) -> Image.Image:
    """The page; every cell is CELL_PX high and wide, and a picture of another shape lies in its middle."""
    step = CELL_PX + GAP_PX
    width, height = TEXT_PX + step * (1 + len(methods)) + GAP_PX, HEAD_PX + step * len(lines) + FOOT_PX
    page = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(page)
    for column, name in enumerate(("source", *methods)):
        title = "\n".join(textwrap.wrap(name.replace("_", " "), 17))
        _text(pen, (TEXT_PX + column * step, HEAD_PX - 6), title, anchor="ld", size=15)
    for row, line in enumerate(lines):
        top = HEAD_PX + row * step
        _text(pen, (GAP_PX, top + CELL_PX // 2), "\n".join(textwrap.wrap(line.text, 17)), anchor="lm", size=15)
        source = Shown(picture=line.source, box_xyxy=None, success=False)
        for column, cell in enumerate((source, *line.shown)):
            _cell(page, pen, (TEXT_PX + column * step, top), cell)
    _text(pen, (GAP_PX, height - FOOT_PX // 2), LEGEND, anchor="lm", size=14)
    return page


def _cell(page: Image.Image, pen: ImageDraw.ImageDraw, corner: tuple[int, int], shown: Shown) -> None:
    x, y = corner
    if shown.success:
        pen.rectangle((x - FRAME_PX, y - FRAME_PX, x + CELL_PX + 2, y + CELL_PX + 2), fill=GOOD)
    if shown.picture is None:
        pen.rectangle((x, y, x + CELL_PX - 1, y + CELL_PX - 1), outline=FAINT)
        _text(pen, (x + CELL_PX // 2, y + CELL_PX // 2), "nothing found", anchor="mm", size=13)
        return
    scale = CELL_PX / max(shown.picture.size)
    size = tuple(max(1, round(side * scale)) for side in shown.picture.size)
    left, top = x + (CELL_PX - size[0]) // 2, y + (CELL_PX - size[1]) // 2
    page.paste(shown.picture.resize((size[0], size[1]), Image.Resampling.LANCZOS), (left, top))
    if shown.box_xyxy is not None:
        x0, y0, x1, y1 = (round(edge * scale) for edge in shown.box_xyxy)
        pen.rectangle((left + x0, top + y0, left + x1 - 1, top + y1 - 1), outline=REGION)


def _text(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, *, anchor: str, size: int) -> None:
    """Write a block of lines. anchor: which point of the block lies at `at`, as Pillow names it: left or middle, then
    middle or descender."""
    font = ImageFont.load_default(size)
    left, top, right, bottom = pen.multiline_textbbox((0, 0), text, font=font, spacing=2)
    x = at[0] - (right - left) / 2 if anchor[0] == "m" else at[0]
    y = at[1] - (bottom - top) / 2 if anchor[1] == "m" else at[1] - (bottom - top)
    pen.multiline_text((x - left, y - top), text, fill=INK, font=font, spacing=2)
