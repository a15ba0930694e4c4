"""Options as fields of dataclasses: their metadata, and a one-line error for each invalid value."""

from dataclasses import dataclass, fields

import pytest

from maskless.data.errors import MasklessError
from maskless.data.options import check_all, option


@dataclass(frozen=True)
class Options:
    count: int = option(3, group="A", help="How many.", minimum=1, maximum=9)
    share: float = option(0.5, group="A", help="Which share.")
    name: str | None = option(None, group="B", help="What it is called.", choices=("x", "y"))

    def __post_init__(self) -> None:
        check_all(self)


def test_a_field_has_the_metadata_of_its_option():
    count, _share, name = fields(Options)
    assert (count.default, count.metadata["group"], count.metadata["help"]) == (3, "A", "How many.")
    assert (count.metadata["minimum"], count.metadata["maximum"]) == (1, 9) and name.metadata["choices"] == ("x", "y")


def test_integers_become_floats_and_none_is_kept_where_it_is_allowed():
    options = Options(share=2)
    assert isinstance(options.share, float) and options.name is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 10}, "count must be from 1 to 9, got 10"),
        ({"count": None}, "count must be a whole number, got None"),
        ({"share": float("inf")}, "share must be a finite number, got inf"),
        ({"name": "z"}, "name must be one of x, y, got 'z'"),
    ],
)
def test_an_invalid_value_is_refused_in_one_line(given, message):
    with pytest.raises(MasklessError) as caught:
        Options(**given)
    assert str(caught.value) == message
