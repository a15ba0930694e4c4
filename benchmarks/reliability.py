"""Campaigns of mutated and hostile input, each by seeds: how many were tried, and how many held.

    python benchmarks/reliability.py folders --count 500    model folders of others, mutated
    python benchmarks/reliability.py hub --count 200        answers of a hostile or broken hub
    python benchmarks/reliability.py kills --count 100      edits killed at a random moment and started again
    python benchmarks/reliability.py pictures --count 1000  mutated pictures
    python benchmarks/reliability.py allocations --count 40 memory that runs out at any point of an edit

The generators are in tests/fuzz/, and a part of each campaign is replayed by `make test`. Every case that does not hold
is printed with its seed, and the exit status is then 1. docs/reliability.md has the figures.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

Count = Annotated[int, typer.Option(min=1, help="How many seeds.")]
First = Annotated[int, typer.Option(min=0, help="The first seed.")]
app = typer.Typer(help=__doc__.split("\n\n")[0], add_completion=False)


@app.command()
def folders(count: Count = 500, first: First = 0) -> None:
    """Edit a picture with mutated folders of models: each works or is refused in one line."""
    from fuzz.model_folders import attempt

    with _models() as (models, work):
        _campaign("folders", range(first, first + count), lambda seed: attempt(models, work(seed), seed))


@app.command()
def hub(count: Count = 200, first: First = 0) -> None:
    """Download from a hub that answers strangely: each gives the right bytes or is refused in one line."""
    from fuzz.hub_answers import attempt

    root = Path(tempfile.mkdtemp())
    _campaign("hub answers", range(first, first + count), lambda seed: attempt(root / str(seed), seed))
    shutil.rmtree(root, ignore_errors=True)


@app.command()
def kills(count: Count = 100, first: First = 0) -> None:
    """Kill edits at a random moment, start them again, and compare them with one that was not killed."""
    from fuzz.kills import attempt, reference

    with _models() as (models, work):
        # The first run loads the libraries into this process, so that its forks start fast.
        import maskless.engine.editor
        import maskless.interfaces.cli  # noqa: F401
        from maskless.models.pretrained import ModelOptions, load_models

        load_models(ModelOptions(models=str(models), device="cpu"))
        reference(models, work(-1))
        expected = reference(models, work(-1))
        _campaign("kills", range(first, first + count), lambda seed: attempt(models, work(seed), expected, seed))


@app.command()
def pictures(count: Count = 1000, first: First = 0) -> None:
    """Edit mutated pictures: each is edited with its outside unchanged, or refused in one line."""
    from fuzz.pictures import mutated_picture, summary, try_picture

    outcomes, broken = [], 0
    warnings.filterwarnings("ignore")
    for seed in range(first, first + count):
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcomes.append(try_picture(seed, Path(folder)))
            except Exception as error:  # whatever is not one line is what this campaign looks for
                broken += 1
                print(f"seed {seed} ({mutated_picture(seed)[1]}): {type(error).__name__}: {error}", file=sys.stderr)
    _finish({"campaign": "pictures", **summary(outcomes), "tried": count, "broken": broken})


@app.command()
def allocations(count: Count = 40) -> None:
    """Let memory run out at any point of an edit: no half file is left, and an earlier edit is whole."""
    from fuzz.allocations import try_allocations
    from tiny_models import build_tiny_models

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as models:
        found = try_allocations(count, Path(folder), build_tiny_models(Path(models)))
    _finish({"campaign": "allocations", **found})


def _finish(figures: dict[str, Any]) -> None:
    """Print the figures as JSON, and exit with 1 if anything broke."""
    print(json.dumps(figures))
    raise SystemExit(1 if figures["broken"] else 0)


def _campaign(name: str, seeds: range, attempt: Callable[[int], Any]) -> None:
    """Try every seed, print those that do not hold and at last the numbers, and exit with 1 if any did not."""
    held, began = 0, time.monotonic()
    for seed in seeds:
        outcome = attempt(seed)
        held += outcome.held
        if not outcome.held:
            print(f"seed {seed}: {outcome}", flush=True)
        if sys.stderr.isatty():
            print(f"\r{name}: {seed - seeds.start + 1}/{len(seeds)}", end="", file=sys.stderr, flush=True)
    print(f"{name}: {len(seeds)} tried, {held} held, {len(seeds) - held} did not, {time.monotonic() - began:.0f} s")
    if held < len(seeds):
        raise typer.Exit(1)


class _models:
    """Small random models in a temporary folder, and an empty folder for each seed."""

    def __enter__(self) -> tuple[Path, Callable[[int], Path]]:
        from tiny_models import build_tiny_models

        warnings.filterwarnings("ignore")
        self._root = Path(tempfile.mkdtemp())
        return build_tiny_models(self._root / "tiny"), self._work

    def __exit__(self, *_error: object) -> None:
        shutil.rmtree(self._root, ignore_errors=True)

    def _work(self, seed: int) -> Path:
        shutil.rmtree(self._root / "work", ignore_errors=True)
        folder = self._root / "work" / str(seed)
        folder.mkdir(parents=True)
        return folder


if __name__ == "__main__":
    app()
