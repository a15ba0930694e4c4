"""Modular pipelines from their folder to an edited picture: boxes, a mask, or the window alone."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from maskless.data.errors import EditCancelled, MasklessError
from maskless.engine.editor import Editor
from maskless.models.inpainters.denoising import Sampling
from maskless.models.inpainters.loading import load_pipeline, make_inpainter
from maskless.models.inpainters.modular import FAMILIES, ModularInpainter, box_of
from tiny_modular import BUILDERS, NATIVE_PX, build_modular_family

REGIONS = {
    "flux3": "boxes", "flux3-distilled": "boxes", "flux3-without-upsampler": "", "qwen-image": "mask_image",
    "flux2-klein": "",
}  # fmt: skip
BOX = (20, 10, 52, 58)
"""x0, y0, x1, y1 of the region in the tests' window of 64 x 64 pixels."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("modular")
    return {name: build_modular_family(name, root / name) for name in BUILDERS}


@pytest.fixture(scope="module")
def models(folders) -> dict[str, ModularInpainter]:
    return {name: make_inpainter(load_pipeline(str(folder)), native_px=NATIVE_PX) for name, folder in folders.items()}


def drawn(model: ModularInpainter, count: int = 1, prompt: str = "a blue house", **options) -> torch.Tensor:
    images = torch.rand(2, 3, NATIVE_PX, NATIVE_PX, generator=torch.Generator().manual_seed(0))[:count]
    masks = torch.zeros(count, 1, NATIVE_PX, NATIVE_PX)
    masks[:, :, BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1
    sampling = Sampling(**{"seed": 1, "steps": 2, "guidance_scale": 3.0, "strength": 1.0} | options)
    return model.inpaint(images, masks, model.encode_prompt(prompt), sampling)


@pytest.mark.parametrize("name", BUILDERS)
def test_it_gets_the_region_in_the_way_that_it_takes(models, name, monkeypatch):
    model, calls = models[name], []
    original = type(model.pipeline).__call__

    def recorded(pipeline, **given):
        calls.append(given)
        return original(pipeline, **given)

    monkeypatch.setattr(type(model.pipeline), "__call__", recorded)
    assert model.region == REGIONS[name] and model.takes_picture == (model.region != "mask_image")
    assert model.redraws_window == model.takes_picture, "no mask holds it, so what it returns is aligned"
    drawn(model)
    (given,) = calls
    assert isinstance(given["image"], Image.Image) and given["prompt"] == "a blue house"
    assert {"boxes", "mask_image"} & set(given) == ({model.region} if model.region else set())
    if model.region == "mask_image":
        assert given["mask_image"].getbbox() == BOX
    if model.region == "boxes":
        assert given["boxes"] == [
            {"id": "obj_1", "desc": "a blue house", "from": "target", "src_bbox": None,
             "tgt_bbox": [BOX[1] / 64, BOX[0] / 64, BOX[3] / 64, BOX[2] / 64]}
        ]  # fmt: skip


def test_the_box_reaches_the_text_that_flux_3_reads(models):
    model, read = models["flux3"], []
    hook = model.pipeline.text_encoder.register_forward_pre_hook(
        lambda _network, _inputs, named: read.append(named["input_ids"][0]), with_kwargs=True
    )
    drawn(model, guidance_scale=1.0)
    hook.remove()
    text = model.pipeline.tokenizer.tokenizer.decode(read[0])
    expected = json.dumps([round(BOX[i] / 64 * 1000) for i in (1, 0, 3, 2)])
    assert f'"from": "target", "src_bbox": null, "tgt_bbox": {expected}, "desc": "a blue house"' in text


def test_a_box_is_given_as_shares_from_top_left_to_bottom_right():
    mask = torch.zeros(100, 200, dtype=torch.bool)
    mask[10:30, 50:150] = True
    assert box_of(mask, "a cat")["tgt_bbox"] == [0.1, 0.25, 0.3, 0.75]


@pytest.mark.parametrize("name", ["flux3", "qwen-image", "flux2-klein"])
def test_the_noise_is_the_seeds_whatever_the_batch_and_the_prompt_matters(models, name):
    model = models[name]
    before = model.unet_forwards
    together = drawn(model, 2)
    assert together.shape == (2, 3, NATIVE_PX, NATIVE_PX) and together.dtype == torch.uint8
    assert model.unet_forwards - before >= 4
    assert torch.equal(together[:1], drawn(model))
    assert not torch.equal(drawn(model, seed=2), together[:1])
    assert not torch.equal(drawn(model, prompt="the red tree"), together[:1])


@pytest.mark.parametrize("name", ["flux3-distilled", "qwen-image", "flux2-klein"])
def test_a_picture_is_edited_by_the_path_that_users_take(folders, tiny_models, name, picture):
    encoders = {part: str(tiny_models / part) for part in ("dino", "clip")}
    editor = Editor.from_pretrained(str(folders[name]), **encoders, device="cpu", dtype="float32", views=1, budget=1)
    steps: list[tuple[int, int]] = []
    result = editor.edit(
        picture, caption="a red square", prompt="a blue house", on_step=lambda step, total: steps.append((step, total))
    )
    edited, (x0, y0, x1, y1) = result.best.tensor(), result.best.box_xyxy
    outside = torch.ones(72, 120, dtype=torch.bool)
    outside[y0:y1, x0:x1] = False
    assert torch.equal(edited[:, outside], result.request.image[:, outside])
    assert not torch.equal(edited, result.request.image)
    assert result.config.steps == 2 and (1, 2) in steps and (2, 2) in steps and result.cost.unet_forwards > 0
    with pytest.raises(EditCancelled):
        editor.edit(picture, caption="a red square", prompt="a blue house", on_step=lambda step, _total: step == 1)


def test_part_of_a_network_stays_in_float32_as_its_authors_want_it(folders):
    transformer = load_pipeline(str(folders["flux3-distilled"]), dtype=torch.bfloat16).transformer
    dtypes = {name: weight.dtype for name, weight in transformer.named_parameters()}
    norms = {name for name in dtypes if "norm_q" in name or "norm_k" in name}
    assert norms and {dtypes[name] for name in norms} == {torch.float32}
    assert {dtypes[name] for name in set(dtypes) - norms} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("flux2-klein", {"_class_name": "WanModularPipeline"}, "is a WanModularPipeline, which cannot edit here"),
        ("flux2-klein", {"vae": ["somebody", "CodeOfTheirs", {}]}, "names .'somebody', 'CodeOfTheirs'. as its vae"),
        ("flux2-klein", {"vae": None}, "lacks vae, which FLUX.2 klein needs"),
        ("flux2-klein", {"scheduler": ["diffusers", "DDIMScheduler", {}]}, "must be FlowMatchEulerDiscreteScheduler"),
    ],
)
def test_a_folder_that_cannot_edit_is_one_line(folders, tmp_path, name, changed, message):
    folder = Path(shutil.copytree(folders[name], tmp_path / "changed"))
    index = json.loads((folder / "modular_model_index.json").read_text("utf-8")) | changed
    (folder / "modular_model_index.json").write_text(json.dumps(index))
    with pytest.raises(MasklessError, match=message):
        make_inpainter(load_pipeline(str(folder)), native_px=NATIVE_PX)


