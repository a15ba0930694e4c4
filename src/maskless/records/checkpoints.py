"""Checkpoints: the state of an unfinished edit as plain tensors and values.

    {format, version, anchor_net, projection, dino, optimizer, config, progress, models, weights, run, versions}

`torch.load(path, weights_only=True)` opens such a file. `run` contains the parts of `Run.state` that have no key of
their own. Files appear whole or not at all. The published release writes the flat state dict of its model instead, with
every key under `module.`; such files can be read too.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskless.data.config import EditConfig, ResolvedConfig
from maskless.data.errors import MasklessError
from maskless.engine.run import Run
from maskless.engine.search_run import MODEL_OPTIONS, different_option, fingerprint, options_of
from maskless.method.anchor_net import AnchorNet
from maskless.method.search import State
from maskless.models.pretrained import EditModels
from maskless.models.sources import PARTS
from maskless.records.outputs import library_versions

FORMAT, VERSION = "maskless", 2
LAST = "last.pth"
RELEASE_PREFIX = "module."
LOAD_ERRORS = (RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError, KeyError, ValueError, OSError)


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """The content of a checkpoint file. Parts that the file does not have are empty.

    origin: "maskless" or "release". anchor_net: state of AnchorNet, under this package's names. projection, dino: the
    frozen networks. other: further networks in a file of the release, by name. run: see the module's docstring.
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
    weights: Mapping[str, str]
    optimizer: Mapping[str, Any]
    run: Mapping[str, Any]

    @property
    def sizes(self) -> int:
        """M, the number of box sizes that the AnchorNet chooses among."""
        return list(self.anchor_net.values())[-1].shape[0]

    def state(self) -> State:
        """The state that `Run.resume` takes to continue."""
        search = dict(self.run["search"]) | {"anchor_net": dict(self.anchor_net), "optimizer": dict(self.optimizer)}
        return dict(self.run) | {
            "search": search, "projection": self.projection["weight"], "options": dict(self.config)
        }  # fmt: skip

    def difference(self, run: Run) -> str | None:
        """The reason why the run cannot continue from this checkpoint, in a few words; None if it can."""
        if not self.run:
            return "it was written by the published release" if self.origin == "release" else "it is of many pictures"
        expected = fingerprint(run.request, run.config.seed)
        for name, value in self.run["request"].items():
            if expected[name] != value:
                return f"it belongs to an edit with another {name}"
        different = different_option(self.config, options_of(run))
        if different is not None:
            return different
        if any(self._of_another(part, run.models) for part in PARTS):
            return "it was made with other models"
        return None

    def _of_another(self, part: str, models: EditModels) -> bool:
        """Whether a part of the models is another one: by its weights if they are known, else by its source."""
        saved, present = self.weights.get(part), models.weights.get(part)
        if saved is not None and present is not None:
            return saved != present
        return self.models.get(part) != models.names[part]


def checkpoint_content(run: Run, *, dino: Mapping[str, Tensor] | None = None) -> State | None:
    """The content of a checkpoint file for the present state of a run; None if the run has nothing to continue from.

    The content does not change when the run continues. dino: DINO's frozen state; None leaves it out (a slim
    checkpoint).
    """
    state = run.state()
    if state is None:
        return None
    rest = dict(state)
    search, options = dict(rest.pop("search")), rest.pop("options")
    return {
        "format": FORMAT,
        "version": VERSION,
        "anchor_net": search.pop("anchor_net"),
        "projection": {"weight": rest.pop("projection")},
        "dino": dict(dino or {}),
        "optimizer": search.pop("optimizer"),
        "config": options,
        "progress": _progress(run.used, search),
        "models": dict(run.models.names),
        "weights": dict(run.models.weights),
        "run": rest | {"search": search},
        "versions": library_versions(),
    }


