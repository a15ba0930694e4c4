"""report.html: one page about an edit, to read or to send. Parts that a result does not have are left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import PurePath
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
from torch import Tensor

from maskless.data.alignment import Alignment
from maskless.data.boxes import corners
from maskless.data.config import EditConfig
from maskless.data.model_options import ModelOptions
from maskless.data.result import AnchorNetReport, Cost, EditResult, Placement
from maskless.data.tasks import FACTS
from maskless.method.losses import TERMS
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
from maskless.records.overview import second_curve

if TYPE_CHECKING:
    from PIL import Image

BEST_PX, BEST_BYTES = 1024, 260_000
CARD_PX, CARD_BYTES = 360, 32_000
SHOWN_CARDS, SHOWN_ANCHORS = 20, 32
"""Limits that keep the page of any edit under two megabytes: the longer side and the bytes of the two large pictures
and of each small one, and the number of candidates and anchors that are shown."""
LOSSES = {"total": "loss"} | {term.name: term.title for term in TERMS}


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
    """The HTML page of one edit.

    before, after: the source and the best candidate, RGB of any size. edited: a small picture of each candidate, and
    files: its path relative to the page, both by position (not by rank). versions: version of each library by name.
    command: the shell command that repeats the edit; None leaves that part out.
    """
    request = result.request
    parts = [
        _head(result),
        _best(result, before, after),
        _candidates(result, edited, files),
        "" if result.placement is None else _considered(result.placement),
        "" if result.anchor_net is None else _learned(result, result.anchor_net),
        _curve(result),
        "" if command is None else _reproduction(command),
        _settings(result),
        _cost(result.cost),
        _section("Versions", facts(versions)),
        '<footer class="faint">Made by Maskless. This page is one file that contains its pictures and loads nothing '
        "from the network. <code>result.json</code> in the same folder has the same content as data.</footer>",
    ]
    caption, replaces = _one_line(request.caption), FACTS[request.task].replaces_caption
    words = _one_line(request.prompt) or request.task
    title = f"{words} in place of {caption}" if caption and replaces else words
    return page(f"{title[:120]} · Maskless", "\n".join(part for part in parts if part))


def _head(result: EditResult) -> str:
    request = result.request
    width, height = _size_px(result)
    path = request.source.path
    caption = f"“{_one_line(request.caption)}”" if request.caption.strip() else ""
    if caption:
        replaces = FACTS[request.task].replaces_caption
        caption = f"in place of {caption}" if replaces else f"task {request.task}, caption {caption}"
    if not caption and result.anchors is not None:
        caption = "location not named"
    name = "" if path is None else PurePath(path).name
    parts = [caption, name, f"{width} × {height} pixels", f"seed {result.config.seed}"]
    return (
        f'<header><h1 class="clip" dir="auto">{text(_one_line(request.prompt) or request.task)}</h1>'
        f'<p class="faint clip" dir="auto">{text(" · ".join(part for part in parts if part))}</p></header>'
    )


def _best(result: EditResult, before: Image.Image, after: Image.Image) -> str:
    best = result.order[0]
    shown = [picture_bytes(image, longest_px=BEST_PX, most_bytes=BEST_BYTES) for image in (before, after)]
    x0, y0, x1, y1 = _box(result, best)
    summary: dict[str, object] = {
        "region": f"{x1 - x0} × {y1 - y0} at ({x0}, {y0})",
        "score": _number(result.scores[best]),
    }
    if len(result.candidates) > 1:
        summary["best of"] = f"{len(result.candidates)} candidates, by the ranking “{result.used.ranking}”"
    if result.anchor_net is not None:
        learned = result.anchor_net
        expected = (learned.expected_loss_before, learned.expected_loss_after)
        summary["expected loss with location cost"] = " → ".join(map(_number, expected))
        summary["iterations"] = len(result.drawn_steps)
    summary["inpaintings"] = result.cost.inpaintings
    if result.cost.seconds:
        summary["time"] = f"{sum(result.cost.seconds.values()):.1f} s"
    label = _one_line(result.request.prompt) or result.request.task
    slider = before_after(shown[0], shown[1], label, size_px=_size_px(result), region=_region(result, best))
    return f'<div class="wide">{slider}<div>{facts(summary)}</div></div>'


def _candidates(result: EditResult, edited: Sequence[Image.Image], files: Sequence[str]) -> str:
    """A card for each of the SHOWN_CARDS best candidates, and the number of the others."""
    cards = [_card(result, rank, edited[index], files[index]) for rank, index in _ranked(result)[:SHOWN_CARDS]]
    hidden = len(result.order) - len(cards)
    rest = f'<p class="faint">{hidden} more, ranked lower, are in the folder “results”.</p>' if hidden else ""
    lead = (
        '<p class="faint">The best candidate comes first. A higher score and lower losses are better. Boxes are in '
        "pixels of the original. Click a picture to open its file.</p>"
    )
    return _section("Candidates", f'{lead}<ol class="cards">{"".join(cards)}</ol>{rest}')


def _ranked(result: EditResult) -> list[tuple[int, int]]:
    return list(enumerate(result.order, start=1))


def _card(result: EditResult, rank: int, picture: Image.Image, file: str) -> str:
    index = result.order[rank - 1]
    anchor = int(result.candidates.regions.anchor_index[index])
    encoded = picture_bytes(picture, longest_px=CARD_PX, most_bytes=CARD_BYTES)
    kind = "anchor" if result.placement is None else "place"
    numbers: dict[str, object] = {} if result.anchors is None else {kind: anchor}
    losses = result.losses.of(index)
    numbers |= {title: _number(losses[name]) for name, title in LOSSES.items()}
    alignment = result.candidates.alignment(index)
    numbers |= {} if alignment is None else _aligned(alignment)
    x0, y0, x1, y1 = _box(result, index)
    return (
        f'<li{" class=best" if rank == 1 else ""}><a class="side" href="{text(quote(file))}">'
        f'<img src="{data_uri(encoded)}" alt="Candidate {rank}" loading="lazy">'
        f"{_region(result, index)}</a>"
        f"<h3>{rank}. score {_number(result.scores[index])}</h3>"
        f'<div class="faint">{x1 - x0} × {y1 - y0} at ({x0}, {y0})</div>{facts(numbers, kind="numbers")}'
        "</li>"
    )


def _aligned(alignment: Alignment) -> dict[str, object]:
    """How what the editor returned lay on the picture, and what was done about it."""
    done = [word for word, was in (("moved back", alignment.warped), ("recoloured", alignment.colours_matched)) if was]
    x, y = (_signed(value, 1) for value in alignment.shift_xy_px)
    return {
        "alignment": (" and ".join(done) or "none needed") if alignment.aligned else "failed",
        "shift in pixels": f"{x}, {y}",
        "zoom": _number(alignment.scale),
        "colour change": ", ".join(_signed(value, 0) for value in alignment.colour_rgb),
        "residual": _number(alignment.residual),
    }


def _signed(value: float, digits: int) -> str:
    shown = f"{value:.{digits}f}"
    return shown.replace("-", "\N{MINUS SIGN}") if float(shown) else f"{0:.{digits}f}"


def _considered(placement: Placement) -> str:
    """The regions that a placed search considered, and why it inpainted no more of them."""
    rows = "".join(
        f'<tr><th scope="row">place {number}</th><td>{x1 - x0} × {y1 - y0} at ({x0}, {y0})</td>'
        f"<td>{_number(score)}</td><td>{'yes' if number < placement.drawn else 'no'}</td></tr>"
        for number, ((x0, y0, x1, y1), score) in enumerate(
            zip(placement.boxes_xyxy.tolist(), placement.score.tolist(), strict=True)
        )
    )
    lead = (
        '<p class="faint">The regions that fit the caption best, before anything was inpainted. The score is in '
        f"standard deviations over all proposed regions. {text(placement.reason[:1].upper() + placement.reason[1:])}."
        "</p>"
    )
    head = '<tr><td></td><th scope="col">region</th><th scope="col">score</th><th scope="col">inpainted</th></tr>'
    table = f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
    return _section("Regions considered", lead + table)


def _learned(result: EditResult, learned: AnchorNetReport) -> str:
    """AnchorNet's distribution before and after, as tables."""
    tables = "".join(
        _distribution(
            table.float().cpu().numpy(),
            f"{when}: expected loss with location cost {_number(expected)}",
            result.used.sizes,
        )
        for table, when, expected in (
            (learned.probabilities_before, "Before", learned.expected_loss_before),
            (learned.probabilities_after, "After", learned.expected_loss_after),
        )
    )
    count = learned.probabilities_before.shape[0]
    only = f"Only the first {SHOWN_ANCHORS} of {count} anchors are shown."
    rest = f'<p class="faint">{only}</p>' if count > SHOWN_ANCHORS else ""
    lead = (
        '<p class="faint">The probability of each size of box around each anchor, in percent. A size is half the side '
        "of the box, in 32nds of the picture’s shorter side.</p>"
    )
    return _section("What AnchorNet learned", f'{lead}<div class="side-by-side">{tables}</div>{rest}')


