"""report.html: an edit as one page to read or send. Parts that a result does not have are left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import PurePath
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
from torch import Tensor

from maskless.data.config import EditConfig
from maskless.data.result import AnchorNetReport, Cost, EditResult
from maskless.records.html import (
    before_after,
    box_outline,
    curve,
    data_uri,
    facts,
    mask_outline,
    page,
    picture_bytes,
    text,
)

if TYPE_CHECKING:
    from PIL import Image

BEST_PX, BEST_BYTES = 1024, 260_000
CARD_PX, CARD_BYTES = 360, 32_000
SHOWN_CARDS, SHOWN_ANCHORS = 20, 32
"""With these a page of any edit stays under two megabytes."""
LOSSES = {"total": "loss", "clip": "CLIP", "directional": "directional", "structure": "structure", "local": "region"}


def edit_report(
    result: EditResult,
    before: Image.Image,
    after: Image.Image,
    edited: Sequence[Image.Image],
    files: Sequence[str],
    *,
    versions: Mapping[str, str],
    command: str | None = None,
) -> str:
    """The page of one edit.

    before, after: the source and the best candidate, RGB of any size. edited: small pictures of each candidate, and
    files: their paths beside the page, both by position (not by rank). versions: of libraries, by name.
    command: what makes the edit again, for a shell; None leaves that part out.
    """
    request = result.request
    parts = [
        _head(result),
        _best(result, before, after),
        _candidates(result, edited, files),
        "" if result.anchor_net is None else _learned(result, result.anchor_net),
        _curve(result),
        "" if command is None else _reproduction(command),
        _settings(result.config),
        "" if result.cost is None else _cost(result.cost),
        _section("Versions", facts(versions)),
        '<footer class="faint">Made by Maskless. This page is one file: it holds its pictures and asks nothing of the '
        "network. Beside it, <code>result.json</code> holds the same as data.</footer>",
    ]
    caption = _one_line(request.caption)
    words = _one_line(request.prompt) or request.task
    title = f"{words} in place of {caption}" if caption and request.task == "replace" else words
    return page(f"{title[:120]} · Maskless", "\n".join(part for part in parts if part))


def _head(result: EditResult) -> str:
    request = result.request
    width, height = _size_px(result)
    path = request.source.path if request.source is not None else None
    caption = f"“{_one_line(request.caption)}”" if request.caption.strip() else ""
    if caption:
        caption = f"in place of {caption}" if request.task == "replace" else f"task {request.task}, caption {caption}"
    if not caption and result.anchors is not None:
        caption = "place not named"
    seed = result.config.seed if request.seed is None else request.seed
    parts = [caption, "" if path is None else PurePath(path).name, f"{width} × {height} pixels", f"seed {seed}"]
    return (
        f'<header><h1 class="clip" dir="auto">{text(_one_line(request.prompt) or request.task)}</h1>'
        f'<p class="faint clip" dir="auto">{text(" · ".join(part for part in parts if part))}</p></header>'
    )


def _best(result: EditResult, before: Image.Image, after: Image.Image) -> str:
    best = result.order[0]
    shown = [picture_bytes(image, longest_px=BEST_PX, most_bytes=BEST_BYTES) for image in (before, after)]
    x0, y0, x1, y1 = _box(result, best)
    told: dict[str, object] = {
        "region": f"{x1 - x0} × {y1 - y0} at ({x0}, {y0})",
        "score": _number(result.scores[best]),
    }
    if len(result.candidates) > 1:
        told["best of"] = f"{len(result.candidates)} candidates, by the ranking “{result.config.ranking}”"
    if result.anchor_net is not None:
        learned = result.anchor_net
        told["expected loss"] = f"{_number(learned.expected_loss_before)} → {_number(learned.expected_loss_after)}"
    if result.history:
        told["iterations"] = len(result.history)
    if result.cost is not None:
        told["inpaintings"] = result.cost.inpaintings
        told["time"] = f"{sum(result.cost.seconds.values()):.1f} s"
    label = _one_line(result.request.prompt) or result.request.task
    slider = before_after(shown[0], shown[1], label, size_px=_size_px(result), region=_region(result, best))
    return f'<div class="wide">{slider}<div>{facts(told)}</div></div>'


def _candidates(result: EditResult, edited: Sequence[Image.Image], files: Sequence[str]) -> str:
    """A card for each of the first, and the count of the rest."""
    cards = [_card(result, rank, edited[index], files[index]) for rank, index in _ranked(result)[:SHOWN_CARDS]]
    left = len(result.order) - len(cards)
    rest = f'<p class="faint">{left} more, ranked lower, are in the folder of the results.</p>' if left else ""
    lead = (
        '<p class="faint">Best first. Of the ranking’s score more is better, of the losses less; boxes are in pixels '
        "of the original. A picture leads to its file.</p>"
    )
    return _section("Candidates", f'{lead}<ol class="cards">{"".join(cards)}</ol>{rest}')


def _ranked(result: EditResult) -> list[tuple[int, int]]:
    return list(enumerate(result.order, start=1))


def _card(result: EditResult, rank: int, picture: Image.Image, file: str) -> str:
    index = result.order[rank - 1]
    anchor = int(result.candidates.regions.anchor_index[index])
    encoded = picture_bytes(picture, longest_px=CARD_PX, most_bytes=CARD_BYTES)
    told: dict[str, object] = {} if result.anchors is None else {"anchor": anchor}
    if result.losses is not None:
        told |= {name: _number(getattr(result.losses, kind)[index]) for kind, name in LOSSES.items()}
    x0, y0, x1, y1 = _box(result, index)
    return (
        f'<li{" class=best" if rank == 1 else ""}><a class="side" href="{text(quote(file))}">'
        f'<img src="{data_uri(encoded)}" alt="Candidate {rank}" loading="lazy">'
        f"{_region(result, index)}</a>"
        f"<h3>{rank}. score {_number(result.scores[index])}</h3>"
        f'<div class="faint">{x1 - x0} × {y1 - y0} at ({x0}, {y0})</div>{facts(told, kind="numbers")}'
        "</li>"
    )


def _learned(result: EditResult, learned: AnchorNetReport) -> str:
    """AnchorNet's distribution before and after, as tables."""
    tables = "".join(
        _distribution(table.float().cpu().numpy(), f"{when}: expected loss {_number(expected)}", result.config.sizes)
        for table, when, expected in (
            (learned.probabilities_before, "Before", learned.expected_loss_before),
            (learned.probabilities_after, "After", learned.expected_loss_after),
        )
    )
    count = learned.probabilities_before.shape[0]
    rest = f'<p class="faint">The first {SHOWN_ANCHORS} of {count} anchors.</p>' if count > SHOWN_ANCHORS else ""
    lead = (
        '<p class="faint">How probable each size of box was around each anchor, in percent. Sizes are half the side of '
        "the box, in 32nds of the picture’s shorter side.</p>"
    )
    return _section("What AnchorNet learned", f'{lead}<div class="side-by-side">{tables}</div>{rest}')


