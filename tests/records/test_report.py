"""report.html shows the whole edit in one file, escapes all texts, and leaves out parts that a result does not have."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from maskless.data.alignment import Alignment
from maskless.data.result import DrawnStep
from maskless.records.outputs import save_edit
from maskless.records.overview import second_curve
from maskless.records.report import edit_report

MOST_BYTES = 2_000_000
VOID = {"meta", "link", "img", "input", "br"}


@pytest.fixture
def scene() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (96, 128, 3), dtype=np.uint8)


def report(result, command=None) -> str:
    count = len(result.candidates)
    picture = Image.new("RGB", (12, 9), "red")
    files = [f"results/a{index}.png" for index in range(count)]
    return edit_report(result, picture, picture, [picture] * count, files, versions={"torch": "2"}, command=command)


class Outline(HTMLParser):
    """The tags of a page that are still open, its text and its addresses."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.addresses, self.images_without_alt = "", [], 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.addresses += [attributes[name] for name in ("src", "href") if name in attributes]
        self.images_without_alt += tag == "img" and "alt" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        if tag not in VOID and tag not in ("rect", "line", "circle", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in ("rect", "line", "circle", "polyline")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data


def test_it_is_well_formed_and_loads_nothing(make_result, scene, tmp_path):
    saved = save_edit(make_result(scene), tmp_path)
    html = saved.report.read_text("utf-8")
    page = Outline(html)
    assert saved.report.name == "report.html" and page.open == [] and page.images_without_alt == 0
    for address in page.addresses:
        assert address.startswith("data:") or (saved.folder / address).is_file(), address[:80]
    assert "http:" not in html and "https:" not in html and "url(" not in html and "@import" not in html
    assert len(html) < MOST_BYTES


def test_it_shows_the_edit(make_result, scene):
    result = make_result(scene)
    html = report(result, command="maskless edit scene.png --prompt 'a big tree'")
    shown = Outline(html).text
    for heading in ("Candidates", "What AnchorNet learned", "Loss over the iterations", "How to repeat this edit",
                    "Settings", "Cost", "Versions"):  # fmt: skip
        assert heading in shown
    assert "a big tree" in shown and "in place of “trees”" in shown and "128 × 96 pixels" in shown
    scores = [float(found) for found in re.findall(r"<h3>\d+\. score ([\d.]+)</h3>", html)]
    assert scores == sorted(scores, reverse=True) and len(scores) == 9
    x0, y0, x1, y1 = result.best.box_xyxy
    assert f"{x1 - x0} × {y1 - y0} at ({x0}, {y0})" in shown
    assert f'<rect x="{x0}" y="{y0}" width="{x1 - x0}" height="{y1 - y0}"/>' in html
    assert "12.35 s" in shown and "54 inpaintings" in shown and "expected loss with location cost1.520 → –" in shown
    assert html.count('<svg class="curve"') == 1 and html.count('type="range"') == 1


def test_only_options_that_differ_from_the_default_are_in_bold(make_result, scene):
    html = report(make_result(scene, iterations=7, negative_prompt="<i>"))
    assert re.findall(r"<dt>([\w ]+)</dt><dd class=changed>([^<]*)</dd>", html) == [
        ("iterations", "7"), ("negative prompt", "&lt;i&gt;")
    ]  # fmt: skip


NASTY = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</title><b>", "'&amp;"]


@pytest.mark.parametrize("nasty", NASTY)
def test_texts_and_file_names_are_escaped(make_result, scene, tmp_path, nasty):
    folder = tmp_path / "in <b>"
    folder.mkdir()
    path = folder / f"{nasty.replace('/', '')}.png"
    Image.fromarray(scene).save(path)
    result = make_result(path, caption=nasty, prompt=nasty)
    saved = save_edit(result, tmp_path, image_id=nasty, command=f"maskless edit {nasty}")
    html = saved.report.read_text("utf-8")
    page = Outline(html)
    assert page.open == [] and page.text.count(nasty) >= 3
    assert html.count("<script>") == 1 and "<b>" not in html and "<img src=x" not in html


def test_the_command_is_shown_unchanged(make_result, scene):
    command = "maskless edit 'a b.png' \\\n  --prompt 'two\nlines <&> \"q\"'\"'\"'s'"
    assert command in Outline(report(make_result(scene), command=command)).text


def test_invalid_unicode_does_not_stop_it(make_result, scene, tmp_path):
    """A command-line argument that is not valid UTF-8 reaches Python as lone surrogates."""
    html = report(make_result(scene), command="maskless edit 'a\udcff b.png'")
    assert html.encode("utf-8", "replace")


def test_missing_parts_are_left_out(make_result, scene):
    """An edit of a given region has no search, so AnchorNet learned nothing."""
    result = replace(
        make_result(scene, caption=" "), anchors=None, anchor_net=None, history=(), attention=None, relevance=None
    )
    shown = Outline(report(result)).text
    for heading in ("What AnchorNet learned", "Loss over", "How to repeat", "expected loss", "in place of"):
        assert heading not in shown
    assert "Candidates" in shown and "location not named" not in shown
    assert "location not named" in Outline(report(make_result(scene, caption=" "))).text


def test_a_mask_is_shown_in_place_of_its_box(make_result, scene):
    result = make_result(scene)
    masks = torch.zeros(9, 96, 128, dtype=torch.bool)
    masks[:, 30:60, 40:90] = True
    html = report(replace(result, candidates=replace(result.candidates, masks=masks)))
    assert '<img class="region"' in html and "<rect" not in html


@pytest.mark.parametrize("size_yx", [(1400, 1900), (32, 900), (900, 32)])
def test_it_stays_small(make_result, tmp_path, size_yx):
    """The picture is noise, which no encoder can compress."""
    noise = np.random.default_rng(0).integers(0, 256, (*size_yx, 3), dtype=np.uint8)
    assert save_edit(make_result(noise), tmp_path).report.stat().st_size < MOST_BYTES


def test_it_stays_small_with_many_candidates(make_result, scene):
    result = make_result(scene)
    many = [index % 9 for index in range(256)]
    learned = replace(
        result.anchor_net, probabilities_before=torch.full((256, 15), 1 / 15), probabilities_after=torch.eye(256, 15)
    )
    result = replace(
        result,
        candidates=result.candidates[many],
        losses=result.losses[many],
        scores=result.scores[many],
        order=tuple(range(256)),
        anchor_net=learned,
    )
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (384, 384, 3), dtype=np.uint8))
    files = [f"results/a{index}.png" for index in range(256)]
    html = edit_report(result, noise, noise, [noise] * 256, files, versions={})
    assert len(html) < MOST_BYTES and "236 more" in html and "first 32 of 256 anchors" in html


