"""Manifests of every kind become checked rows; each bad row is listed with its line."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from batch_tools import write_pictures
from maskless.batch.manifest import read_manifest
from maskless.data.errors import MasklessError


@pytest.fixture(autouse=True)
def pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path, 3)


def listed(manifest):
    return [(problem.line, problem.text) for problem in manifest.problems]


def test_the_published_release(tmp_path):
    text = '{\n "0.png": ["trees", "a big tree"],\n\n "1.png": {"instruction": "remove the cat", "seed": 3},\n'
    text += ' "gone.png": ["a", "b"], "2.png": ["one"],\n "0.png": ["sky", "a storm"]}'
    Path("images.json").write_text(text, "utf-8")
    manifest = read_manifest("images.json")
    assert [(row.line, row.id, row.caption, row.task) for row in manifest.rows] == [
        (2, "0", "trees", "replace"), (4, "1", "the cat", "remove"), (6, "0-2", "sky", "replace"),
    ]  # fmt: skip
    assert listed(manifest) == [
        (5, "'2.png' must have [\"caption\", \"prompt\"], got ['one']"),
        (5, "its image must be a file, got gone.png"),
    ]


@pytest.mark.parametrize("layout", ["", "images", "datasets/images"])
def test_pictures_are_found_where_the_release_has_them(layout):
    Path("seed", layout).mkdir(parents=True)
    Path("0.png").rename(Path("seed", layout, "0.png"))
    Path("seed/images.json").write_text('{"0.png": ["trees", "a big tree"]}', "utf-8")
    assert Path(read_manifest("seed/images.json").rows[0].image) == Path("seed", layout, "0.png")


def test_jsonl():
    lines = ['{"image": "0.png", "prompt": "a"}', "", "{", "[1]"]
    lines += ['{"picture": "1.png", "prompt": "b", "fit-edges": false}', '{"image": "0.png", "prompt": "c", "id": "1"}']
    lines += ['{"image": "2.png", "prompt": "c", "mask": "no.png"}']
    Path("rows.jsonl").write_text("\ufeff" + "\n".join(lines), "utf-8")
    manifest = read_manifest("rows.jsonl")
    assert [(row.line, row.id) for row in manifest.rows] == [(1, "0"), (5, "1-2"), (6, "1")]
    assert [line for line, _text in listed(manifest)] == [3, 4, 7] and "got list" in listed(manifest)[1][1]


def test_csv():
    Path("rows.csv").write_text(
        'image,caption,prompt,seed\n0.png,"a\ncar",a tent,7\n\n1.png,,,\n2.png,x,y,z\n0.png,a,b,1,2\n', "utf-8"
    )
    manifest = read_manifest("rows.csv", defaults={"caption": "a tree", "prompt": "a house"})
    assert [(row.line, row.caption, row.prompt, row.options) for row in manifest.rows] == [
        (2, "a\ncar", "a tent", (("seed", 7),)), (5, "a tree", "a house", ()),
    ]  # fmt: skip
    assert [line for line, _text in listed(manifest)] == [6, 7]
    assert "whole number" in listed(manifest)[0][1] and "4 columns" in listed(manifest)[1][1]


def test_a_folder_and_a_pattern():
    Path("notes.txt").touch()
    for source in (".", "*.png"):
        manifest = read_manifest(source, defaults={"instruction": "remove the cat"})
        assert [row.id for row in manifest.rows] == ["0", "1", "2"]
        assert {row.task for row in manifest.rows} == {"remove"} and not manifest.problems
    assert {problem.text for problem in read_manifest(".").problems} == {
        "the task replace needs a prompt or an instruction"
    }


def test_a_rows_own_words_come_before_those_of_the_command():
    Path("rows.jsonl").write_text('{"image": "0.png", "instruction": "remove the cat"}\n{"image": "1.png"}\n', "utf-8")
    first, second = read_manifest("rows.jsonl", defaults={"caption": "a dog", "prompt": "a tent", "task": "add"}).rows
    assert (first.task, first.caption) == ("remove", "the cat") and (second.task, second.prompt) == ("add", "a tent")


def test_no_two_rows_share_an_id_or_a_folder():
    rows = [{"id": "a", "caption": "b_c"}, {"id": "a_b", "caption": "c"}, {"id": "a", "caption": "d"},
            {"id": "A", "caption": "B_C"}]  # fmt: skip
    lines = [json.dumps({"image": "0.png", "prompt": "x"} | row) for row in rows]
    Path("rows.jsonl").write_text("\n".join(lines), "utf-8")
    manifest = read_manifest("rows.jsonl")
    assert [row.line for row in manifest.rows] == [1]
    assert "its folder must be its own, got 'a_b_c' of line 1" in listed(manifest)[0][1]
    assert "its id must be its own, got 'a' of line 1" in listed(manifest)[1][1]
    assert "its folder must be its own" in listed(manifest)[2][1]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.json", None, "no such file: none.json"),
        ("rows.json", b"{", "must be JSON"),
        ("rows.json", b"[1]", "must be an object"),
        ("rows.jsonl", b"\xff\xfe", "UTF-8"),
        ("rows.csv", b"image,prompt\n", "has no rows"),
        ("nowhere", None, "no pictures found"),
    ],
)
def test_manifests_that_cannot_be_read(name, content, words):
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(MasklessError, match=words):
        read_manifest(name)


def test_a_large_manifest_needs_no_model_library_and_little_memory():
    """100,000 rows; `python benchmarks/batch.py --validate` prints the seconds."""
    rows = ({"image": "0.png", "id": n, "caption": f"car {n}", "prompt": "a tent", "seed": n} for n in range(100_000))
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    script = """
        import sys
        from pathlib import Path
        from maskless.batch.manifest import read_manifest
        assert len(read_manifest("rows.jsonl").rows) == 100_000
        assert not {"torch", "numpy", "PIL"} & set(sys.modules)
        proc = Path("/proc/self/status")
        status = proc.read_text() if proc.is_file() else ""
        print(int(status.split("VmHWM:")[1].split()[0]) // 1024 if "VmHWM:" in status else 0)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    assert int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) < 500
