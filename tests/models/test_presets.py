"""The table of presets holds together, and its names find their models."""

import re

import pytest

from maskless.data.errors import MasklessError
from maskless.models import hub
from maskless.models.presets import BY_NAME, PINNED, PRESETS, with_mirrors
from maskless.models.pretrained import model_sources, on_disk

WANTED = (
    "storybook", "sd15", "sd2", "sdxl", "sd3", "flux-fill", "flux2-klein", "qwen-image", "z-image", "kontext",
    "qwen-image-edit",
)  # fmt: skip


def test_every_preset_says_where_it_comes_from_and_what_it_takes():
    assert tuple(BY_NAME) == WANTED and len(PRESETS) == len(BY_NAME)
    for preset in PRESETS[1:]:
        assert all(hub.is_hub_id(source) for source in (*preset.inpainting, preset.dino, preset.clip))
        assert preset.licence and 0 < preset.memory_gb < preset.download_gb + 0.01 < 100
    assert {preset.name for preset in PRESETS if preset.kind == "instruction"} == {"kontext", "qwen-image-edit"}
    assert BY_NAME["storybook"].download_gb == 0


def test_pins_are_whole_commits_of_models_that_are_named_here():
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in PINNED.values())
    assert len(set(PINNED.values())) == len(PINNED)


def test_a_preset_names_all_three_parts_and_any_can_be_replaced():
    assert model_sources("sd2") == {
        "inpainting": "sd2-community/stable-diffusion-2-inpainting",
        "dino": "facebook/dino-vitb8",
        "clip": "openai/clip-vit-base-patch16",
    }
    other = "facebook/dinov2-with-registers-base"
    assert model_sources("sd2", dino=other)["dino"] == other


def test_mirrors_follow_their_first():
    first, second = with_mirrors("sd2-community/stable-diffusion-2-inpainting")
    assert first.startswith("sd2-community/") and second.startswith("stabilityai/")
    assert with_mirrors("some/model") == ("some/model",)


def test_the_bundled_models_are_on_disk_and_no_others_in_an_empty_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert [preset.name for preset in PRESETS if on_disk(preset.name)] == ["storybook"]


def test_a_name_that_is_no_preset_lists_them():
    with pytest.raises(MasklessError, match="must be one of storybook, sd15, sd2, .* a hub id"):
        model_sources("sd16")
