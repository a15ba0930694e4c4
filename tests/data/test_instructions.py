"""Instructions of every form are parsed; any other text is refused with a list of all forms."""

import pytest

from maskless.data.errors import MasklessError
from maskless.data.instructions import FORMS, Instruction, parse_instruction, phrases, read_texts
from maskless.data.tasks import FACTS, TASKS

PARSED = {
    "replace the red car with a blue house": ("replace", "the red car", "a blue house"),
    "change the cat into a dog": ("replace", "the cat", "a dog"),
    "turn the tree to a lamp": ("replace", "the tree", "a lamp"),
    "Replace the sun with the moon.": ("replace", "the sun", "the moon"),
    "remove the cat": ("remove", "the cat", ""),
    "please delete the red car from the picture": ("remove", "the red car", ""),
    "get rid of the house": ("remove", "the house", ""),
    "add a yellow star": ("add", "", "a yellow star"),
    "add a yellow star to the scene": ("add", "", "a yellow star"),
    "add a red car and a blue house": ("creative", "", "a red car and a blue house"),
    "add a black and white cat": ("add", "", "a black and white cat"),
    "make it a pencil sketch": ("style", "", "pencil sketch"),
    "turn the picture into a watercolour painting": ("style", "", "watercolour painting"),
    "change the background to a beach": ("background", "", "empty beach"),
    "replace the background with an empty desert": ("background", "", "empty desert"),
    "change the background of the red car to snow": ("background", "the red car", "empty snow"),
    "put the cat on a beach": ("background", "the cat", "empty beach"),
    "make the car striped": ("texture", "the car", "a striped car"),
    "paint the red house orange": ("texture", "the red house", "an orange red house"),
    "give the cup a checkered pattern": ("texture", "the cup", "a checkered cup"),
    "repair the picture": ("repair", "", ""),
    "remove the scratches": ("repair", "", ""),
    "complete the picture": ("complete", "", ""),
    "fill the hole": ("complete", "", ""),
    "generate a red car in a meadow": ("generate", "", "a red car in a meadow"),
    "  ADD   a star!  ": ("add", "", "a star"),
}


@pytest.mark.parametrize("text", PARSED, ids=str)
def test_each_form(text):
    task, caption, prompt = PARSED[text]
    assert parse_instruction(text) == Instruction(task=task, caption=caption, prompt=prompt)
    assert task in TASKS and (prompt or not FACTS[task].needs_prompt)


@pytest.mark.parametrize(
    "text,extend",
    [
        ("extend the picture", "0.25"),
        ("extend the picture to the left", "left=0.25"),
        ("extend it downwards", "bottom=0.25"),
        ("expand the image to the right by 40 pixels", "right=40"),
        ("extend the picture by 10 %", "10%"),
        ("extend the picture at the top by 12.5%", "top=12.5%"),
    ],
)
def test_the_canvas_to_add(text, extend):
    assert parse_instruction(text) == Instruction(task="extend", extend=extend)


def test_the_forms_that_an_error_lists_can_be_parsed():
    for form in FORMS:
        assert parse_instruction(form.replace(" A", " the red car").replace(" B", " a blue house")).task in TASKS


@pytest.mark.parametrize("text", ["", "   ", "hello", "a red car", "make it", "extend the picture sideways", "remove"])
def test_any_other_text_is_refused_in_one_line_with_the_forms(text):
    with pytest.raises(MasklessError) as caught:
        parse_instruction(text)
    message = str(caught.value)
    assert repr(text) in message and all(form in message for form in FORMS) and "\n" not in message


@pytest.mark.parametrize(
    "text,parts",
    [
        ("", ()),
        ("  ", ()),
        ("a red car", ("a red car",)),
        ("a red car, a cat and a tree", ("a red car", "a cat", "a tree")),
        ("a car, and a cat", ("a car", "a cat")),
        ("a black and white cat and a dog", ("a black and white cat", "a dog")),
        ("a band and sand", ("a band", "sand")),
    ],
)
def test_the_objects_that_a_text_lists(text, parts):
    assert phrases(text) == parts


def test_texts_that_are_given_override_those_of_the_instruction():
    def read(instruction=None, task=None, caption="", prompt=None, extend=None):
        return read_texts(instruction, task=task, caption=caption, prompt=prompt, extend=extend)

    assert read() == Instruction(task="replace")
    assert read("remove the cat") == Instruction(task="remove", caption="the cat")
    assert read("remove the cat", caption="a dog", task="texture", prompt="striped") == Instruction(
        task="texture", caption="a dog", prompt="striped"
    )
    assert read("extend it to the left", extend="0.5").extend == "0.5"
