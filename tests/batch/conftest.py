"""What the tests of batches share: a folder with a manifest, the command in this process, and a finished batch."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batch_tools import QUICK, write_manifest
from maskless.interfaces.cli import main


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one, with rows.jsonl and its three pictures."""
    monkeypatch.chdir(tmp_path)
    write_manifest(tmp_path, 3)
    return tmp_path


@pytest.fixture
def maskless(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: exit status, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def command(tiny_models: Path) -> list[str]:
    """The arguments of a quick batch of rows.jsonl."""
    return ["batch", "rows.jsonl", "--models", str(tiny_models), *QUICK]


@pytest.fixture(scope="session")
def undisturbed(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tree that a batch of rows.jsonl gives if nothing disturbs it."""
    from batch_tools import tree

    folder = tmp_path_factory.mktemp("undisturbed")
    write_manifest(folder, 3)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.chdir(folder)
        main(["batch", "rows.jsonl", "--models", str(tiny_models), *QUICK, "--quiet"])
    assert not stopped.value.code
    return tree(folder / "output")
