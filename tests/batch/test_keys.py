"""A key changes with everything that changes a result, and with nothing else."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from batch_tools import write_pictures
from maskless.batch import keys as module
from maskless.batch.keys import MISSING, Keys, content_of, model_identity, row_name
from maskless.batch.rows import checked_row
from maskless.data.config import EditConfig
from maskless.data.keep_options import KeepOptions
from maskless.data.model_options import ModelOptions

MODELS = {"dino": "a", "clip": "b", "inpainting": "c"}


@pytest.fixture
def row(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path, 2)
    return checked_row(1, "0", {"image": "0.png", "caption": "a car", "prompt": "a tent"}, EditConfig())


def keys(models=MODELS, options=None, config=None, keep=None, anchor_net=None):
    return Keys.of(models, options or ModelOptions(), config or EditConfig(), keep or KeepOptions(), anchor_net)


def test_a_key_changes_with_what_changes_the_result(row):
    content = content_of(row)
    others = [
        keys().key(replace(row, prompt="a house"), content),
        keys().key(replace(row, id="1"), content),
        keys().key(replace(row, box=(0, 0, 9, 9)), content),
        keys().key(replace(row, options=(("seed", 3),)), content),
        keys().key(row, replace(content, image="0" * 64)),
        keys().key(row, replace(content, mask="0" * 64)),
        keys(models=MODELS | {"dino": "d"}).key(row, content),
        keys(options=ModelOptions(scheduler="lcm")).key(row, content),
        keys(config=EditConfig(seed=1)).key(row, content),
        keys(keep=KeepOptions(draw_box=True)).key(row, content),
        keys(anchor_net="e").key(row, content),
    ]
    first = keys().key(row, content)
    assert len({first, *others}) == len(others) + 1 and len(first) == 32


def test_it_does_not_change_with_where_and_how_the_batch_runs(row):
    content = content_of(row)
    same = keys(options=ModelOptions(device="cpu", memory="low"), keep=KeepOptions(output_dir="x", checkpoint_dir="y"))
    assert same.key(replace(row, line=9), content) == keys().key(row, content)


def test_an_unchanged_file_is_not_read_again(row, monkeypatch):
    known = content_of(row).to_dict()
    with monkeypatch.context() as patch:
        patch.setattr(module, "digest", pytest.fail)
        assert content_of(row, known).to_dict() == known
    shutil.copy("1.png", "0.png")
    os.utime("0.png", ns=(1, 1))
    assert content_of(row, known).image != known["image"]
    Path("0.png").unlink()
    assert content_of(row, known).image == MISSING


def test_models_count_by_their_content(tiny_models, preview_vae, tmp_path):
    first = model_identity(ModelOptions(models=str(tiny_models)))
    copy = shutil.copytree(tiny_models, tmp_path / "copy")
    assert model_identity(ModelOptions(models=str(copy))) == first
    assert model_identity(ModelOptions(models=str(copy), preview_vae=str(preview_vae))) == first, "it draws nothing"
    config = copy / "dino" / "config.json"
    config.write_text(config.read_text("utf-8") + " ", "utf-8")
    changed = model_identity(ModelOptions(models=str(copy)))
    assert {part for part in first if first[part] != changed[part]} == {"dino"}


def test_the_names_of_rows_differ():
    assert len({row_name(name) for name in ("a", "A", "a ", "", "\ud800")}) == 5
