"""The shorter commands: the gallery, the evaluation, and those that print runs, checkpoints and models."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.data.model_options import ModelOptions
from maskless.data.provenance import ProvenanceOptions
from maskless.interfaces.checks import require_file, require_folder, require_folders, require_picture, require_texts
from maskless.interfaces.console import EvaluationConsole, GalleryConsole, Interrupted
from maskless.interfaces.options import (
    DISPLAY,
    MODELS,
    OUTPUT,
    Caption,
    CheckpointDir,
    OutputDir,
    Prompt,
    with_options,
)
from maskless.interfaces.tables import print_checkpoint, print_presets, print_status

if TYPE_CHECKING:
    from maskless.evaluation.suite import Suite

WITHOUT_FLAG = ("folder",)
"""Options of suites that `evaluate` takes as arguments and not as flags."""


def inspect_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A .pth file.", show_default=False)],
    json_only: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Print what a checkpoint holds: keys, parameter counts, trained or frozen, config, progress."""
    require_file(checkpoint, "checkpoint")
    from maskless.records.checkpoints import load_checkpoint

    print_checkpoint(load_checkpoint(checkpoint), as_json=json_only)


def show_status(
    output_dir: OutputDir = "output",
    checkpoint_dir: CheckpointDir = "checkpoints",
    json_only: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show whether the latest run is running, interrupted or complete, its checkpoints and its results; of a batch,
    what is done, failed and left, and what each worker does."""
    from maskless.batch.status import read_batch_status
    from maskless.interfaces.tables import print_batch_status
    from maskless.records.status import read_status

    batch = read_batch_status(output_dir)
    if batch is not None:
        print_batch_status(batch, as_json=json_only)
        return
    print_status(read_status(output_dir, checkpoint_dir), as_json=json_only)


def list_models(
    json_only: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """List the presets of models: licence, download, memory, and whether they are on this disk."""
    from maskless.models.presets import PRESETS
    from maskless.models.sources import on_disk

    print_presets([(preset, on_disk(preset.name)) for preset in PRESETS], as_json=json_only)


@with_options
def gallery(
    *,
    image: Annotated[
        Path | None, typer.Option(help="A picture of your own, in place of the samples.", show_default=False)
    ] = None,
    caption: Caption = "",
    prompt: Prompt = None,
    config: EditConfig,
    output_dir: OutputDir = "output",
    provenance: ProvenanceOptions,
    models: ModelOptions,
    json_only: Annotated[
        bool, typer.Option("--json", help="Print a JSON list of what was made.", rich_help_panel=DISPLAY)
    ] = False,
) -> None:
    """Make one edit of each of the ten kinds and a generation, and a page that shows them: editing_results/index.html.

    A gallery that was stopped continues where it stopped.
    """
    folder = Path(output_dir) / "editing_results"
    require_texts(caption=caption, prompt=prompt)
    require_picture(image)
    require_folders(folder)
    from maskless.data.files import require_no_links
    from maskless.interfaces.gallery import exhibits, make_gallery
    from maskless.records.credentials import Signer

    require_no_links(folder)
    Signer.of(provenance)
    planned = exhibits(image, caption, prompt or "")
    console = GalleryConsole(json_only=json_only)
    with console.waiting("Loading the models"):
        from maskless.engine.editor import Editor
        from maskless.models.pretrained import load_models

        editor = Editor(load_models(models), config)
    with _continued_by_the_same_command():
        console.show(make_gallery(editor, planned, folder, provenance), [exhibit.title for exhibit in planned], folder)


@contextmanager
def _continued_by_the_same_command() -> Iterator[None]:
    """Tell the user after Ctrl-C in the block that nothing of the finished work is lost."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("the same command continues where it stopped") from None


def evaluate(
    suite: Annotated[
        str, typer.Argument(metavar="SUITE", help="What to measure, such as storybook.", show_default=False)
    ],
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="A benchmark's folder, for pie-bench.", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(help="Which scenes: train, validation or held-out.")] = "held-out",
    requests: Annotated[
        str | None,
        typer.Option(
            help="Kind of requests: plain, crowded (scenes of four objects or more) or paraphrased (captions "
            "in other words).",
            show_default=False,
        ),
    ] = None,
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
    """Measure models and methods on drawn scenes, with confidence intervals.

    An evaluation that was stopped continues where it stopped, if it is started again with the same options and models.
    """
    given: dict[str, Any] = {
        "requests": requests, "limit": limit, "models": models, "steps": steps, "iterations": iterations,
        "anchors": anchors, "folder": folder, "results": results, "clip": clip, "dino": dino, "lpips": lpips,
        "seeds": seeds,
        "methods": None if methods is None else [method.strip() for method in methods.split(",") if method.strip()],
    }  # fmt: skip
    for place in (folder, results):
        require_folder(place)
    module = _suite(suite)
    chosen = _suite_options(suite, module.TAKES, split, given) | {"seed_offset": seed_offset}
    _measure(suite, module, chosen, output_dir, EvaluationConsole(json_only=json_only))


def _suite_options(suite: str, takes: Sequence[str], split: str, given: dict[str, Any]) -> dict[str, Any]:
    """The fields of SuiteOptions that the user chose.

    Raises:
        MasklessError: an unknown split, or an option that the suite does not take.
    """
    from maskless.storybook.world.scenes import SPLITS

    if split not in SPLITS:
        raise MasklessError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    chosen = {option: value for option, value in given.items() if value is not None}
    if "split" in takes or split != "held-out":
        chosen["split"] = split
    for option in chosen:
        if option not in takes:
            raise MasklessError(f"the suite {suite} takes no {option if option in WITHOUT_FLAG else '--' + option}")
    return chosen


def _measure(suite: str, module: Suite, chosen: dict[str, Any], output_dir: Path, console: EvaluationConsole) -> None:
    """Run a suite, write its rows, and show them."""
    from maskless.data.files import require_writable

    require_writable(output_dir)
    from maskless.evaluation.measures.results import write_results
    from maskless.evaluation.suite import SuiteOptions

    name = "_".join([suite.replace("-", "_"), *([chosen["requests"]] if "requests" in chosen else [])])
    ledger, page, sheets = output_dir / f"{name}.jsonl", output_dir / f"{name}.jpg", output_dir / name
    with _continued_by_the_same_command(), console.measuring(suite) as progress:
        options = SuiteOptions(**chosen, ledger=ledger, page=page, sheets=sheets, progress=progress, note=console.note)
        rows = module.run(options)
    written = write_results(rows, output_dir, name, command=_evaluate_line(suite, chosen))
    console.measured(rows, [*written, page] if "page" in module.TAKES else written)


def _evaluate_line(suite: str, chosen: dict[str, Any]) -> str:
    """The shell command that makes the same rows again."""
    words = ["maskless", "evaluate", suite, *(str(chosen[option]) for option in WITHOUT_FLAG if option in chosen)]
    for option, value in chosen.items():
        if option not in WITHOUT_FLAG and (option, value) not in (("split", "held-out"), ("seed_offset", 0)):
            words += ["--" + option.replace("_", "-"), ",".join(value) if isinstance(value, list) else str(value)]
    return shlex.join(words)


def _suite(name: str) -> Suite:
    """The module maskless.evaluation.suites.{name}; a hyphen stands for an underscore."""
    import pkgutil
    from importlib import import_module

    import maskless.evaluation.suites

    names = sorted(module.name for module in pkgutil.iter_modules(maskless.evaluation.suites.__path__))
    module = name.replace("-", "_")
    if module not in names:
        raise MasklessError(f"the suite must be one of {', '.join(names).replace('_', '-')}, got {name!r}")
    return cast("Suite", import_module(f"maskless.evaluation.suites.{module}"))
