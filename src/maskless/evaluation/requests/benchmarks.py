"""Benchmarks that come as a folder: PIE-Bench's own format, one like MagicBrush's, and a plain CSV.

    pie-bench    mapping_file.json and annotation_images/, masks run-length encoded (github.com/cure-lab/PnPInversion)
    triples      folders with source.*, mask.*, target.* and instruction.txt (MagicBrush's parts)
    plain CSV    requests.csv with the columns image, caption and prompt, and optionally mask and type

Requests of all three forms become `BenchItem`s.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from maskless.data.errors import MasklessError

PIE_SIDE = 512
PIE_TYPES = (
    "random",
    "change object",
    "add object",
    "delete object",
    "change content",
    "change pose",
    "change colour",
    "change material",
    "change background",
    "change style",
)
"""By editing_type_id, 0 to 9."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, kw_only=True, eq=False)
class BenchItem:
    """One request of a benchmark.

    kind: the kind of edit, in the benchmark's words. mask: True where the edit belongs; None where the benchmark has no
    mask. instruction, target: a sentence that says what to do, and the picture that should come out; some benchmarks
    have these beside or in place of caption and prompt.
    """

    name: str
    image: Path
    caption: str
    prompt: str
    kind: str = ""
    mask: Bool[Tensor, "H W"] | None = None
    instruction: str = ""
    target: Path | None = None


def read_folder(folder: Path) -> list[BenchItem]:
    """The requests of a benchmark's folder, in the benchmark's order.

    Raises:
        MasklessError: the folder has none of the three forms, or one of its files cannot be used.
    """
    if (folder / "mapping_file.json").is_file():
        return read_pie_bench(folder)
    if (folder / "requests.csv").is_file():
        return read_csv(folder / "requests.csv")
    if folder.is_dir() and any((child / "instruction.txt").is_file() for child in folder.iterdir()):
        return read_triples(folder)
    raise MasklessError(
        f"{folder}: must hold mapping_file.json (PIE-Bench), requests.csv, or folders with instruction.txt"
    )


def read_pie_bench(folder: Path) -> list[BenchItem]:
    """The requests of mapping_file.json, whose pictures lie under annotation_images/ or beside it.

    Raises:
        MasklessError: the file is not in PIE-Bench's form.
    """
    file = folder / "mapping_file.json"
    try:
        mapping = json.loads(file.read_text("utf-8"))
        items = []
        for name, entry in mapping.items():
            image = folder / "annotation_images" / entry["image_path"]
            items.append(
                BenchItem(
                    name=name,
                    image=image if image.exists() else folder / entry["image_path"],
                    caption=_without_brackets(entry["original_prompt"]),
                    prompt=_without_brackets(entry["editing_prompt"]),
                    kind=PIE_TYPES[int(entry["editing_type_id"])],
                    mask=decode_mask(entry["mask"]),
                    instruction=entry.get("editing_instruction", ""),
                )
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise MasklessError(f"{file}: not a mapping file of PIE-Bench ({type(error).__name__}: {error})") from error
    return items


def decode_mask(runs: Sequence[int], side: int = PIE_SIDE) -> Bool[Tensor, "side side"]:
    """The mask that is encoded as [start, length, start, length, …], 0-based and row by row; a run past the end is cut.

    The outermost rows and columns are set, as the benchmark does, because its annotators' masks err at the border.
    """
    if len(runs) % 2:
        raise ValueError(f"a mask must be pairs of start and length, got {len(runs)} numbers")
    flat = torch.zeros(side * side, dtype=torch.bool)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start : start + length] = True
    mask = flat.reshape(side, side)
    mask[[0, -1], :] = True
    mask[:, [0, -1]] = True
    return mask


def encode_mask(mask: Bool[Tensor, "H W"]) -> list[int]:
    """The runs of a mask, as `decode_mask` reads them."""
    flat = np.concatenate([[0], mask.flatten().numpy().astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(flat))
    return [int(v) for start, end in zip(edges[::2], edges[1::2], strict=True) for v in (start, end - start)]


def read_csv(file: Path) -> list[BenchItem]:
    """The requests of a CSV file with the columns image, caption and prompt, and optionally mask (a picture, white =
    edited) and type. Paths are relative to the file's folder.

    Raises:
        MasklessError: a column is missing, a row has no image or prompt, or a mask cannot be read.
    """
    items = []
    with file.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        missing = {"image", "caption", "prompt"} - set(reader.fieldnames or ())
        if missing:
            raise MasklessError(f"{file}: the column {sorted(missing)[0]!r} is missing")
        for number, row in enumerate(reader, start=1):
            if not row["image"] or not row["prompt"]:
                raise MasklessError(f"{file}: row {number} must have an image and a prompt")
            items.append(
                BenchItem(
                    name=str(number),
                    image=file.parent / row["image"],
                    caption=row["caption"] or "",
                    prompt=row["prompt"],
                    kind=row.get("type") or "",
                    mask=_read_mask(file.parent / row["mask"]) if row.get("mask") else None,
                )
            )
    return items


def read_triples(folder: Path) -> list[BenchItem]:
    """The requests of a folder with one folder for each: source.*, mask.* (white = edited), target.*, instruction.txt.
    The instruction is also the prompt, since there is no other text.

    Raises:
        MasklessError: a request has no source, or a mask cannot be read.
    """
    items = []
    for child in sorted(path for path in folder.iterdir() if (path / "instruction.txt").is_file()):
        instruction = (child / "instruction.txt").read_text("utf-8").strip()
        mask = _picture_in(child, "mask")
        source = _picture_in(child, "source")
        if source is None:
            raise MasklessError(f"{child}: must hold source.png or source.jpg")
        items.append(
            BenchItem(
                name=child.name,
                image=source,
                caption="",
                prompt=instruction,
                mask=None if mask is None else _read_mask(mask),
                instruction=instruction,
                target=_picture_in(child, "target"),
            )
        )
    return items


def _picture_in(folder: Path, stem: str) -> Path | None:
    return next((folder / (stem + s) for s in SUFFIXES if (folder / (stem + s)).is_file()), None)


def _read_mask(file: Path) -> Tensor:
    try:
        with Image.open(file) as picture:
            return torch.from_numpy(np.array(picture.convert("L")) > 127)
    except OSError as error:
        raise MasklessError(f"{file}: cannot be read as a mask ({error})") from error


def _without_brackets(text: str) -> str:
    """PIE-Bench marks the words that change with [ ]."""
    return text.replace("[", "").replace("]", "")
