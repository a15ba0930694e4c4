"""The editor from picture to ranked results, on small models."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import maskless
from maskless import EditRequest, MasklessError, load_image

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


def test_another_edit_of_the_same_picture_pays_for_no_features(editor, image, monkeypatch):
    fresh = type(editor)(editor.models, editor.config)
    first = fresh.edit(np.asarray(image), **TEXTS, search="placed")
    for method in ("features", "keys"):
        monkeypatch.setattr(editor.models.dino, method, lambda *_: pytest.fail("it is known"))
    encoded = []
    original = editor.models.clip.encode
    monkeypatch.setattr(editor.models.clip, "encode", lambda images: encoded.append(len(images)) or original(images))
    second = fresh.edit(np.asarray(image), caption=TEXTS["caption"], prompt="a green tree", search="placed")
    assert torch.equal(second.placement.boxes_xyxy, first.placement.boxes_xyxy)
    assert set(encoded) <= {1, len(second.candidates)}, (
        "CLIP sees the source and the candidates, and no proposed region"
    )


def test_an_editor_keeps_the_views_of_few_pictures(editor):
    fresh = type(editor)(editor.models, editor.config)
    pictures = [np.full((40, 40, 3), value, dtype=np.uint8) for value in (10, 90, 170)]
    requests = [fresh.request(each, prompt="a house") for each in pictures]
    first, second, third = (fresh.start(each).view for each in requests)
    again = fresh.start(fresh.request(pictures[2], prompt="a cat"))
    assert again.view is third and fresh.start(requests[1]).view is second
    assert fresh.start(requests[0]).view is not first, "only the last two are kept"


def test_views_of_large_pictures_are_not_kept(editor, monkeypatch):
    monkeypatch.setattr("maskless.engine.editor.KEPT_PIXELS", 40 * 40 - 1)
    fresh = type(editor)(editor.models, editor.config)
    request = fresh.request(np.full((40, 40, 3), 10, dtype=np.uint8), prompt="a house")
    assert fresh.start(request).view is not fresh.start(request).view
    seen = fresh.look(np.full((40, 40, 3), 10, dtype=np.uint8))
    assert fresh.start(fresh.request(seen, prompt="a house")).view is seen


def test_no_large_picture_is_copied_as_floats(editor):
    pixels = np.full((3100, 3200, 3), 90, dtype=np.uint8)
    pixels[800:1800, 900:2100] = (220, 30, 30)
    view = editor.look(pixels)
    result = editor.edit(view, **TEXTS, **FAST)
    changed = (result.best.pixels() != pixels).any(axis=2)
    assert changed.any() and not changed[~result.best.touched().numpy()].any()
    assert "rgb" not in vars(view.source), "8-bit pixels as floats take four times the memory"


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
    request = EditRequest(source=load_image(picture), caption="", prompt="a house", seed=3)
    result = editor.edit(request, iterations=1, updates=1, anchors=2)
    assert set(result.candidates.seeds) == {3}
    assert result.best.pixels().dtype == np.uint8


def test_importing_the_package_loads_no_library():
    code = "import sys, maskless; print(sorted({'torch', 'diffusers', 'transformers', 'PIL'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
    assert len(maskless.__all__) <= 11 and all(getattr(maskless, name) for name in maskless.__all__)


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


def test_what_is_no_request_state_or_config_is_one_line(unchecked, editor, image, tiny_models):
    from maskless import Editor

    request, folder = editor.request(image, **TEXTS), str(tiny_models)
    for wrong, message in [
        (lambda: editor.start("desert.png"), "start needs a request, from editor.request.*got 'desert.png'"),
        (lambda: editor.start(image), "start needs a request, from editor.request.*got a Image"),
        (lambda: list(editor.stream("desert.png")), "start needs a request"),
        (lambda: editor.start(request, state="last.pth"), "state must be the state.. of a run, got 'last.pth'.*resume"),
        (lambda: editor.start(request, state=[1]), "state must be the state.. of a run, got a list"),
        (lambda: Editor.from_pretrained(folder, config={"steps": 2}), "config must be an EditConfig.*got a dict"),
        (lambda: Editor(editor.models, {"steps": 2}), "config must be an EditConfig.*got a dict"),
        (lambda: Editor.from_pretrained(folder, output_dir="x"), "output_dir is an option of KeepOptions.*kept.run"),
        (lambda: Editor.from_pretrained(folder, stepz=3), "unknown option 'stepz'"),
    ]:
        with pytest.raises(MasklessError, match=message) as caught:
            wrong()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "extra",
    [{"caption": "a car"}, {"prompt": "a tree"}, {"task": "add"}, {"seed": 0}, {"box": (0, 0, 8, 8)}, {"extend": 64}],
)
def test_what_a_whole_request_already_has_is_refused_beside_it(editor, image, extra):
    name = next(iter(extra))
    with pytest.raises(MasklessError, match=f"whole request, which has its own {name}: give {name} to editor.request"):
        editor.edit(editor.request(image, **TEXTS), **extra)


def test_a_request_from_a_view_shares_it(editor, image, result, monkeypatch):
    view = editor.look(image)
    assert view.features.grid_yx
    monkeypatch.setattr(editor.models.dino, "features", lambda _image: pytest.fail("the picture is known"))
    request = editor.request(view, **TEXTS)
    for again in (editor.start(request, **FAST).result(), editor.edit(request, **FAST)):
        assert torch.equal(again.candidates.crops, result.candidates.crops)


def test_an_equal_picture_shares_a_view_and_another_is_refused(editor, image, result, monkeypatch):
    view = editor.look(image)
    assert view.features.grid_yx
    other = editor.request(image.rotate(180), **TEXTS)
    with pytest.raises(MasklessError, match="the view must be of the request's picture, 120 x 72, got one of another"):
        editor.start(other, view=view)
    monkeypatch.setattr(editor.models.dino, "features", lambda _image: pytest.fail("the picture is known"))
    run = editor.start(editor.request(image, **TEXTS), view=view, **FAST)
    assert torch.equal(run.result().candidates.crops, result.candidates.crops)


def test_a_view_serves_tasks_that_change_the_picture_first(editor, image):
    view = editor.look(image)
    extended = editor.edit(view, task="extend", extend="left=16", prompt="a house")
    assert extended.best.pixels().shape == (72, 136, 3)


def test_a_view_of_other_models_is_refused(editor, image, tiny_models):
    from maskless import Editor

    other = Editor.from_pretrained(str(tiny_models), device="cpu", dtype="float32")
    with pytest.raises(MasklessError, match="the view must be made with the same models"):
        editor.edit(other.look(image), **TEXTS)


def test_a_state_continues_only_with_its_options(editor, image, result):
    request = editor.request(image, **TEXTS)
    run = editor.start(request, **FAST)
    steps = iter(run)
    next(steps), next(steps)
    state = run.state()
    for option, value in (("delta", 1.0), ("steps", 3), ("context", 0.5)):
        message = f"must be of the same options, but it was made with {option} .*{value}"
        with pytest.raises(MasklessError, match=message):
            editor.start(request, state=state, **FAST, **{option: value})
    continued = editor.start(request, state=state, **FAST | {"iterations": 2, "updates": 5})
    assert torch.equal(continued.result().candidates.crops, result.candidates.crops)


@pytest.mark.parametrize("located", [{"box": (20, 10, 50, 40)}, {}])
def test_a_lower_strength_makes_only_the_last_steps(editor, image, located):
    """Of a fill and of a search; they start from the picture's own latents then."""
    low, whole = (
        editor.edit(image, **TEXTS, **located, **FAST, steps=10, strength=strength) for strength in (0.2, 1.0)
    )
    forwards = [found.cost.unet_forwards / found.cost.inpaintings for found in (low, whole)]
    assert forwards == [2 * 2, 2 * 10] and (low.config.strength, whole.config.strength) == (0.2, 1.0)
    assert not torch.equal(low.candidates.crops[0], whole.candidates.crops[0])


