"""The house rules that keep every room findable: who may import whom, how long things are, and an honest README."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "maskless"

# A module imports from its own folder and from those to the left of it.
ORDER = ("data", "method", "models", "locating", "engine", "records", "batch", "evaluation", "interfaces")
# storybook stands beside that line: it imports data only, and only evaluation and interfaces import it.
ALLOWED = {folder: set(ORDER[: index + 1]) for index, folder in enumerate(ORDER)} | {"storybook": {"data", "storybook"}}
ALLOWED["evaluation"].add("storybook")
ALLOWED["interfaces"].add("storybook")
# Libraries that only some places may import.
RESTRICTED = {
    "transformers": ("models/", "storybook/"),
    "tokenizers": ("models/", "storybook/"),
    "diffusers": ("models/inpainters/", "models/pretrained.py", "storybook/", "interfaces/diffusers/"),
    "huggingface_hub": (
        "models/hub.py",
        "models/cache.py",
        "models/listing.py",
        "models/transfer.py",
        "models/inpainters/lora_files.py",
    ),
    "torchvision": (),
}
NAMELESS = {"utils.py", "util.py", "common.py", "helpers.py", "misc.py"}
MAX_FUNCTION_LINES, MAX_MODULE_LINES = 73, 400

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, module) of every import in the file, also of those inside functions; relative ones made absolute."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = ["maskless", *path.relative_to(PACKAGE).parts[: -node.level]]
                base = ".".join([*parent, base] if base else parent)
            found += [(node.lineno, base)] + [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_to_the_left(path):
    folder = name_of(path).split("/")[0]
    if folder not in ALLOWED:  # maskless/__init__.py and __main__.py see everything
        return
    for line, module in imports(path):
        parts = module.split(".")
        if parts[0] == "maskless" and len(parts) > 1 and parts[1] in ALLOWED:
            assert parts[1] in ALLOWED[folder], f"{name_of(path)}:{line} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_libraries_stay_where_they_belong(path):
    for line, module in imports(path):
        places = RESTRICTED.get(module.split(".")[0])
        if places is not None:
            assert name_of(path).startswith(places or ("nowhere",)), f"{name_of(path)}:{line} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_long_or_nameless_or_careless(path):
    text = path.read_text("utf-8")
    assert text.count("\n") <= MAX_MODULE_LINES
    assert path.name not in NAMELESS
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno + 1 <= MAX_FUNCTION_LINES, f"{node.name} is too long"
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"line {node.lineno}: a bare except"
        assert not (isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names)), "import *"
        if isinstance(node, ast.keyword) and node.arg == "strict" and isinstance(node.value, ast.Constant):
            assert node.value.value, f"line {node.value.lineno}: strict=False"
    tree = ast.parse(text)
    assert not text.strip() or ast.get_docstring(tree), f"{name_of(path)} has no docstring"


def test_no_modules_import_each_other():
    """Neither directly nor through others, imports inside functions and for type checking included."""
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in MODULES}
    edges = {name: {module for _line, module in imports(path)} & set(names) - {name} for name, path in names.items()}

    def reached_from(start: str) -> set[str]:
        reached: set[str] = set()
        waiting = [start]
        while waiting:
            new = edges[waiting.pop()] - reached
            reached |= new
            waiting += new
        return reached

    assert sum(map(len, edges.values())) > len(names), "too few imports were found for the package to hang together"
    assert [name for name in names if name in reached_from(name)] == []


@pytest.mark.parametrize("path", sorted((PACKAGE / "engine").glob("*.py")), ids=name_of)
def test_the_engine_asks_no_inpainting_model_for_its_class_or_its_methods(path):
    """What a model can do it says itself, by `takes_picture` and `denoiser` of its protocol."""
    asks = re.compile(
        r"\b(?:isinstance|issubclass|hasattr|getattr|type)\(\s*[\w.]*(?:inpaint|redrawer|denoiser|pipeline)"
    )
    found = asks.search(path.read_text("utf-8"))
    assert not found, f"{name_of(path)}: {found and found.group()}"


def test_every_module_has_a_test_file_of_its_own():
    """src/maskless/X/Y.py has its tests in tests/X/test_Y.py, and src/maskless/__main__.py in tests/test_main.py."""
    modules = [path.relative_to(PACKAGE) for path in MODULES if path.name != "__init__.py"]
    mirrors = [path.with_name(f"test_{path.stem.strip('_')}.py") for path in modules]
    assert [path.as_posix() for path in mirrors if not (ROOT / "tests" / path).is_file()] == []


def test_the_global_seed_is_never_touched():
    pattern = re.compile(r"\b(torch\.manual_seed|torch\.cuda\.manual_seed\w*|np\.random\.seed|random\.seed)\(")
    hits = [name_of(path) for path in MODULES if pattern.search(path.read_text("utf-8"))]
    assert not [hit for hit in hits if not hit.startswith("storybook/")]


def test_importing_the_package_is_fast_and_loads_no_library():
    script = (
        "import sys, maskless; heavy = ('torch', 'numpy', 'PIL', 'transformers', 'diffusers', 'matplotlib');"
        "print(*[name for name in heavy if name in sys.modules], sep=',')"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_the_editor_and_the_loading_of_models_import_no_library_before_it_is_needed():
    script = (
        "import sys, maskless.engine.editor, maskless.records.outputs, maskless.interfaces.cli;"
        "heavy = ('transformers', 'diffusers', 'cv2', 'matplotlib', 'onnxruntime');"
        "print(*[name for name in heavy if name in sys.modules], sep=',')"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_at_most_ten_public_names_and_each_is_there():
    import maskless

    assert len([name for name in maskless.__all__ if not name.startswith("_")]) <= 10
    assert all(hasattr(maskless, name) for name in maskless.__all__)


def test_no_paths_of_a_machine():
    pattern = re.compile(r"(?<![\w.])/(work|root|home/\w+|Users/\w+)/")
    for path in tracked(
        "*.py", "*.md", "*.toml", "*.txt", "*.json", "*.yml", "*.yaml", "Makefile", ".ci/*", ".gitignore"
    ):
        if path != Path(__file__):
            found = pattern.search(path.read_text("utf-8"))
            assert not found, f"{path.relative_to(ROOT)} holds {found and found.group()}"


def test_the_readme_maps_the_tree():
    """Every module is on the README's map once, and nothing is on it that is not there."""
    readme = (ROOT / "README.md").read_text("utf-8")
    block = re.search(r"<!-- map -->\n```text\n(.*?)```", readme, re.DOTALL)
    assert block, "README.md has no map of the files"
    mapped, folders = [], []
    for line in block.group(1).splitlines()[1:]:
        found = re.match(r"((?:  )+)(\S+)", line)
        if not found:
            continue
        depth, name = len(found.group(1)) // 2 - 1, found.group(2)
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
        elif name.endswith(".py"):
            mapped.append("".join(folders) + name)
    there = [name_of(path) for path in MODULES if path.name != "__init__.py"]
    assert len(mapped) == len(set(mapped))
    missing, surplus = sorted(set(there) - set(mapped)), sorted(set(mapped) - set(there))
    assert (missing, surplus) == ([], [])


