"""Where the parts of a set of models are: presets, folders and hub ids."""

import pytest

from maskless.data.errors import MasklessError
from maskless.models.presets import PRESETS
from maskless.models.sources import model_sources, on_disk, with_commits


def test_a_preset_names_all_three_parts_and_any_can_be_replaced():
    assert model_sources("sd2") == {
        "inpainting": "sd2-community/stable-diffusion-2-inpainting",
        "dino": "facebook/dino-vitb8",
        "clip": "openai/clip-vit-base-patch16",
    }
    other = "facebook/dinov2-with-registers-base"
    assert model_sources("sd2", dino=other)["dino"] == other


def test_the_bundled_models_are_on_disk_and_no_others_in_an_empty_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert [preset.name for preset in PRESETS if on_disk(preset.name)] == ["storybook"]


def test_a_name_that_is_no_preset_lists_them():
    with pytest.raises(MasklessError, match="must be one of storybook, sd15, sd2, .* a hub id"):
        model_sources("sd16")


def test_a_light_preset_comes_with_what_erases_and_what_finds():
    sources = model_sources("light")
    assert set(sources) == {"inpainting", "dino", "clip", "erase", "grounder", "preview_vae"}
    assert sources["preview_vae"] == "madebyollin/taesd" and "@614f7681" in with_commits("madebyollin/taesd")[0]
    assert "clipseg" in sources["grounder"].lower()
    assert model_sources("light", grounder="acme/owl")["grounder"] == "acme/owl"
    assert set(model_sources("light", wanted=("dino", "clip"))) == {"dino", "clip", "grounder"}
