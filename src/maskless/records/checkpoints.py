"""Checkpoints: an edit under way as plain tensors and values that `torch.load(path, weights_only=True)` opens.

    {format, version, anchor_net, projection, dino, optimizer, config, progress, models, run, versions}

`run` is what EditRun.state() gives besides the parts that have a key of their own. Files appear whole or not at all.
The published release wrote the flat state dict of its model instead, with every key under `module.`; that is read too.
"""

from __future__ import annotations

import io
import pickle
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.data.files import write_bytes
from maskless.data.result import StepRecord
from maskless.engine.search_run import EditRun
from maskless.engine.tasks import Run
from maskless.models.pretrained import PARTS
from maskless.records.outputs import library_versions
from maskless.records.run_file import COMPLETE, INTERRUPTED, RunFile

FORMAT, VERSION = "maskless", 1
LAST = "last.pth"
RELEASE_PREFIX = "module."
# Options that may change between a run and its resumption: how long and how hard to search, and what comes after it.
FREE_OPTIONS = {
    "iterations", "epochs", "lr", "gradient_accumulation", "updates", "estimator", "seed", "ranking", "ranking_alpha",
    "ranking_beta", "batch_size", "checkpoint_interval", "slim_checkpoint", "device", "memory", "offline",
    "allow_pickle",
}  # fmt: skip
LOAD_ERRORS = (RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError, KeyError, ValueError, OSError)


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """What a checkpoint file holds. Parts that it leaves out are empty.

    anchor_net: state of AnchorNet, under this package's names. origin: "maskless" or "release". run: see the module.
    other: parts of a release's file that have no place here, by name.
    """

    path: Path
    origin: str
    anchor_net: Mapping[str, Tensor]
    projection: Mapping[str, Tensor]
    dino: Mapping[str, Tensor]
    other: Mapping[str, Mapping[str, Tensor]]
    config: Mapping[str, Any]
    progress: Mapping[str, Any]
    models: Mapping[str, str]
    optimizer: Mapping[str, Any]
    run: Mapping[str, Any]

    @property
    def sizes(self) -> int:
        """M, the number of box sizes that the AnchorNet chooses among."""
        return list(self.anchor_net.values())[-1].shape[0]

    def state(self) -> dict[str, Any]:
        """What `EditRun(state=...)` takes to go on."""
        search = dict(self.run["search"]) | {"anchor_net": dict(self.anchor_net), "optimizer": dict(self.optimizer)}
        return dict(self.run) | {"search": search, "projection": self.projection["weight"]}

    def difference(self, run: EditRun) -> str | None:
        """Why the run cannot go on from here, in a few words; None where it can."""
        if not self.run:
            return "it is of the published release"
        fresh = run.state()["request"]
        for name, value in self.run["request"].items():
            if fresh[name] != value:
                return f"it is of another {name}"
        for name, value in run.config.to_dict().items():
            if name not in FREE_OPTIONS and self.config.get(name) != value:
                return f"it was made with {name} {self.config.get(name)}, this edit has {value}"
        if any(self.models.get(part) != run.models.names[part] for part in PARTS):
            return "it was made with other models"
        return None


