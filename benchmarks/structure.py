"""How easily the code can be followed, in figures: the package's imports and signatures, and one edit's way through it.

    python benchmarks/structure.py                       # of the package that is imported
    PYTHONPATH=../before/src python benchmarks/structure.py

The walk is recorded while an edit of a bundled sample runs: it is the way of the picture. Every function of the package
that is given the picture for the first time, or something that holds it, is one visit; visits in a row to the same file
are one stay. A step back up is a stay in a room further to the right than the stay before, in the order data, method,
models, locating, engine, records.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import FrameType

import torch

PACKAGE = Path(str(resources.files("maskless")))
ROOMS = ("data", "method", "models", "locating", "engine", "records")
MOST_PARAMETERS = 6
HOLDERS = ("SourceImage", "EditRequest", "PictureView")
"""Types that hold the picture."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> dict[str, ast.Module]:
    """Every module of the package, parsed, by its path below the package."""
    files = sorted(PACKAGE.rglob("*.py"))
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8")) for path in files}


def imported(tree: ast.Module, known: set[str]) -> set[str]:
    """The modules of the package that a module imports, anywhere in it, also for type checking alone."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "maskless":
            base = node.module.split(".")[1:]
            for parts in (base, *([*base, alias.name] for alias in node.names)):
                path = "/".join(parts) + ".py"
                found |= {path} & known
    return found


def import_cycles(trees: dict[str, ast.Module]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others."""
    edges = {name: imported(tree, set(trees)) for name, tree in trees.items()}

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for other in edges[waiting.pop()] - seen:
                seen.add(other)
                waiting.append(other)
        return seen

    reach = {name: reached(name) for name in edges}
    groups = {tuple(sorted(other for other in reach[name] if name in reach[other])) for name in edges}
    return [list(group) for group in sorted(groups) if group]


def functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    """Functions and methods, those inside functions left out, with the class that they belong to."""
    for node in tree.body:
        if isinstance(node, Function):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, Function):
                    yield f"{node.name}.{inner.name}", inner


def parameters(function: Function) -> list[ast.arg]:
    """The parameters but for self and cls."""
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return [each for each in every if each.arg not in ("self", "cls")]


def says_any(function: Function) -> bool:
    """Whether the signature says Any."""
    given = function.args
    every = [*parameters(function), *(each for each in (given.vararg, given.kwarg) if each is not None)]
    notes = [each.annotation for each in every] + [function.returns]
    return any(
        isinstance(node, ast.Name) and node.id == "Any" for note in notes if note is not None for node in ast.walk(note)
    )


def is_public(name: str) -> bool:
    """Whether neither a function nor its class begins with an underscore; __init__ is public."""
    return not any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def walk() -> dict[str, int]:
    """The picture's way through one edit: stays, files and steps back up, and how often its caption was encoded."""
    from maskless import Editor

    editor = Editor.from_pretrained("storybook", device="cpu")
    sample = PACKAGE / "assets" / "samples" / "desert.png"
    caption, texts, visits, seen = "a red car", [], [], set()
    storages: set[int] = set()

    def carries(value: object) -> bool:
        """Whether a value is the picture: its path, its file, the request or view that holds it, or its pixels."""
        if type(value).__name__ in HOLDERS:
            held = getattr(value, "rgb", getattr(value, "image", None))
            if isinstance(held, torch.Tensor):
                storages.add(held.untyped_storage().data_ptr())
            return True
        if isinstance(value, torch.Tensor):
            return value.untyped_storage().data_ptr() in storages
        return isinstance(value, Path) and value == sample

    def record(frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(PACKAGE)) or code.co_name.startswith("<"):
            return
        if code.co_name == "encode_text":
            texts.append(frame.f_locals["text"])
        given = [frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]]
        if code not in seen and any(map(carries, given)):
            seen.add(code)
            visits.append(Path(code.co_filename).relative_to(PACKAGE).as_posix())

    sys.setprofile(record)
    try:
        editor.edit(sample, caption=caption, prompt="a blue house", iterations=2, anchors=3)
    finally:
        sys.setprofile(None)
    stays = [file for at, file in enumerate(visits) if at == 0 or visits[at - 1] != file]
    floors = [ROOMS.index(file.split("/")[0]) for file in stays if file.split("/")[0] in ROOMS]
    return {
        "walk: files entered": len(set(stays)),
        "walk: stays": len(stays),
        "walk: steps back up": sum(after > before for before, after in zip(floors, floors[1:], strict=False)),
        "walk: encodings of the caption": texts.count(caption),
    }


def figures() -> dict[str, int]:
    """All figures by name."""
    trees = modules()
    every = [(f"{file}:{name}", name, node) for file, tree in trees.items() for name, node in functions(tree)]
    lengths = [node.end_lineno - node.lineno + 1 for _where, _name, node in every if node.end_lineno]
    found = {
        "modules": len([file for file in trees if not file.endswith("__init__.py")]),
        "import cycles": len(import_cycles(trees)),
        f"functions of more than {MOST_PARAMETERS} parameters": sum(
            len(parameters(node)) > MOST_PARAMETERS for _where, _name, node in every
        ),
        "public functions that say Any": sum(is_public(name) and says_any(node) for _where, name, node in every),
        "longest function": max(lengths),
    }
    return found | walk()


if __name__ == "__main__":
    if "--list" in sys.argv:
        for file, tree in modules().items():
            for name, node in functions(tree):
                if len(parameters(node)) > MOST_PARAMETERS:
                    print(f"{len(parameters(node))} parameters: {file}:{node.lineno} {name}")
                if is_public(name) and says_any(node):
                    print(f"Any: {file}:{node.lineno} {name}")
        print(import_cycles(modules()))
    else:
        print(json.dumps(figures(), indent=2))
