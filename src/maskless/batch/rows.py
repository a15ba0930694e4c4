"""One row of a manifest: a picture and its edit, checked before any model is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, cast

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError, require
from maskless.data.instructions import Instruction, parse_instruction
from maskless.data.keep_options import KeepOptions
from maskless.data.model_options import ModelOptions
from maskless.data.options import OptionValue, checked_value
from maskless.data.tasks import FACTS, TASKS
from maskless.records.names import picture_folder_name

TEXTS = ("id", "image", "instruction", "task", "caption", "prompt", "mask", "extend")
FIELDS = (*TEXTS, "box")
"""The columns of a manifest beside the options of an edit."""
OPTIONS = {option.name: option for option in fields(EditConfig)}
"""The options of an edit that a row may have."""
ALONE = ("seed",)
"""Options that are checked alone, because they often differ from row to row."""
KNOWN = {*FIELDS, *OPTIONS}
ELSEWHERE = {option.name for kind in (ModelOptions, KeepOptions) for option in fields(kind)}
TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One edit of a batch.

    line: its line in the manifest, from 1. id: how its folder's name begins; no two rows have the same. folder: the
    name of its folder among the outputs. image, mask: path or URL. box: x0, y0, x1, y1 in pixels. options: fields of
    EditConfig that this row changes, the seed among them.
    """

    line: int
    id: str
    folder: str
    image: str
    caption: str = ""
    prompt: str = ""
    task: str = "replace"
    mask: str | None = None
    box: tuple[int, ...] | None = None
    extend: str | None = None
    options: tuple[tuple[str, OptionValue], ...] = ()


def checked_row(line: int, name: str, entry: Mapping[str, Any], config: EditConfig) -> Row:
    """A row from the fields of a manifest's line.

    Args:
        line: number of the line. name: the id if the entry has none. entry: texts (all values of a CSV are texts) or
            values of JSON; empty texts and None count as missing. config: the options that the row's own replace.
    Raises:
        MasklessError: a field is unknown, missing, of the wrong type or out of range.
    """
    given = {field: value for field, value in entry.items() if value is not None and value != ""}
    for field in given:
        if field not in KNOWN:
            where = "belongs to the command, not to a row" if field in ELSEWHERE else "is not known"
            raise MasklessError(f"the field {field!r} {where}; a row may have {', '.join(FIELDS)} and options of edit")
    texts = {field: _text(field, given[field]) for field in TEXTS if field in given}
    require("image" in texts, "a row must have an image, got none")
    read = parse_instruction(texts["instruction"]) if "instruction" in texts else Instruction(task="replace")
    task, caption = texts.get("task", read.task), texts.get("caption", read.caption)
    prompt, extend = texts.get("prompt", read.prompt), texts.get("extend", read.extend or None)
    box = None if "box" not in given else _box(given["box"])
    _require_complete(task, caption, prompt, named=box is not None or "mask" in texts, extend=extend)
    require(box is None or "mask" not in texts, "give a mask or a box, not both")
    options = tuple((field, _typed(field, value)) for field, value in given.items() if field in OPTIONS)
    together = tuple(option for option in options if option[0] not in ALONE)
    if together:
        _check_together(config, together)
    for field, value in options:
        checked_value(OPTIONS[field], value)
    row_id = texts.get("id", name)
    return Row(
        line=line,
        id=row_id,
        folder=picture_folder_name(task, caption, row_id),
        image=texts["image"],
        caption=caption,
        prompt=prompt,
        task=task,
        mask=texts.get("mask"),
        box=box,
        extend=extend,
        options=options,
    )


def _require_complete(task: str, caption: str, prompt: str, *, named: bool, extend: str | None) -> None:
    """Check that the task is known and has all that it needs (data/tasks.py)."""
    require(task in TASKS, f"task must be one of {', '.join(TASKS)}, got {task!r}")
    require(bool(prompt.strip()) or not FACTS[task].needs_prompt, f"the task {task} needs a prompt or an instruction")
    located = named or bool(caption.strip()) or not FACTS[task].needs_location
    require(located, f"the task {task} needs a location: give a caption, a mask or a box")
    require(extend is None or task == "extend", f"only the task extend can add canvas (extend), got it with {task}")


@lru_cache(maxsize=4096)
def _check_together(config: EditConfig, options: tuple[tuple[str, OptionValue], ...]) -> None:
    """Check the options of a row together; many rows have the same ones, which are checked once."""
    replace(config, **cast(dict[str, Any], dict(options)))


def _text(field: str, value: Any) -> str:
    if field in ("id", "extend") and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    require(isinstance(value, str), f"{field} must be a text, got {value!r}")
    return cast(str, value)


def _box(value: Any) -> tuple[int, ...]:
    """A box from [x0, y0, x1, y1] or "x0,y0,x1,y1"."""
    parts = re.split(r"[\s,;]+", value.strip()) if isinstance(value, str) else value
    try:
        corners = tuple(int(part) for part in parts)
    except (TypeError, ValueError):
        corners = ()
    good = len(corners) == 4 and 0 <= corners[0] < corners[2] and 0 <= corners[1] < corners[3]
    require(good, f"box must be X0,Y0,X1,Y1 in whole pixels, got {value!r}")
    return corners


def _typed(field: str, value: Any) -> OptionValue:
    """The value of an option in its type: a CSV has only texts. What cannot be converted is left for the check."""
    base = str(OPTIONS[field].type).split(" ")[0]
    if not isinstance(value, str) or base == "str":
        return cast(OptionValue, value)
    if base == "bool":
        word = value.strip().lower()
        return True if word in TRUE else False if word in FALSE else value
    try:
        return int(value) if base == "int" else float(value)
    except ValueError:
        return value
