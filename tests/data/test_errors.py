"""Error messages: raised under a condition, and reduced to one line."""

import pytest

from maskless.data.errors import MasklessError, first_line, require


def test_require_raises_its_message_unless_the_condition_holds():
    require(True, "nothing is wrong")
    with pytest.raises(MasklessError, match="expected 3, got 4"):
        require(False, "expected 3, got 4")


@pytest.mark.parametrize(
    ("error", "line"), [(ValueError("a\nb"), "a"), (ValueError(""), "ValueError"), (KeyError(), "KeyError")]
)
def test_the_first_line_of_an_error(error, line):
    assert first_line(error) == line
