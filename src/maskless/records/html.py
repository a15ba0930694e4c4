"""HTML pages in one file: they contain their pictures, load nothing, fit a phone, and have a light and a dark theme.

Every function escapes the text that it is given, except where its docstring says that an argument is HTML.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[int, int, int, int]

STYLE = """
:root { color-scheme: light dark; --ink: #1f2430; --faint: #5d6475; --paper: #fff; --card: #f5f6f9; --line: #dde0e8;
  --accent: #c23f17; --second: #2b6cc4; --heat: 43, 108, 196; --hot: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e9ebf1; --faint: #a3aabb; --paper: #14161c; --card: #1e212a;
  --line: #363b48; --accent: #ff8a63; --second: #7fb2ff; --heat: 88, 150, 240; --hot: #0c0e13; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 24px clamp(16px, 4vw, 40px) 56px; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  -webkit-text-size-adjust: 100%; overflow-wrap: anywhere; }
h1 { font-size: clamp(1.5rem, 5vw, 2.2rem); line-height: 1.15; margin: 0 0 8px; }
h2 { font-size: 1.2rem; margin: 40px 0 6px; }
h3 { font-size: 1rem; margin: 8px 0 2px; }
p { margin: 0 0 12px; max-width: 68ch; }
a { color: var(--second); }
.faint, figcaption, caption { color: var(--faint); font-size: .9rem; }
.clip { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 4; overflow: hidden; }
figure { margin: 0; }
img { display: block; width: 100%; height: auto; border-radius: 8px; background: var(--card); }
summary { cursor: pointer; padding: 6px 0; }
:focus-visible { outline: 3px solid var(--second); outline-offset: 2px; }
.wide { display: grid; gap: 12px 32px; }
@media (min-width: 760px) { .wide { grid-template-columns: minmax(0, 1.5fr) minmax(0, 1fr); align-items: start; } }
.compare { max-width: min(100%, calc(78vh * var(--shape))); }
.pair { display: grid; gap: 8px; grid-template-columns: 1fr 1fr; position: relative; }
.side { position: relative; }
.pair .side, .pair img { aspect-ratio: var(--shape); }
.pair img { object-fit: contain; height: 100%; }
.tag { position: absolute; top: 10px; left: 10px; padding: 1px 9px; border-radius: 99px; font-size: .8rem;
  background: #14161cd0; color: #fff; pointer-events: none; }
.pair input, .handle { display: none; }
.js .pair { display: block; overflow: hidden; border-radius: 8px; --at: 50%; }
.js .pair .after { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--at)); }
.js .pair .after .tag { left: auto; right: 10px; }
.js .pair input { display: block; position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0;
  cursor: ew-resize; touch-action: pan-y; appearance: none; -webkit-appearance: none; }
.js .pair input::-webkit-slider-thumb { appearance: none; -webkit-appearance: none; width: 2px; height: 100vh; }
.js .pair input::-moz-range-thumb { width: 2px; height: 100vh; border: 0; }
.js .handle { display: block; position: absolute; inset: 0 auto 0 var(--at); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 4px #000a; pointer-events: none; }
.js .handle::after { content: "\\2194"; position: absolute; top: 50%; left: 50%; width: 40px; height: 40px;
  margin: -20px; border-radius: 50%; background: #fff; color: #14161c; text-align: center; line-height: 38px;
  font-size: 20px; box-shadow: 0 1px 5px #0008; }
.js .pair input:focus-visible ~ .handle::after { outline: 3px solid #2b6cc4; outline-offset: 2px; }
.region { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none; overflow: visible;
  background: none; border-radius: 0; }
.region rect { fill: none; vector-effect: non-scaling-stroke; stroke: #fff; stroke-width: 4; }
.region rect + rect { stroke: #d9480f; stroke-width: 2; }
.compare:has(.toggle:not(:checked)) .region { display: none; }
.compare label { display: inline-flex; gap: 8px; align-items: center; padding: 8px 0; cursor: pointer; }
.compare .toggle { width: 18px; height: 18px; margin: 0; accent-color: var(--second); }
.cards { list-style: none; margin: 12px 0 0; padding: 0; display: grid; gap: 24px 16px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 156px), 1fr)); }
@media (min-width: 760px) { .cards { grid-template-columns: repeat(auto-fill, minmax(180px, 1fr)); } }
.cards .side { display: block; }
.best h3 { color: var(--accent); }
dl { display: grid; grid-template-columns: auto 1fr; gap: 2px 14px; margin: 0; font-size: .9rem; }
dt { color: var(--faint); }
dd { margin: 0; font-variant-numeric: tabular-nums; }
.numbers dd { text-align: right; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 6px; }
th { font-weight: 500; color: var(--faint); text-align: left; }
th, td { padding: 4px 10px; }
.lines tr + tr > * { border-top: 1px solid var(--line); }
.lines td { text-align: right; }
.heat { flex: 1 1 280px; }
.heat table { width: 100%; table-layout: fixed; }
.heat th[scope=row], .heat thead td { width: 6em; padding-left: 0; background: none; }
.heat th[scope=col], .heat td { padding: 4px 2px; }
.heat td { text-align: center; background: rgba(var(--heat), var(--p)); border: 1px solid var(--paper); }
.heat td.hot { color: var(--hot); }
.heat thead th { text-align: center; }
.side-by-side { display: flex; flex-wrap: wrap; gap: 20px 32px; }
.bar { display: block; height: 10px; min-width: 2px; border-radius: 3px; background: var(--second); }
.bars { width: 100%; max-width: 640px; }
.bars th { width: 1%; white-space: nowrap; padding-left: 0; }
.bars td + td { width: 1%; text-align: right; white-space: nowrap; }
.changed { font-weight: 650; }
.settings { display: grid; gap: 18px 32px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 230px), 1fr)); }
pre { margin: 0; padding: 14px; border-radius: 8px; background: var(--card); white-space: pre-wrap; font-size: .9rem;
  user-select: all; -webkit-user-select: all; }
