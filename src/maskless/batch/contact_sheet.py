"""The contact sheet of a batch: source, region and best edit of every row, on a page that opens offline.

Each row's three pictures are one small JPEG in batch/sheets/. index.html holds the texts of all rows and shows a page
of them at a time, so that a browser loads the pictures of that page only.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from maskless.batch.journal import Plan, Record
from maskless.batch.keys import row_name
from maskless.batch.rows import Row
from maskless.records.html import STYLE, text

if TYPE_CHECKING:
    from maskless.data.result import EditResult

INDEX, SHEETS = "index.html", "batch/sheets"
PANEL_PX, GAP_PX = 256, 8
PER_PAGE = 48
OUTSIDE = 0.35
"""How much of the source shows outside the region, in its panel."""

LOOK = """
body { max-width: 1480px; }
.bar-top { display: flex; flex-wrap: wrap; gap: 10px 18px; align-items: center; margin: 18px 0; }
.bar-top input, .bar-top select, .bar-top button { font: inherit; padding: 6px 10px; border-radius: 8px;
  border: 1px solid var(--line); background: var(--card); color: var(--ink); }
.bar-top button:disabled { opacity: .45; }
.sheet { list-style: none; margin: 0; padding: 0; display: grid; gap: 22px 20px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 430px), 1fr)); }
.sheet a { color: inherit; text-decoration: none; }
.sheet img { aspect-ratio: var(--shape); object-fit: contain; border-radius: 6px; }
.sheet p { margin: 6px 0 0; max-width: none; }
.sheet .clip { -webkit-line-clamp: 2; }
.sheet .failed { border-left: 4px solid var(--accent); padding: 6px 12px; background: var(--card); border-radius: 6px; }
"""

SCRIPT = """
const rows = JSON.parse(document.getElementById("rows").textContent);
const part = path => path.split("/").map(encodeURIComponent).join("/");
const list = document.getElementById("list"), shown = document.getElementById("shown");
const find = document.getElementById("find"), which = document.getElementById("which");
const at = document.getElementById("at");
const add = (parent, name, words, kind) => {
  const made = document.createElement(name);
  if (words) made.textContent = words;
  if (kind) made.className = kind;
  parent.append(made);
  return made;
};
let page = 0, pages = 1;
const card = row => {
  const item = add(list, "li", "", row.error ? "failed" : "");
  const words = row.prompt || row.task, before = row.caption ? " in place of " + row.caption : "";
  if (!row.error) {
    const link = add(item, "a"), picture = add(link, "img");
    link.href = part(row.folder) + "/report.html";
    picture.loading = "lazy";
    picture.src = "batch/sheets/" + row.sheet + ".jpg";
    picture.alt = "Source, region and result: " + words + before;
    picture.style.setProperty("--shape", row.shape);
  }
  const line = add(item, "p", "", "clip");
  add(line, "strong", row.id + " ");
  const named = row.caption ? " (" + row.task + ": " + row.caption + ")" : "";
  line.append(words + (row.task === "replace" ? before : named));
  if (row.error) add(item, "p", "Failed: " + row.error, "faint");
};
const show = () => {
  const words = find.value.trim().toLowerCase();
  const chosen = rows.filter(row => (which.value === "all" || (which.value === "failed") === !!row.error) &&
    (!words || [row.id, row.caption, row.prompt, row.task, row.error].join(" ").toLowerCase().includes(words)));
  pages = Math.max(1, Math.ceil(chosen.length / PER_PAGE));
  page = Math.min(Math.max(page, 0), pages - 1);
  list.replaceChildren();
  chosen.slice(page * PER_PAGE, (page + 1) * PER_PAGE).forEach(card);
  const first = chosen.length ? page * PER_PAGE + 1 : 0, last = Math.min((page + 1) * PER_PAGE, chosen.length);
  shown.textContent = first + " to " + last + " of " + chosen.length;
  at.max = pages;
  at.value = page + 1;
  document.getElementById("pages").textContent = "of " + pages;
  document.getElementById("back").disabled = page === 0;
  document.getElementById("next").disabled = page === pages - 1;
  history.replaceState(null, "", "#page=" + (page + 1));
};
const go = number => { page = number; show(); scrollTo(0, 0); };
document.getElementById("back").addEventListener("click", () => go(page - 1));
document.getElementById("next").addEventListener("click", () => go(page + 1));
at.addEventListener("change", () => go(Number(at.value) - 1));
find.addEventListener("input", () => go(0));
which.addEventListener("change", () => go(0));
page = Number((location.hash.match(/page=(\\d+)/) || [0, 1])[1]) - 1;
show();
""".replace("PER_PAGE", str(PER_PAGE))


def strip(result: EditResult) -> bytes:
    """Source, region and best edit side by side, as a JPEG."""
    from PIL import Image

    source = (result.request.image.movedim(0, -1).numpy() * 255).round().astype(np.uint8)
    touched = result.best.touched().numpy()[:, :, None]
    region = np.where(touched, source, (source * OUTSIDE + 255 * (1 - OUTSIDE) * 0.5).round().astype(np.uint8))
    best = (result.best.tensor().movedim(0, -1).numpy() * 255).round().astype(np.uint8)
    scale = PANEL_PX / max(source.shape[:2])
    width, height = (max(1, round(side * scale)) for side in (source.shape[1], source.shape[0]))
    sheet = Image.new("RGB", (3 * width + 2 * GAP_PX, height), "white")
    for number, pixels in enumerate((source, region, best)):
        panel = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
        sheet.paste(panel, (number * (width + GAP_PX), 0))
    file = io.BytesIO()
    sheet.save(file, format="JPEG", quality=85)
    return file.getvalue()


def index_page(rows: Sequence[Row], plan: Plan) -> bytes:
    """The page of all finished rows, in the order of the manifest. It has no timings, so only the edits change it."""
    records = {**plan.failed, **plan.done}
    entries = [_entry(row, records[row.id]) for row in rows if row.id in records]
    data = json.dumps(entries, ensure_ascii=False).replace("<", "\\u003c")
    allowed = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    title = f"{len(plan.done):,} edited" + (f", {len(plan.failed):,} failed" if plan.failed else "")
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>Batch: {text(title)} · Maskless</title>\n<style>{STYLE}{LOOK}</style>\n</head>\n<body>\n"
        f'<header><h1>{text(title)}</h1><p class="faint">Source, region and best edit of each row; a click opens its '
        "report. Outside the region every pixel is that of the source.</p></header>\n"
        '<div class="bar-top"><input id="find" type="search" placeholder="Search" aria-label="Search the rows">'
        '<select id="which" aria-label="Which rows"><option value="all">all rows</option><option value="done">edited'
        '</option><option value="failed">failed</option></select><button id="back">Back</button><span>Page <input '
        'id="at" type="number" min="1" value="1" aria-label="Page"> <span id="pages"></span></span>'
        '<button id="next">Next</button><span id="shown" class="faint" aria-live="polite"></span></div>\n'
        "<noscript><p>This page needs JavaScript. The results are in the folders beside it.</p></noscript>\n"
        f'<ul id="list" class="sheet"></ul>\n<script id="rows" type="application/json">{data}</script>\n'
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
    return page.encode("utf-8", "replace")


def _entry(row: Row, record: Record) -> dict[str, Any]:
    """What the page shows of a row."""
    width, height = record.get("size_px") or (1, 1)
    scale = PANEL_PX / max(width, height)
    entry = {
        "id": row.id,
        "task": row.task,
        "caption": row.caption,
        "prompt": row.prompt,
        "error": record["error"],
        "folder": row.folder,
        "sheet": row_name(row.id),
        "shape": round((3 * width * scale + 2 * GAP_PX) / (height * scale), 4),
    }
    return {name: value for name, value in entry.items() if value not in (None, "")}
