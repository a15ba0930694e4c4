"""Memory that runs out at any point of an edit: a MemoryError is raised at one of many calls, spread over the edit.

Whatever an edit does between two calls allocates, so a call stands for the allocations in it. After each failure no
file may be half written, no temporary file may be left, and an edit that was there before must be whole.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from maskless.engine.editor import Editor
from maskless.records.keeping import kept
from maskless.records.outputs import save_edit


class Calls:
    """Counts calls of Python and C functions, and raises a MemoryError at the one of a given number."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.count, self._fail_at = 0, fail_at

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            self.count += 1
            if self.count == self._fail_at:
                raise MemoryError(f"injected at call {self.count}")

    @contextmanager
    def counted(self) -> Iterator[Calls]:
        sys.setprofile(self)
        try:
            yield self
        finally:
            sys.setprofile(None)


def fail_everywhere(action: Callable[[], object], folder: Path, count: int) -> dict[str, int]:
    """Do an action once to count its calls, then `count` times with a failure, at calls spread evenly over it.

    Returns:
        How many were tried, ended in an error, and left a file that is not whole ("broken").
    """
    with Calls().counted() as calls:
        action()
    failed = broken = 0
    for number in range(count):
        at = 1 + calls.count * number // count
        try:
            with Calls(at).counted():
                action()
        except Exception as error:
            failed += 1
            if not _injected(error):  # a library has swallowed the failure, and then stumbles over it
                print(f"call {at} of {calls.count} ended in {type(error).__name__}: {error}", file=sys.stderr)
        try:
            check_whole(folder)
        except Exception as error:  # an unreadable file, whatever its reader says about it
            broken += 1
            print(f"a failure at call {at} of {calls.count} left: {error}", file=sys.stderr)
    return {"tried": count, "ended in an error": failed, "broken": broken}


def _injected(error: BaseException | None) -> bool:
    """Whether an error is the injected one, or comes from it: some libraries replace it by one of their own."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def check_whole(folder: Path) -> None:
    """Every file below a folder can be read to its end, and a record's files are there."""
    for path in folder.rglob("*"):
        assert not path.name.startswith(".tmp-"), f"{path} was left behind"
        if path.is_dir():
            continue
        if path.suffix in (".png", ".tif", ".webp", ".jpg"):
            with Image.open(path) as image:
                image.load()
        elif path.suffix == ".json":
            content = json.loads(path.read_text("utf-8"))
            for candidate in content.get("candidates", []):
                assert (path.parent / candidate["file"]).is_file()
        elif path.suffix == ".pth":
            torch.load(path, weights_only=True)
        elif path.suffix == ".html":
            assert path.read_text("utf-8").rstrip().endswith("</html>")


def try_allocations(count: int, folder: Path, models: Path) -> dict[str, int]:
    """The campaign: whole edits of a drawn scene with checkpoints and outputs, beside an edit that must not change.

    folder: an empty one. models: a folder of small models.
    """
    editor = Editor.from_pretrained(str(models), steps=1, views=1, iterations=2, anchors=2, device="cpu")
    pixels = torch.rand(3, 64, 80, generator=torch.Generator().manual_seed(0))
    texts = {"caption": "a red square", "prompt": "a blue house"}
    save_edit(editor.edit(pixels, **texts), folder / "output")
    before = _contents(folder / "output/0_a red square")

    def edit() -> None:
        run = editor.start(editor.request(pixels, **texts), seed=7)
        for _ in kept(run, folder / "checkpoints", save=lambda result: save_edit(result, folder / "output")):
            pass

    figures = fail_everywhere(edit, folder, count)
    changed = _contents(folder / "output/0_a red square") != before
    return {**figures, "broken": figures["broken"] + changed}


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