def _distribution(table: np.ndarray, title: str, sizes: Sequence[int]) -> str:
    """The HTML table of probabilities [K, M]."""
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
    """A chart of the loss of each step, with the second curve of the overview."""
    if not result.drawn_steps or result.placement is not None:
        return ""
    name, second = second_curve(result)
    chart = curve(
        {"loss": [(step.step, step.loss) for step in result.drawn_steps], name: second},
        x_label="iteration" if result.anchor_net is not None else "try",
    )
    return _section("Loss over the iterations" if result.anchor_net is not None else "Loss of each try", chart)


def _reproduction(command: str) -> str:
    lead = (
        '<p class="faint">This command has every option that differs from the default. With the same versions and '
        "models it makes the same pictures.</p>"
    )
    return _section("How to repeat this edit", f'{lead}<pre tabindex="0"><code>{text(command)}</code></pre>')


def _settings(result: EditResult) -> str:
    """Every option by group. Those that differ from the default are in bold; changes by the task are mentioned."""
    changed_by_task = result.config.differences(result.used)
    groups: dict[str, str] = {}
    for values, options in ((result.config, fields(EditConfig)), (result.models, fields(ModelOptions))):
        for option in options:
            value = getattr(values, option.name)
            changed = option.default is not None and value != option.default
            shown = f"{_shown(value)}"
            if option.name in changed_by_task:
                shown += f", changed by the task to {_shown(changed_by_task[option.name])}"
            name = option.name.replace("_", " ")
            row = f"<dt>{name}</dt><dd{' class=changed' if changed else ''}>{text(shown)}</dd>"
            groups[option.metadata["group"]] = groups.get(option.metadata["group"], "") + row
    blocks = "".join(f"<div><h3>{text(group)}</h3><dl>{rows}</dl></div>" for group, rows in groups.items())
    lead = '<p class="faint">Options that differ from the default are in bold.</p>'
    return _section("Settings", f'{lead}<div class="settings">{blocks}</div>')


