"""Wrong arguments are refused before torch is imported, and output fails in no encoding."""

import io
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from maskless.data.errors import MasklessError
from maskless.interfaces.checks import (
    json_text,
    one_region,
    print_in_any_encoding,
    require_file,
    require_folder,
    require_folders,
    require_picture,
    require_task,
    require_texts,
)

WRONG = [
    ["edit", "nothing.png", "-c", "a", "-p", "b"],
    ["edit", ".", "-c", "a", "-p", "b"],
    ["edit", "text.png", "-c", "a", "-p", "b"],
    ["edit", "scene.png", "-c", "a", "-p", "b", "--mask", "nothing.png"],
    ["edit", "scene.png", "-c", "a", "-p", "b", "--mask", "scene.png", "--box", "0,0,8,8"],
    ["edit", "scene.png", "-c", "a", "-p", "b", "--load-checkpoint", "nothing.pth"],
    ["edit", "scene.png", "-c", "a", "-p", "b", "--transformer", "nothing.gguf"],
    ["edit", "scene.png", "-c", "a", "-p", "b", "--transformer", "scene.png"],
    ["edit", "scene.png", "-c", "a", "-p", "b", "--output-dir", "text.png"],
    ["edit", "scene.png", "-c", "a", "-p", "b", "--seed", "some"],
    ["edit", "scene.png", "-c", "a", "-p", "b", "--format", "gif"],
    ["edit", "scene.png", "-c", "a", "--task", "paint"],
    ["edit", "scene.png", "-c", "a\udcff", "-p", "b"],
    ["edit", "scene.png", "do what you like"],
    ["inspect", "nothing.pth"],
    ["gallery", "--image", "nothing.png"],
    ["evaluate", "nothing"],
    ["evaluate", "pie-bench", "nothing"],
]


def test_wrong_arguments_cost_no_import_of_torch(scene):
    Path("text.png").write_text("no picture")
    script = f"""
        import sys
        from maskless.interfaces.cli import main
        for arguments in {WRONG!r}:
            try:
                main(arguments)
            except SystemExit as ended:
                assert ended.code == 2, arguments
            assert "torch" not in sys.modules, arguments
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(WRONG) and all(line.startswith("maskless: ") for line in lines)


@pytest.mark.parametrize(
    "check,message",
    [
        (lambda: require_picture(Path("nothing.png")), "no such file: nothing.png"),
        (lambda: require_file(Path("nothing.pth"), "checkpoint"), "no such checkpoint: nothing.pth"),
        (lambda: require_file(Path("."), "checkpoint"), ". is a folder, not a checkpoint file"),
        (lambda: require_folder(Path("nothing")), "no such folder: nothing"),
        (lambda: require_folder(Path("scene.png")), "scene.png is a file, not a folder"),
        (lambda: require_folders("scene.png"), "cannot write to scene.png"),
        (lambda: require_task("paint"), "task must be one of"),
        (lambda: require_texts(caption="a\udcff"), "caption must be text in UTF-8, got"),
        (lambda: one_region(Path("m.png"), "0,0,8,8"), "give a mask or a box, not both"),
    ],
)
def test_each_check_says_what_is_wrong(scene, check, message):
    with pytest.raises(MasklessError) as caught:
        check()
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_what_is_right_or_left_out_passes(scene):
    require_picture(scene)
    require_file(scene, "picture")
    require_task("remove")
    require_texts(caption="ein Baum 🌳", prompt=None)
    require_folders("new/folder", ".")
    for check in (require_picture, require_folder, require_task):
        check(None)
    require_file(None, "checkpoint")
    one_region(scene, None)


def test_letters_that_an_encoding_lacks_are_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252"))
    print_in_any_encoding()
    assert json_text("🌳") == '"\\ud83c\\udf33"'
    print("expected loss 1 → 2, \udcff")
    sys.stdout.flush()
    assert raw.getvalue().decode("cp1252").strip() == "expected loss 1 \\u2192 2, \\udcff"
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8"))
    assert json_text("🌳") == '"🌳"'


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "cp1252"}, {"PYTHONIOENCODING": "ascii"}])
def test_help_is_printed_in_any_encoding(environment):
    import os

    command = [sys.executable, "-m", "maskless", "edit", "--help"]
    done = subprocess.run(command, capture_output=True, env=os.environ | environment)
    assert done.returncode == 0 and b"--caption" in done.stdout and b"Traceback" not in done.stderr