svg.curve { width: 100%; max-width: 600px; height: auto; display: block; }
.curve text { fill: var(--faint); font-size: 14px; font-family: inherit; }
.curve line { stroke: var(--line); }
.curve polyline { fill: none; stroke-linejoin: round; stroke-linecap: round; }
.curve .s0 { stroke: var(--second); stroke-width: 2.5; } .curve circle.s0 { fill: var(--second); }
.curve .s1 { stroke: var(--accent); stroke-width: 2.5; } .curve circle.s1 { fill: var(--accent); }
footer { margin-top: 48px; padding-top: 14px; border-top: 1px solid var(--line); }
@media print { body { max-width: none; } .cards li, figure, table { break-inside: avoid; } }
"""

SCRIPT = """
document.documentElement.classList.add("js");
for (const pair of document.querySelectorAll(".pair")) {
  const range = pair.querySelector("input");
  const move = () => pair.style.setProperty("--at", range.value + "%");
  range.addEventListener("input", move);
  move();
}
"""


def page(title: str, body: str) -> str:
    """A complete page. body: HTML. Its content policy forbids all requests, and all scripts except the slider's."""
    allowed = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def text(content: object) -> str:
    """The content escaped for use in an element or a quoted attribute, so that a browser shows it unchanged."""
    return escape(str(content), quote=True).replace("\0", "\N{REPLACEMENT CHARACTER}").replace("\r", "&#13;")


def before_after(
    before: bytes, after: bytes, label: str, *, size_px: tuple[int, int], region: str = "", at_percent: int = 50
) -> str:
    """Two pictures under a slider, or side by side without JavaScript.

    before, after: PNG or JPEG files. label: a description of the change, for the alternative texts. size_px: width and
    height, which give the aspect ratio of both. region: HTML of `box_outline` or `mask_outline`, shown until the user
    clears its check box. at_percent: first position of the slider, from the left.
    """
    toggle = '<label><input class="toggle" type="checkbox" checked> show the region</label>' if region else ""
    return (
        f'<figure class="compare" style="--shape:{size_px[0] / size_px[1]:.4f}"><div class="pair">'
        f'<div class="side"><img src="{data_uri(before)}" alt="{text("Before: " + label)}">{region}'
        f'<span class="tag" aria-hidden="true">before</span></div>'
        f'<div class="side after"><img src="{data_uri(after)}" alt="{text("After: " + label)}">{region}'
        f'<span class="tag" aria-hidden="true">after</span></div>'
        f'<input type="range" min="0" max="100" step="any" value="{at_percent}" autocomplete="off" '
        'aria-label="Share of the original picture that is shown, in percent"><span class="handle"></span></div>'
        f"<figcaption>{toggle}</figcaption></figure>"
    )


def box_outline(boxes: Sequence[Box], size_px: tuple[int, int]) -> str:
    """Frames to lay over a picture of size_px (width, height), as SVG; an empty string if there are no boxes.

    boxes: half-open, x0, y0, x1, y1 in pixels of that picture.
    """
    frames = ""
    for x0, y0, x1, y1 in boxes:  # each twice: the style sheet draws a wide light line under a thin coloured one
        frames += f'<rect x="{x0}" y="{y0}" width="{x1 - x0}" height="{y1 - y0}"/>' * 2
    width, height = size_px
    opening = f'<svg class="region" viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true">'
    return f"{opening}{frames}</svg>" if frames else ""


