"""FindRegion: what it sets fits the workflows of diffusers, and it can be packaged for the hub."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ModularPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline import SequentialPipelineBlocks
from PIL import Image

import maskless
from maskless.data.errors import MasklessError
from maskless.engine.finder import Finder
from maskless.interfaces.diffusers.find_region import FindRegion
from maskless.interfaces.diffusers.paste_back import PasteBack
from maskless.models.inpainters.loading import load_pipeline
from tiny_families import _qwen
from tiny_modular import build_modular_family

SAMPLE = Path(maskless.__file__).parent / "assets" / "samples" / "meadow.png"


@pytest.fixture(scope="module")
def pipeline():
    return FindRegion().init_pipeline()


def test_mask_and_boxes_are_those_of_the_finder(pipeline):
    picture = Image.open(SAMPLE)
    finding = Finder.from_pretrained("storybook").find(picture, "a red car")
    state = pipeline(image=picture, caption="a red car", prompt="a blue house")
    x0, y0, x1, y1 = finding.box_xyxy
    assert state.get("box_xyxy") == finding.box_xyxy and state.get("source_image") is picture
    mask = np.asarray(state.get("mask_image"))
    assert mask.shape == picture.size[::-1] and (mask == 255).sum() == (x1 - x0) * (y1 - y0) and mask[y0, x0] == 255
    (box,) = state.get("boxes")
    assert (box["desc"], box["from"]) == ("a blue house", "target")
    width, height = picture.size
    assert box["tgt_bbox"] == [y0 / height, x0 / width, y1 / height, x1 / width]
    by_object = pipeline(image=[picture], caption="a red car", region="mask").get("mask_image")
    assert np.array_equal(np.asarray(by_object) == 255, finding.mask.numpy())


def test_bad_input_is_one_line(pipeline):
    picture = Image.open(SAMPLE)
    with pytest.raises(MasklessError, match="region must be box or mask, got 'all'"):
        pipeline(image=picture, caption="a red car", region="all")
    with pytest.raises(MasklessError, match="FindRegion takes one picture"):
        pipeline(image=[picture, picture], caption="a red car")


def test_it_stands_in_front_of_existing_workflows():
    """An inpainting workflow of diffusers needs a mask; with the block in front, it asks for a caption instead."""
    from diffusers.modular_pipelines.stable_diffusion_xl import StableDiffusionXLAutoBlocks

    workflow = StableDiffusionXLAutoBlocks().get_workflow("inpainting")
    assert isinstance(workflow, SequentialPipelineBlocks)
    assert "mask_image" in workflow.required_inputs or "mask_image" in workflow.input_names
    workflow.sub_blocks.insert("find_region", FindRegion(), 0)
    assert "caption" in workflow.required_inputs and "mask_image" not in workflow.input_names


@pytest.mark.parametrize("name", ["find_region", "paste_back"])
def test_diffusers_packages_it_and_loads_the_package(name, tmp_path, monkeypatch):
    from diffusers.commands.custom_blocks import CustomBlocksCommand

    from maskless.interfaces import diffusers as room

    shutil.copyfile(Path(room.__file__).parent / f"{name}.py", tmp_path / "block.py")
    monkeypatch.chdir(tmp_path)
    CustomBlocksCommand("block.py").run()  # what `diffusers-cli custom_blocks` does
    assert {"modular_config.json", "modular_model_index.json"} <= {path.name for path in tmp_path.iterdir()}
    loaded = ModularPipelineBlocks.from_pretrained(str(tmp_path), trust_remote_code=True)
    assert type(loaded).__name__.lower() == name.replace("_", "")
    assert "mask_image" in loaded.input_names + loaded.intermediate_output_names


def test_an_existing_workflow_between_the_blocks_changes_nothing_outside(tmp_path):
    """Qwen-Image's inpainting workflow, with tiny random weights, gets its mask from a caption."""
    from diffusers.modular_pipelines.qwenimage import QwenImageAutoBlocks

    workflow = QwenImageAutoBlocks().get_workflow("inpainting")
    workflow.sub_blocks.insert("find_region", FindRegion(), 0)
    workflow.sub_blocks.insert("paste_back", PasteBack(), len(workflow.sub_blocks))
    pipe = workflow.init_pipeline()
    parts = _qwen(tmp_path).components
    pipe.update_components(
        **{name: part for name, part in parts.items() if name in pipe.components and part is not None}
    )
    picture = Image.open(SAMPLE).convert("RGB")
    state = pipe(
        image=picture, caption="a red car", prompt="a tent", num_inference_steps=2, height=64, width=64,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    (edited,) = state.get("images")
    outside = np.asarray(state.get("mask_image")) == 0
    assert edited.size == picture.size and 0 < outside.mean() < 1
    assert np.array_equal(np.asarray(edited)[outside], np.asarray(picture)[outside])
    assert not np.array_equal(np.asarray(edited), np.asarray(picture))


def test_flux_3_reads_the_box_that_was_found(tmp_path):
    """FLUX.3's image-to-image workflow, with tiny random weights, gets its layout box from a caption."""
    loaded = load_pipeline(str(build_modular_family("flux3", tmp_path)))
    workflow = loaded.blocks
    workflow.sub_blocks.insert("find_region", FindRegion(), 0)
    workflow.sub_blocks.insert("paste_back", PasteBack(), len(workflow.sub_blocks))
    pipe = workflow.init_pipeline()
    pipe.update_components(**{name: part for name, part in loaded.components.items() if part is not None})
    read = []
    pipe.text_encoder.register_forward_pre_hook(
        lambda _network, _inputs, named: read.append(named["input_ids"][0]), with_kwargs=True
    )
    picture = Image.open(SAMPLE).convert("RGB").resize((64, 64))
    state = pipe(
        image=picture, caption="a red car", prompt="a blue house", num_inference_steps=2, height=64, width=64,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    x0, y0, x1, y1 = state.get("box_xyxy")
    expected = json.dumps([round(edge / 64 * 1000) for edge in (y0, x0, y1, x1)])
    assert f'"tgt_bbox": {expected}, "desc": "a blue house"' in pipe.tokenizer.tokenizer.decode(read[0])
    outside = np.asarray(state.get("mask_image")) == 0
    assert np.array_equal(np.asarray(state.get("images")[0])[outside], np.asarray(picture)[outside])
