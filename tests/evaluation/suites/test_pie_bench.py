"""The suite `pie-bench` on small folders that the tests write: edited, scored, resumed, and refused in one line."""

import json

import numpy as np
import pytest
from PIL import Image

from drifting import picture_of
from maskless.data.errors import MasklessError
from maskless.evaluation.measures.drift import Drift
from maskless.evaluation.requests.benchmarks import PIE_SIDE, read_folder
from maskless.evaluation.suite import SuiteOptions
from maskless.evaluation.suites import pie_bench
from maskless.evaluation.suites.pie_bench import result_file
from weights_of_lpips import write_lpips

BOX = (100, 60, 300, 260)
"""Where the edit belongs: rows 60 to 259, columns 100 to 299."""
KINDS = {"000": ("1", "1_change_object"), "001": ("1", "1_change_object"), "002": ("9", "9_change_style")}


def _source(name):
    rng = np.random.default_rng(int(name))
    return np.asarray(Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize((PIE_SIDE, PIE_SIDE)))


def _picture(picture):
    return Image.fromarray((picture.movedim(0, -1) * 255).round().byte().numpy())


def _runs():
    x0, y0, x1, y1 = BOX
    return [value for row in range(y0, y1) for value in (row * PIE_SIDE + x0, x1 - x0)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Three requests of two kinds in PIE-Bench's own form, and another tool's results: the first is off by 51
    everywhere, the second in the edited part only, the third is a row of four pictures, the last of them the source."""
    folder = tmp_path_factory.mktemp("pie")
    results = folder.parent / "other-tool"
    mapping = {}
    for name, (kind, place) in KINDS.items():
        image = folder / "annotation_images" / place / f"{name}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        source = (_source(name) * 0.6).astype(np.uint8)
        Image.fromarray(source).save(image)
        mapping[name] = {
            "image_path": f"{place}/{name}.png",
            "original_prompt": "a [red] car",
            "editing_prompt": "a [blue] house",
            "editing_instruction": "replace the red car with a blue house",
            "editing_type_id": kind,
            "blended_word": "car house",
            "mask": _runs(),
        }
        made = source.copy()
        if name == "000":
            made += 51
        if name == "001":
            made[BOX[1] : BOX[3], BOX[0] : BOX[2]] += 51
        if name == "002":
            made = np.concatenate([np.zeros_like(source)] * 3 + [source], axis=1)
        file = results / "annotation_images" / place / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(made).save(file)
    (folder / "mapping_file.json").write_text(json.dumps(mapping))
    return folder, results


def run(**options):
    return pie_bench.run(SuiteOptions(**options))


def _values(rows, task):
    return {row["metric"]: row["value"] for row in rows if row["task"] == task}


def test_another_tools_pictures_are_scored_by_hand(bench):
    """Off by 0.2 in the 510 x 510 pixels inside the border less the 200 x 200 of the box, out of 512 x 512."""
    folder, results = bench
    notes = []
    rows = run(folder=folder, results=results, note=notes.append)
    assert {row["method"] for row in rows} == {"other-tool"} and {row["suite"] for row in rows} == {"pie-bench"}
    assert list(dict.fromkeys(row["task"] for row in rows)) == ["all", "change object", "change style"]
    one, objects, style = (
        _values(run(folder=folder, results=results, limit=1), "all"),
        *(_values(rows, task) for task in ("change object", "change style")),
    )
    background = 510**2 - 200**2
    assert one["mse_unedit_part"] == pytest.approx(0.04 * background / 512**2, rel=1e-4)
    assert one["psnr_unedit_part"] == pytest.approx(-10 * np.log10(0.04 * background / 512**2), abs=1e-3)
    assert one["background MSE"] == pytest.approx(0.04, rel=1e-4) and one["background identical"] == 0
    assert objects["mse_unedit_part"] == pytest.approx(one["mse_unedit_part"] / 2, rel=1e-4), "the second is untouched"
    assert objects["background identical"] == 0.5
    assert style["mse_unedit_part"] == 0 and style["psnr_unedit_part"] == 100, "its last square is the source"
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    assert [row["n"] for row in rows if row["metric"] == "mse_unedit_part"] == [3, 2, 1]
    assert [line.split(";")[0] for line in notes] == [
        "Left out: CLIP similarities",
        "Left out: structure distance and DINO similarity",
        "Left out: LPIPS",
    ]


def test_a_tool_that_moves_the_whole_picture_is_found_out(tmp_path):
    """One result is shifted by (5, 12) and zoomed, the other is of another picture."""
    folder, results = tmp_path / "bench", tmp_path / "other-tool"
    mask = np.zeros((256, 256), np.uint8)
    mask[90:166, 80:176] = 255
    for name, drift in (("moved", Drift(shift_xy_px=(5, 12), scale=1.04)), ("lost", None)):
        (folder / name).mkdir(parents=True)
        picture = picture_of("room", 256)
        made = picture_of("desert", 256).flip(1) if drift is None else drift(picture)
        _picture(picture).save(folder / name / "source.png")
        Image.fromarray(mask).save(folder / name / "mask.png")
        (folder / name / "instruction.txt").write_text("make it blue")
        results.mkdir(exist_ok=True)
        _picture(made).save(results / f"{name}.png")
    found = {row["metric"]: row for row in run(folder=folder, results=results)}
    assert found["outside shift px"]["value"] == pytest.approx(13, abs=0.3) and found["outside shift px"]["n"] == 1
    assert found["outside zoom %"]["value"] == pytest.approx(4, abs=0.2)
    assert found["outside aligned"]["value"] == 0.5 and 0.4 < found["outside residual"]["value"] < 0.6


def test_networks_are_named_by_folder(bench, tiny_models, tmp_path):
    folder, results = bench
    notes = []
    rows = run(
        folder=folder,
        results=results,
        limit=1,
        clip=str(tiny_models / "clip"),
        dino=str(tiny_models / "dino"),
        lpips=write_lpips(tmp_path / "lpips"),
        note=notes.append,
    )
    seven = {
        "psnr_unedit_part", "mse_unedit_part", "ssim_unedit_part", "lpips_unedit_part", "structure_distance",
        "clip_similarity_target_image", "clip_similarity_target_image_edit_part",
    }  # fmt: skip
    corrected = {"background LPIPS", "structure distance", "CLIP whole", "CLIP directional", "CLIP of the edited part"}
    assert seven | corrected < set(_values(rows, "all")) and notes == []


@pytest.fixture(scope="module")
def edited(bench, tiny_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("edited")
    options = {
        "folder": bench[0], "limit": 1, "models": str(tiny_models), "steps": 1, "iterations": 1, "anchors": 2,
        "ledger": folder / "pie_bench.jsonl", "sheets": folder / "pictures",
    }  # fmt: skip
    return options, run(**options)


def test_every_request_is_edited(edited):
    options, rows = edited
    values = _values(rows, "all")
    assert values["refused"] == 0 and values["identical outside the region"] == 1
    assert values["inpaintings"] >= 2 and values["UNet forwards"] == 2 * values["inpaintings"]
    assert 0 <= values["region IoU"] <= 1 and {"region precision", "region recall", "seconds"} < set(values)
    assert (options["sheets"] / "1_change_object" / "000.png").is_file()


def test_a_run_goes_on_and_what_it_edited_can_be_scored_again(edited, monkeypatch):
    options, rows = edited
    with monkeypatch.context() as patched:
        patched.setattr(pie_bench, "measure_item", lambda *_, **__: pytest.fail("it is in the ledger"))
        assert run(**options) == rows
    again = _values(run(folder=options["folder"], results=options["sheets"], limit=1), "all")
    before = _values(rows, "all")
    for metric in ("psnr_unedit_part", "ssim_unedit_part", "background MSE"):
        assert again[metric] == pytest.approx(before[metric])


def test_another_picture_is_measured_anew(bench, tmp_path):
    """The ledger knows a result by its bytes."""
    folder, results = bench
    ledger, mine = tmp_path / "ledger.jsonl", tmp_path / "mine"
    mine.mkdir()
    source = read_folder(folder)[0].image
    (mine / "000.png").write_bytes(source.read_bytes())
    assert _values(run(folder=folder, results=mine, limit=1, ledger=ledger), "all")["mse_unedit_part"] == 0
    made = result_file(results, read_folder(folder)[0], folder)
    (mine / "000.png").write_bytes(made.read_bytes())
    assert _values(run(folder=folder, results=mine, limit=1, ledger=ledger), "all")["mse_unedit_part"] > 0


def test_magicbrush_and_a_csv(tmp_path, tiny_models):
    triples, plain, results = tmp_path / "triples", tmp_path / "plain", tmp_path / "results"
    for folder in (triples / "17", plain, results):
        folder.mkdir(parents=True)
    grey, brighter = Image.new("RGB", (64, 48), (100, 100, 100)), Image.new("RGB", (64, 48), (151, 151, 151))
    grey.save(triples / "17" / "source.png")
    brighter.save(triples / "17" / "target.png")
    mask = Image.new("L", (64, 48))
    mask.paste(255, (0, 0, 32, 48))
    mask.save(triples / "17" / "mask.png")
    (triples / "17" / "instruction.txt").write_text("replace the red car with a blue house")
    grey.save(results / "17.png")
    values = _values(run(folder=triples, results=results), "all")
    assert (values["L1"], values["L2"]) == (pytest.approx(0.2), pytest.approx(0.04))
    assert values["background identical"] == 1 and "psnr_unedit_part" not in values
    grey.save(plain / "a.png")
    (plain / "requests.csv").write_text("image,caption,prompt\na.png,a red car,a blue house\n")
    (results / "a.jpg").write_bytes((results / "17.png").read_bytes())
    values = _values(run(folder=plain, results=results, clip=str(tiny_models / "clip")), "all")
    assert set(values) == {"CLIP whole", "CLIP directional"}


def test_an_instruction_is_what_the_editor_is_asked():
    request = pie_bench._instructed("replace the red car with a blue house")
    assert request == {"caption": "the red car", "prompt": "a blue house", "task": "replace"}
    assert pie_bench._instructed("what if it were night?") is None


def test_what_cannot_be_measured_is_told_in_one_line(bench, tmp_path):
    folder, results = bench
    with pytest.raises(MasklessError, match="needs the folder of a benchmark: maskless evaluate pie-bench DIR"):
        run()
    with pytest.raises(MasklessError, match="no request is left after the first 3"):
        run(folder=folder, results=results, seed_offset=3)
    with pytest.raises(MasklessError, match="has no result of the request 000"):
        run(folder=folder, results=tmp_path)
    Image.new("RGB", (256, 256)).save(tmp_path / "000.png")
    with pytest.raises(MasklessError, match="result of 000 must be 512 x 512 like its source, got 256 x 256"):
        run(folder=folder, results=tmp_path, limit=1)
    small = tmp_path / "small"
    small.mkdir()
    (small / "mapping_file.json").write_text((folder / "mapping_file.json").read_text())
    (small / "1_change_object").mkdir()
    Image.new("RGB", (256, 256)).save(small / "1_change_object" / "000.png")
    with pytest.raises(MasklessError, match="must be of its mask's size, 512 x 512, got 256 x 256"):
        run(folder=small, results=small, limit=1)
