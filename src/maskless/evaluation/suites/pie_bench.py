"""The suite `pie-bench`: a benchmark's folder, edited or scored: PIE-Bench's figures, and the same put right.

    maskless evaluate pie-bench DIR                   edit every request, and measure
    maskless evaluate pie-bench DIR --results OTHER   measure pictures that another tool made

Forms of the folder are in benchmarks.py, figures in protocols.py. Networks that measure are named by folder (--clip,
--dino, --lpips); what needs one that is not named is left out.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.data.instructions import parse_instruction
from maskless.data.picture import load_image, save_image
from maskless.engine.editor import Editor
from maskless.evaluation.measures import metrics
from maskless.evaluation.measures.ledger import Figures, Ledger, fingerprint
from maskless.evaluation.measures.lpips import Lpips
from maskless.evaluation.measures.protocols import (
    Instruments,
    corrected_figures,
    last_square,
    pie_figures,
    region_figures,
    target_figures,
    unit,
    whole_figures,
)
from maskless.evaluation.measures.rows import Row, mean_row, share_row
from maskless.evaluation.requests.benchmarks import SUFFIXES, BenchItem, read_folder
from maskless.evaluation.suites.storybook import Progress
from maskless.models.pretrained import load_models

OURS = "maskless"
TASKS = {"change background": "background", "change style": "style"}
"""PIE-Bench's types that are a kind of edit of their own; its texts describe whole pictures, so for all others one
thing that the caption names becomes what the prompt names."""
MEASURED_BY = {
    "clip": "CLIP similarities",
    "dino": "structure distance and DINO similarity",
    "lpips": "LPIPS",
}
ALL = "all"


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """A result: its pixels [H, W, 3] of 8 bits, the part that was changed where it is known, and what it took."""

    pixels: np.ndarray
    region: Tensor | None = None
    cost: Mapping[str, float] | None = None


def run(
    folder: Path | None = None,
    limit: int | None = None,
    seed_offset: int = 0,
    models: str = "storybook",
    results: Path | None = None,
    clip: str | None = None,
    dino: str | None = None,
    lpips: Path | None = None,
    steps: int | None = None,
    iterations: int | None = None,
    anchors: int | None = None,
    ledger: Path | None = None,
    sheets: Path | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> list[Row]:
    """Every request of a benchmark's folder.

    Args:
        limit, seed_offset: how many requests, and the first of them. results: pictures to score, named like the
            sources or by the requests; None edits.
        clip, dino, lpips: folders of the networks that measure; models: those that edit.
        ledger: a file of what was measured, to go on from and to add to. sheets: a folder for the edited pictures, in
            the form that `results` reads.
        note: is told what was left out.
    Raises:
        MasklessError: no folder, or one of its files or a result cannot be used.
    """
    if folder is None:
        raise MasklessError("pie-bench needs the folder of a benchmark: maskless evaluate pie-bench DIR")
    items = read_folder(folder)[seed_offset:][:limit]
    if not items:
        raise MasklessError(f"{folder}: no request is left after the first {seed_offset}")
    tools, named = instruments(clip, dino, lpips), {"clip": clip, "dino": dino, "lpips": lpips}
    for option, what in MEASURED_BY.items():
        if named[option] is None and note is not None:
            note(f"Left out: {what}; name the network's folder with --{option}")
    options: dict[str, Any] = {"steps": steps, "iterations": iterations, "anchors": anchors}
    config = EditConfig(**{name: value for name, value in options.items() if value is not None})
    editor = None if results is not None else Editor.from_pretrained(models, config=config)
    sources = {name: Path(value) for name, value in named.items() if value is not None}
    mark = fingerprint(None if editor is None else editor.models, config, [__file__], **sources)
    book = Ledger(ledger, suite="pie-bench", fingerprint=mark)
    method = OURS if results is None else results.name or "results"
    is_pie = (folder / "mapping_file.json").is_file()
    found = []
    make: Callable[[], Made | None]
    for done, item in enumerate(items, start=1):
        if editor is not None:
            make = partial(_edited, editor, item, None if sheets is None else sheets / _relative(item, folder))
            told = ""
        else:
            assert results is not None
            file = result_file(results, item, folder)
            make, told = partial(_read, file), _digest(file)
        measure = partial(measure_item, tools, item, make, is_pie=is_pie)
        found.append(book.measured(method, f"{item.name} {_mark(item)}{told}", measure))
        if progress is not None:
            progress(done, len(items))
    return rows_of(method, [item.kind for item in items], found)


def instruments(clip: str | None, dino: str | None, lpips: Path | None) -> Instruments:
    """The networks that are named, loaded."""
    measuring = load_models(clip=clip, dino=dino) if clip or dino else None
    return Instruments(
        clip=None if clip is None or measuring is None else measuring.clip,
        dino=None if dino is None or measuring is None else measuring.dino,
        lpips=None if lpips is None else Lpips.from_folder(lpips),
    )


def measure_item(tools: Instruments, item: BenchItem, make: Callable[[], Made | None], *, is_pie: bool) -> Figures:
    """All figures of one request; {"refused": true} where the editor found nothing to edit."""
    source = _pixels(item.image)
    if item.mask is not None and tuple(item.mask.shape) != source.shape[:2]:
        raise MasklessError(
            f"{item.image}: must be of its mask's size, {item.mask.shape[1]} x {item.mask.shape[0]}, "
            f"got {source.shape[1]} x {source.shape[0]}"
        )
    made = make()
    if made is None:
        return {"refused": True}
    result = last_square(made.pixels) if is_pie else made.pixels
    if result.shape != source.shape:
        if is_pie:
            raise MasklessError(
                f"the result of {item.name} must be {source.shape[1]} x {source.shape[0]} like its source, "
                f"got {result.shape[1]} x {result.shape[0]}"
            )
        result = _resized(result, source.shape)
    found: Figures = {"refused": False}
    if is_pie and item.mask is not None:
        found |= pie_figures(tools, source, result, item.mask, item.prompt)
    if item.mask is not None:
        found |= corrected_figures(tools, source, result, item.mask, item.caption, item.prompt)
        if made.region is not None:
            found |= region_figures(made.region, item.mask)
    else:
        found |= whole_figures(tools, source, result, item.caption, item.prompt)
    if item.target is not None:
        target = _pixels(item.target)
        found |= target_figures(
            tools, target, result if result.shape == target.shape else _resized(result, target.shape)
        )
    return found | dict(made.cost or {})


def rows_of(method: str, kinds: Sequence[str], found: Sequence[Figures]) -> list[Row]:
    """Means overall and by kind of edit. A request that was refused counts among the refused and in nothing else."""
    rows: list[Row] = []
    known = [kind for kind in dict.fromkeys(kinds) if kind]
    for task in [ALL, *(known if len(known) > 1 else [])]:
        each = [one for one, kind in zip(found, kinds, strict=True) if task in (ALL, kind)]
        names = {"suite": "pie-bench", "method": method, "task": task}
        if method == OURS:
            rows.append(share_row([one["refused"] for one in each], **names, metric="refused"))
        for metric in dict.fromkeys(name for one in each for name in one if name != "refused"):
            values = [float(one[metric]) for one in each if one.get(metric) is not None]
            values = [value for value in values if math.isfinite(value)]
            rows += [mean_row(values, **names, metric=metric)] if values else []
    return rows


def result_file(results: Path, item: BenchItem, folder: Path) -> Path:
    """Another tool's picture of a request: at the source's place under `results`, with or without annotation_images/,
    or under the request's name; any suffix.

    Raises:
        MasklessError: there is none.
    """
    place = _relative(item, folder)
    stems = [results / place, results / "annotation_images" / place, results / item.name]
    stems = [stem.with_suffix("") if stem.suffix in SUFFIXES else stem for stem in stems]
    for stem in stems:
        for suffix in SUFFIXES:
            if (file := stem.with_name(stem.name + suffix)).is_file():
                return file
    raise MasklessError(f"{results}: has no result of the request {item.name}; looked for {place} and {item.name}.png")


def _edited(editor: Editor, item: BenchItem, place: Path | None) -> Made | None:
    asked: dict[str, Any] = {"caption": item.caption, "prompt": item.prompt, "task": TASKS.get(item.kind, "replace")}
    if item.instruction and not item.caption:
        asked = _instructed(item.instruction) or asked
    began = time.perf_counter()
    try:
        result = editor.edit(item.image, **asked)
    except MasklessError:
        return None
    seconds = time.perf_counter() - began
    pixels = np.asarray(result.best.pil())
    if place is not None:
        save_image(place.with_suffix(".png"), pixels)
    outside = metrics.exact_outside(unit(_pixels(item.image)), unit(pixels), result.best.touched())
    cost = {
        "identical outside the region": outside,
        "inpaintings": float(result.cost.inpaintings),
        "UNet forwards": float(result.cost.unet_forwards),
        "seconds": seconds,
    }
    return Made(pixels=pixels, region=result.best.touched(), cost=cost)


def _instructed(instruction: str) -> dict[str, Any] | None:
    """What an instruction asks of the editor; None where it is in none of the forms that are understood."""
    try:
        asked = parse_instruction(instruction)
    except MasklessError:
        return None
    found: dict[str, Any] = {"caption": asked.caption, "prompt": asked.prompt, "task": asked.task}
    return found | ({"extend": asked.extend} if asked.extend else {})


def _read(file: Path) -> Made:
    return Made(pixels=_pixels(file))


def _pixels(file: Path) -> np.ndarray:
    pixels = load_image(file).pixels
    return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels


def _resized(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if pixels.shape == shape:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _relative(item: BenchItem, folder: Path) -> Path:
    """Where the source is in the benchmark, without annotation_images/; a request of a folder of its own is named by
    that folder."""
    if item.image.stem == "source":
        return Path(item.name + item.image.suffix)
    for root in (folder / "annotation_images", folder):
        if item.image.is_relative_to(root):
            return item.image.relative_to(root)
    return Path(item.image.name)


def _mark(item: BenchItem) -> str:
    """Eight letters that differ where the request does."""
    mask = b"" if item.mask is None else np.packbits(item.mask.numpy()).tobytes()
    files = [_digest(file) for file in (item.image, item.target) if file is not None]
    told = "\0".join([item.caption, item.prompt, item.instruction, item.kind, *files])
    return hashlib.sha256(told.encode() + mask).hexdigest()[:8]


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    except OSError as error:
        raise MasklessError(f"{file}: cannot be read ({error.strerror or error})") from error
