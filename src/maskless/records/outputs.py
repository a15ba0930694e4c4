"""What an edit leaves on the disk: pictures, an overview, a report, and result.json, which comes last and marks it
complete."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from maskless.data.files import one_line_write_errors, require_writable
from maskless.data.picture import save_image
from maskless.data.result import EditResult
from maskless.data.types import LOSS_NAMES
from maskless.engine.requests import without_margins
from maskless.records.names import safe_name
from maskless.records.overview import draw_overview, thumbnail
from maskless.records.report import BEST_PX, edit_report

if TYPE_CHECKING:
    from PIL import Image

RECORD_NAME = "result.json"
LIBRARIES = ("maskless", "torch", "diffusers", "transformers", "tokenizers", "kornia", "numpy", "pillow")


@dataclass(frozen=True, kw_only=True)
class SavedEdit:
    """Where an edit was written. candidates: by position, not by rank. record: what result.json holds."""

    folder: Path
    final: Path
    overview: Path
    report: Path
    candidates: tuple[Path, ...]
    record: Mapping[str, Any]


def save_edit(
    result: EditResult,
    output_dir: str | Path,
    *,
    image_id: str = "0",
    draw_box: bool = False,
    command: str | None = None,
) -> SavedEdit:
    """Write {output_dir}/{image_id}_{caption}/: the source, every candidate, the best, overview.png, report.html and
    result.json.

    command: what makes the edit again, for a shell; the report shows it.

    Everything is first written into a hidden folder beside it and then renamed into place, result.json last: a full
    disk or a kill leaves what was there before. Files of an earlier edit with the same prompt are replaced.

    Raises:
        MasklessError: something cannot be written.
    """
    output_dir = Path(output_dir)
    require_writable(output_dir)
    names = _Names.of(result, image_id)
    folder = output_dir / names.folder
    with one_line_write_errors(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=output_dir) as staging:
            record = _write_all(Path(staging), result, names, image_id, draw_box, command)
            _move_into_place(Path(staging), folder, names.stem)
    return SavedEdit(
        folder=folder,
        final=folder / "results" / "final_output.png",
        overview=folder / "overview.png",
        report=folder / "report.html",
        candidates=tuple(folder / entry["file"] for entry in record["candidates"]),
        record=record,
    )


@dataclass(frozen=True, kw_only=True)
class _Names:
    """The names that an edit's files get, from its image id and texts."""

    folder: str
    stem: str

    @staticmethod
    def of(result: EditResult, image_id: str) -> _Names:
        number = safe_name(image_id, empty="image")
        return _Names(
            folder=f"{number}_{safe_name(_called(result, result.request.caption), empty='no caption')}",
            stem=f"{number}_{safe_name(_called(result, result.request.prompt), dashes=True)}",
        )


