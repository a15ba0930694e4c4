"""Loading: names, folders, recommendations, and one line for whatever is missing or damaged."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.data.model_options import ModelOptions
from maskless.models.pretrained import Refinement, load_models
from maskless.models.sources import model_sources


@pytest.fixture
def copied(tiny_models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_models, tmp_path / "models"))


def test_a_folder_of_three_parts_is_loaded(editor):
    models = editor.models
    assert (models.inpainter.native_px, models.dino.patch_px, models.clip.image_px) == (64, 4, 64)
    assert models.device.type == "cpu" and models.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in models.inpainter.unet.parameters())


def test_a_part_can_be_replaced_or_must_be_named(copied):
    sources = model_sources(str(copied), dino="facebook/dino-vits8")
    assert sources["dino"] == "facebook/dino-vits8" and sources["clip"] == str(copied / "clip")
    alone = str(copied / "inpainting")
    assert model_sources(alone, dino=str(copied / "dino"), clip=str(copied / "clip"))["inpainting"] == alone
    with pytest.raises(MasklessError, match="--dino"):
        model_sources(alone)


def test_a_redrawer_is_found_in_the_folder_or_named(copied, family_folder):
    assert load_models(ModelOptions(models=str(copied), device="cpu")).redrawer is None
    folder = family_folder("instruct-pix2pix")
    named = load_models(ModelOptions(models=str(copied), redraw=str(folder), device="cpu"))
    assert named.redrawer.takes_picture and not named.inpainter.takes_picture and named.names["redraw"] == str(folder)
    kontext = load_models(ModelOptions(models=str(copied), redraw=str(family_folder("flux-kontext")), device="cpu"))
    assert kontext.for_redrawing().inpainter.takes_picture, "it gets its reference picture by another way"
    shutil.copytree(folder, copied / "redraw")
    found = load_models(ModelOptions(models=str(copied), device="cpu"))
    assert found.redrawer.recommended_steps == 2 and found.names["redraw"] == str(copied / "redraw")
    assert not any(parameter.requires_grad for parameter in found.redrawer.unet.parameters())


def test_a_redrawer_refines_only_if_its_folder_says_how(copied, family_folder):
    folder = copied / "redraw"
    shutil.copytree(family_folder("instruct-pix2pix"), folder)
    options, advice = ModelOptions(models=str(copied), device="cpu"), folder / "maskless.json"
    assert load_models(options).refinement is None
    advice.write_text(json.dumps({"refine": {"steps": 5, "guidance_scale": 2.0, "strength": 0.4}}))
    models = load_models(options)
    assert models.refinement == Refinement(steps=5, guidance_scale=2.0, strength=0.4)
    assert models.for_redrawing().refinement is None, "a redrawing is not refined"
    assert models.for_redrawing().inpainter is models.redrawer
    for wrong in ({"steps": 5}, {"steps": 5, "guidance_scale": 2, "way": 1}, {"steps": "many", "guidance_scale": 2}, 3):
        advice.write_text(json.dumps({"refine": wrong}))
        with pytest.raises(MasklessError, match='"refine" in .*maskless.json must hold'):
            load_models(options)
    advice.write_text(json.dumps({"refine": {"steps": 5, "guidance_scale": 2.0, "strength": 1.4}}))
    with pytest.raises(MasklessError, match="a strength above 0 and up to 1, got 5, 2.0 and 1.4"):
        load_models(options)


def test_the_calls_of_both_denoisers_are_counted_once(copied, family_folder):
    shutil.copytree(family_folder("instruct-pix2pix"), copied / "redraw")
    models = load_models(ModelOptions(models=str(copied), device="cpu"))
    models.inpainter.unet_forwards, models.redrawer.unet_forwards = 3, 4
    assert models.unet_forwards == 7 and models.for_redrawing().unet_forwards == 4
    assert replace(models, redrawer=None).unet_forwards == 3


def test_a_redrawer_that_does_not_take_the_picture_is_refused(copied, family_folder):
    with pytest.raises(MasklessError, match="must take the picture"):
        load_models(ModelOptions(models=str(copied), redraw=str(family_folder("sd")), device="cpu"))
    with pytest.raises(MasklessError, match="no such redraw model"):
        load_models(ModelOptions(models=str(copied), redraw="nowhere", device="cpu"))


@pytest.mark.parametrize("name", ["no-such-models", "/no/such/folder", "../nothing/here"])
def test_unknown_models_are_one_line(name):
    with pytest.raises(MasklessError) as caught:
        load_models(ModelOptions(models=name))
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_part_is_named(copied):
    shutil.rmtree(copied / "clip")
    with pytest.raises(MasklessError, match="missing: clip"):
        load_models(ModelOptions(models=str(copied)))


@pytest.mark.parametrize("part", ["inpainting/unet", "dino", "clip"])
def test_a_file_that_was_cut_short_is_named(copied, part):
    path = next((copied / part).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MasklessError) as caught:
        load_models(ModelOptions(models=str(copied)))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_weights_that_are_gone_are_named(copied):
    next((copied / "dino").glob("*.safetensors")).unlink()
    with pytest.raises(MasklessError, match="no model weights"):
        load_models(ModelOptions(models=str(copied)))


def test_a_missing_preprocessor_is_named(copied):
    (copied / "clip" / "preprocessor_config.json").unlink()
    with pytest.raises(MasklessError, match="preprocessor_config.json"):
        load_models(ModelOptions(models=str(copied), device="cpu"))


def test_a_damaged_config_is_one_line(copied):
    (copied / "dino" / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(MasklessError, match="config.json"):
        load_models(ModelOptions(models=str(copied)))


def test_a_models_recommendation_is_read(copied):
    (copied / "inpainting" / "maskless.json").write_text(json.dumps({"steps": 12, "guidance_scale": 3.5}))
    inpainter = load_models(ModelOptions(models=str(copied), device="cpu")).inpainter
    assert (inpainter.recommended_steps, inpainter.recommended_guidance) == (12, 3.5)