def _distribution(table: np.ndarray, title: str, sizes: Sequence[int]) -> str:
    """One table of probabilities [K, M]."""
    labels: Sequence[object] = sizes if len(sizes) == table.shape[1] else range(table.shape[1])
    head = "".join(f'<th scope="col">{label}</th>' for label in labels)
    rows = ""
    for anchor, row in enumerate(table[:SHOWN_ANCHORS]):
        cells = "".join(
            f'<td style="--p:{value:.2f}"{" class=hot" if value > 0.85 else ""}>{100 * value:.0f}</td>' for value in row
        )
        rows += f'<tr><th scope="row">anchor {anchor}</th>{cells}</tr>'
    return (
        f'<div class="heat scroll"><table><caption>{text(title)}</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _curve(result: EditResult) -> str:
    if not result.history:
        return ""
    drawn = curve(
        {
            "of the choices": [(step.iteration, step.loss) for step in result.history],
            "expected, over the regions seen": [(step.iteration, step.expected_loss) for step in result.history],
        },
        x_label="iteration",
    )
    return _section("Loss over the iterations", drawn) if drawn else ""


def _reproduction(command: str) -> str:
    lead = (
        '<p class="faint">The command, with every option that is not the default. With the same versions and models it '
        "makes the same pictures.</p>"
    )
    return _section("How to make it again", f'{lead}<pre tabindex="0"><code>{text(command)}</code></pre>')


def _settings(config: EditConfig) -> str:
    """Every option by group; those that differ from the default stand out."""
    groups: dict[str, str] = {}
    for option in fields(config):
        value = getattr(config, option.name)
        changed = option.default is not None and value != option.default
        shown = _shown(value)
        told = f"<dt>{option.name.replace('_', ' ')}</dt><dd{' class=changed' if changed else ''}>{text(shown)}</dd>"
        group = option.metadata["group"]
        groups[group] = groups.get(group, "") + told
    blocks = "".join(f"<div><h3>{text(group)}</h3><dl>{rows}</dl></div>" for group, rows in groups.items())
    lead = '<p class="faint">What is not the default is bold.</p>'
    return _section("Settings", f'{lead}<div class="settings">{blocks}</div>')


def _cost(cost: Cost) -> str:
    """Seconds by stage, the longest first."""
    whole = sum(cost.seconds.values())
    longest = max([*cost.seconds.values(), 1e-9])
    rows = "".join(
        f'<tr><th scope="row">{text(stage)}</th><td><span class="bar" style="width:{100 * seconds / longest:.1f}%">'
        f"</span></td><td>{seconds:.2f} s</td></tr>"
        for stage, seconds in sorted(cost.seconds.items(), key=lambda entry: -entry[1])
    )
    told = (
        f"{cost.inpaintings} inpaintings, {cost.unet_forwards} forward passes of the denoiser, {whole:.1f} s, "
        f"at most {cost.peak_memory_mb:.0f} MB of memory."
    )
    return _section("What it cost", f'<p class="faint">{told}</p><table class="bars">{rows}</table>')


def _section(title: str, body: str) -> str:
    return f"<section><h2>{text(title)}</h2>{body}</section>"


def _region(result: EditResult, index: int) -> str:
    """The outline of one candidate's region, to lay over a picture: its mask, or its box where it has none."""
    masks = result.candidates.masks
    if masks is not None:
        return mask_outline(masks[index].cpu().numpy())
    return box_outline([_box(result, index)], _size_px(result))


def _size_px(result: EditResult) -> tuple[int, int]:
    height, width = result.request.size_yx
    return width, height


def _box(result: EditResult, index: int) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = result.candidates.regions.boxes_xyxy[index].tolist()
    return x0, y0, x1, y1


def _number(value: Tensor | float) -> str:
    number = float(value)
    return f"{number:.3f}".replace("-", "\N{MINUS SIGN}") if math.isfinite(number) else "–"


def _one_line(content: str) -> str:
    return " ".join(content.split())


def _shown(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else "“”" if value == "" else value
