"""The command in a row's report makes the same edit again."""

import shlex

from maskless.batch.commands import edit_command
from maskless.batch.rows import checked_row
from maskless.data.config import EditConfig
from maskless.data.keep_options import KeepOptions
from maskless.data.model_options import ModelOptions


def test_the_command_has_the_row_and_the_options_that_differ():
    values = {"image": "a b.png", "caption": "a car", "prompt": "it's a tent", "seed": 3, "fit_edges": False}
    config = EditConfig(anchors=3, seed=9)
    row = checked_row(1, "7", values | {"box": "1,2,3,4"}, config)
    keep = KeepOptions(output_dir="elsewhere", draw_box=True)
    words = shlex.split(edit_command(row, ModelOptions(models="sd15"), config, keep).replace("\\\n", " "))
    assert words[:3] == ["maskless", "edit", "a b.png"]
    pairs = ["--caption", "a car", "--prompt", "it's a tent", "--box", "1,2,3,4", "--image-id", "7"]
    options = ["--seed", "3", "--anchors", "3", "--no-fit-edges", "--models", "sd15", "--draw-box"]
    assert words[3:] == [*pairs, *options]
