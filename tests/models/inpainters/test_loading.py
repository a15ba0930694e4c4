"""From a folder to a pipeline, and from a pipeline to the class of its family."""

import json
import shutil

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.models.inpainters.loading import PIPELINES, load_pipeline, make_inpainter
from tiny_families import NATIVE_PX


@pytest.mark.parametrize(("name", "kind"), [("sd", "StableDiffusionInpainter"), ("flux", "FlowInpainter")])
def test_a_pipeline_gets_the_class_of_its_family(family_model, name, kind):
    assert type(family_model(name)).__name__ == kind


def test_every_class_that_is_opened_is_one_of_diffusers():
    import diffusers

    assert all(hasattr(diffusers, name) for pair in PIPELINES.items() for name in pair)


def test_a_model_that_cannot_inpaint_is_named(family_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(family_folder("sd"), folder)
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    index["_class_name"] = "AudioLDM2Pipeline"
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(MasklessError, match="is a AudioLDM2Pipeline, which cannot inpaint here; use a model of Stable"):
        load_pipeline(str(folder))


def test_pickled_weights_are_read_only_when_allowed(family_folder, tmp_path, draw):
    folder = tmp_path / "model"
    shutil.copytree(family_folder("sd"), folder)
    from safetensors.torch import load_file

    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(MasklessError, match="no weights .* in .*unet; .* --allow-pickle"):
        load_pipeline(str(folder))
    assert draw(make_inpainter(load_pipeline(str(folder), allow_pickle=True), native_px=NATIVE_PX)) is not None
