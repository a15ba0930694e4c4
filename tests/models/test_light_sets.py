"""The light sets for photographs, as tiny random models in the layout of their repositories."""

import json
import shutil

import pytest
import torch

from maskless.engine.editor import Editor

BOX = (84, 20, 108, 44)
LAYOUTS = {
    # LCM_Dreamshaper_v7: a UNet that takes its guidance as an embedding, and a scheduler of its own.
    "light": ("LatentConsistencyModelPipeline", {"time_cond_proj_dim": 16}),
    # BK-SDM-Tiny: three levels, one layer each, and no block in the middle.
    "light-tiny": (
        "StableDiffusionPipeline",
        {
            "block_out_channels": (16, 32, 32),
            "down_block_types": ("CrossAttnDownBlock2D",) * 3,
            "up_block_types": ("CrossAttnUpBlock2D",) * 3,
            "mid_block_type": None,
        },
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_text_to_image_model_of_the_layout_edits_a_region(tiny_models, picture, name, tmp_path):
    from diffusers import LCMScheduler, UNet2DConditionModel

    kind, changes = LAYOUTS[name]
    folder = shutil.copytree(tiny_models, tmp_path / "models")
    part = folder / "inpainting"
    own = UNet2DConditionModel.load_config(part / "unet")
    shutil.rmtree(part / "unet")
    UNet2DConditionModel.from_config({**own, "in_channels": 4, **changes}).save_pretrained(part / "unet")
    index = json.loads((part / "model_index.json").read_text())
    index |= {"_class_name": kind}
    if name == "light":
        shutil.rmtree(part / "scheduler")
        LCMScheduler(prediction_type="epsilon").save_pretrained(part / "scheduler")
        index["scheduler"] = ["diffusers", "LCMScheduler"]
    (part / "model_index.json").write_text(json.dumps(index))
    editor = Editor.from_pretrained(str(folder), steps=2, device="cpu", dtype="float32", views=1)
    result = editor.edit(picture, prompt="a tent", box=BOX)
    tensor, outside = result.best.tensor(), torch.ones(72, 120, dtype=torch.bool)
    outside[20:44, 84:108] = False
    assert torch.equal(tensor[:, outside], picture[:, outside]) and not torch.equal(tensor, picture)
    assert editor.models.inpainter.follows_prompt and torch.isfinite(tensor).all()
