"""The gallery on small models: its files, its page, what it does again and what it keeps."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from maskless.data.errors import MasklessError
from maskless.data.picture import load_image
from maskless.engine.editor import Editor
from maskless.interfaces import gallery
from maskless.interfaces.gallery import Exhibit, exhibits, make_gallery

FILES = {
    "01_complete_center.png",
    "02_add_object.png",
    "03_remove_object.png",
    "04_replace_object.png",
    "05_extend_image.png",
    "06_repair_image.png",
    "07_style_transfer.png",
    "08_change_background.png",
    "09_add_texture.png",
    "10_creative_edit.png",
    "generated_image.png",
}
QUICK = {"iterations": 1, "updates": 2, "anchors": 2, "steps": 1, "views": 1}


@pytest.fixture(scope="module")
def quick(editor) -> Editor:
    from dataclasses import replace

    return Editor(editor.models, replace(editor.config, **QUICK))


@pytest.fixture(scope="module")
def made(quick, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    return folder, list(make_gallery(quick, exhibits(), folder))


def test_every_task_has_its_file_and_nothing_else_is_written(made):
    folder, shown = made
    assert {path.name for path in folder.iterdir()} == FILES | {"index.html"}
    assert [one.exhibit.file for one in shown] == sorted(FILES)
    assert all(one.problem is None and not one.kept for one in shown)


def test_the_page_shows_all_and_asks_for_nothing(made):
    folder, shown = made
    content = (folder / "index.html").read_text()
    assert content.count('<figure class="compare"') == len(shown)
    for one in shown:
        assert one.exhibit.title in content and one.exhibit.file in content
        assert one.exhibit.caption in content and one.exhibit.prompt in content
        assert f"{one.facts['seconds']:.1f} s" in content
    assert not re.search(r"(?:src|href)=[\"'](?!data:)", content)
    assert len(content) < 4_000_000


def test_the_repaired_picture_had_scratches_and_the_extended_one_grew(made):
    folder, shown = made
    by_task = {one.exhibit.task: one for one in shown}
    sample = load_image(by_task["replace"].exhibit.image)
    damaged = by_task["repair"].exhibit.image
    assert 0.002 < (np.abs(damaged.pixels.astype(int) - sample.pixels).max(axis=2) > 20).mean() < 0.1
    extended = Image.open(folder / "05_extend_image.png")
    before = load_image(by_task["extend"].exhibit.image)
    assert extended.size == (before.rgb.shape[2] * 3 // 2, before.rgb.shape[1] * 3 // 2)


def test_a_second_time_keeps_every_picture(made, quick):
    folder, first = made
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")}
    again = list(make_gallery(quick, exhibits(), folder))
    assert all(one.kept for one in again)
    assert stamps == {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")}
    assert [one.facts for one in again] == [one.facts for one in first]


def test_a_gallery_that_was_stopped_goes_on(made, quick, tmp_path):
    planned = [one for one in exhibits() if one.task in ("remove", "repair", "generate")]
    stopped = make_gallery(quick, planned, tmp_path)
    next(stopped)
    stopped.close()
    assert not (tmp_path / "index.html").exists()
    assert [one.kept for one in make_gallery(quick, planned, tmp_path)] == [True, False, False]
    assert (tmp_path / "index.html").is_file()


def test_other_options_and_damaged_files_are_made_again(quick, tmp_path):
    planned = [one for one in exhibits() if one.task == "repair"]
    list(make_gallery(quick, planned, tmp_path))
    from dataclasses import replace

    other = Editor(quick.models, replace(quick.config, seed=7))
    assert [one.kept for one in make_gallery(other, planned, tmp_path)] == [False]
    path = tmp_path / planned[0].file
    path.write_bytes(path.read_bytes()[:200])
    assert [one.kept for one in make_gallery(other, planned, tmp_path)] == [False]


def test_what_is_not_possible_is_told_and_the_rest_goes_on(quick, tmp_path):
    plain = np.full((64, 64, 3), 120, np.uint8)
    planned = [
        Exhibit(file="a.png", task="background", image=np.full_like(plain, 90), prompt="snow"),
        Exhibit(file="b.png", task="generate", image=plain, prompt="a red car"),
    ]
    (tmp_path / "a.png").write_bytes(b"of another program")

    def refuse(request, **_options):
        if request.task == "background":
            raise MasklessError("found no background <here>")
        return quick.edit(request)

    shown = list(make_gallery(_Refusing(quick, refuse), planned, tmp_path))
    assert [one.problem for one in shown] == ["found no background <here>", None]
    assert (tmp_path / "a.png").read_bytes() == b"of another program", "only pictures of a gallery are removed"
    assert (tmp_path / "b.png").is_file()
    content = (tmp_path / "index.html").read_text()
    assert "found no background &lt;here&gt;" in content


class _Refusing(Editor):
    """An editor that finds nothing in some pictures."""

    def __init__(self, editor: Editor, edit) -> None:
        super().__init__(editor.models, editor.config)
        self.edit = edit


def test_a_picture_of_ones_own_needs_a_caption():
    with pytest.raises(MasklessError, match="--caption"):
        exhibits(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(MasklessError, match="--image"):
        exhibits(caption="a red car")
    planned = exhibits(np.full((64, 96, 3), 99, np.uint8), "an old red boat", "a white swan")
    by_task = {one.task: one for one in planned}
    assert by_task["replace"].prompt == by_task["add"].prompt == "a white swan"
    assert by_task["texture"].prompt == "a striped old red boat"
    assert by_task["complete"].options["box"] == [32, 21, 64, 43]


def test_the_settings_are_in_the_picture(made):
    folder, _ = made
    with Image.open(folder / "04_replace_object.png") as picture:
        settings = json.loads(picture.text["maskless"])
        told = json.loads(picture.text[gallery.KEYWORD])
    assert settings["prompt"] == "a blue house" and settings["task"] == "replace"
    assert len(told["box_xyxy"]) == 4
    assert told["mask"] is not None, "the second object reaches into the region, and its pixels are no part of it"
