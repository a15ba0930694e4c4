"""Names of files and folders from arbitrary texts."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskless.records.names import MAX_BYTES, safe_name


@pytest.mark.parametrize("text", ["trees", "a red car", "Straße", "漢字の木", "don't", "v1.2"])
def test_plain_texts_are_not_changed(text):
    assert safe_name(text) == text


def test_prompts_get_dashes():
    prompt = "a big tree with many flowers in the center"
    assert safe_name(prompt, dashes=True) == "a-big-tree-with-many-flowers-in-the-center"


@pytest.mark.parametrize(
    "text,readable",
    [
        ("../../x", "x"),
        ("/etc/passwd", "etc-passwd"),
        ("CON", "CON"),
        ("nul.txt", "nul.txt"),
        ("🌳", "deciduous tree"),
        ("a 🚗 here", "a automobile here"),
        ("...", "unnamed"),
        ("", "unnamed"),
        ("a\nb\x00c", "a bc"),
        ("what? <this>", "what- -this"),
        ("C:\\Windows", "C-Windows"),
    ],
)
def test_other_texts_stay_readable_and_get_a_hash(text, readable):
    assert re.fullmatch(re.escape(readable) + "-[0-9a-f]{8}", safe_name(text))


@pytest.mark.parametrize(
    "first,second",
    [("a/b", "a?b"), ("a/b", "a-b"), ("x", "../x"), ("", "unnamed"), ("w" * 300, "w" * 301), ("é" * 99, "é" * 98)],
)
def test_texts_that_would_collide_get_different_names(first, second):
    assert safe_name(first) != safe_name(second)


def test_dashes_and_spaces_do_not_collide():
    assert len({safe_name(text, dashes=True) for text in ("a b c", "a-b c", "a b-c", "a-b-c")}) == 4


@given(text=st.text(max_size=400), dashes=st.booleans())
def test_any_text_makes_a_safe_name(text, dashes):
    name = safe_name(text, dashes=dashes)
    assert name and len(name.encode()) <= MAX_BYTES
    assert not set(name) & set('/\\:*?"<>|\0\n\r\t')
    assert name[0] not in ". " and name[-1] not in ". "
    assert name.isprintable() or all(c.isprintable() or ord(c) > 127 for c in name)
    assert safe_name(text, dashes=dashes) == name


@given(first=st.text(max_size=12), second=st.text(max_size=12), dashes=st.booleans())
def test_different_texts_get_different_names(first, second, dashes):
    assert first == second or safe_name(first, dashes=dashes) != safe_name(second, dashes=dashes)
