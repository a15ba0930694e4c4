"""The table of figures: every figure is named in it, and only there."""

import ast
from pathlib import Path

import maskless.evaluation
from maskless.evaluation.measures import figures
from maskless.evaluation.measures.figures import FIGURES, heading

ROOM = Path(maskless.evaluation.__path__[0])


def test_every_constant_is_the_name_of_an_entry():
    constants = {value for name, value in vars(figures).items() if name.isupper() and isinstance(value, str)}
    assert constants == set(FIGURES)
    assert all(name == figure.name and figure.meaning for name, figure in FIGURES.items())


def test_no_other_module_spells_a_figure():
    """Names of one word are left out: "regret" is also a suite, "seconds" also a field."""
    names = {name for name in FIGURES if " " in name or "_" in name}
    spelled = []
    for path in sorted(ROOM.rglob("*.py")):
        if path == Path(figures.__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and node.value in names:
                spelled.append(f"{path.relative_to(ROOM)}:{node.lineno} {node.value}")
    assert spelled == []


def test_an_arrow_points_where_a_figure_is_better():
    assert heading(figures.SUCCESS) == "success ↑"
    assert heading(figures.STRUCTURE_DISTANCE) == "structure distance ↓"
    assert heading(figures.REGION_SIZE) == "region size", "neither larger nor smaller regions are better"
    assert heading("new object seen") == "new object seen", "a part of success, which has no entry"
