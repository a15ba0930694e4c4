"""The options of what a run keeps are checked, and are those of an edit's provenance too."""

import pytest

from maskless.data.errors import MasklessError
from maskless.data.keep_options import KeepOptions
from maskless.data.provenance import ProvenanceOptions


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("checkpoint_interval", 0, "checkpoint_interval must be from 1"),
        ("slim_checkpoint", 1, "slim_checkpoint must be true or false"),
        ("format", "bmp", "format must be one of"),
        ("quality", 101, "quality must be from 1 to 100"),
    ],
)
def test_a_wrong_value_is_refused(name, value, message):
    with pytest.raises(MasklessError, match=message):
        KeepOptions(**{name: value})


def test_what_pictures_say_about_their_origin_is_an_option_too():
    assert isinstance(KeepOptions(), ProvenanceOptions)
