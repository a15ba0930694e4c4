"""The command that makes the edit of a row again by itself, for the row's report."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from maskless.batch.rows import Row
from maskless.data.config import EditConfig
from maskless.data.keep_options import KeepOptions
from maskless.data.model_options import ModelOptions

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PLACES = ("output_dir", "checkpoint_dir", "image_id")
"""Options whose values in a batch are not those of a single edit."""


def edit_command(row: Row, models: ModelOptions, config: EditConfig, keep: KeepOptions) -> str:
    """A `maskless edit` command for a shell, with the options that differ from the default."""
    box = ",".join(map(str, row.box or ()))
    task = row.task if row.task != "replace" else ""
    named = {"task": task, "caption": row.caption, "prompt": row.prompt, "mask": row.mask, "box": box}
    named |= {"extend": row.extend, "image_id": row.id}
    lines = [shlex.join(["maskless", "edit", row.image])]
    lines += [shlex.join([f"--{name.replace('_', '-')}", value]) for name, value in named.items() if value]
    edit = replace(config, **dict(row.options))  # type: ignore[arg-type]
    changed = _changed(edit) | _changed(models) | _changed(keep)
    for name, value in changed.items():
        flag = name.replace("_", "-")
        if name in PLACES or value is None:
            continue
        if isinstance(value, bool):
            lines.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            lines.append(shlex.join([f"--{flag}", str(value)]))
    return " \\\n  ".join(lines)


def _changed(options: DataclassInstance) -> dict[str, Any]:
    """The options that differ from the default."""
    return {field.name: value for field in fields(options) if (value := getattr(options, field.name)) != field.default}
