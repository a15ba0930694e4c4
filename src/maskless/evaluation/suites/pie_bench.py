"""The suite `pie-bench`: the requests of a benchmark's folder, edited or only scored, by PIE-Bench's figures and by
corrected ones.

    maskless evaluate pie-bench DIR                   edit every request, and measure
    maskless evaluate pie-bench DIR --results OTHER   measure pictures that another tool made

requests/benchmarks.py has the forms of the folder, measures/protocols.py the figures. Networks that measure are named
by folder (--clip, --dino, --lpips); the figures of a network that is not named are left out.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from maskless.data.errors import MasklessError
from maskless.data.instructions import parse_instruction
from maskless.data.model_options import ModelOptions
from maskless.data.picture import load_image, save_image
from maskless.engine.editor import Editor
from maskless.evaluation.measures import figures, metrics
from maskless.evaluation.measures.ledger import Ledger, fingerprint
from maskless.evaluation.measures.lpips import Lpips
from maskless.evaluation.measures.protocols import (
    Instruments,
    corrected_figures,
    displacement_figures,
    last_square,
    pie_figures,
    region_figures,
    target_figures,
    whole_figures,
)
from maskless.evaluation.measures.rows import Figures, Row, RowNames, rows_of_figures
from maskless.evaluation.requests.benchmarks import SUFFIXES, BenchItem, read_folder
from maskless.evaluation.suite import SuiteOptions
from maskless.models.pretrained import load_models

TAKES = (
    "limit", "seed_offset", "models", "steps", "iterations", "anchors", "folder", "results", "clip", "dino", "lpips",
    "ledger", "sheets", "progress", "note",
)  # fmt: skip
OURS = "maskless"
TASKS = {"change background": "background", "change style": "style"}
"""PIE-Bench's types that are a kind of edit of their own. Its texts describe whole pictures, so in all others an object
that the caption names becomes what the prompt names."""
MEASURED_BY = {
    "clip": "CLIP similarities",
    "dino": "structure distance and DINO similarity",
    "lpips": "LPIPS",
}
ALL = "all"


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """A result: its pixels, [H, W, 3] uint8, and where they are known the region that was edited and the figures of
    cost."""

    pixels: np.ndarray
    region: Tensor | None = None
    cost: Mapping[str, float] | None = None


def run(options: SuiteOptions) -> list[Row]:
    """The requests of a benchmark's folder: `limit` of them from number `seed_offset` on.

    results: pictures to score, named like the sources or by the requests; where None, the requests are edited.
    clip, dino, lpips: folders of the networks that measure. sheets: a folder for the edited pictures, in the form that
    `results` reads. note: called with what is left out.

    Raises:
        MasklessError: there is no folder, or one of its files or a result cannot be used.
    """
    folder, results = options.folder, options.results
    if folder is None:
        raise MasklessError("pie-bench needs the folder of a benchmark: maskless evaluate pie-bench DIR")
    items = read_folder(folder)[options.seed_offset :][: options.limit]
    if not items:
        raise MasklessError(f"{folder}: no request is left after the first {options.seed_offset}")
    tools = instruments(options.clip, options.dino, options.lpips)
    networks = {"clip": options.clip, "dino": options.dino, "lpips": options.lpips}
    for option, what in MEASURED_BY.items():
        if networks[option] is None:
            options.note(f"Left out: {what}; name the network's folder with --{option}")
    config = options.edit_config("steps", "iterations", "anchors")
    editor = Editor.from_pretrained(options.models, config=config) if results is None else None
    sources = {name: Path(value) for name, value in networks.items() if value is not None}
    mark = fingerprint(None if editor is None else editor.models, config, [__file__], **sources)
    book = Ledger(options.ledger, suite="pie-bench", fingerprint=mark)
    method = OURS if results is None else results.name or "results"
    is_pie = (folder / "mapping_file.json").is_file()
    found = []
    make: Callable[[], Made | None]
    for done, item in enumerate(items, start=1):
        key = f"{item.name} {_mark(item)}"
        if results is None:
            assert editor is not None
            copy = None if options.sheets is None else options.sheets / _relative(item, folder)
            make = partial(_edited, editor, item, copy)
        else:
            file = result_file(results, item, folder)
            make, key = partial(_read, file), key + _digest(file)
        found.append(book.measured(method, key, partial(measure_item, tools, item, make, is_pie=is_pie)))
        options.progress(done, len(items))
    return rows_of(method, [item.kind for item in items], found)


def instruments(clip: str | None, dino: str | None, lpips: Path | None) -> Instruments:
    """The networks that are named, loaded.

    Raises:
        MasklessError: one of them cannot be loaded.
    """
    measuring = load_models(ModelOptions(clip=clip, dino=dino)) if clip or dino else None
    return Instruments(
        clip=None if clip is None or measuring is None else measuring.clip,
        dino=None if dino is None or measuring is None else measuring.dino,
        lpips=None if lpips is None else Lpips.from_folder(lpips),
    )


def measure_item(tools: Instruments, item: BenchItem, make: Callable[[], Made | None], *, is_pie: bool) -> Figures:
    """All figures of one request; only that it was refused where the editor found nothing to edit.

    make: gives the result, or None where the editor found nothing to edit. is_pie: whether the benchmark is PIE-Bench,
        whose figures and rules then apply.

    Raises:
        MasklessError: a mask or a result is of another size than its source.
    """
    source = _pixels(item.image)
    if item.mask is not None and tuple(item.mask.shape) != source.shape[:2]:
        raise MasklessError(
            f"{item.image}: must be of its mask's size, {item.mask.shape[1]} x {item.mask.shape[0]}, "
            f"got {source.shape[1]} x {source.shape[0]}"
        )
    made = make()
    if made is None:
        return {figures.REFUSED: True}
    result = last_square(made.pixels) if is_pie else made.pixels
    if result.shape != source.shape:
        if is_pie:
            raise MasklessError(
                f"the result of {item.name} must be {source.shape[1]} x {source.shape[0]} like its source, "
                f"got {result.shape[1]} x {result.shape[0]}"
            )
        result = _resized(result, source.shape)
    found: Figures = {figures.REFUSED: False}
    if is_pie and item.mask is not None:
        found |= pie_figures(tools, source, result, item.mask, item.prompt)
    if item.mask is not None:
        found |= corrected_figures(tools, source, result, item.mask, item.caption, item.prompt)
        found |= displacement_figures(source, result, item.mask)
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
    """The figures of all requests, and of each kind of edit where there are several. A request that was refused counts
    only among the refused."""
    rows: list[Row] = []
    known = [kind for kind in dict.fromkeys(kinds) if kind]
    for task in [ALL, *(known if len(known) > 1 else [])]:
        each = [one for one, kind in zip(found, kinds, strict=True) if task in (ALL, kind)]
        names: RowNames = {"suite": "pie-bench", "method": method, "task": task}
        measured = dict.fromkeys(name for one in each for name in one)
        rows += rows_of_figures(each, [name for name in measured if name != figures.REFUSED or method == OURS], **names)
    return rows


def result_file(results: Path, item: BenchItem, folder: Path) -> Path:
    """Another tool's picture of a request: at the source's path under `results`, with or without annotation_images/, or
    under the request's name, with any suffix.

    Raises:
        MasklessError: there is no such picture.
    """
    path = _relative(item, folder)
    stems = [results / path, results / "annotation_images" / path, results / item.name]
    stems = [stem.with_suffix("") if stem.suffix in SUFFIXES else stem for stem in stems]
    for stem in stems:
        for suffix in SUFFIXES:
            if (file := stem.with_name(stem.name + suffix)).is_file():
                return file
    raise MasklessError(f"{results}: has no result of the request {item.name}; looked for {path} and {item.name}.png")


def _edited(editor: Editor, item: BenchItem, copy: Path | None) -> Made | None:
    """The editor's result of a request; None where it finds nothing to edit. copy: where to save it, as a PNG."""
    request: dict[str, Any] = {"caption": item.caption, "prompt": item.prompt, "task": TASKS.get(item.kind, "replace")}
    if item.instruction and not item.caption:
        request = _instructed(item.instruction) or request
    began = time.perf_counter()
    try:
        result = editor.edit(item.image, **request)
    except MasklessError:
        return None
    seconds = time.perf_counter() - began
    pixels = np.asarray(result.best.pil())
    if copy is not None:
        save_image(copy.with_suffix(".png"), pixels)
    outside = metrics.exact_outside(metrics.unit(_pixels(item.image)), metrics.unit(pixels), result.best.touched())
    cost = {
        figures.IDENTICAL_OUTSIDE_REGION: outside,
        figures.INPAINTINGS: float(result.cost.inpaintings),
        figures.UNET_FORWARDS: float(result.cost.unet_forwards),
        figures.SECONDS: seconds,
    }
    return Made(pixels=pixels, region=result.best.region(), cost=cost)