def test_the_pins_satisfy_the_requirements():
    """constraints.txt pins every dependency, at a version that pyproject.toml allows."""
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pins = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pinned}
    wanted = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_every_cited_step_and_mistake_is_in_the_description_of_the_method():
    """docs/method.md has a heading for each, and names for each mistake the test that guards it."""
    import maskless

    method = (ROOT / "docs" / "method.md").read_text("utf-8")
    headings = {
        kind: {int(number) for number in re.findall(rf"^### {kind.capitalize()} (\d+): ", method, re.MULTILINE)}
        for kind in ("step", "mistake")
    }
    assert headings == {"step": set(range(1, 11)), "mistake": set(range(1, 14))}
    citation = re.compile(r"\b(?:method (step)|(mistake))s? (\d+(?:(?:, | and | or | to )\d+)*)", re.IGNORECASE)
    cited = 0
    for path in MODULES:
        for step, mistake, numbers in citation.findall(" ".join(path.read_text("utf-8").split())):
            known = headings[(step or mistake).lower()]
            assert {int(number) for number in re.findall(r"\d+", numbers)} <= known, f"{name_of(path)}: {numbers}"
            cited += 1
    assert cited, "no citation was found, so the pattern above no longer fits the docstrings"
    assert maskless.__doc__ and "docs/method.md" in maskless.__doc__
    tests = (ROOT / "tests" / "test_mistakes.py").read_text("utf-8")
    assert set(re.findall(r"`(test_mistake_\w+)`", method)) == set(re.findall(r"^def (test_mistake_\w+)", tests, re.M))


def test_the_description_of_the_method_names_what_is_there():
    """Every file that docs/method.md names exists, and every `name` after "`file.py`:" is defined in it."""
    method = " ".join((ROOT / "docs" / "method.md").read_text("utf-8").split())
    files = set(re.findall(r"`([\w/]+\.py)`", method))
    assert files and not [file for file in files if not ((PACKAGE / file).is_file() or (ROOT / file).is_file())]
    for file, names in re.findall(r"`([\w/]+\.py)`: ((?:`[\w.]+`(?:, | and )?)+)", method):
        text = (PACKAGE / file).read_text("utf-8")
        for name in re.findall(r"`[\w.]*?(\w+)`", names):
            assert re.search(rf"^\s*(?:(?:class|def) {name}\b|{name}\b.*=)", text, re.MULTILINE), f"{file}: {name}"


def test_every_test_that_stands_for_a_promise_is_there():
    """Of the tables in docs/reliability.md each file exists, and each test is in one of the files of its row."""
    texts = {path.relative_to(ROOT / "tests").as_posix(): path.read_text("utf-8") for path in tracked("tests/*.py")}
    checked = 0
    for row in (ROOT / "docs" / "reliability.md").read_text("utf-8").splitlines():
        files = [name.removeprefix("tests/") for name in re.findall(r"`([\w/]*test_\w+\.py)`", row)]
        found = [[text for name, text in texts.items() if f"/{name}".endswith(f"/{file}")] for file in files]
        assert all(found), row
        for name in re.findall(r"`(test_\w+)`", row):
            assert any(re.search(rf"def {name}\(", text) for each in found for text in each), name
            checked += 1
    assert checked > 20


def test_every_page_that_is_named_is_there():
    """A file of docs/ that the code, the tests or the pages name exists."""
    named = {
        (path, name)
        for path in tracked("*.py", "*.md", "*.toml", "Makefile")
        for name in re.findall(r"\bdocs/[\w-]+\.(?:md|png|jpg|py)", path.read_text("utf-8"))
    }
    assert len(named) > 20
    assert not [f"{path.relative_to(ROOT)}: {name}" for path, name in named if not (ROOT / name).is_file()]


def test_the_setup_prints_no_warnings_of_pip(tmp_path):
    """With several indexes pip warns once for each package and index; `make` shows its errors only."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    planned = subprocess.run(
        ["make", "--dry-run", "install"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    calls = [line for line in planned.splitlines() if "/pip " in line]
    assert len(calls) == 2 and all(line.count("--quiet") == 2 for line in calls)