def mask_outline(mask: np.ndarray) -> str:
    """The outline of a boolean mask [H, W], as a transparent picture to lay over a picture of the mask's size."""
    from PIL import Image, ImageFilter

    level = Image.fromarray(mask.astype(np.uint8) * 255)
    scale = 640 / max(level.size)
    level = level.resize([max(1, round(side * scale)) for side in level.size], Image.Resampling.BILINEAR)
    inside = level.point([255 * (value > 127) for value in range(256)])
    dilated = [np.asarray(inside.filter(ImageFilter.MaxFilter(size))) > 0 for size in (3, 7)]
    eroded = [np.asarray(inside.filter(ImageFilter.MinFilter(size))) > 0 for size in (3, 7)]
    outline = np.zeros((*inside.size[::-1], 4), np.uint8)
    outline[dilated[1] & ~eroded[1]] = (255, 255, 255, 255)
    outline[dilated[0] & ~eroded[0]] = (217, 72, 15, 255)
    file = io.BytesIO()
    Image.fromarray(outline).quantize(4).save(file, format="PNG")
    return f'<img class="region" src="{data_uri(file.getvalue())}" alt="">'


def data_uri(encoded: bytes) -> str:
    """A data URI that contains this PNG or JPEG file."""
    kind = "png" if encoded.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"


def picture_bytes(image: Image.Image, *, longest_px: int, most_bytes: int) -> bytes:
    """A PNG or JPEG file of a picture, for a page: RGB, at most `longest_px` wide and high, and at most `most_bytes`
    long.

    It is a PNG if that is small enough, otherwise a JPEG; the picture is reduced until one of them is.
    """
    from PIL import Image

    image = image.convert("RGB")
    while True:
        image.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
        for quality in (None, 88, 76, 60):
            file = io.BytesIO()
            if quality is None:
                image.save(file, format="PNG")
            else:
                image.save(file, format="JPEG", quality=quality)
            if file.tell() <= most_bytes or longest_px <= 32:
                return file.getvalue()
        longest_px = round(min(longest_px, max(image.size)) * 0.75)


def facts(pairs: Mapping[str, object], *, kind: str = "") -> str:
    """A list of names and values. kind: a class of the style sheet."""
    rows = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs.items())
    return f'<dl class="{kind}">{rows}</dl>'


def curve(series: Mapping[str, Sequence[tuple[float, float]]], *, x_label: str) -> str:
    """A chart of one or two curves as SVG; an empty string if there are no values.

    series: points (x, y) of each curve by name; those with a y that is not finite are left out.
    """
    lines = {name: [point for point in points if math.isfinite(point[1])] for name, points in series.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return ""
    xs, ys = zip(*(point for points in lines.values() for point in points), strict=True)
    ticks = _ticks(min(ys), max(ys))
    low, high = ticks[0], ticks[-1]
    left, right, top, bottom = 50, 470, 34, 218
    digits = max(0, 1 - math.floor(math.log10(ticks[1] - ticks[0])))

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - min(xs)) / (max(xs) - min(xs) or 1)
        return left + across * (right - left), bottom - (y - low) / (high - low) * (bottom - top)

    parts = []
    for tick in ticks:
        y = at(xs[0], tick)[1]
        parts.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:.{digits}f}</text>')
    for number, (name, points) in enumerate(lines.items()):
        sample = points[:: max(1, len(points) // 400)]
        sample += [] if sample[-1] == points[-1] else [points[-1]]
        vertices = [at(*point) for point in sample]
        parts.append(f'<polyline class="s{number}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in vertices)}"/>')
        if len(vertices) <= 40:
            parts += [f'<circle class="s{number}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in vertices]
        x = left + number * 152
        parts.append(f'<line class="s{number}" x1="{x}" x2="{x + 18}" y1="11" y2="11"/>')
        parts.append(f'<text x="{x + 24}" y="15">{text(name)}</text>')
    for x, anchor in dict(((min(xs), "start"), (max(xs), "end"))).items():
        parts.append(f'<text x="{at(x, low)[0]:.1f}" y="{bottom + 18}" text-anchor="{anchor}">{x:g}</text>')
    parts.append(f'<text x="{(left + right) / 2}" y="{bottom + 18}" text-anchor="middle">{text(x_label)}</text>')
    description = "; ".join(
        f"{name}: {points[0][1]:.4g} at the start, {points[-1][1]:.4g} at the end" for name, points in lines.items()
    )
    opening = f'<svg class="curve" viewBox="0 0 480 244" role="img" aria-label="{text(description)}">'
    return f"{opening}{''.join(parts)}</svg>"


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven evenly spaced round numbers, the first at most `low` and the last at least `high`."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 5)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [number * step for number in range(first, last + 1)]
