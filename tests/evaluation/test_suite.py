"""What suites share: the options that each one says it takes, the names that it may be asked for, and where its judge
is."""

import ast
import pkgutil
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest

import maskless.evaluation.suites
from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.evaluation.suite import SuiteOptions, chosen, critic_folder, judge_folder, prepare

NAMES = sorted(module.name for module in pkgutil.iter_modules(maskless.evaluation.suites.__path__))
SHARED = {"ledger", "models"}
"""Options that `prepare` reads for a suite."""


def source_of(name: str) -> ast.Module:
    return ast.parse((Path(maskless.evaluation.suites.__path__[0]) / f"{name}.py").read_text("utf-8"))


def options_read(tree: ast.Module) -> set[str]:
    """The options that a suite's source reads: `options.name`, names given to `options.edit_config`, and those of
    `prepare`."""
    read = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "options":
            read.add(node.attr)
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == "edit_config":
                read |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
            if called == "prepare":
                read |= SHARED
    return read - {"edit_config"}


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_takes_exactly_the_options_that_it_reads(name):
    suite = import_module(f"maskless.evaluation.suites.{name}")
    assert len(suite.TAKES) == len(set(suite.TAKES))
    assert set(suite.TAKES) == options_read(source_of(name)) <= {field.name for field in fields(SuiteOptions)}


@pytest.mark.parametrize("name", NAMES)
def test_no_suite_imports_another(name):
    imported = [node.module or "" for node in ast.walk(source_of(name)) if isinstance(node, ast.ImportFrom)]
    assert not [module for module in imported if "evaluation.suites" in module]


def test_the_options_of_an_edit_are_those_that_were_given():
    options = SuiteOptions(steps=3, iterations=0, anchors=None)
    assert options.edit_config("steps", "iterations", "anchors") == EditConfig(steps=3, iterations=0)
    assert options.edit_config("steps") == EditConfig(steps=3)
    with pytest.raises(MasklessError, match="anchors"):
        SuiteOptions(anchors=0).edit_config("anchors")


def test_progress_and_notes_can_be_left_out():
    options = SuiteOptions()
    assert options.progress(1, 2) is None and options.note("a line") is None


def test_names_come_in_their_own_order_and_unknown_ones_are_refused():
    known = {"first": 1, "second": 2, "third": 3}
    assert chosen(None, known, what="the tasks") == ["first", "second", "third"]
    assert chosen(["third", "first"], known, what="the tasks") == ["first", "third"]
    with pytest.raises(MasklessError, match="^the tasks must be among first, second, third, got paint, draw$"):
        chosen(["paint", "first", "draw"], known, what="the tasks")
    with pytest.raises(MasklessError, match="got none$"):
        chosen([], known, what="the tasks")


def test_the_judge_lies_beside_the_models(tmp_path):
    assert judge_folder(str(tmp_path)) == tmp_path / "judge"
    assert (judge_folder("storybook") / "model.safetensors").is_file()


def test_models_without_a_critic_are_measured_by_the_bundled_one(tmp_path):
    assert critic_folder(str(tmp_path)) == critic_folder("storybook")
    assert (critic_folder("storybook") / "model.safetensors").is_file()
    (tmp_path / "critic").mkdir()
    assert critic_folder(str(tmp_path)) == tmp_path / "critic"


def test_a_workbench_resumes_under_its_own_fingerprint(tmp_path, tiny_models):
    options = SuiteOptions(ledger=tmp_path / "x.jsonl")
    first, other = (prepare(options, "tasks", [], EditConfig(steps=steps)) for steps in (1, 2))
    assert first.editor.config.steps == 1 and first.ledger.suite == "tasks"
    assert first.ledger.fingerprint != other.ledger.fingerprint
    first.ledger.measured("maskless", 1, lambda: {"success": True})
    assert len(prepare(options, "tasks", [], EditConfig(steps=1)).ledger) == 1
    with pytest.raises(MasklessError, match="no such file"):
        prepare(SuiteOptions(models=str(tiny_models)), "tasks", [])
