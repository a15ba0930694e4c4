"""The page of pictures: every source, every result, its region and its success."""

import pytest
from PIL import Image

from maskless.data.errors import MasklessError
from maskless.evaluation.measures.side_by_side import CELL_PX, LEGEND, Line, Shown, draw_page, write_page

GREY, RED = Image.new("RGB", (64, 64), "#808080"), Image.new("RGB", (64, 32), "#ff0000")
CELLS = [
    Shown(picture=RED, box_xyxy=(0, 0, 64, 32), success=True),
    Shown(picture=None, box_xyxy=None, success=False),
]
LINE = Line(text="a cat becomes a dog", source=GREY, shown=CELLS)


def test_the_page_shows_every_picture_its_region_and_its_success():
    page = draw_page([LINE, LINE], ["ours", "theirs_with_a_long_name"])
    colours = {colour for _, colour in page.getcolors(1 << 24)}
    assert {(255, 0, 0), (128, 128, 128), (27, 158, 90), (228, 87, 46)} <= colours
    assert page.width > 3 * CELL_PX and page.height > 2 * CELL_PX


def test_only_a_success_has_a_green_frame():
    failed = Line(text="x", source=GREY, shown=[Shown(picture=RED, box_xyxy=None, success=False)])
    colours = {colour for _, colour in draw_page([failed], ["ours"]).getcolors(1 << 24)}
    assert (27, 158, 90) not in colours and (255, 0, 0) in colours


def test_the_legend_says_what_success_is():
    assert LEGEND.endswith("Green frame: the judge sees the edit done and everything else still there.")


def test_the_page_is_written_by_its_suffix(tmp_path):
    for name, form in (("page.jpg", "JPEG"), ("page.png", "PNG")):
        write_page([LINE], ["ours", "theirs"], tmp_path / "deep" / name)
        with Image.open(tmp_path / "deep" / name) as saved:
            assert saved.format == form
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MasklessError, match="cannot write"):
        write_page([LINE], ["ours", "theirs"], tmp_path / "file" / "page.jpg")
