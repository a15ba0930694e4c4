"""`maskless find` from outside: its JSON, its pictures, and one line for what it cannot use."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CAPTION = ("--caption", "a red square")


def test_it_writes_a_region_a_mask_and_an_overlay(maskless, scene, tiny_models):
    status, out, err = maskless("find", scene, *CAPTION, "--models", tiny_models)
    assert status == 0 and "mask.png" in out and "region.json" in out and err == ""
    folder = Path("output/regions/scene_a red square")
    assert sorted(path.name for path in folder.iterdir()) == ["mask.png", "overlay.png", "region.json"]
    assert np.asarray(Image.open(folder / "mask.png")).shape == (72, 120)


def test_json_is_alone_on_stdout_and_the_same_search_keeps_its_folder(maskless, scene, tiny_models):
    arguments = ("find", scene, *CAPTION, "--models", tiny_models, "--alternatives", 1, "--json")
    status, out, _err = maskless(*arguments)
    printed = json.loads(out)
    folder = Path(printed.pop("folder"))
    assert status == 0 and out.count("\n") == 1
    assert printed == json.loads((folder / "region.json").read_text("utf-8"))
    assert printed["image"] == "scene.png" and len(printed["alternatives"]) <= 1 and printed["caption"] == CAPTION[1]
    assert json.loads(maskless(*arguments)[1])["folder"] == str(folder)
    other = Path("other") / scene
    other.parent.mkdir()
    Image.new("RGB", (40, 40), "green").save(other)
    moved = json.loads(maskless("find", other, *CAPTION, "--models", tiny_models, "--json")[1])
    assert moved["folder"] == f"{folder} (2)"


def test_no_inpainting_model_is_needed_and_what_looks_unlike_the_caption_is_no_error(maskless, scene, tiny_models):
    for part in ("dino", "clip"):
        shutil.copytree(tiny_models / part, f"looking/{part}")
    for caption in ("a zebra", "a quiet violin", "nothing"):
        status, out, _err = maskless("find", scene, "--caption", caption, "--models", "looking")
        record = json.loads(Path(f"output/regions/scene_{caption}/region.json").read_text("utf-8"))
        assert status == 0 and out.startswith("Found" if record["looks_like"] else "Not found")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scene.png",), "say what to find"),
        (("scene.png", "--caption", " "), "say what to find"),
        (("missing.png", *CAPTION), "no such"),
        (("scene.png", *CAPTION, "--alternatives", "-1"), "alternatives must be at least 0, got '-1'"),
        (("scene.png", *CAPTION, "--models", "nowhere"), "models must be one of"),
        (("scene.png", *CAPTION, "--scheduler", "ddim"), "no such option: --scheduler"),
        (("scene.png", *CAPTION, "--output-dir", "scene.png"), "is a file, not a folder"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(refused, arguments, message):
    assert message in refused("find", *arguments)
