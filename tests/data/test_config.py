"""Options: the published defaults, and one clear line for each wrong value."""

import math
from dataclasses import FrozenInstanceError, fields, replace

import pytest

from maskless.data.config import EditConfig, ResolvedConfig
from maskless.data.errors import MasklessError
from maskless.data.keep_options import KeepOptions
from maskless.data.model_options import ModelOptions

PUBLISHED = {
    "lr": 5e-3, "epochs": 1, "iterations": 10, "gradient_accumulation": 25, "anchors": 9,
    "max_window_size": 15, "alpha": 1.0, "beta": 1.0, "gamma": 1.0, "ranking_alpha": 2.0, "ranking_beta": 1.0,
    "seed": 42,
}  # fmt: skip


def test_the_defaults_are_the_published_numbers():
    config = EditConfig()
    assert {name: getattr(config, name) for name in PUBLISHED} == PUBLISHED
    assert KeepOptions().checkpoint_interval == 10
    resolved = config.resolved(steps=None, guidance_scale=None, batch_size=4, seed=None)
    assert (resolved.steps, resolved.guidance_scale, resolved.batch_size, resolved.seed) == (50, 7.5, 4, 42)


def test_a_model_recommends_and_the_user_decides():
    recommended = {"steps": 12, "guidance_scale": 3.0, "batch_size": 16, "seed": 7}
    resolved = EditConfig().resolved(**recommended)
    assert {name: getattr(resolved, name) for name in recommended} == recommended
    chosen = EditConfig(steps=7, guidance_scale=2, batch_size=1).resolved(**recommended)
    assert (chosen.steps, chosen.guidance_scale, chosen.batch_size) == (7, 2.0, 1)


def test_a_resolved_config_has_no_none_and_says_what_a_task_changed():
    resolved = EditConfig().resolved(steps=5, guidance_scale=None, batch_size=2, seed=None)
    assert isinstance(resolved, ResolvedConfig) and None not in resolved.to_dict().values()
    used = replace(resolved, max_window_size=8, feather=0.0)
    assert resolved.differences(used) == {"max_window_size": 8, "feather": 0.0}


def test_the_search_of_the_paper_leaves_out_what_this_package_adds_unless_it_is_chosen():
    names = ("anchor_source", "fit_edges", "delta", "location_weight", "ranking")
    values = [
        [getattr(config.resolved(), name) for name in names]
        for config in (
            EditConfig(), EditConfig(search="learned"), EditConfig(search="paper"),
            EditConfig(search="paper", delta=4.0, fit_edges=True),
        )
    ]  # fmt: skip
    assert values == [
        ["both", True, 4.0, 2.0, "verified"],
        ["both", True, 4.0, 2.0, "located"],
        ["attention", False, 0.0, 0.0, "paper"],
        ["attention", True, 4.0, 0.0, "paper"],
    ]


def test_unchanged_pixels_are_kept_if_the_user_says_so_else_if_the_model_does_but_not_in_the_search_of_the_paper():
    kept = [
        config.resolved(keep_unchanged=recommended).keep_unchanged
        for config in (EditConfig(), EditConfig(keep_unchanged=True), EditConfig(search="paper"),
                       EditConfig(search="paper", keep_unchanged=True))
        for recommended in (False, True)
    ]  # fmt: skip
    assert kept == [False, True, True, True, False, False, True, True]


def test_an_option_belongs_to_models_or_to_an_edit_or_to_what_is_kept():
    names = [{option.name for option in fields(kind)} for kind in (EditConfig, ModelOptions, KeepOptions)]
    assert sum(map(len, names)) == len(set.union(*names))


def test_every_option_says_what_a_flag_needs():
    for option in (*fields(EditConfig), *fields(ModelOptions), *fields(KeepOptions)):
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
        ("negative_prompt", None, "negative_prompt must be a string"),
        ("fit_edges", 1, "fit_edges must be true or false"),
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


@pytest.mark.usefixtures("unchecked")
def test_the_options_of_models_are_checked_as_well():
    with pytest.raises(MasklessError, match="memory must be one of full, balanced"):
        ModelOptions(memory="huge")
