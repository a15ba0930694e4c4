"""The table of presets: names, sources, sizes and pinned commits."""

import re

from maskless.models import hub
from maskless.models.presets import BY_NAME, PINNED, PRESETS, SHA256_OF, with_mirrors

WANTED = (
    "storybook", "sd15", "sd2", "sdxl", "sd3", "flux-fill", "flux2-klein", "qwen-image", "z-image", "kontext",
    "qwen-image-edit", "light", "light-tiny", "erase",
)  # fmt: skip


def test_every_preset_says_where_it_comes_from_and_what_it_takes():
    assert tuple(BY_NAME) == WANTED and len(PRESETS) == len(BY_NAME)
    for preset in PRESETS[1:]:
        assert all(hub.is_hub_id(source) for source in (*preset.inpainting, preset.dino, preset.clip))
        assert preset.licence and 0 < preset.memory_gb < preset.download_gb + 0.01 < 100
    assert {preset.name for preset in PRESETS if preset.kind == "instruction"} == {"kontext", "qwen-image-edit"}
    assert {preset.name for preset in PRESETS if preset.erase} == {"light", "light-tiny"}
    assert {preset.name for preset in PRESETS if preset.preview_vae and preset.preview_m} == {"light", "light-tiny"}
    assert all(hub.is_hub_id(preset.erase) for preset in PRESETS if preset.erase)
    assert BY_NAME["storybook"].download_gb == 0


def test_pins_are_whole_commits_of_models_that_are_named_here():
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in PINNED.values())
    assert len(set(PINNED.values())) == len(PINNED)


def test_mirrors_follow_their_first():
    first, second = with_mirrors("sd2-community/stable-diffusion-2-inpainting")
    assert first.startswith("sd2-community/") and second.startswith("stabilityai/")
    assert with_mirrors("some/model") == ("some/model",)


def test_known_hashes_are_of_pinned_commits():
    assert SHA256_OF and all(len(digest) == 64 and int(digest, 16) for digest in SHA256_OF.values())
    assert {commit for commit, _name in SHA256_OF} <= set(PINNED.values())
