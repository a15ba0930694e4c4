"""The shorter commands: what looks at runs, checkpoints and models, and edits nothing by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from maskless.data.errors import MasklessError
from maskless.interfaces.console import print_checkpoint, print_presets, print_rows, print_status
from maskless.interfaces.options import CheckpointDir, OutputDir


def inspect_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A .pth file.", show_default=False)],
    json_only: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Print what a checkpoint holds: keys, parameter counts, trained or frozen, config, progress."""
    from maskless.engine.checkpoints import load_checkpoint

    print_checkpoint(load_checkpoint(checkpoint), as_json=json_only)


def show_status(
    output_dir: OutputDir = Path("output"),
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json_only: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Tell how a run stands: running, interrupted or complete, how far, its checkpoints and its results."""
    from maskless.engine.status import read_status

    print_status(read_status(output_dir, checkpoint_dir), as_json=json_only)


def list_models(
    json_only: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """List the sets of models that go by a name: licence, download, memory, and whether they are on this disk."""
    from maskless.models.presets import PRESETS
    from maskless.models.pretrained import on_disk

    print_presets([(preset, on_disk(preset.name)) for preset in PRESETS], as_json=json_only)


def evaluate(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="What to measure, such as models.", show_default=False)],
    split: Annotated[str, typer.Option(help="Which scenes: train, validation or held-out.")] = "held-out",
    limit: Annotated[int | None, typer.Option(help="Scenes at most.", show_default=False)] = None,
    seed_offset: Annotated[int, typer.Option(help="First scene of the split.")] = 0,
    json_only: Annotated[bool, typer.Option("--json", help="Print the rows as a JSON list.")] = False,
) -> None:
    """Measure the models and methods on drawn scenes, with confidence intervals."""
    from maskless.storybook.scenes import SPLITS

    if split not in SPLITS:
        raise MasklessError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    print_rows(_suite(suite)(split=split, limit=limit, seed_offset=seed_offset), as_json=json_only)


def _suite(name: str) -> Callable[..., list[dict[str, Any]]]:
    """The `run` function of maskless.evaluation.{name}."""
    import pkgutil
    from importlib import import_module

    import maskless.evaluation

    names = sorted(module.name for module in pkgutil.iter_modules(maskless.evaluation.__path__))
    run = getattr(import_module(f"maskless.evaluation.{name}"), "run", None) if name in names else None
    if run is None:
        suites = [name for name in names if hasattr(import_module(f"maskless.evaluation.{name}"), "run")]
        raise MasklessError(f"the suite must be one of {', '.join(suites) or '(none yet)'}, got {name!r}")
    return run
