"""The parts of the page that Gradio has no component for, as HTML: stage, candidates, history and progress.

Every text of a client is escaped; addresses are made from identifiers of the server. assets/web/ has their style and
their behaviour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from maskless.data.tasks import FACTS
from maskless.interfaces.jobs.job import CANCELLED, DONE, FAILED, QUEUED, Job
from maskless.interfaces.web.session import Picture, Session, Version
from maskless.records.html import text
from maskless.records.names import counted

VIEW_PX, CARD_PX, THUMB_PX = 1280, 360, 120
SAMPLES = {
    "desert.png": "replace the red car with a blue house",
    "meadow.png": "replace the red car with a yellow flower",
    "room.png": "replace the blue cake with a green tree",
}
"""The bundled pictures, and an instruction for each."""
HEAD = """
<header class="ms-head"><div><h1>Maskless</h1>
<p>Change a picture with words. Everything outside the region stays as it was, bit for bit.</p></div>
<nav aria-label="More"><a href="/docs">HTTP API</a></nav></header>
"""
MODES = {
    "compare": "Compare",
    "region": "Region",
    "attention": "Attention",
    "relevance": "Relevance",
    "correct": "Correct the region",
}


def opener() -> str:
    """The button that opens a picture, and the samples to pick from."""
    samples = "".join(
        f'<button type="button" class="ms-sample" data-event="sample" data-detail=\'{{"name": "{name}"}}\' '
        f'aria-label="Open the sample {name[:-4]}"><img src="/samples/{name}" alt="" width="44" height="44"></button>'
        for name in SAMPLES
    )
    return (
        '<div class="ms-samples"><label class="ms-open">Open a picture<input type="file" class="ms-file" '
        'accept="image/*"></label><span>or a sample</span>'
        f'<div role="group" aria-label="Samples">{samples}</div></div>'
    )


def empty_stage(keep_minutes: float) -> str:
    """The stage without a picture, and how long pictures are kept."""
    return (
        '<div class="ms-empty"><div><p class="ms-big">Drop or paste a picture here</p>'
        "<p>Or open one, or pick a sample above.</p>"
        f'<p class="ms-hint">Pictures stay on this server and are deleted after {keep_minutes:g} minutes.</p>'
        "</div></div>"
    )


def picture_stage(picture: Picture) -> str:
    """The stage with a picture that is not edited yet."""
    return _stage(
        picture.size_px,
        f'<img class="ms-before" src="{picture.address}?longest={VIEW_PX}" alt="{text(picture.description)}">',
        modes={},
    )


def running_stage(job: Job, before: str, size_px: tuple[int, int]) -> str:
    """The stage while an edit is made: what is being drawn if that can be shown, else the best candidate so far, or the
    source. before: address of the source."""
    if job.drawing is not None:
        address = f"/v1/edits/{job.name}/drawing?number={job.drawings}"
        shown = f'<img class="ms-before" src="{address}" alt="What is being drawn">'
        return _stage(size_px, f'{shown}<span class="ms-tag">being drawn</span>', modes={})
    if job.previews:
        address = f"/v1/edits/{job.name}/previews/{len(job.previews)}"
        shown = f'<img class="ms-before" src="{address}" alt="The best candidate so far">'
    else:
        shown = f'<img class="ms-before" src="{before}" alt="The picture that is edited">'
    tag = "best so far" if job.previews else "looking at the picture" if job.state != QUEUED else "waiting"
    return _stage(size_px, f'{shown}<span class="ms-tag">{tag}</span>', modes={})


def result_stage(version: Version, job: Job) -> str:
    """The stage with an edit: before and after under a slider, the region, the maps, and the tools to correct it."""
    assert job.outcome is not None
    facts, base = job.outcome.facts, f"/v1/edits/{job.name}"
    width, height = facts["size_px"]
    chosen = facts["candidates"][version.rank - 1]
    x0, y0, x1, y1 = chosen["region"]["box_xyxy"]
    left, top, right, bottom = facts["margins_px"]
    placed = (
        f"left:{100 * left / width:.3f}%;top:{100 * top / height:.3f}%;"
        f"width:{100 * (width - left - right) / width:.3f}%;height:{100 * (height - top - bottom) / height:.3f}%"
    )
    before = (
        f'<img class="ms-before" style="{placed}" src="{base}/source?longest={VIEW_PX}" '
        f'alt="Before: {text(version.before)}">'
    )
    after = (
        f'<div class="ms-after"><img src="{base}/image?rank={version.rank}&amp;longest={VIEW_PX}" '
        f'alt="After: {text(version.title)}"></div>'
    )
    heats = "".join(
        f'<img class="ms-heat" data-map="{name}" src="{base}/maps/{name}" alt="Where the {name} is high">'
        for name in facts["maps"]
    )
    at = 50 if x1 - x0 > 0.8 * width else max(4, round(100 * x0 / width) - 3)
    slider = (
        f'<input type="range" class="ms-slider" min="0" max="100" step="1" value="{at}" '
        'aria-label="Share of the picture before the edit that is shown, in percent"><span class="ms-handle"></span>'
        '<span class="ms-tag">before</span><span class="ms-tag ms-right">after</span>'
    )
    region = _region(chosen["region"], (width, height), f"{base}/region?rank={version.rank}")
    correctable = not any(facts["margins_px"])
    modes = {
        name: label
        for name, label in MODES.items()
        if (name not in ("attention", "relevance") or name in facts["maps"]) and (name != "correct" or correctable)
    }
    drawing = '<canvas class="ms-brush"></canvas><div class="ms-box" hidden></div>' if correctable else ""
    return _stage(
        (width, height),
        f"{before}{after}{heats}{region}{drawing}{slider}",
        modes=modes,
        below=f'<p class="ms-reason">{text(chosen["reason"])}</p>',
        tools=_correction((width, height), (x0, y0, x1, y1)) if correctable else "",
        at=at,
    )


def cards(version: Version, job: Job) -> str:
    """The candidates, best first, as buttons."""
    assert job.outcome is not None
    facts, base = job.outcome.facts, f"/v1/edits/{job.name}"
    items = []
    for candidate in facts["candidates"]:
        rank, score = candidate["rank"], candidate["score"]
        frame = _frame(candidate["region"], tuple(facts["size_px"]))
        shown = "–" if score is None else f"{score:.2f}".replace("-", "\N{MINUS SIGN}")
        items.append(
            f'<li><button type="button" class="ms-card" data-event="choose" data-detail=\'{{"rank": {rank}}}\' '
            f'aria-pressed="{"true" if rank == version.rank else "false"}" title="{text(candidate["reason"])}">'
            f'<span class="ms-picture"><img src="{base}/image?rank={rank}&amp;longest={CARD_PX}" '
            f'alt="Candidate {rank}" loading="lazy">{frame}</span>'
            f"<span><b>{rank}</b> score {shown}</span></button></li>"
        )
    kept = f"{counted(facts['inpaintings'], 'inpainting')} in {facts['seconds']:.0f} s"
    kept += "; choose one" if len(items) > 1 else ""
    links = {
        f"image?rank={version.rank}&amp;download=true": "Picture, full resolution",
        "report?download=true": "Report",
        "zip": "Whole run (ZIP)",
    }
    downloads = "".join(
        f'<a class="ms-link" href="{base}/{path}" download data-name="{path.partition("?")[0]}">{label}</a>'
        for path, label in links.items()
    )
    size = f"{facts['size_px'][0]} × {facts['size_px'][1]}, {facts['bit_depth']} bits"
    return (
        f'<div class="ms-downloads" role="group" aria-label="Downloads"><span>Download</span>{downloads}'
        f'<span class="ms-hint">PNG, {size}{", with alpha" if facts["has_alpha"] else ""}; settings inside</span></div>'
        f'<h2 class="ms-title">Candidates <span class="ms-hint">{kept}</span></h2>'
        f'<ol class="ms-cards">{"".join(items)}</ol>'
    )


def history(session: Session) -> str:
    """The strip of versions; the present one is marked, later ones can be redone."""
    if len(session.versions) < 2:
        return ""
    items = []
    for position, version in enumerate(session.versions):
        here = ' aria-current="true"' if position == session.position else ""
        later = " ms-later" if position > session.position else ""
        items.append(
            f'<li><button type="button" class="ms-version{later}" data-event="visit" '
            f'data-detail=\'{{"position": {position}}}\'{here}><img src="{version.thumb(THUMB_PX)}" alt="">'
            f"<span>{text(version.title)}</span></button></li>"
        )
    return f'<h2 class="ms-title">History</h2><ol class="ms-history">{"".join(items)}</ol>'


def progress(job: Job, ahead: int) -> str:
    """How far an edit is, with the candidates so far."""
    told = job.progress()
    step, total, left = told["step"], told["total_steps"], told["seconds_left"]
    if job.state == QUEUED:
        words = f"Waiting; {ahead} {'edit is' if ahead == 1 else 'edits are'} made first"
    elif not job.steps:
        words = "Looking at the picture"
    else:
        words = f"Step {step} of {total} · {told['inpaintings']} inpaintings"
        if step == total:
            words += " · writing the pictures"
        elif left is not None:
            words += f" · about {max(1, round(left))} s left"
    share = 100 * step / total if total else 0
    bar = (
        f'<div class="ms-bar" role="progressbar" aria-label="Progress of the edit" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{share:.0f}"><span style="width:{max(share, 3):.0f}%"></span></div>'
    )
    tried = "".join(
        f'<img src="/v1/edits/{job.name}/previews/{number}" alt="Best candidate number {number}">'
        for number in range(1, len(job.previews) + 1)
    )
    strip = f'<div class="ms-tried">{tried}</div>' if tried else ""
    return f'<div class="ms-progress" role="status"><p>{words}</p>{bar}{strip}</div>'


def ended(job: Job) -> str:
    """What became of an edit that is finished."""
    if job.state == DONE:
        assert job.outcome is not None
        facts = job.outcome.facts
        words = f"Done in {facts['seconds']:.0f} s: {FACTS[facts['task']].title.lower()}"
        return f'<p class="ms-note" role="status">{words}, {counted(len(facts["candidates"]), "candidate")}.</p>'
    if job.state == CANCELLED:
        return note("Cancelled; the picture is as it was.")
    assert job.state == FAILED
    return problem(job.error)


def note(words: str) -> str:
    """A remark under the buttons."""
    return f'<p class="ms-note" role="status">{text(words)}</p>'


def problem(words: str) -> str:
    """An error under the buttons."""
    return f'<p class="ms-problem" role="alert">{text(words[:1].upper() + words[1:])}</p>'


def _stage(
    size_px: tuple[int, int], inside: str, *, modes: dict[str, str], below: str = "", tools: str = "", at: int = 50
) -> str:
    width, height = size_px
    choices = "".join(
        f'<label><input type="radio" name="ms-mode" value="{name}"{" checked" if name == "compare" else ""}>'
        f"<span>{label}</span></label>"
        for name, label in modes.items()
    )
    group = f'<div class="ms-modes" role="radiogroup" aria-label="What to show">{choices}</div>' if choices else ""
    return (
        f'<div class="ms-stage" data-mode="compare" data-width="{width}" data-height="{height}" '
        f'style="--shape:{width / height:.4f};--at:{at}%"><div class="ms-view">{inside}</div>'
        f"{group}{tools}{below}</div>"
    )


def _region(region: dict[str, Any], size_px: Sequence[int], address: str) -> str:
    """The region over a picture: a frame with everything else darkened, or a tint where it is not a box."""
    if region["shape"] == "mask":
        image = f"mask-image:url({address});-webkit-mask-image:url({address})"
        return f'<span class="ms-region ms-tint" style="{image}"></span>'
    width, height = size_px
    x0, y0, x1, y1 = region["box_xyxy"]
    return _frame(region, size_px, f'<path d="M0 0H{width}V{height}H0ZM{x0} {y0}V{y1}H{x1}V{y0}Z"/>')


def _frame(region: dict[str, Any], size_px: Sequence[int], behind: str = "") -> str:
    """The box of a region, of any shape, as a frame over a picture. behind: SVG that is drawn before it."""
    width, height = size_px
    x0, y0, x1, y1 = region["box_xyxy"]
    frame = f'<rect x="{x0}" y="{y0}" width="{x1 - x0}" height="{y1 - y0}"/>' * 2
    return (
        f'<svg class="ms-region" viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true">'
        f"{behind}{frame}</svg>"
    )


def _correction(size_px: tuple[int, int], box: tuple[int, int, int, int]) -> str:
    """The tools that correct the region: a box by pointer or by numbers, or a brush; then edit there."""
    width, height = size_px
    limits = {"left": width, "top": height, "right": width, "bottom": height}
    numbers = "".join(
        f'<label>{name} <input type="number" class="ms-number" min="0" max="{most}" step="1" value="{value}"></label>'
        for (name, most), value in zip(limits.items(), box, strict=True)
    )
    return (
        '<div class="ms-tools" role="group" aria-label="Correct the region">'
        '<div class="ms-modes" role="radiogroup" aria-label="Tool">'
        '<label><input type="radio" name="ms-tool" value="box" checked><span>Box</span></label>'
        '<label><input type="radio" name="ms-tool" value="brush"><span>Brush</span></label></div>'
        f'<div class="ms-numbers">{numbers}</div>'
        '<label class="ms-size">Brush size <input type="range" class="ms-width" min="2" max="40" value="12"></label>'
        '<button type="button" class="ms-plain ms-clear">Clear</button>'
        '<button type="button" class="ms-here" data-draw="here">Edit here</button></div>'
    )