def _write_all(
    folder: Path, result: EditResult, names: _Names, image_id: str, draw_box: bool, command: str | None
) -> dict[str, Any]:
    """Every file of the edit; returns the record."""
    source = result.request.source
    original = source.pixels if source is not None else _eight_bit(result)
    _save_input(folder / "input_image.png", result, original)
    files, thumbnails = [], []
    for index in range(len(result.candidates)):
        edited = result.edited(index)
        anchor = int(result.candidates.regions.anchor_index[index])
        files.append(f"results/{names.stem}anchor{anchor}.png")
        pixels = edited.pixels()
        save_image(folder / files[-1], pixels, source=source, text=settings_text(result, index))
        thumbnails.append(thumbnail(pixels))
        if index == result.order[0]:
            best = thumbnail(pixels, longest_px=BEST_PX)
        if draw_box:
            drawn = _with_box(original, edited.box_xyxy)
            save_image(folder / f"boxes/{names.stem}anchor{anchor}_ori_draw.png", drawn)
    shutil.copyfile(folder / files[result.order[0]], folder / "results" / "final_output.png")
    (folder / "overview.png").write_bytes(draw_overview(result, thumbnail(original), thumbnails))
    record = edit_record(result, files, image_id)
    before = thumbnail(original, longest_px=BEST_PX)
    report = edit_report(result, before, best, thumbnails, files, versions=record["versions"], command=command)
    (folder / "report.html").write_bytes(report.encode("utf-8", "replace"))
    (folder / RECORD_NAME).write_text(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    return record


def _move_into_place(staging: Path, folder: Path, stem: str) -> None:
    """Rename every file to its place; the old record goes first and the new one comes last."""
    (folder / RECORD_NAME).unlink(missing_ok=True)
    new = sorted(path.relative_to(staging) for path in staging.rglob("*") if path.is_file())
    for kind in ("results", "boxes"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for old in (folder / kind).iterdir():
            if old.name.startswith(f"{stem}anchor") and old.relative_to(folder) not in new:
                old.unlink()
    if not any((folder / "boxes").iterdir()):
        (folder / "boxes").rmdir()
    for name in sorted(new, key=lambda name: name.name == RECORD_NAME):
        (folder / name).parent.mkdir(exist_ok=True)
        os.replace(staging / name, folder / name)


def edit_record(result: EditResult, files: list[str], image_id: str) -> dict[str, Any]:
    """result.json: plain values only; numbers that are not finite become null. files: by candidate, in the folder."""
    request, regions, losses, learned = result.request, result.candidates.regions, result.losses, result.anchor_net
    candidates = []
    for index, file in enumerate(files):
        candidates.append(
            {
                "anchor": int(regions.anchor_index[index]),
                "box_xyxy": regions.boxes_xyxy[index].tolist(),
                "losses": {kind: _finite(getattr(losses, kind)[index]) for kind in LOSS_NAMES},
                "score": _finite(result.scores[index]),
                "file": file,
            }
        )
    path = request.source.path if request.source is not None else None
    return {
        "request": {
            "image": None if path is None else str(path),
            "image_id": image_id,
            "size_px": [request.image.shape[2], request.image.shape[1]],
            "caption": request.caption,
            "prompt": request.prompt,
            "task": request.task,
            "seed": _seed(result),
        },
        "config": result.config.to_dict(),
        "candidates": candidates,
        "order": list(result.order),
        "anchor_net": None
        if learned is None
        else {
            "probabilities_before": learned.probabilities_before.tolist(),
            "probabilities_after": learned.probabilities_after.tolist(),
            "expected_loss_before": _finite(learned.expected_loss_before),
            "expected_loss_after": _finite(learned.expected_loss_after),
        },
        "history": [
            {name: _finite(value) if isinstance(value, float) else value for name, value in step.to_dict().items()}
            for step in result.history
        ],
        "cost": {
            "inpaintings": result.cost.inpaintings,
            "unet_forwards": result.cost.unet_forwards,
            "seconds": {stage: round(seconds, 4) for stage, seconds in result.cost.seconds.items()},
            "peak_memory_mb": round(result.cost.peak_memory_mb, 1),
        },
        "versions": library_versions(),
    }


def settings_text(result: EditResult, index: int) -> dict[str, str]:
    """PNG text of one candidate: everything needed to make it again, as JSON under the keyword "maskless"."""
    settings = {
        "caption": result.request.caption,
        "prompt": result.request.prompt,
        "task": result.request.task,
        "seed": _seed(result),
        "anchor": int(result.candidates.regions.anchor_index[index]),
        "box_xyxy": result.candidates.regions.boxes_xyxy[index].tolist(),
        "score": _finite(result.scores[index]),
        "config": result.config.to_dict(),
        "version": library_versions()["maskless"],
    }
    return {"Software": "Maskless", "maskless": json.dumps(settings, ensure_ascii=False, allow_nan=False)}


def library_versions() -> dict[str, str]:
    """Versions of Python and of what decides an edit's bytes."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            versions[library] = "unknown"
    return versions


def _called(result: EditResult, words: str) -> str:
    """A caption or prompt as it names files; of the tasks that can do without one, the task's name."""
    unnamed = not words.strip() and result.request.task != "replace"
    return result.request.task if unnamed else words


def _save_input(path: Path, result: EditResult, original: np.ndarray) -> None:
    """The picture as it came: without the canvas that was added to it."""
    source, margins = result.request.source, result.request.margins_px
    if any(margins):
        original = without_margins(original, margins)
        assert source is not None, "a canvas is added to a picture that was loaded"
        alpha = None if source.alpha is None else without_margins(source.alpha, margins)
        rgb = torch.from_numpy(without_margins(source.rgb.movedim(0, -1).numpy(), margins)).movedim(-1, 0)
        source = replace(source, pixels=original, alpha=alpha, rgb=rgb)
    save_image(path, original, source=source)


def _with_box(pixels: np.ndarray, box_xyxy: tuple[int, int, int, int]) -> np.ndarray:
    """The picture in 8 bits with a red frame just inside the box."""
    from PIL import ImageDraw

    image: Image.Image = _full_size(pixels)
    x0, y0, x1, y1 = box_xyxy
    thickness = max(1, round(min(image.size) / 128))
    ImageDraw.Draw(image).rectangle((x0, y0, x1 - 1, y1 - 1), outline=(228, 38, 38), width=thickness)
    return np.asarray(image)


def _full_size(pixels: np.ndarray) -> Image.Image:
    from PIL import Image

    return Image.fromarray((pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else np.array(pixels))


def _eight_bit(result: EditResult) -> np.ndarray:
    return (result.request.image.movedim(0, -1) * 255).round().byte().contiguous().numpy()


def _seed(result: EditResult) -> int:
    return result.config.seed if result.request.seed is None else result.request.seed


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