def test_code_in_the_folder_is_never_run(folders, tmp_path):
    folder = Path(shutil.copytree(folders["flux2-klein"], tmp_path / "hostile"))
    (folder / "block.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    auto_map = {"auto_map": {"ModularPipelineBlocks": "block.Hostile"}, "_class_name": "Hostile"}
    (folder / "modular_config.json").write_text(json.dumps(auto_map))
    assert drawn(make_inpainter(load_pipeline(str(folder)), native_px=NATIVE_PX)).shape[0] == 1
    assert not (tmp_path / "ran").exists()


def test_what_a_modular_pipeline_has_not_is_refused(models, folders):
    pipeline = models["flux2-klein"].pipeline
    for options, message in (
        ({"lora": "some.safetensors"}, "LoRA files cannot be added"),
        ({"scheduler": "ddim"}, "scheduler of FLUX.2 klein must be"),
        ({"native_px": 63}, "native_px must be a multiple"),
    ):
        with pytest.raises(MasklessError, match=message):
            make_inpainter(pipeline, **options)
    with pytest.raises(MasklessError, match="FLUX.2 klein has no negative prompt"):
        models["flux2-klein"].encode_prompt("a house", "a cat")
    with pytest.raises(MasklessError, match="weights such as"):
        models["flux3"].encode_prompt("a (house:1.3)")
    assert models["qwen-image"].encode_prompt("a house", "a cat").texts == ("a house", "a cat")
    assert set(FAMILIES) == {type(model.pipeline).__name__ for model in models.values()}
