"""The files of an edit: its pictures, an overview, a report, and result.json. That file is written last, so a folder
that has it is complete."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskless.data.canvas import without_margins
from maskless.data.files import (
    finite,
    one_line_write_errors,
    require_no_links,
    require_writable,
    temporary_folder,
    write_bytes,
)
from maskless.data.picture import output_suffix, save_image
from maskless.data.provenance import ProvenanceOptions
from maskless.data.result import EditResult, Placement
from maskless.data.types import EditRequest
from maskless.records.credentials import Signer
from maskless.records.folders import RECORD_NAME, edit_folder, identity, identity_in
from maskless.records.names import safe_name, text_for_names
from maskless.records.overview import draw_overview, thumbnail
from maskless.records.report import BEST_PX, edit_report

if TYPE_CHECKING:
    from PIL import Image

PAGES = ("overview.png", "report.html")
KINDS = ("results", "boxes")
"""The folders of an edit's pictures."""
LIBRARIES = (
    "maskless",
    "torch",
    "diffusers",
    "transformers",
    "tokenizers",
    "opencv-python-headless",
    "numpy",
    "pillow",
)


@dataclass(frozen=True, kw_only=True)
class SavedEdit:
    """The files of a saved edit. candidates: by position, not by rank. record: the content of result.json."""

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
    suffix: str | None = None,
    quality: int | None = None,
    overwrite: bool = False,
    folder_name: str | None = None,
    provenance: ProvenanceOptions | None = None,
    announce: Callable[[SavedEdit], None] | None = None,
) -> SavedEdit:
    """Write the source, every candidate, the best one, overview.png, report.html and result.json of an edit.

    They are written to {output_dir}/{image_id}_{caption}/. The pictures and result.json are written to a hidden folder
    first and then renamed, result.json last, so a full disk or a killed process leaves the earlier files. Only then are
    overview.png and report.html drawn. The same edit, made again, replaces its files; if the folder holds another edit,
    the new one is numbered: "… (2)".

    Args:
        draw_box: also write the source with a frame around each candidate's box.
        command: the shell command that repeats the edit, for the report; None leaves it out.
        suffix: that of the edited pictures, which determines their format; None chooses it by the source
            (`picture.output_suffix`).
        quality: 1 to 100, for a suffix that has one.
        overwrite: take the folder whatever edit it holds.
        folder_name: the folder to take if no other edit has got it meanwhile, from `folders.edit_folder`.
        provenance: what the edited pictures say about where they come from; None takes the defaults.
        announce: called as soon as the pictures and result.json are there, before the overview and the report.
    Raises:
        MasklessError: a file cannot be written, or the format cannot hold the picture.
    """
    output_dir = Path(output_dir)
    require_writable(output_dir)
    names = _Names.of(result, image_id, suffix or output_suffix(result.request.source), quality)
    folder = output_dir / _free_folder(output_dir, names.identity, result.request, image_id, overwrite, folder_name)
    require_no_links(*written_folders(folder))
    with one_line_write_errors(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
        with temporary_folder(output_dir) as staging:
            written = _write_pictures(staging, result, names, image_id, draw_box, provenance or ProvenanceOptions())
            _move_into_place(staging, folder, names.stem)
    record = written.record
    saved = SavedEdit(
        folder=folder,
        final=folder / names.final,
        overview=folder / "overview.png",
        report=folder / "report.html",
        candidates=tuple(folder / entry["file"] for entry in record["candidates"]),
        record=record,
    )
    if announce is not None:
        announce(saved)
    with one_line_write_errors(output_dir):
        _write_pages(saved, result, written, command)
    return saved


@dataclass(frozen=True, kw_only=True)
class _Written:
    """What was written of an edit, and small pictures of it for its pages: the source at its own size and smaller, and
    the candidates by position. files: their paths, relative to the edit's folder."""

    record: dict[str, Any]
    source: np.ndarray
    best: Image.Image
    thumbnails: list[Image.Image]
    files: list[str]


@dataclass(frozen=True, kw_only=True)
class _Names:
    """The names of an edit's files, made from its image id and texts.

    stem: the beginning of its pictures' names. suffix: that of the edited pictures, which have this quality.
    """

    identity: str
    stem: str
    suffix: str
    quality: int | None

    @staticmethod
    def of(result: EditResult, image_id: str, suffix: str, quality: int | None) -> _Names:
        number, request = safe_name(image_id, empty="image"), result.request
        return _Names(
            identity=identity(request, result.config, result.models),
            stem=f"{number}_{safe_name(text_for_names(request.task, request.prompt), dashes=True)}",
            suffix=suffix,
            quality=quality,
        )

    @property
    def final(self) -> str:
        return f"results/final_output{self.suffix}"


def _free_folder(
    output_dir: Path, own: str, request: EditRequest, image_id: str, overwrite: bool, wanted: str | None
) -> str:
    """The folder that the edit of this identity is written to: the wanted one, if no other edit has got it."""
    if wanted is not None and identity_in(output_dir / wanted / RECORD_NAME) in (None, own):
        return wanted
    return edit_folder(request, own, output_dir=output_dir, image_id=image_id, overwrite=overwrite)


def _write_pictures(
    folder: Path, result: EditResult, names: _Names, image_id: str, draw_box: bool, provenance: ProvenanceOptions
) -> _Written:
    """Write the pictures of the edit and result.json to a folder."""
    source = result.request.source
    original = source.pixels
    _save_input(folder / "input_image.png", result, original)
    signer = Signer.of(provenance)
    ingredient = None if signer is None else signer.ingredient(source)
    files, thumbnails = [], []
    for index in range(len(result.candidates)):
        edited = result.edited(index)
        anchor = int(result.candidates.regions.anchor_index[index])
        files.append(f"results/{names.stem}anchor{anchor}{names.suffix}")
        pixels = edited.pixels()
        text = settings_text(result, index)
        mark = edited.provenance if provenance.provenance else None
        save_image(folder / files[-1], pixels, source=edited.source, text=text, quality=names.quality, provenance=mark)
        if signer is not None and ingredient is not None:
            signer.sign_file(folder / files[-1], edited.provenance, ingredient)
        thumbnails.append(thumbnail(pixels))
        if index == result.order[0]:
            best = thumbnail(pixels, longest_px=BEST_PX)
        if draw_box:
            framed = _with_box(original, edited.box_xyxy)
            save_image(folder / f"boxes/{names.stem}anchor{anchor}_ori_draw.png", framed)
    shutil.copyfile(folder / files[result.order[0]], folder / names.final)
    record = edit_record(result, files, image_id, names.identity)
    record["provenance"] = {
        "digital_source_type": result.best.provenance.source_type if provenance.provenance else None,
        "signed": signer is not None,
        "source_credentials": None if ingredient is None else ingredient.credentials,
    }
    content = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A file name may hold bytes that are not Unicode; JSON has the same escapes for them as Python.
    (folder / RECORD_NAME).write_bytes(content.encode("utf-8", "backslashreplace"))
    return _Written(record=record, source=original, best=best, thumbnails=thumbnails, files=files)


def _write_pages(saved: SavedEdit, result: EditResult, written: _Written, command: str | None) -> None:
    """Write overview.png and report.html, each whole."""
    write_bytes(saved.overview, draw_overview(result, thumbnail(written.source), written.thumbnails))
    before = thumbnail(written.source, longest_px=BEST_PX)
    versions = written.record["versions"]
    report = edit_report(
        result, before, written.best, written.thumbnails, written.files, versions=versions, command=command
    )
    write_bytes(saved.report, report.encode("utf-8", "replace"))


def written_folders(folder: Path) -> tuple[Path, ...]:
    """The folders of an edit, in which files of an earlier one are replaced and removed."""
    return (folder, *(folder / kind for kind in KINDS))


def _move_into_place(staging: Path, folder: Path, stem: str) -> None:
    """Move every file to the folder; the old record is removed first, and the new one is moved last.

    Candidates of an earlier edit with the same stem are removed, because it may have had more of them.
    """
    earlier = _earlier_files(folder, stem)
    for page in (RECORD_NAME, *PAGES):
        (folder / page).unlink(missing_ok=True)
    new = sorted(path.relative_to(staging) for path in staging.rglob("*") if path.is_file())
    for name in earlier:
        if name not in new and not (folder / name).is_symlink():
            (folder / name).unlink(missing_ok=True)
    for name in sorted(new, key=lambda name: name.name == RECORD_NAME):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(staging / name, folder / name)
    with contextlib.suppress(OSError):  # it may hold files of other edits
        (folder / "boxes").rmdir()


def _earlier_files(folder: Path, stem: str) -> list[Path]:
    """The pictures of the edit with this stem whose record is in the folder, relative to it.

    Only what a record lists is known to be written by this package. A record that cannot be read lists nothing.
    """
    try:
        record = json.loads((folder / RECORD_NAME).read_text("utf-8"))
        files = [str(candidate["file"]) for candidate in record["candidates"]]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []
    picture = re.compile(re.escape(stem) + r"anchor\d+")
    names = [Path(file) for file in files if file == f"results/{Path(file).name}"]
    kept = [name for name in names if picture.fullmatch(name.stem)]
    return [each for name in kept for each in (name, Path(f"boxes/{name.stem}_ori_draw.png"))]


def edit_record(result: EditResult, files: list[str], image_id: str, own: str) -> dict[str, Any]:
    """The content of result.json: plain values only; numbers that are not finite become null.

    files: path of each candidate, relative to the edit's folder. own: the edit's identity.
    """
    request, regions, losses, learned = result.request, result.candidates.regions, result.losses, result.anchor_net
    candidates = []
    for index, file in enumerate(files):
        candidates.append(
            {
                "anchor": int(regions.anchor_index[index]),
                "box_xyxy": regions.boxes_xyxy[index].tolist(),
                "losses": {name: finite(value) for name, value in losses.of(index).items()},
                "score": finite(float(result.scores[index])),
                "alignment": (measured := result.candidates.alignment(index)) and measured.to_dict(),
                "kept_px": result.candidates.kept_px(index),
                "file": file,
            }
        )
    path = request.source.path
    return {
        "request": {
            "image": None if path is None else str(path),
            "image_id": image_id,
            "size_px": list(reversed(request.size_yx)),
            "caption": request.caption,
            "prompt": request.prompt,
            "task": request.task,
            "seed": result.config.seed,
            "identity": own,
        },
        "config": result.config.to_dict(),
        "changed_by_task": result.config.differences(result.used),
        "models": result.models.to_dict(),
        "candidates": candidates,
        "order": list(result.order),
        "anchor_net": None
        if learned is None
        else {
            "probabilities_before": learned.probabilities_before.tolist(),
            "probabilities_after": learned.probabilities_after.tolist(),
            "expected_loss_before": finite(learned.expected_loss_before),
            "expected_loss_after": finite(learned.expected_loss_after),
        },
        "placement": None if result.placement is None else _placement(result.placement),
        "history": [
            {name: finite(value) if isinstance(value, float) else value for name, value in step.to_dict().items()}
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


def _placement(placement: Placement) -> dict[str, Any]:
    """The regions that a placed search considered, best first, and why it inpainted no more of them."""
    boxes, scores = placement.boxes_xyxy.tolist(), placement.score.tolist()
    return {
        "considered": [
            {"box_xyxy": box, "score": finite(score), "inpainted": number < placement.drawn}
            for number, (box, score) in enumerate(zip(boxes, scores, strict=True))
        ],
        "reason": placement.reason,
    }


def settings_text(result: EditResult, index: int) -> dict[str, str]:
    """PNG text chunks of one candidate: everything needed to make it again, as JSON under the keyword "maskless"."""
    settings = {
        "caption": result.request.caption,
        "prompt": result.request.prompt,
        "task": result.request.task,
        "seed": result.config.seed,
        "anchor": int(result.candidates.regions.anchor_index[index]),
        "box_xyxy": result.candidates.regions.boxes_xyxy[index].tolist(),
        "score": finite(float(result.scores[index])),
        "config": result.config.to_dict(),
        "changed_by_task": result.config.differences(result.used),
        "models": result.models.to_dict(),
        "version": library_versions()["maskless"],
    }
    return {"Software": "Maskless", "maskless": json.dumps(settings, ensure_ascii=False, allow_nan=False)}


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that an edit's exact pixels depend on."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            versions[library] = "unknown"
    return versions


def _save_input(path: Path, result: EditResult, original: np.ndarray) -> None:
    """Save the picture as it was given, without the canvas that the task added to it."""
    source, margins = result.request.source, result.request.margins_px
    if any(margins):
        original = without_margins(original, margins)
        alpha = None if source.alpha is None else without_margins(source.alpha, margins)
        source = replace(source, pixels=original, alpha=alpha, floats=None)
    save_image(path, original, source=source)


def _with_box(pixels: np.ndarray, box_xyxy: tuple[int, int, int, int]) -> np.ndarray:
    """The picture with 8 bits per channel and a red frame just inside the box."""
    from PIL import ImageDraw

    image: Image.Image = _eight_bit_image(pixels)
    x0, y0, x1, y1 = box_xyxy
    thickness = max(1, round(min(image.size) / 128))
    ImageDraw.Draw(image).rectangle((x0, y0, x1 - 1, y1 - 1), outline=(228, 38, 38), width=thickness)
    return np.asarray(image)


def _eight_bit_image(pixels: np.ndarray) -> Image.Image:
    from PIL import Image

    return Image.fromarray((pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else np.array(pixels))
