"""The options of loading models: their defaults, and one clear line for each wrong value."""

import pytest

from maskless.data.errors import MasklessError
from maskless.data.model_options import ModelOptions


def test_the_bundled_models_are_the_default():
    options = ModelOptions()
    assert (options.models, options.device, options.memory, options.scheduler) == ("storybook", "auto", "full", None)
    assert ModelOptions(**options.to_dict()) == options


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("device", "abacus", "device must be one of auto, cpu, cuda, mps, got 'abacus'"),
        ("scheduler", "", "scheduler must be one of"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(name, value, message):
    with pytest.raises(MasklessError, match=message):
        ModelOptions(**{name: value})