def test_the_strength_of_a_style_is_at_most_the_users(editor, image):
    found = [editor.edit(image, task="style", prompt="a sketch", steps=10, strength=each) for each in (0.1, 1.0)]
    assert found[0].cost.unet_forwards < found[1].cost.unet_forwards


def test_an_edit_can_be_cancelled_between_two_denoising_steps(editor, image):
    from maskless.data.errors import EditCancelled

    steps: list[tuple[int, int]] = []
    with pytest.raises(EditCancelled):
        editor.edit(image, **TEXTS, **FAST, on_step=lambda *step: steps.append(step) or len(steps) == 3)
    assert steps == [(1, 2), (2, 2), (1, 2)]
    assert editor.edit(editor.request(image, **TEXTS), **FAST, on_step=lambda *step: steps.append(step)).order
    assert len(steps) > 6


@pytest.mark.parametrize("task", ["replace", "texture"])
def test_a_run_that_was_cancelled_continues_to_the_same_bytes(editor, image, task):
    from maskless.data.errors import EditCancelled
    from maskless.models.inpainters.denoising import watched

    request, steps = editor.request(image, task=task, **TEXTS), []
    run, expected = editor.start(request, **FAST), editor.edit(request, **FAST)
    with pytest.raises(EditCancelled), watched(lambda *step: steps.append(step) or len(steps) == 3):
        run.result()
    assert torch.equal(run.result().candidates.crops, expected.candidates.crops)