def _cost(cost: Cost) -> str:
    """The cost of the edit, with a bar for each stage that was timed, the longest first."""
    total = sum(cost.seconds.values())
    longest = max([*cost.seconds.values(), 1e-9])
    rows = "".join(
        f'<tr><th scope="row">{text(stage)}</th><td><span class="bar" style="width:{100 * seconds / longest:.1f}%">'
        f"</span></td><td>{seconds:.2f} s</td></tr>"
        for stage, seconds in sorted(cost.seconds.items(), key=lambda entry: -entry[1])
    )
    lead = f"{cost.inpaintings} inpaintings, {cost.unet_forwards} forward passes of the denoiser"
    if cost.seconds:
        lead += f", {total:.1f} s, at most {cost.peak_memory_mb:.0f} MB of memory"
    return _section("Cost", f'<p class="faint">{lead}.</p><table class="bars">{rows}</table>')


def _section(title: str, body: str) -> str:
    return f"<section><h2>{text(title)}</h2>{body}</section>"


def _region(result: EditResult, index: int) -> str:
    """HTML that outlines one candidate's region on a picture: its mask, or its box if it has no mask."""
    masks = result.candidates.masks
    if masks is not None:
        return mask_outline(masks[index].cpu().numpy())
    return box_outline([_box(result, index)], _size_px(result))


def _size_px(result: EditResult) -> tuple[int, int]:
    height, width = result.request.size_yx
    return width, height


def _box(result: EditResult, index: int) -> tuple[int, int, int, int]:
    return corners(result.candidates.regions.boxes_xyxy[index])


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
