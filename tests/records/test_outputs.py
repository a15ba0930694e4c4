"""The files of an edit, its record, and errors while they are written."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskless.data.alignment import Alignment
from maskless.data.errors import MasklessError
from maskless.data.picture import load_image
from maskless.records.outputs import save_edit


@pytest.fixture
def scene() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (96, 128, 3), dtype=np.uint8)


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_tree_is_the_documented_one(make_result, scene, tmp_path):
    prompt = "a big tree with many flowers in the center"
    saved = save_edit(make_result(scene, "trees", prompt), tmp_path / "output", draw_box=True)
    stem = "0_a-big-tree-with-many-flowers-in-the-centeranchor"
    assert tree(tmp_path) == (
        {f"output/0_trees/{name}" for name in ("input_image.png", "result.json", "overview.png", "report.html")}
        | {f"output/0_trees/results/{stem}{i}.png" for i in range(9)}
        | {f"output/0_trees/boxes/{stem}{i}_ori_draw.png" for i in range(9)}
        | {"output/0_trees/results/final_output.png"}
    )
    assert saved.folder == tmp_path / "output/0_trees" and saved.final.is_file() and saved.overview.is_file()
    assert all(path.is_file() for path in saved.candidates)


def test_the_result_is_announced_before_its_pages_are_drawn(make_result, scene, tmp_path):
    there = []

    def announced(saved):
        there.append(
            [path.is_file() for path in (saved.final, saved.folder / "result.json", saved.overview, saved.report)]
        )
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_edit(make_result(scene), tmp_path, announce=announced)
    assert there == [[True, True, False, False]]
    saved = save_edit(make_result(scene), tmp_path)
    assert saved.overview.is_file() and saved.report.is_file() and saved.folder == tmp_path / "0_trees"


def test_pictures_of_boxes_are_optional(make_result, scene, tmp_path):
    save_edit(make_result(scene), tmp_path, draw_box=True)
    save_edit(make_result(scene), tmp_path)
    assert not (tmp_path / "0_trees/boxes").exists()


def test_the_content_of_the_record(make_result, scene, tmp_path):
    result = make_result(scene)
    saved = save_edit(result, tmp_path, image_id="7")
    record = json.loads((tmp_path / "7_trees/result.json").read_text("utf-8"))
    assert record == saved.record
    assert set(record) == {
        "request", "config", "changed_by_task", "models", "candidates", "order", "anchor_net", "placement", "history",
        "cost", "versions", "provenance",
    }  # fmt: skip
    assert record["request"]["prompt"] == "a big tree" and record["request"]["seed"] == 42
    assert record["order"] == list(result.order)
    assert len(record["candidates"]) == 9 and len(record["history"]) == 10
    for index, candidate in enumerate(record["candidates"]):
        assert set(candidate) == {"anchor", "box_xyxy", "losses", "score", "alignment", "kept_px", "file"}
        assert candidate["box_xyxy"] == result.candidates.regions.boxes_xyxy[index].tolist()
        assert candidate["losses"]["total"] == pytest.approx(float(result.losses.total[index]))
        assert (tmp_path / "7_trees" / candidate["file"]).is_file()
    assert record["anchor_net"]["expected_loss_before"] == pytest.approx(1.52)
    assert record["anchor_net"]["expected_loss_after"] is None  # it is NaN, which JSON cannot express
    assert record["cost"]["seconds"]["inpainting"] == pytest.approx(12.3457)
    assert record["versions"]["torch"].startswith("2.")
    assert record["config"]["max_window_size"] == 15 and record["changed_by_task"] == {}
    assert record["models"]["models"] == "storybook" and "scheduler" not in record["config"]


def test_the_users_options_and_the_changes_of_the_task_are_recorded_separately(make_result, scene, tmp_path):
    result = make_result(scene)
    result = replace(result, used=replace(result.used, max_window_size=8, feather=0.0))
    record = save_edit(result, tmp_path).record
    assert (record["config"]["max_window_size"], record["config"]["feather"]) == (15, 0.06)
    assert record["changed_by_task"] == {"max_window_size": 8, "feather": 0.0}
    settings = json.loads(Image.open(tmp_path / "0_trees/results/final_output.png").info["maskless"])
    assert settings["changed_by_task"] == record["changed_by_task"]


def test_pixels_outside_the_box_are_the_inputs(make_result, scene, tmp_path):
    result = make_result(scene)
    saved = save_edit(result, tmp_path)
    assert np.array_equal(load_image(saved.folder / "input_image.png").pixels, scene)
    for index, path in enumerate(saved.candidates):
        stored = load_image(path).pixels
        x0, y0, x1, y1 = result.candidates.regions.boxes_xyxy[index].tolist()
        outside = np.ones(scene.shape[:2], bool)
        outside[y0:y1, x0:x1] = False
        assert np.array_equal(stored[outside], scene[outside])
        assert not np.array_equal(stored, scene)


def test_the_final_picture_is_the_best_and_contains_its_settings(make_result, scene, tmp_path):
    result = make_result(scene, prompt="ein Baum 🌳")
    saved = save_edit(result, tmp_path)
    assert saved.final.read_bytes() == saved.candidates[result.order[0]].read_bytes()
    image = Image.open(saved.final)
    image.load()
    settings = json.loads(image.text["maskless"])
    assert settings["prompt"] == "ein Baum 🌳" and settings["seed"] == 42
    assert settings["config"]["lr"] == 5e-3
    assert settings["anchor"] == saved.record["candidates"][result.order[0]]["anchor"]


def test_candidates_keep_sixteen_bits_and_alpha(make_result, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (64, 64, 4), dtype=np.uint16)
    result = make_result(pixels)
    stored = load_image(save_edit(result, tmp_path).final)
    assert stored.bit_depth == 16 and stored.alpha is not None
    outside = ~result.best.touched().numpy()
    assert np.array_equal(stored.alpha[outside], pixels[..., 3][outside])
    assert (stored.alpha >= pixels[..., 3]).all() and (stored.alpha == 65535).any(), "what was painted is opaque"
    kept = save_edit(make_result(pixels, caption="kept", keep_alpha=True), tmp_path)
    assert np.array_equal(load_image(kept.final).alpha, pixels[..., 3])


def test_saving_again_with_fewer_anchors_removes_the_candidates_that_the_record_lists(make_result, scene, tmp_path):
    folder = save_edit(make_result(scene), tmp_path, draw_box=True).folder
    record = json.loads((folder / "result.json").read_text("utf-8"))
    listed = ["results/0_a-big-treeanchor11.png", "results/../../keep.png", "results/notes.png", "input_image.png"]
    record["candidates"] += [{"file": name} for name in listed]
    (folder / "result.json").write_text(json.dumps(record), "utf-8")
    of_others = [
        "results/0_a-small-treeanchor0.png", "results/0_a-big-treeanchor12.png", "results/notes.png",
        "results/0_a-big-treeanchor0 by hand.png", "../keep.png", "boxes/notes.txt",
    ]  # fmt: skip
    for name in ("results/0_a-big-treeanchor11.png", "boxes/0_a-big-treeanchor11_ori_draw.png", *of_others):
        (folder / name).write_bytes(b"old")
    save_edit(make_result(scene), tmp_path)
    assert not (folder / "results/0_a-big-treeanchor11.png").exists()
    assert [path.name for path in (folder / "boxes").iterdir()] == ["notes.txt"]
    assert all((folder / name).read_bytes() == b"old" for name in of_others)


@pytest.mark.parametrize("record", ["{", "[]", '{"candidates": 3}', '{"candidates": [{"file": {}}]}', "[" * 100_000])
def test_a_damaged_record_lists_nothing(make_result, scene, tmp_path, record):
    folder = save_edit(make_result(scene), tmp_path).folder
    (folder / "result.json").write_text(record)
    (folder / "results/0_a-big-treeanchor11.png").write_bytes(b"old")
    save_edit(make_result(scene), tmp_path)
    assert (folder / "results/0_a-big-treeanchor11.png").exists()


@pytest.mark.parametrize("linked", ["", "results", "boxes"])
def test_nothing_is_written_or_deleted_through_a_link(make_result, scene, tmp_path, linked):
    save_edit(make_result(scene), tmp_path / "other", draw_box=True)
    other = tmp_path / "other" / "0_trees" / linked
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    folder = tmp_path / "output" / "0_trees"
    (folder / linked).parent.mkdir(parents=True, exist_ok=True)
    (folder / linked).symlink_to(other)
    with pytest.raises(MasklessError, match="is a symbolic link to .* remove the link"):
        save_edit(make_result(scene), tmp_path / "output")
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == before


def test_the_output_folder_itself_may_be_a_link(make_result, scene, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "output").symlink_to(tmp_path / "disk")
    assert save_edit(make_result(scene), tmp_path / "output").final.is_file()


def test_the_same_result_is_saved_as_the_same_bytes(make_result, scene, tmp_path):
    first, second = (save_edit(make_result(scene), tmp_path / name) for name in ("a", "b"))
    for path in sorted(tree(first.folder)):
        assert (first.folder / path).read_bytes() == (second.folder / path).read_bytes(), path


@pytest.mark.parametrize("caption", ["../../x", "CON", "w" * 300, "🌳🚗", "a/b\\c", "..", ""])
def test_for_any_caption_the_folder_is_inside_the_output_folder(make_result, scene, tmp_path, caption):
    saved = save_edit(make_result(scene, caption, caption or "x"), tmp_path / "output", image_id="../1")
    assert saved.folder.parent == tmp_path / "output"
    assert {path.name for path in tmp_path.iterdir()} == {"output"}
    assert all(path.resolve().is_relative_to(saved.folder.resolve()) for path in saved.candidates)


def test_captions_that_collide_get_different_folders(make_result, scene, tmp_path):
    folders = {save_edit(make_result(scene, caption), tmp_path).folder for caption in ("a/b", "a?b", "a-b")}
    assert len(folders) == 3


class TestWriteErrors:
    def test_a_file_in_place_of_the_folder(self, make_result, scene, tmp_path):
        (tmp_path / "output").write_text("a file")
        with pytest.raises(MasklessError, match="cannot write to .*output is a file"):
            save_edit(make_result(scene), tmp_path / "output")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_without_permission(self, make_result, scene, tmp_path):
        tmp_path.chmod(0o500)
        with pytest.raises(MasklessError, match="no permission"):
            save_edit(make_result(scene), tmp_path / "output")

    def test_a_full_disk_leaves_the_earlier_files(self, tmp_path):
        """A limit on file sizes, in a process of its own, stands for a full disk."""
        script = textwrap.dedent(
            """
            import resource, sys
            from maskless.data.errors import MasklessError
            from maskless.data.files import write_bytes
            from maskless.data.picture import save_image
            import numpy as np

            noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), "u1")
            write_bytes(sys.argv[1] + "/kept.bin", b"before")
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
            for attempt in (
                lambda: write_bytes(sys.argv[1] + "/kept.bin", bytes(50_000)),
                lambda: save_image(sys.argv[1] + "/new.png", noise),
            ):
                try:
                    attempt()
                except MasklessError as error:
                    print(error)
            """
        )
        run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
        assert run.stdout.count("cannot write") == 2 and run.stdout.count("\n") == 2
        assert {path.name for path in tmp_path.iterdir()} == {"kept.bin"}
        assert (tmp_path / "kept.bin").read_bytes() == b"before"

    def test_an_error_midway_leaves_the_earlier_edit(self, make_result, scene, tmp_path, monkeypatch):
        save_edit(make_result(scene), tmp_path)
        before = {path: (tmp_path / path).read_bytes() for path in tree(tmp_path)}

        def no_space(*arguments):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("maskless.records.outputs.settings_text", no_space)
        with pytest.raises(MasklessError, match="No space left on device"):
            save_edit(make_result(255 - scene), tmp_path)
        assert {path: (tmp_path / path).read_bytes() for path in tree(tmp_path)} == before

    def test_an_error_in_a_page_leaves_the_pictures_and_the_record(self, make_result, scene, tmp_path, monkeypatch):
        def no_space(*arguments):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("maskless.records.outputs.draw_overview", no_space)
        with pytest.raises(MasklessError, match="No space left on device"):
            save_edit(make_result(scene), tmp_path)
        assert {"0_trees/result.json", "0_trees/results/final_output.png"} <= tree(tmp_path)
        assert not {path for path in tree(tmp_path) if path.endswith((".tmp", "report.html", "overview.png"))}


def test_the_alignment_of_each_candidate_is_recorded(make_result, scene, tmp_path):
    result = make_result(scene)
    own = Alignment(
        aligned=False, warped=False, colours_matched=False, shift_xy_px=(3.14, -2.0), scale=1.043,
        colour_rgb=(1.25, 0.0, -4.0), residual=0.97, noise_px=0.1,
    )  # fmt: skip
    aligned = replace(result, candidates=replace(result.candidates, alignments=(own, *(None,) * 8)))
    entries = json.loads((save_edit(aligned, tmp_path).folder / "result.json").read_text("utf-8"))["candidates"]
    assert entries[0]["alignment"] == own.to_dict() and entries[1]["alignment"] is None
    assert entries[0]["alignment"]["aligned"] is False and entries[0]["alignment"]["residual"] == 0.97