def anchor_net_content(
    anchor_net: Mapping[str, Tensor], projection: Tensor, config: EditConfig, models: EditModels
) -> State:
    """The content of a checkpoint of an AnchorNet alone. It belongs to no single edit; searches can start from it."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "anchor_net": dict(anchor_net),
        "projection": {"weight": projection},
        "dino": {},
        "optimizer": {},
        "config": config.to_dict() | {name: getattr(models.options, name) for name in MODEL_OPTIONS},
        "progress": {},
        "models": dict(models.names),
        "weights": dict(models.weights),
        "run": {},
        "versions": library_versions(),
    }


def load_checkpoint(path: str | Path, *, mapped: bool = False) -> Checkpoint:
    """Open a checkpoint of this package or of the published release. No code in the file is executed.

    mapped: memory-map the tensors, so that they are read from the disk only when used; this is fast for any file size.

    Raises:
        MasklessError: the file does not exist, is truncated, is no checkpoint or is of another version. The message
            names the file.
    """
    path = Path(path)
    if not path.exists():
        raise MasklessError(f"no such checkpoint: {path}")
    if path.is_dir():
        raise MasklessError(f"{path} is a folder, not a checkpoint file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and _is_zip(path))
    except LOAD_ERRORS as error:
        reason = "it is truncated or damaged" if _is_zip(path) else "it was not written by torch.save"
        if isinstance(error, pickle.UnpicklingError) and _is_zip(path):
            reason = "it contains more than tensors and plain values"
        raise MasklessError(f"cannot read the checkpoint {path}: {reason}") from error
    if not isinstance(content, dict):
        raise MasklessError(f"{path} is not a checkpoint: expected a dict, got {type(content).__name__}")
    if content.get("format") == FORMAT:
        return _from_maskless(path, content)
    if any(isinstance(key, str) and key.startswith(RELEASE_PREFIX) for key in content):
        return _from_release(path, content)
    keys = ", ".join(sorted(map(str, content))[:4]) or "none"
    raise MasklessError(
        f"{path} is not a checkpoint of Maskless or of the published release; its first keys are: {keys}"
    )


def resume(run: Run, checkpoint: Checkpoint) -> str:
    """Let a run continue from a checkpoint, or only from its AnchorNet if it belongs to another edit.

    run: a run before its first step.

    Returns:
        A note for the user: the file, and which part of it the run continues from.
    Raises:
        MasklessError: a run that cannot be continued, or an AnchorNet of another shape. The message names the file and
            both shapes.
    """
    difference = checkpoint.difference(run)
    if difference is None:
        run.resume(checkpoint.state())
        return f"{checkpoint.path}: after iteration {run.history[-1].step if run.history else 0}"
    start_from(run, checkpoint)
    return f"{checkpoint.path}: only its AnchorNet, because {difference}"


def start_from(run: Run, checkpoint: Checkpoint) -> None:
    """Let a run begin with the AnchorNet of a checkpoint, whichever edit that belongs to.

    run: a run before its first step.

    Raises:
        MasklessError: a run that learns nothing, or an AnchorNet of another shape.
    """
    run.resume({"anchor_net": _matching_anchor_net(checkpoint, run.used)})


def _matching_anchor_net(checkpoint: Checkpoint, config: ResolvedConfig) -> dict[str, Tensor]:
    """The state of the checkpoint's AnchorNet; raises a MasklessError if its shape does not match these options."""
    if checkpoint.sizes != len(config.sizes):
        raise MasklessError(
            f"the AnchorNet in {checkpoint.path} chooses among {checkpoint.sizes} sizes, this edit has "
            f"{len(config.sizes)} (max_window_size {config.max_window_size})"
        )
    expected = AnchorNet(len(config.sizes), torch.Generator()).state_dict()
    for name, tensor in expected.items():
        saved = checkpoint.anchor_net.get(name)
        if saved is None or saved.shape != tensor.shape:
            found = "nothing" if saved is None else list(saved.shape)
            raise MasklessError(f"{name} in {checkpoint.path} must be {list(tensor.shape)}, got {found}")
    return {name: checkpoint.anchor_net[name].to(tensor) for name, tensor in expected.items()}


def _progress(config: ResolvedConfig, search: Mapping[str, Any]) -> dict[str, Any]:
    """The progress of the search; `epochs_done` counts complete epochs."""
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
        raise MasklessError(f"the checkpoint {path} has no {', '.join(missing) or 'anchor_net'}")
    parts = {name: content[name] for name in names}
    weights = content.get("weights")  # files of earlier versions have none
    return Checkpoint(
        path=path, origin="maskless", other={}, weights=weights if isinstance(weights, dict) else {}, **parts
    )


def _from_release(path: Path, content: Mapping[str, Any]) -> Checkpoint:
    """From flat keys: module.anchor_net.0.weight, …, module.conv.weight (the projection), module.dino.blocks…"""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in content.items():
        part, _, name = str(key).removeprefix(RELEASE_PREFIX).partition(".")
        if isinstance(value, Tensor):
            parts.setdefault(part, {})[name or part] = value
    anchor_net = parts.pop("anchor_net", {})
    if not anchor_net:
        raise MasklessError(f"{path} looks like a checkpoint of the published release, but has no module.anchor_net")
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
        weights={},
        optimizer={},
        run={},
    )


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


@dataclass(frozen=True, kw_only=True)
class CheckpointPart:
    """One network in a checkpoint. trained: True for AnchorNet alone. keys: name and shape of every tensor."""

    name: str
    trained: bool
    parameters: int
    keys: Mapping[str, tuple[int, ...]]


def checkpoint_parts(checkpoint: Checkpoint) -> tuple[CheckpointPart, ...]:
    """The networks of a checkpoint, AnchorNet first; those that the file does not contain have no keys."""
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
