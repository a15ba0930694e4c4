"""Checks of a command's arguments that need none of the large libraries, so that a wrong name costs no time."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from maskless.data.errors import MasklessError, require
from maskless.data.files import require_writable
from maskless.data.options import require_unicode
from maskless.data.tasks import TASKS


def require_picture(path: Path | None) -> None:
    """Check that a picture file exists, is a picture, and is neither too large nor too small. None is no picture.

    Raises:
        MasklessError: it is not.
    """
    if path is not None:
        from maskless.data.picture_file import open_picture

        open_picture(path).close()


def require_file(path: Path | None, kind: str) -> None:
    """Check that a file exists. kind: what it should be, for the message.

    Raises:
        MasklessError: there is no such file, or it is a folder.
    """
    if path is None:
        return
    require(path.exists(), f"no such {kind}: {path}")
    require(not path.is_dir(), f"{path} is a folder, not a {kind} file")


def require_folder(path: Path | None) -> None:
    """Check that a folder of input exists."""
    if path is not None:
        require(path.is_dir(), f"{path} is a file, not a folder" if path.exists() else f"no such folder: {path}")


def require_task(task: str | None) -> None:
    """Check the name of a task."""
    require(task is None or task in TASKS, f"task must be one of {', '.join(TASKS)}, got {task!r}")


def require_texts(**texts: str | None) -> None:
    """Check that texts, by the names of their arguments, are text: a broken locale gives bytes that are not."""
    for name, text in texts.items():
        if text is not None:
            require_unicode(name, text)


def require_transformer(source: str | None) -> None:
    """Check that a GGUF file can be read. None is no file; one on the hub is not asked for here."""
    if source is not None:
        from maskless.models.gguf_file import HUB_FILE, find_file, read_header, require_library

        require_library()
        if Path(source).exists() or HUB_FILE.fullmatch(source) is None:
            read_header(find_file(source))


def require_folders(*folders: str | Path) -> None:
    """Check that each folder can be written to or made."""
    for folder in folders:
        require_writable(folder)


def one_region(mask: Path | None, box: str | None) -> None:
    """Check that the region is given once at most."""
    if mask is not None and box is not None:
        raise MasklessError("give a mask or a box, not both")


def print_in_any_encoding() -> None:
    """Let stdout and stderr write letters that their encoding lacks as escapes, in place of failing after the work."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def json_text(value: Any) -> str:
    """A value as one line of JSON that stdout can print, with an escape for every letter that a terminal could obey.

    Other letters than ASCII are escaped unless stdout is in UTF. JSON reads its escapes back as the letters, which it
    would not do with those of `print_in_any_encoding`.
    """
    unicode = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
    text = json.dumps(value, allow_nan=False, ensure_ascii=not unicode)
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)