def _instructed(instruction: str) -> dict[str, Any] | None:
    """The arguments of `Editor.edit` for an instruction; None where it is in none of the forms that are understood."""
    try:
        parsed = parse_instruction(instruction)
    except MasklessError:
        return None
    found: dict[str, Any] = {"caption": parsed.caption, "prompt": parsed.prompt, "task": parsed.task}
    return found | ({"extend": parsed.extend} if parsed.extend else {})


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
    """The source's path in the benchmark, without annotation_images/. The path of a request that has a folder of its
    own is the name of that folder."""
    if item.image.stem == "source":
        return Path(item.name + item.image.suffix)
    for root in (folder / "annotation_images", folder):
        if item.image.is_relative_to(root):
            return item.image.relative_to(root)
    return Path(item.image.name)


def _mark(item: BenchItem) -> str:
    """Eight letters that differ where requests differ."""
    mask = b"" if item.mask is None else np.packbits(item.mask.numpy()).tobytes()
    files = [_digest(file) for file in (item.image, item.target) if file is not None]
    text = "\0".join([item.caption, item.prompt, item.instruction, item.kind, *files])
    return hashlib.sha256(text.encode() + mask).hexdigest()[:8]


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    except OSError as error:
        raise MasklessError(f"{file}: cannot be read ({error.strerror or error})") from error
