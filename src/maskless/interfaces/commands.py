"""The shorter commands: the gallery, and what looks at runs, checkpoints and models."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import typer

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.interfaces.console import EvaluationConsole, GalleryConsole
from maskless.interfaces.options import (
    DISPLAY,
    MODELS,
    OUTPUT,
    Caption,
    CheckpointDir,
    ClipName,
    DinoName,
    ModelsName,
    OutputDir,
    Prompt,
    RedrawName,
    config_options,
)
from maskless.interfaces.tables import print_checkpoint, print_presets, print_status

NAMED_BY_PLACE = {"folder": "folder"}
"""Arguments of `evaluate` that have no flag, and what they are called."""


def inspect_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A .pth file.", show_default=False)],
    json_only: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Print what a checkpoint holds: keys, parameter counts, trained or frozen, config, progress."""
    from maskless.records.checkpoints import load_checkpoint

    print_checkpoint(load_checkpoint(checkpoint), as_json=json_only)


def show_status(
    output_dir: OutputDir = Path("output"),
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json_only: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Tell how a run stands: running, interrupted or complete, how far, its checkpoints and its results."""
    from maskless.records.status import read_status

    print_status(read_status(output_dir, checkpoint_dir), as_json=json_only)


def list_models(
    json_only: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """List the sets of models that go by a name: licence, download, memory, and whether they are on this disk."""
    from maskless.models.presets import PRESETS
    from maskless.models.pretrained import on_disk

    print_presets([(preset, on_disk(preset.name)) for preset in PRESETS], as_json=json_only)


@config_options
def gallery(
    *,
    image: Annotated[
        Path | None, typer.Option(help="A picture of your own, in place of the samples.", show_default=False)
    ] = None,
    caption: Caption = "",
    prompt: Prompt = None,
    options: dict[str, Any],
    output_dir: OutputDir = Path("output"),
    models: ModelsName = "storybook",
    dino: DinoName = None,
    clip: ClipName = None,
    redraw: RedrawName = None,
    json_only: Annotated[
        bool, typer.Option("--json", help="Print what was made as a JSON list.", rich_help_panel=DISPLAY)
    ] = False,
) -> None:
    """Do all ten kinds of edit and a generation, and show them on a page: editing_results/index.html.

    Stopped in the middle, it goes on where it was.
    """
    config = EditConfig(**options)
    from maskless.data.files import require_writable
    from maskless.interfaces.gallery import exhibits, make_gallery

    planned = exhibits(image, caption, prompt or "")
    folder = output_dir / "editing_results"
    require_writable(folder)
    console = GalleryConsole(json_only=json_only)
    with console.waiting("Loading the models"):
        from maskless import Editor

        editor = Editor.from_pretrained(models, dino=dino, clip=clip, redraw=redraw, config=config)
    console.show(make_gallery(editor, planned, folder), [exhibit.title for exhibit in planned], folder)


def evaluate(
    suite: Annotated[
        str, typer.Argument(metavar="SUITE", help="What to measure, such as storybook.", show_default=False)
    ],
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="A benchmark's folder, for pie-bench.", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(help="Which scenes: train, validation or held-out.")] = "held-out",
    limit: Annotated[int | None, typer.Option(min=1, help="Requests at most.", show_default=False)] = None,
    seed_offset: Annotated[int, typer.Option(min=0, help="First scene of the split.")] = 0,
    models: Annotated[
        str | None, typer.Option(help="storybook (bundled) or a folder.", rich_help_panel=MODELS, show_default=False)
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(metavar="A,B,…", help="Methods to compare, of those of the suite.", show_default=False),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Pictures of another tool, to score in place of edits.", show_default=False)
    ] = None,
    clip: Annotated[
        str | None, typer.Option(help="CLIP that measures.", rich_help_panel=MODELS, show_default=False)
    ] = None,
    dino: Annotated[
        str | None, typer.Option(help="DINO that measures.", rich_help_panel=MODELS, show_default=False)
    ] = None,
    lpips: Annotated[
        Path | None,
        typer.Option(help="Folder of LPIPS's SqueezeNet.", rich_help_panel=MODELS, show_default=False),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Noises of each region, for regret.", show_default=False)
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Denoising steps, of all methods.", show_default=False)
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(min=0, help="Iterations of the search, of all methods.", show_default=False)
    ] = None,
    anchors: Annotated[int | None, typer.Option(min=1, help="Anchors, of all methods.", show_default=False)] = None,
    output_dir: Annotated[
        Path, typer.Option(help="Where tables, plots and what was measured go.", rich_help_panel=OUTPUT)
    ] = Path("output/evaluation"),
    json_only: Annotated[bool, typer.Option("--json", help="Print the rows as a JSON list, nothing else.")] = False,
) -> None:
    """Measure the models and methods on drawn scenes, with confidence intervals.

    A run that was stopped goes on where it was when it is started again with the same options and models.
    """
    from maskless.data.files import require_writable
    from maskless.storybook.world.scenes import SPLITS

    if split not in SPLITS:
        raise MasklessError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    run, name = _suite(suite), suite.replace("-", "_")
    chosen: dict[str, Any] = {
        "limit": limit, "models": models, "steps": steps, "iterations": iterations, "anchors": anchors,
        "folder": folder, "results": results, "clip": clip, "dino": dino, "lpips": lpips, "seeds": seeds,
        "methods": None if methods is None else [method.strip() for method in methods.split(",") if method.strip()],
    }  # fmt: skip
    chosen = {option: value for option, value in chosen.items() if value is not None}
    taken = signature(run).parameters
    if "split" in taken or split != "held-out":
        chosen["split"] = split
    for option in chosen:
        if option not in taken:
            raise MasklessError(f"the suite {suite} takes no {NAMED_BY_PLACE.get(option, '--' + option)}")
    chosen["seed_offset"] = seed_offset
    require_writable(output_dir)
    # What a suite can use of these it has among its parameters.
    offered = {"ledger": output_dir / f"{name}.jsonl", "page": output_dir / f"{name}.jpg", "sheets": output_dir / name}
    console = EvaluationConsole(json_only=json_only)
    with console.measuring(suite) as progress:
        offered_here = {**offered, "progress": progress, "note": console.note}
        rows = run(**chosen, **{option: value for option, value in offered_here.items() if option in taken})
    from maskless.evaluation.measures.results import write_results

    command = _evaluate_line(suite, chosen)
    files = write_results(rows, output_dir, name, command=command)
    console.measured(rows, [*files, *(file for file in (offered["page"],) if "page" in taken)])


def _evaluate_line(suite: str, chosen: dict[str, Any]) -> str:
    """What makes the same figures again, for a shell."""
    words = ["maskless", "evaluate", suite, *(str(chosen[option]) for option in NAMED_BY_PLACE if option in chosen)]
    for option, value in chosen.items():
        if option not in NAMED_BY_PLACE and (option, value) not in (("split", "held-out"), ("seed_offset", 0)):
            told = ",".join(value) if isinstance(value, list) else str(value)
            words += ["--" + option.replace("_", "-"), told]
    return shlex.join(words)


def _suite(name: str) -> Callable[..., list[dict[str, Any]]]:
    """The `run` function of maskless.evaluation.suites.{name}; a hyphen stands for an underscore."""
    import pkgutil
    from importlib import import_module

    import maskless.evaluation.suites

    names = sorted(module.name for module in pkgutil.iter_modules(maskless.evaluation.suites.__path__))
    module = name.replace("-", "_")
    run = getattr(import_module(f"maskless.evaluation.suites.{module}"), "run", None) if module in names else None
    if run is None:
        suites = [other for other in names if hasattr(import_module(f"maskless.evaluation.suites.{other}"), "run")]
        told = ", ".join(suites).replace("_", "-")
        raise MasklessError(f"the suite must be one of {told or '(none yet)'}, got {name!r}")
    return run
