"""The editor from picture to ranked results, on small models."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import maskless
from maskless import EditRequest, MasklessError

TEXTS = {"caption": "a red square", "prompt": "a blue house"}
FAST = {"search": "learned", "iterations": 2, "updates": 5, "anchors": 4}


@pytest.fixture(scope="module")
def image() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (72, 120, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def result(editor, image):
    return editor.edit(image, **TEXTS, **FAST)


def test_an_edit_gives_one_ranked_candidate_for_each_anchor(result):
    assert len(result.candidates) == 4 == len(result.losses)
    assert sorted(result.order) == [0, 1, 2, 3]
    assert result.candidates.regions.anchor_index.tolist() == [0, 1, 2, 3]
    assert [step.step for step in result.history] == [0, 1, 2] and len(result.drawn_steps) == 2
    assert result.anchor_net.probabilities_after.shape == (4, 6)


def test_the_cost_is_what_was_done(result):
    steps, guided = 2, 2
    assert result.cost.unet_forwards == result.cost.inpaintings * steps * guided
    assert 4 <= result.cost.inpaintings <= 12
    assert {"features", "relevance", "inpainting", "losses", "ranking"} <= set(result.cost.seconds)
    assert result.cost.peak_memory_mb > 50


def test_outside_the_region_every_candidate_is_the_original(result, image):
    original = np.asarray(image)
    for index in range(len(result.candidates)):
        edited = result.edited(index)
        x0, y0, x1, y1 = edited.box_xyxy
        pixels = edited.pixels()
        inside = np.zeros(pixels.shape[:2], dtype=bool)
        inside[y0:y1, x0:x1] = True
        assert np.array_equal(pixels[~inside], original[~inside])
        assert not np.array_equal(pixels[inside], original[inside])


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(editor, image, result):
    again = editor.edit(image, **TEXTS, **FAST)
    assert torch.equal(again.candidates.crops, result.candidates.crops)
    assert again.order == result.order and torch.equal(again.scores, result.scores)
    other = editor.edit(image, **TEXTS, **FAST, seed=7)
    assert not torch.equal(other.candidates.crops[0], result.candidates.crops[0])


def test_paths_arrays_tensors_and_pil_images_are_the_same_picture(editor, image, result, tmp_path):
    path = tmp_path / "scene.png"
    image.save(path)
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 255
    for kind in (path, str(path), array, tensor):
        request = editor.request(kind, **TEXTS)
        assert torch.allclose(request.image, result.request.image, atol=1e-6)


def test_the_best_is_saved_as_it_is(result, tmp_path):
    result.best.save(tmp_path / "edited.png")
    saved = np.asarray(Image.open(tmp_path / "edited.png"))
    assert np.array_equal(saved, result.best.pixels())
    assert np.abs(result.best.tensor().permute(1, 2, 0).numpy() * 255 - saved).max() <= 0.51


def test_batches_of_one_and_of_many_agree(editor, image, result):
    alone = editor.edit(image, **TEXTS, **FAST, batch_size=1)
    difference = (alone.candidates.crops.int() - result.candidates.crops.int()).abs()
    assert alone.cost.inpaintings == result.cost.inpaintings
    assert int(difference.max()) <= 1


def test_stream_gives_records_as_they_happen(editor, image):
    steps = list(editor.stream(editor.request(image, **TEXTS), **FAST))
    assert [step.step for step in steps] == [0, 1, 2] and {step.total_steps for step in steps} == {2}
    assert steps[-1].updates > 0 and steps[-1].seconds > 0


@pytest.mark.parametrize("size", [(32, 32), (32, 400), (400, 32), (333, 517)])
@pytest.mark.parametrize("caption", ["", "a car"])
def test_any_size_and_aspect_with_and_without_a_caption(editor, size, caption):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    result = editor.edit(image, caption=caption, prompt="a house", iterations=1, updates=2, anchors=2)
    assert result.best.pixels().shape == image.shape


def test_wrong_input_is_one_line(editor, image):
    for wrong, message in [
        (lambda: editor.edit(image, caption="a car", prompt=" "), "prompt must not be empty"),
        (lambda: editor.edit("no-such-file.png", prompt="a house"), "no such file"),
        (lambda: editor.edit(image, prompt="a house", iterashuns=3), "unknown option 'iterashuns'"),
        (lambda: editor.edit(image, prompt="a house", anchors=0), "anchors must be from 1 to 256"),
        (lambda: editor.edit(image, prompt="a house", scheduler="lcm"), "scheduler is an option of loading models"),
        (lambda: editor.edit(image, prompt="a house", device="cpu"), "give it to Editor.from_pretrained"),
        (lambda: editor.start(editor.request(image, prompt="a"), memory="low"), "memory is an option of loading"),
        (lambda: editor.edit(image, prompt="a house", lora="a.safetensors"), "lora is an option of loading models"),
        (lambda: editor.edit(image, prompt="a house", output_dir="x"), "what is kept on the disk"),
    ]:
        with pytest.raises(MasklessError, match=message) as caught:
            wrong()
        assert "\n" not in str(caught.value)


def test_an_editor_takes_whole_requests(editor, picture):
    request = EditRequest(image=picture, caption="", prompt="a house", seed=3)
    result = editor.edit(request, iterations=1, updates=1, anchors=2)
    assert set(result.candidates.seeds) == {3}
    assert result.best.pixels().dtype == np.uint8


def test_importing_the_package_loads_no_library():
    code = "import sys, maskless; print(sorted({'torch', 'diffusers', 'transformers', 'PIL'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
    assert len(maskless.__all__) <= 10 and all(getattr(maskless, name) for name in maskless.__all__)


def test_one_view_serves_many_edits_and_changes_none_of_them(editor, image, result, monkeypatch):
    view = editor.look(image)
    first = editor.edit(view, **TEXTS, **FAST)
    assert torch.equal(first.candidates.crops, result.candidates.crops) and first.order == result.order
    monkeypatch.setattr(editor.models.dino, "features", lambda _image: pytest.fail("the picture is known"))
    second = editor.edit(view, caption="a red square", prompt="a tree", **FAST)
    assert torch.equal(second.anchors.points_yx, result.anchors.points_yx)


def test_models_and_options_are_recorded_as_they_were_used(editor, result):
    assert result.models == editor.models.options and result.models.device == "cpu"
    assert result.config == result.used and result.config.batch_size >= 1
