"""The page of a batch: all rows, a page of pictures at a time, and no text that could be taken for HTML."""

import io
import json
import re

from PIL import Image

from maskless.batch.contact_sheet import GAP_PX, PANEL_PX, index_page, strip
from maskless.batch.journal import Plan
from maskless.batch.rows import checked_row
from maskless.batch.worker import base_record
from maskless.data.config import EditConfig


def made(number: int, **values) -> tuple:
    entry = {"image": "0.png", "caption": "a car", "prompt": "a tent"} | values
    row = checked_row(number, str(number), entry, EditConfig())
    return row, base_record(row, "k", "done", 1.537, worker="w") | {"size_px": [64, 48]}


def entries(page: bytes) -> list[dict]:
    found = re.search(r'<script id="rows" type="application/json">(.*?)</script>', page.decode("utf-8"), re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_page_has_the_finished_rows_in_the_manifests_order():
    pairs = [made(1), made(2, prompt="</script><b>x"), made(3), made(4)]
    rows = [row for row, _record in pairs]
    failed = pairs[2][1] | {"status": "failed", "error": "it <is> broken"}
    plan = Plan(todo=(rows[3],), done={"2": pairs[1][1], "1": pairs[0][1]}, failed={"3": failed})
    page = index_page(rows, plan)
    listed = entries(page)
    assert [entry["id"] for entry in listed] == ["1", "2", "3"]
    assert listed[1]["prompt"] == "</script><b>x" and b"<b>x" not in page
    assert listed[2]["error"] == "it <is> broken" and listed[0]["folder"] == "1_a car" and "error" not in listed[0]
    assert b"2 edited, 1 failed" in page and b"1.537" not in page
    assert b"http" not in page.replace(b"http-equiv", b""), "it loads nothing from a network"


def test_the_strip_shows_source_region_and_result(editor, picture):
    result = editor.edit(picture, caption="a square", prompt="a tent", iterations=1, anchors=1)
    with Image.open(io.BytesIO(strip(result))) as sheet:
        width, height = PANEL_PX, round(PANEL_PX * 72 / 120)
        assert sheet.size == (3 * width + 2 * GAP_PX, height)
        x0, y0, x1, y1 = result.best.box_xyxy
        outside = (2, 2) if x0 > 8 or y0 > 8 else (width - 3, height - 3)
        panels = [sheet.crop((at, 0, at + width, height)) for at in range(0, sheet.width, width + GAP_PX)]
        colours = [panel.getpixel(outside) for panel in panels]
        assert max(abs(a - b) for a, b in zip(colours[0], colours[2], strict=True)) < 24, "outside nothing changes"
        assert max(abs(a - b) for a, b in zip(colours[0], colours[1], strict=True)) > 24, "outside is faded"