def checkpoint_content(run: EditRun, *, dino: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
    """The dict that a checkpoint file holds, as of now; it does not change when the run goes on.

    dino: DINO's frozen state; None leaves it out, which is the slim form.
    """
    rest = run.state()
    search = dict(rest.pop("search"))
    return {
        "format": FORMAT,
        "version": VERSION,
        "anchor_net": search.pop("anchor_net"),
        "projection": {"weight": rest.pop("projection")},
        "dino": dict(dino or {}),
        "optimizer": search.pop("optimizer"),
        "config": run.config.to_dict(),
        "progress": _progress(run.config, search),
        "models": dict(run.models.names),
        "run": rest | {"search": search},
        "versions": library_versions(),
    }


class CheckpointKeeper:
    """Keeps a folder's last.pth and run.json true while a run goes on, so that a kill at any moment loses little.

    last.pth is written at the start, after every epoch, and between epochs when the last one is older than
    `every_seconds`; run.json after every iteration.
    """

    def __init__(self, folder: str | Path, run: EditRun, *, every_seconds: float = 30.0) -> None:
        """Writes the first last.pth and run.json.

        Raises:
            MasklessError: the folder cannot be written to.
        """
        self.last = Path(folder) / LAST
        self._run, self._every = run, every_seconds
        state = {} if run.config.slim_checkpoint else run.models.dino.model.state_dict()
        self._dino = {name: value.cpu() for name, value in state.items()}  # frozen, so once is enough
        self._remember()
        self.save()
        self._run_file = _run_file(folder, run)

    def after(self, record: StepRecord) -> None:
        """Take note of an iteration that is complete, and write what is due."""
        self._remember()
        iterations = self._run.config.iterations
        if record.iteration % iterations == 0:
            epoch = record.iteration // iterations
            if epoch % self._run.config.checkpoint_interval == 0:
                write_bytes(self.last.with_name(f"transformer_epoch_{epoch}.pth"), self._encoded())
            self.save()
        elif time.monotonic() - self._saved_at > self._every:
            self.save()
        self._run_file.update(iteration=record.iteration)

    def interrupted(self) -> Path:
        """Write last.pth and say in run.json that the run was stopped."""
        saved = self.save()
        self._run_file.update(state=INTERRUPTED)
        return saved

    def complete(self) -> None:
        """Say in run.json that the run has come to its end, its results included."""
        self._run_file.update(state=COMPLETE)

    def save(self) -> Path:
        """Write last.pth as of the last complete iteration, also from the middle of one that was interrupted."""
        write_bytes(self.last, self._encoded())
        self._saved_at = time.monotonic()
        return self.last

    def _remember(self) -> None:
        self._content = checkpoint_content(self._run, dino=self._dino)

    def _encoded(self) -> bytes:
        # Through memory: torch's own writer turns a full disk into an error without a cause.
        file = io.BytesIO()
        torch.save(self._content, file)
        return file.getvalue()


class ProgressKeeper:
    """Keeps a folder's run.json true, for a run that is short and learns nothing that it could go on from."""

    def __init__(self, folder: str | Path, run: Run) -> None:
        """Writes the first run.json.

        Raises:
            MasklessError: the folder cannot be written to.
        """
        self._run_file = _run_file(folder, run)

    def after(self, record: StepRecord) -> None:
        """Take note of a step that is complete."""
        self._run_file.update(iteration=record.iteration)

    def interrupted(self) -> None:
        """Say in run.json that the run was stopped."""
        self._run_file.update(state=INTERRUPTED)

    def complete(self) -> None:
        """Say in run.json that the run has come to its end, its results included."""
        self._run_file.update(state=COMPLETE)


def _run_file(folder: str | Path, run: Run) -> RunFile:
    request = run.request
    path = request.source.path if request.source is not None else None
    return RunFile(
        folder,
        iteration=len(run.history),
        total_iterations=run.total_iterations,
        models=run.models.names,
        image=None if path is None else str(path),
        caption=request.caption,
        prompt=request.prompt,
    )


def load_checkpoint(path: str | Path, *, mapped: bool = False) -> Checkpoint:
    """Open a checkpoint of this package or of the published release; nothing in the file is executed.

    mapped: leave the tensors on the disk until they are looked at, which is quick however large the file.

    Raises:
        MasklessError: no such file, cut short, not a checkpoint, of a later version; it names the file.
    """
    path = Path(path)
    if not path.exists():
        raise MasklessError(f"no such checkpoint: {path}")
    if path.is_dir():
        raise MasklessError(f"{path} is a folder, not a checkpoint file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and _is_zip(path))
    except LOAD_ERRORS as error:
        reason = "it is cut short or damaged" if _is_zip(path) else "it is no file that torch.save wrote"
        if isinstance(error, pickle.UnpicklingError) and _is_zip(path):
            reason = "it holds more than tensors and plain values"
        raise MasklessError(f"cannot read the checkpoint {path}: {reason}") from error
    if not isinstance(content, dict):
        raise MasklessError(f"{path} is no checkpoint: expected a dict, got {type(content).__name__}")
    if content.get("format") == FORMAT:
        return _from_maskless(path, content)
    if any(isinstance(key, str) and key.startswith(RELEASE_PREFIX) for key in content):
        return _from_release(path, content)
    keys = ", ".join(sorted(map(str, content))[:4]) or "none"
    raise MasklessError(f"{path} is no checkpoint of Maskless or of the published release; its keys begin with: {keys}")


def started_from(checkpoint: Checkpoint, run: EditRun) -> dict[str, Any]:
    """A state for the run: the checkpoint's where it belongs to this very edit, else a fresh one with its AnchorNet.

    run: of the new edit, not yet iterated.

    Raises:
        MasklessError: the AnchorNet is of another shape; it names the file and both shapes.
    """
    state = run.state()
    ours = state["search"]["anchor_net"]
    if checkpoint.sizes != len(run.config.sizes):
        raise MasklessError(
            f"the AnchorNet in {checkpoint.path} chooses among {checkpoint.sizes} sizes, this edit has "
            f"{len(run.config.sizes)} (max_window_size {run.config.max_window_size})"
        )
    for name, tensor in ours.items():
        theirs = checkpoint.anchor_net.get(name)
        if theirs is None or theirs.shape != tensor.shape:
            found = "nothing" if theirs is None else list(theirs.shape)
            raise MasklessError(f"{name} in {checkpoint.path} must be {list(tensor.shape)}, got {found}")
    if checkpoint.difference(run) is None:
        return checkpoint.state()
    state["search"]["anchor_net"] = {name: checkpoint.anchor_net[name].to(ours[name]) for name in ours}
    return state


def _progress(config: EditConfig, search: Mapping[str, Any]) -> dict[str, Any]:
    """How far the search has come; `epochs_done` counts whole ones."""
    done = search["iteration"]
    return {
        "iteration": done,
        "total_iterations": config.total_iterations,
        "epochs_done": done // config.iterations if config.iterations else 0,
        "epochs": config.epochs,
        "updates": search["updates"],
    }


def _from_maskless(path: Path, content: Mapping[str, Any]) -> Checkpoint:
    if content.get("version") != VERSION:
        raise MasklessError(f"{path} must be of checkpoint version {VERSION}, got {content.get('version')!r}")
    names = ("anchor_net", "projection", "dino", "optimizer", "config", "progress", "models", "run")
    missing = [name for name in names if not isinstance(content.get(name), dict)]
    if missing or not content["anchor_net"]:
        raise MasklessError(f"the checkpoint {path} lacks {', '.join(missing) or 'anchor_net'}")
    parts = {name: content[name] for name in names}
    return Checkpoint(path=path, origin="maskless", other={}, **parts)


def _from_release(path: Path, content: Mapping[str, Any]) -> Checkpoint:
    """Flat keys such as module.anchor_net.0.weight, module.conv.weight (the projection) and module.dino.blocks…"""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in content.items():
        part, _, name = str(key).removeprefix(RELEASE_PREFIX).partition(".")
        if isinstance(value, Tensor):
            parts.setdefault(part, {})[name or part] = value
    anchor_net = parts.pop("anchor_net", {})
    if not anchor_net:
        raise MasklessError(f"{path} looks like the published release's but lacks module.anchor_net")
    return Checkpoint(
        path=path,
        origin="release",
        anchor_net={f"layers.{name}": value for name, value in anchor_net.items()},
        projection=parts.pop("conv", {}),
        dino=parts.pop("dino", {}),
        other=parts,
        config={},
        progress={},
        models={},
        optimizer={},
        run={},
    )


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


@dataclass(frozen=True, kw_only=True)
class CheckpointPart:
    """One network in a checkpoint. keys: name and shape of every tensor. trained: AnchorNet alone is."""

    name: str
    trained: bool
    parameters: int
    keys: Mapping[str, tuple[int, ...]]


def checkpoint_parts(checkpoint: Checkpoint) -> tuple[CheckpointPart, ...]:
    """The networks of a checkpoint, AnchorNet first; those left out have no keys."""
    named = {"anchor_net": checkpoint.anchor_net, "projection": checkpoint.projection, "dino": checkpoint.dino}
    return tuple(
        CheckpointPart(
            name=name,
            trained=name == "anchor_net",
            parameters=sum(tensor.numel() for tensor in tensors.values()),
            keys={key: tuple(tensor.shape) for key, tensor in tensors.items()},
        )
        for name, tensors in (named | dict(checkpoint.other)).items()
    )
