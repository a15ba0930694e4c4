"""Erasing by an ONNX file of MI-GAN's layout: alone, and beside a model that draws prompts."""

import shutil

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.engine.editor import Editor
from maskless.models.inpainters.denoising import Sampling
from maskless.models.inpainters.eraser import OnnxEraser, onnx_file
from maskless.models.inpainters.protocol import InpaintingModel

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from onnx_models import COLOUR, write_eraser  # noqa: E402

OPTIONS = {"device": "cpu", "dtype": "float32", "views": 1}
HOLE = {"box": (84, 20, 108, 44)}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_eraser(tmp_path_factory.mktemp("onnx") / "migan_pipeline_v2.onnx")


@pytest.fixture(scope="module")
def both(tiny_models, file) -> Editor:
    """An inpainting model with an eraser beside it."""
    return Editor.from_pretrained(str(tiny_models), erase=str(file), steps=2, **OPTIONS)


@pytest.fixture(scope="module")
def alone(tiny_models, file, tmp_path_factory) -> Editor:
    """A set of models whose inpainting model is the eraser."""
    folder = tmp_path_factory.mktemp("alone")
    for part in ("dino", "clip"):
        shutil.copytree(tiny_models / part, folder / part)
    (folder / "inpainting").mkdir()
    shutil.copyfile(file, folder / "inpainting" / file.name)
    return Editor.from_pretrained(str(folder), **OPTIONS)


def test_the_hole_is_filled_and_the_rest_stays(file):
    model, pictures = OnnxEraser(file), torch.rand(2, 3, 64, 64)
    masks = torch.zeros(2, 1, 64, 64)
    masks[0, :, 10:30, 10:30] = 1
    masks[1, :, 40:, :] = 0.6
    drawn = model.inpaint(pictures, masks, model.encode_prompt("a car"), Sampling(seed=0, steps=1, guidance_scale=1))
    expected = torch.where(masks > 0.5, torch.tensor(COLOUR), (pictures * 255).round()).to(torch.uint8)
    assert torch.equal(drawn, expected) and model.unet_forwards == 2
    assert isinstance(model, InpaintingModel) and not model.follows_prompt


@pytest.mark.parametrize("task", ["remove", "complete", "repair"])
def test_the_eraser_draws_what_needs_no_prompt(both, picture, task):
    before, erased = both.models.inpainter.unet_forwards, both.models.eraser.unet_forwards
    result = both.edit(picture, task=task, **HOLE)
    tensor = result.best.tensor()
    assert both.models.inpainter.unet_forwards == before and both.models.eraser.unet_forwards > erased
    assert len(result.candidates) == 1 and result.cost.unet_forwards == both.models.eraser.unet_forwards - erased
    assert float((tensor - picture)[:, 20:44, 84:108].abs().mean()) > 0.1
    outside = torch.ones(72, 120, dtype=torch.bool)
    outside[20:44, 84:108] = False
    assert torch.equal(tensor[:, outside], picture[:, outside])


def test_a_prompt_is_drawn_by_the_inpainting_model(both, picture):
    erased = both.models.eraser.unet_forwards
    both.edit(picture, task="complete", prompt="a tent", **HOLE)
    both.edit(picture, prompt="a tent", **HOLE)
    assert both.models.eraser.unet_forwards == erased


def test_an_eraser_alone_refuses_what_it_cannot_draw(alone, picture):
    assert len(alone.edit(picture, task="remove", **HOLE).candidates) == 1
    for task in ("replace", "complete", "generate"):
        region = {} if task == "generate" else HOLE
        with pytest.raises(MasklessError, match="draws nothing new: it takes the tasks remove, complete, repair"):
            alone.edit(picture, task=task, prompt="a tent", **region)


def test_a_file_of_another_layout_is_one_line(tmp_path):
    for name, options in (("a", {"image": "picture"}), ("b", {"channels": 4})):
        with pytest.raises(MasklessError, match="must take image .uint8") as raised:
            OnnxEraser(write_eraser(tmp_path / f"{name}.onnx", **options))
        assert "\n" not in str(raised.value)
    (tmp_path / "c.onnx").write_bytes(b"no model")
    with pytest.raises(MasklessError, match="is not an ONNX model that can be read here"):
        OnnxEraser(tmp_path / "c.onnx")
    with pytest.raises(MasklessError, match="3 ONNX files; name one"):
        onnx_file(tmp_path)
    assert onnx_file(tmp_path / "a.onnx") == tmp_path / "a.onnx" and onnx_file(tmp_path.parent) is None
