"""MasklessInpaintPipeline: it edits as an Editor does, and behaves as diffusers' pipelines do."""

import numpy as np
import pytest
import torch
from PIL import Image

from maskless import AnchorNetModel, Editor, MasklessInpaintPipeline
from maskless.data.errors import EditCancelled, MasklessError
from maskless.data.picture import load_image

SAMPLE = "src/maskless/assets/samples/meadow.png"
EDIT = {"caption": "a red square", "prompt": "a blue circle", "num_inference_steps": 2}
TINY = {"views": 2, "budget": 1}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pipe(tiny_models):
    made = MasklessInpaintPipeline.from_pretrained(tiny_models)
    made.set_progress_bar_config(disable=True)
    return made


def test_outside_the_mask_every_pixel_is_the_input_in_each_output_type(pipe, picture):
    output = pipe(image=picture, generator=generator(), output_type="pt", **EDIT, **TINY)
    outside = ~output.masks[0]
    assert output.images.shape == (1, 3, 72, 120) and 0 < int(outside.sum()) < outside.numel()
    assert torch.equal(output.images[0][:, outside], picture[:, outside])
    assert not torch.equal(output.images[0], picture)
    images, boxes, masks, results = pipe(
        image=picture, generator=generator(), output_type="np", return_dict=False, **EDIT, **TINY
    )
    assert np.array_equal(images[0], output.images[0].movedim(0, -1).numpy()) and boxes == output.boxes
    (pil,) = pipe(image=picture, generator=generator(), **EDIT, **TINY).images
    assert np.array_equal(np.asarray(pil)[outside], load_image(picture).pixels[outside])
    assert torch.equal(masks[0], output.masks[0]) and len(results) == 1


def test_the_generator_decides_and_lists_make_a_batch(pipe, picture):
    same = [pipe(image=picture, generator=generator(5), output_type="pt", **EDIT, **TINY).images for _ in range(2)]
    assert torch.equal(*same)
    two = pipe(
        image=[picture, picture.flip(2)], generator=generator(5), num_images_per_prompt=2, output_type="pt", **EDIT,
        **TINY,
    ).images  # fmt: skip
    assert two.shape == (4, 3, 72, 120) and torch.equal(two[0], same[0][0]) and not torch.equal(two[0], two[1])
    with pytest.raises(MasklessError, match="generator must be one or a list of 1, got 2"):
        pipe(image=picture, generator=[generator(), generator()], **EDIT)
    with pytest.raises(MasklessError, match="prompt must be one value or a list of 3, got 2"):
        pipe(image=[picture] * 3, prompt=["a", "b"], caption="a red square")


def test_the_callback_sees_each_denoising_step_and_can_stop_it(pipe, picture):
    seen = []

    def note(pipeline, step, timestep, tensors):
        seen.append((pipeline is pipe, step, float(timestep), tensors["latents"].ndim))

    pipe(image=picture, generator=generator(), callback_on_step_end=note, **EDIT, **TINY)
    assert [step for _, step, _, _ in seen] == [0, 1] and seen[0][2] > seen[1][2]
    assert all(own and dimensions == 4 for own, _, _, dimensions in seen)

    def stop(pipeline, *_rest):
        pipeline._interrupt = True

    with pytest.raises(EditCancelled):
        pipe(image=picture, callback_on_step_end=stop, **EDIT, **TINY)
    with pytest.raises(MasklessError, match="callback_on_step_end_tensor_inputs can have"):
        pipe(image=picture, callback_on_step_end_tensor_inputs=["prompt_embeds"], **EDIT)


def test_what_is_saved_loads_again_by_diffusers_and_by_an_editor(pipe, picture, tmp_path):
    first = pipe(image=picture, generator=generator(), output_type="pt", **EDIT, **TINY)
    net = AnchorNetModel(sizes=6)
    MasklessInpaintPipeline.from_pipe(pipe, anchor_net=net).save_pretrained(tmp_path)
    loaded = MasklessInpaintPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(loaded(image=picture, generator=generator(), output_type="pt", **EDIT, **TINY).images,
                       first.images)  # fmt: skip
    assert all(map(torch.equal, loaded.anchor_net.state_dict().values(), net.state_dict().values()))
    editor = Editor.from_pretrained(str(tmp_path), device="cpu", dtype="float32", steps=2, **TINY)
    seed = first.results[0].request.seed
    again = editor.edit(picture, caption=EDIT["caption"], prompt=EDIT["prompt"], seed=seed)
    assert torch.equal(again.best.tensor(), first.images[0])


def test_from_pipe_shares_the_networks(pipe, picture, tiny_models):
    made = MasklessInpaintPipeline.from_pipe(pipe.inpainting, encoders=str(tiny_models))
    assert made.inpainting.unet is pipe.inpainting.unet
    made.set_progress_bar_config(disable=True)
    output = made(image=picture, box=(10, 10, 60, 60), prompt="a tent", num_inference_steps=2, **TINY)
    assert output.boxes == [(10, 10, 60, 60)]


def test_a_learned_search_starts_from_the_anchor_net(pipe, picture):
    net = AnchorNetModel(sizes=6)
    with torch.no_grad():
        net.net.layers[7].bias[2] = 50.0
    made = MasklessInpaintPipeline.from_pipe(pipe, anchor_net=net)
    made.set_progress_bar_config(disable=True)
    output = made(image=picture, generator=generator(), search="learned", iterations=1, epochs=1, views=2, **EDIT)
    assert float(output.results[0].anchor_net.probabilities_after[:, 2].min()) > 0.9


def test_to_keeps_the_encoders_in_float32(tiny_models):
    made = MasklessInpaintPipeline.from_pretrained(tiny_models).to("cpu", torch.bfloat16)
    assert made.inpainting.unet.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in made.clip.parameters()} == {torch.float32}
    assert made.device.type == "cpu"


def test_bad_input_is_one_line(pipe, picture):
    for arguments, message in (
        ({}, "image must be the picture to edit, got None"),
        ({"image": picture, "output_type": "latent"}, "output_type must be one of"),
        ({"image": picture, "caption": "a red square"}, "prompt must not be empty"),
        ({"image": picture, "caption": "a", "prompt": "b", "depth": 3}, "unknown option 'depth'"),
    ):
        with pytest.raises(MasklessError, match=message) as error:
            pipe(**arguments)
        assert "\n" not in str(error.value)
    with pytest.raises(MasklessError, match="the options of loading storybook are"):
        MasklessInpaintPipeline.from_pretrained("storybook", variant="fp16")


@pytest.mark.slow
def test_the_bundled_models_edit_as_with_an_editor():
    pipeline = MasklessInpaintPipeline.from_pretrained("storybook")
    pipeline.set_progress_bar_config(disable=True)
    picture = Image.open(SAMPLE)
    output = pipeline("a blue house", picture, "a red car", generator=generator(3))
    editor = Editor.from_pretrained("storybook", device="cpu", dtype="float32")
    again = editor.edit(SAMPLE, caption="a red car", prompt="a blue house", seed=output.results[0].request.seed)
    assert np.array_equal(np.asarray(output.images[0]), again.best.pixels())
