"""A suite's rows as files: the same figures in each form, tables that read, and nothing that JSON has no word for."""

import csv
import io
import json
import math

import pytest
from PIL import Image

from maskless.data.errors import MasklessError
from maskless.evaluation.measures.results import COLUMNS, draw_plot, markdown, write_results
from maskless.evaluation.measures.rows import mean_row, share_row


def _rows(methods=("ours", "theirs")):
    rows = []
    for method in methods:
        names = {"suite": "storybook", "method": method, "task": "replace"}
        rows.append(share_row([True] * 8 + [False] * 2, **names, metric="success"))
        rows += [mean_row([1.0, 2.0, 4.5], **names, metric=f"figure {i}") for i in range(7)]
    return rows


def test_every_form_holds_every_figure(tmp_path):
    rows = _rows()
    files = write_results(rows, tmp_path / "deep", "storybook", command="maskless evaluate storybook")
    assert [file.name for file in files] == [f"storybook.{suffix}" for suffix in ("json", "csv", "md", "png")]
    assert json.loads(files[0].read_text("utf-8")) == rows
    table = list(csv.DictReader(io.StringIO(files[1].read_text("utf-8"))))
    assert tuple(table[0]) == COLUMNS and len(table) == len(rows)
    assert [float(line["low"]) for line in table] == [row["low"] for row in rows]
    with Image.open(files[3]) as picture:
        assert picture.format == "PNG" and picture.width > 800
    assert not [path for path in (tmp_path / "deep").iterdir() if path not in files], "nothing half-written stays"


def test_methods_are_compared_side_by_side_with_their_intervals():
    text = markdown(_rows(), "storybook", command="maskless evaluate storybook \\\n  --limit 10")
    assert "```sh\nmaskless evaluate storybook \\\n  --limit 10\n```" in text and "## replace" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == "| method | success ↑ | " + " | ".join(f"figure {i}" for i in range(5)) + " |"
    assert lines[2].startswith("| ours | 0.800 (0.490 to 0.943) | 2.50 (0.460 to 4.54) |")
    assert lines[4] == "| method | figure 5 | figure 6 |"
    assert "n = 3 to 10" in text


def test_what_stands_alone_is_listed_with_its_gate():
    rows = [share_row([True] * 10, suite="models", method="storybook", task="judge", metric="objects right", gate=0.98)]
    text = markdown(rows, "models", command="x")
    assert "| storybook | judge | objects right ↑ | 1.00 | 0.722 to 1.00 | 10 | 0.980 |" in text
    rows = _rows(["ours"]) + rows
    assert markdown(rows, "models", command="x").count("\n| --- ") == 1, "all in one table"


def test_a_bar_in_a_name_does_not_break_the_table():
    rows = [mean_row([1.0], suite="s", method="a|b", task="t", metric="m")]
    assert "| a\\|b | t | m |" in markdown(rows, "s", command="x")


def test_infinity_and_nothing_are_written_as_such(tmp_path):
    rows = [mean_row([math.inf, 1.0], suite="s", method=name, task="t", metric="m") for name in "ab"]
    files = write_results([*rows, *_rows()], tmp_path, "s", command="x")
    assert json.loads(files[0].read_text("utf-8"))[0]["value"] is None
    assert "| a | – (– to –) |" in files[2].read_text("utf-8")
    for nothing in ([], rows):
        with Image.open(io.BytesIO(draw_plot(nothing, "s"))) as picture:
            picture.verify()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MasklessError, match="cannot write"):
        write_results(_rows(), tmp_path / "file", "s", command="x")


def test_figures_of_the_table_are_explained_and_others_are_not():
    text = markdown(_rows(), "storybook", command="x")
    assert "↑ higher is better, ↓ lower is better." in text
    assert [line for line in text.splitlines() if line.startswith("- ")] == [
        "- success ↑: the judge sees the edit done and everything else still there"
    ]
    assert "↑" not in markdown([mean_row([1.0], suite="s", method="a", task="t", metric="m")], "s", command="x")


HOSTILE = [
    "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "<script>x</script>", "a\n# b", "[x](http://y)", "`x`", "*x*",
    "$\\bad$", "a\x1b[31m", "&lt;",
]  # fmt: skip


def test_texts_of_others_are_neither_formulas_nor_markdown_nor_control_sequences(tmp_path):
    rows = [
        mean_row([1.0, -2.0], suite="s", method=method, task=text, metric=text) for text in HOSTILE for method in "ab"
    ]
    _json, table, page, _plot = write_results(rows, tmp_path, "s", command="maskless evaluate s --models '```'")
    cells = [cell for line in csv.reader(io.StringIO(table.read_text("utf-8"))) for cell in line[:4]]
    assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r")]
    assert any(
        cell == "-0.500" or cell == "-0.5"
        for line in csv.reader(io.StringIO(table.read_text("utf-8")))
        for cell in line
    )
    text = page.read_text("utf-8")
    assert "````sh\n" in text and "\x1b" not in text
    shown = text.replace("````sh", "").split("````")[1]
    assert "<" not in shown and "](" not in shown.replace("\\](", "") and "\n# b" not in shown
    assert not [line for line in shown.splitlines() if line.startswith("#") and not line.startswith("## ")]