def test_only_a_replacement_is_described_as_in_place_of_something(make_result, scene):
    result = make_result(scene, caption="a red car", prompt="a striped red car")
    textured = replace(result, request=replace(result.request, task="texture"))
    shown = Outline(report(textured)).text
    assert "in place of" not in shown and "task texture, caption “a red car”" in shown


def test_the_second_curve_of_a_fill_is_the_lowest_loss_so_far(make_result, scene):
    tries = [
        DrawnStep(step=step, total_steps=3, inpaintings=step, seconds=0.1, loss=loss)
        for step, loss in ((1, 2.0), (2, 2.5), (3, 1.5))
    ]
    filled = replace(make_result(scene), anchors=None, anchor_net=None, history=tuple(tries))
    html = report(filled)
    assert "lowest loss so far: 2 at the start, 1.5 at the end" in html and "expected" not in Outline(html).text
    assert "Loss of each try" in html
    assert second_curve(filled) == ("lowest loss so far", [(1, 2.0), (2, 2.0), (3, 1.5)])
    assert "expected loss with location cost" in report(make_result(scene))


def test_the_settings_show_what_the_task_changed(make_result, scene):
    result = make_result(scene)
    html = report(replace(result, used=replace(result.used, feather=0.0)))
    assert "0.06, changed by the task to 0" in html


def test_a_card_says_how_the_editors_picture_lay_on_the_source(make_result, scene):
    result = make_result(scene)
    moved = Alignment(
        aligned=True, warped=True, colours_matched=True, shift_xy_px=(3.14, -2.0), scale=1.043,
        colour_rgb=(1.2, -0.2, -4.0), residual=0.05, noise_px=0.1,
    )  # fmt: skip
    refused = replace(moved, aligned=False, warped=False, colours_matched=False, residual=0.97)
    found = (moved, refused, *(None,) * 7)
    html = report(replace(result, candidates=replace(result.candidates, alignments=found)))
    shown = "moved back and recoloured", "3.1, \N{MINUS SIGN}2.0", "1.043", "1, 0, \N{MINUS SIGN}4", "failed", "0.970"
    assert [words for words in shown if words not in html] == []
    assert "shift in pixels" not in report(result)
