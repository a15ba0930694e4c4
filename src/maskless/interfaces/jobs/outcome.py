"""What a finished edit says to clients: its region, its candidates, and in words why each has its rank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskless.data.boxes import corners
from maskless.data.files import finite, written_whole
from maskless.data.picture import load_image
from maskless.data.result import EditResult
from maskless.data.tasks import FACTS
from maskless.records.outputs import SavedEdit
from maskless.records.overview import thumbnail

HEAT = ((0.0, (20, 11, 52)), (0.35, (132, 32, 107)), (0.65, (229, 92, 48)), (1.0, (252, 255, 164)))
"""Colours of the maps, from cold to hot: the value, and red, green and blue."""
ORDINALS = {1: "1st", 2: "2nd", 3: "3rd", 21: "21st", 22: "22nd", 23: "23rd"}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The files of a finished edit, and `facts`, which clients get as JSON.

    pictures: file of each candidate at full resolution, best first. masks: a picture of each candidate's region, white
    where it may differ from the source; empty if the regions are boxes. maps: the attention and the relevance, by name.
    """

    facts: dict[str, Any]
    pictures: tuple[Path, ...]
    masks: tuple[Path, ...]
    maps: dict[str, Path]
    report: Path
    overview: Path
    folder: Path


def keep_outcome(result: EditResult, saved: SavedEdit, folder: Path) -> Outcome:
    """Write the masks and maps of an edit to a folder, and collect what clients can ask for."""
    masks = []
    if result.candidates.masks is not None:
        for rank, index in enumerate(result.order, start=1):
            masks.append(folder / "regions" / f"{rank}.png")
            _save(masks[-1], result.edited(index).touched().numpy().astype(np.uint8) * 255)
    heats = {"attention": result.attention, "relevance": result.relevance}
    maps = {name: folder / "maps" / f"{name}.png" for name, heat in heats.items() if heat is not None}
    for name, path in maps.items():
        heat = heats[name]
        assert heat is not None
        _save(path, heat_map(heat.float().cpu().numpy()))
    return Outcome(
        facts=outcome_facts(result),
        pictures=tuple(saved.candidates[index] for index in result.order),
        masks=tuple(masks),
        maps=maps,
        report=saved.report,
        overview=saved.overview,
        folder=saved.folder,
    )


def outcome_facts(result: EditResult) -> dict[str, Any]:
    """The outcome as plain values: candidates are listed best first, boxes are half-open and in pixels."""
    source, (height, width) = result.request.source, result.request.size_yx
    candidates = [
        {
            "rank": rank,
            "region": region_facts(result, index),
            "score": finite(float(result.scores[index])),
            "losses": {name: finite(value) for name, value in result.losses.of(index).items()},
            "reason": reason(result, rank),
        }
        for rank, index in enumerate(result.order, start=1)
    ]
    return {
        "size_px": [width, height],
        "bit_depth": source.bit_depth,
        "has_alpha": source.alpha is not None,
        "margins_px": list(result.request.margins_px),
        "task": result.request.task,
        "caption": result.request.caption,
        "prompt": result.request.prompt,
        "seed": result.config.seed,
        "region": candidates[0]["region"],
        "score": candidates[0]["score"],
        "candidates": candidates,
        "maps": [name for name in ("attention", "relevance") if getattr(result, name) is not None],
        "inpaintings": result.cost.inpaintings,
        "seconds": round(sum(result.cost.seconds.values()), 2),
    }


def region_facts(result: EditResult, index: int) -> dict[str, Any]:
    """The region of the candidate at a position: its box, its shape, and its share of the picture, 0 to 1."""
    edited = result.edited(index)
    return {
        "box_xyxy": list(corners(result.candidates.regions.boxes_xyxy[index])),
        "shape": "box" if edited.mask is None else "mask",
        "share": round(float(edited.touched().to(torch.float32).mean()), 4),
    }


def reason(result: EditResult, rank: int) -> str:
    """In one or two sentences, why the candidate has this rank."""
    count, index = len(result.order), result.order[rank - 1]
    if count == 1:
        searched = result.anchors is not None and result.request.caption.strip()
        words = f": its region fits “{_shortened(result.request.caption)}” best" if searched else ""
        return f"The only candidate that was drawn{words}."
    place = f"Ranked {ORDINALS.get(rank, f'{rank}th')} of {count}"
    score, best = float(result.scores[index]), float(result.scores[result.order[0]])
    if result.anchors is None:
        signs = "shows the prompt and continues its surroundings"
        how = f"of the tries in the same region it {signs} best" if rank == 1 else f"it {signs} less well than the best"
    elif result.used.ranking == "located" and result.request.caption.strip() and _names_location(result):
        words = f"“{_shortened(result.request.caption)}”"
        how = f"its region fits {words} best" if rank == 1 else f"its region fits {words} less well than the best"
    elif result.used.ranking == "verified" and result.request.caption.strip() and _names_location(result):
        words = f"“{_shortened(result.request.caption)}” is gone and the rest of the picture is as it was"
        how = f"most clearly, {words}" if rank == 1 else f"less clearly than in the best, {words}"
    else:
        how = "it is most similar to the prompt" if rank == 1 else "it is less similar to the prompt than the best"
    numbers = f" (score {score:.2f})" if rank == 1 else f" (score {score:.2f}, the best {best:.2f})"
    return f"{place}: {how}{numbers}. {_prompt_shown(result, index)}"


def _names_location(result: EditResult) -> bool:
    return FACTS[result.request.task].needs_location or FACTS[result.request.task].replaces_caption


def _prompt_shown(result: EditResult, index: int) -> str:
    """How many of the other candidates show the prompt less well inside their region."""
    names = list(result.losses.names)
    if "local" not in names or not result.request.prompt.strip():
        return ""
    values = result.losses.terms[:, names.index("local")]
    worse = int((values > values[index]).sum())
    others = len(result.order) - 1
    return (
        f"Inside its region the prompt shows better than in {worse} of the {others} other{'s' if others > 1 else ''}."
    )


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "…"


def heat_map(heat: np.ndarray) -> np.ndarray:
    """A map [h, w] as colours [h, w, 4] of uint8, more transparent where it is low, to lay over the picture."""
    span = float(heat.max() - heat.min())
    level = (heat - heat.min()) / span if span > 0 else np.zeros_like(heat)
    stops = [value for value, _colour in HEAT]
    channels = [np.interp(level, stops, [colour[channel] for _value, colour in HEAT]) for channel in range(3)]
    return np.stack([*channels, 255 * (0.35 + 0.5 * level)], axis=-1).round().astype(np.uint8)


def small_view(path: Path, longest_px: int) -> Path:
    """A PNG of a picture, at most `longest_px` wide and high and with 8 bits per channel, for a page to show. It is
    made once and lies beside the picture."""
    view = path.parent / ".views" / f"{path.stem}-{longest_px}.png"
    if not view.exists():
        source = load_image(path)
        pixels = source.pixels if source.alpha is None else np.dstack([source.pixels, source.alpha])
        with written_whole(view) as temporary:
            thumbnail(pixels, longest_px=longest_px).save(temporary, format="PNG")
    return view


def _save(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    with written_whole(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
