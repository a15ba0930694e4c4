"""Error messages: raised under a condition, and reduced to one line."""

import pytest

from maskless.data.errors import MasklessError, first_line, one_line, require, shown


def test_require_raises_its_message_unless_the_condition_holds():
    require(True, "nothing is wrong")
    with pytest.raises(MasklessError, match="expected 3, got 4"):
        require(False, "expected 3, got 4")


@pytest.mark.parametrize(
    ("error", "line"), [(ValueError("a\nb"), "a"), (ValueError(""), "ValueError"), (KeyError(), "KeyError")]
)
def test_the_first_line_of_an_error(error, line):
    assert first_line(error) == line


def test_a_line_that_only_introduces_the_reason_takes_the_next_one():
    assert first_line(ValueError("\nIncompatible keys detected:\n\nlayer.weight, b\nmore")) == (
        "Incompatible keys detected: layer.weight, b"
    )
    assert first_line(ValueError("Failed:")) == "Failed:"


def test_what_others_say_is_short_and_has_no_control_sequences():
    assert first_line(ValueError("a\x1b[2Jb " + "x" * 1000)).startswith("a [2Jb x")
    assert len(first_line(ValueError("x" * 1000))) == 400
    assert one_line(" a\n\tb\x00\u202ec ") == "a b c"
    assert shown("a\x1bb") == "a b" and shown(["x"]) == "['x']" and len(shown("x" * 1000)) == 80
