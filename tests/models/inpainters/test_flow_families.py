"""How each family reads a text that is too long for it."""

import warnings

import pytest
import torch

from maskless.data.errors import MasklessWarning

LONG = "a blue house with the red tree " * 160
"""Longer than what any of the families reads."""
LIMITED = ["sd3", "flux", "flux-fill", "flux-kontext", "flux2-klein", "qwen-image", "z-image"]


def embeddings(prompt) -> list[torch.Tensor]:
    found = prompt.arguments["prompt_embeds"]
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize("name", LIMITED)
def test_the_part_of_a_text_that_is_left_out_is_named(family_model, name):
    model = family_model(name)
    with pytest.warns(
        MasklessWarning, match="the text is too long for .*Pipeline, which leaves out its end, [0-9]+ "
    ) as told:
        whole = model.encode_prompt(LONG)
    assert len(told) == 1 and "\n" not in str(told[0].message)
    read = whole.texts[0]
    assert 0 < len(read) < len(LONG) and LONG.startswith(read)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same, shorter = model.encode_prompt(read), model.encode_prompt(read[: read.rstrip().rindex(" ")])
    assert all(torch.equal(one, other) for one, other in zip(embeddings(whole), embeddings(same), strict=True))
    pairs = list(zip(embeddings(same), embeddings(shorter), strict=True))
    assert any(one.shape != other.shape or not torch.equal(one, other) for one, other in pairs), "it is read to its end"


@pytest.mark.parametrize("name", [*LIMITED, "sd", "sdxl", "qwen-image-edit"])
def test_a_text_that_is_read_whole_is_no_warning(family_model, name, caplog):
    model = family_model(name)
    caplog.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode_prompt("a blue house with the red tree and the house")
    assert not caplog.messages, "nor one of another library"


def test_a_negative_prompt_is_named_too(family_model):
    with pytest.warns(MasklessWarning, match="leaves out its end"):
        family_model("sd3").encode_prompt("a house", LONG)


def test_sd3_reads_as_much_as_its_encoder_was_trained_with(family_model):
    """Its pipeline takes 256 tokens by default."""
    model = family_model("sd3")
    assert embeddings(model.encode_prompt("a house"))[0].shape[1] < 300
    some = "a blue house " * 60
    blue, red = model.encode_prompt(some + "the blue tree"), model.encode_prompt(some + "the red tree")
    assert blue.texts[0] == some + "the blue tree" and not torch.equal(embeddings(blue)[0], embeddings(red)[0])


def test_sd3_without_t5_reads_what_clip_reads(family_folder):
    from maskless.models.inpainters.loading import load_pipeline, make_inpainter

    pipeline = load_pipeline(str(family_folder("sd3")))
    pipeline.register_modules(text_encoder_3=None, tokenizer_3=None)
    with pytest.warns(MasklessWarning, match="leaves out its end"):
        prompt = make_inpainter(pipeline, native_px=32).encode_prompt("a blue house with a red door and a green roof")
    assert prompt.texts[0] == "a blue house with a red door and a gree", "a token for each letter, 30 of them"


def test_qwen_image_draws_with_all_that_it_reads(family_model, draw):
    """Its pipeline cuts an encoded text at half of that, unless it is told otherwise."""
    model = family_model("qwen-image")
    some = "a blue house " * 55
    assert not torch.equal(draw(model, prompt=some + "at night"), draw(model, prompt=some + "at noon"))
