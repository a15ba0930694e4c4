"""maskless doctor: whether a set of models is there, can be loaded, and edits a photograph, and what that takes."""

from __future__ import annotations

import contextlib
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from maskless.data.errors import EditCancelled, MasklessError
from maskless.data.model_options import ModelOptions
from maskless.interfaces.options import with_options

if TYPE_CHECKING:
    from maskless.data.picture import SourceImage
    from maskless.engine.editor import Editor

BOX = (128, 64, 256, 192)
"""The region of the photograph that is edited, in its pixels."""
PROMPT = "a bowl of fruit"
PART_OPTIONS = ("dino", "clip", "redraw", "erase", "grounder", "preview_vae")
"""The options that name a part of a set of models."""
GB = 1e9


@with_options
def doctor(*, models: ModelOptions) -> None:
    """Check a set of models: download what is missing, load it, edit a bundled photograph, print time and memory.

    [bold]maskless doctor[/] --models light

    Offline, or without a network, it prints a line for each part that is missing, and exits with 2.
    """
    missing = _check_parts(models)
    if missing:
        raise MasklessError(f"{missing} of the parts of {models.models} are missing or damaged; see above")
    began = time.perf_counter()
    from maskless.engine.editor import Editor
    from maskless.models.pretrained import load_models
    from maskless.models.sources import PREVIEW

    editor = Editor(load_models(models))
    options = editor.models.options
    print(f"loaded in {time.perf_counter() - began:.1f} s on {options.device} as {options.dtype}")
    if editor.models.inpainter.follows_prompt:
        _edit(editor, "replace", PROMPT)
    if PREVIEW in editor.models.names:
        _preview(editor)
    _edit(editor, "remove", "")


def _check_parts(models: ModelOptions) -> int:
    """Print a line for each part, downloading what is not on this disk; returns how many could not be had."""
    from maskless.models import hub
    from maskless.models.parts import check_weights
    from maskless.models.sources import model_sources, with_commits

    named: dict[str, Any] = {name: getattr(models, name) for name in PART_OPTIONS}
    missing = 0
    for part, source in model_sources(models.models, **named).items():
        began = time.perf_counter()
        try:
            if Path(source).exists() or not hub.is_hub_id(source):
                place = Path(source)
            else:
                place = hub.fetch(with_commits(source), offline=models.offline, progress=True).folder
                check_weights(place)
        except MasklessError as error:
            missing += 1
            print(f"{part}: {error}")
            continue
        files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files) / GB
        print(f"{part}: {source}, {size:.3f} GB, ready after {time.perf_counter() - began:.1f} s")
    return missing


def _edit(editor: Editor, task: str, prompt: str) -> None:
    """Edit the photograph, and print what it took and whether every pixel outside the region is the original's."""
    source = _photograph()
    began = time.perf_counter()
    result = editor.edit(source, task=task, box=BOX, prompt=prompt)
    seconds = time.perf_counter() - began
    differs = (result.best.pixels() != source.pixels).any(axis=2)
    x0, y0, x1, y1 = BOX
    inside = int(differs[y0:y1, x0:x1].sum())
    exact = "no pixel outside the region changed" if inside == int(differs.sum()) else "pixels outside changed"
    print(
        f"{task}: {seconds:.1f} s, {result.cost.inpaintings} inpaintings, "
        f"at most {result.cost.peak_memory_mb / 1e3:.1f} GB of memory, {inside} of {(x1 - x0) * (y1 - y0)} pixels "
        f"of the region changed, {exact}"
    )
    if exact != "no pixel outside the region changed" or not inside:
        raise typer.Exit(1)


def _preview(editor: Editor) -> None:
    """Draw once more, and print how many of the denoising steps the preview autoencoder shows."""
    from maskless.models.inpainters.denoising import watched

    run = editor.start(editor.request(_photograph(), task="replace", box=BOX, prompt=PROMPT))
    seen: list[bool] = []

    def is_done(step: int, total: int) -> bool:
        seen.append(run.drawing() is not None)
        return step == total  # the first drawing says enough

    with contextlib.suppress(EditCancelled), watched(is_done):
        run.result()
    print(f"preview_vae: shows {sum(seen)} of {len(seen)} denoising steps")
    if not any(seen):
        raise typer.Exit(1)


def _photograph() -> SourceImage:
    from maskless.data.picture import load_image

    return load_image(Path(str(resources.files("maskless"))) / "assets" / "photographs" / "coffee.jpg")
