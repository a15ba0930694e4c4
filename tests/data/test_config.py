"""Options: the published defaults, and one clear line for each wrong value."""

import math
from dataclasses import FrozenInstanceError, fields

import pytest

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError

PUBLISHED = {
    "lr": 5e-3, "epochs": 1, "iterations": 10, "gradient_accumulation": 25, "checkpoint_interval": 10, "anchors": 9,
    "max_window_size": 15, "alpha": 1.0, "beta": 1.0, "gamma": 1.0, "ranking_alpha": 2.0, "ranking_beta": 1.0,
    "seed": 42,
}  # fmt: skip


def test_the_defaults_are_the_published_numbers():
    config = EditConfig()
    assert {name: getattr(config, name) for name in PUBLISHED} == PUBLISHED
    resolved = config.resolved()
    assert (resolved.steps, resolved.guidance_scale) == (50, 7.5)


def test_a_model_recommends_and_the_user_decides():
    assert EditConfig().resolved(steps=12, guidance_scale=3.0).steps == 12
    chosen = EditConfig(steps=7, guidance_scale=2).resolved(steps=12, guidance_scale=3.0)
    assert (chosen.steps, chosen.guidance_scale) == (7, 2.0)


def test_every_option_says_what_a_flag_needs():
    for option in fields(EditConfig):
        assert option.metadata["help"].endswith((".", "]."))
        assert option.metadata["group"]
        if "int" in str(option.type) or "float" in str(option.type):
            assert option.metadata["minimum"] is not None and option.metadata["maximum"] is not None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("iterations", -1, "iterations must be from 0 to 10000, got -1"),
        ("iterations", 2.5, "iterations must be a whole number, got 2.5"),
        ("iterations", True, "iterations must be a whole number, got True"),
        ("lr", math.nan, "lr must be a finite number, got nan"),
        ("lr", "fast", "lr must be a finite number, got 'fast'"),
        ("lr", 0, "lr must be from"),
        ("anchor_source", "psychic", "anchor_source must be one of attention, text, both, got 'psychic'"),
        ("steps", 0, "steps must be from 1 to 1000, got 0"),
        ("max_window_size", 17, "max_window_size must be from 1 to 16, got 17"),
        ("max_window_size", 3, "min_window_size must be at most max_window_size"),
        ("negative_prompt", None, "negative_prompt must be a text"),
        ("slim_checkpoint", 1, "slim_checkpoint must be true or false"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_wrong_value_is_refused_in_one_line(name, value, message):
    with pytest.raises(MasklessError) as caught:
        EditConfig(**{name: value})
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_whole_numbers_are_taken_as_numbers_and_it_is_frozen():
    config = EditConfig(lr=1)
    assert isinstance(config.lr, float)
    with pytest.raises(FrozenInstanceError):
        config.lr = 2.0


def test_a_config_survives_being_written_down():
    config = EditConfig(lr=0.01, steps=9, anchor_source="text", epochs=3)
    assert EditConfig(**config.to_dict()) == config
    assert config.total_iterations == 30
