"""How a run stands, read from what it leaves: run.json, the checkpoints, the results. No model is loaded.

Nothing that is found can make reading fail: what is damaged is named among the problems.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maskless.data.errors import MasklessError
from maskless.records.run_file import COMPLETE, INTERRUPTED, RUN_FILE, RUNNING, RunRecord, read_run_file, still_lives

NOT_STARTED, UNKNOWN = "not started", "unknown"
LAST = "last.pth"
RECORD = "result.json"
CHECKED_BYTES = 256 * 2**20
"""Checkpoints up to this size are read whole, to see that every byte is the one that was written."""
UNREADABLE = (OSError, ValueError, TypeError, LookupError, AttributeError, EOFError, RuntimeError, OverflowError,
              AssertionError, MemoryError, struct.error, zlib.error, zipfile.BadZipFile)  # fmt: skip
"""What damaged files make the readers raise."""


@dataclass(frozen=True, kw_only=True)
class CheckpointStatus:
    """One .pth file. parts: parameters by network, those left out not named. problem: why it cannot be read, or None;
    then the rest is empty."""

    file: str
    size_bytes: int
    origin: str | None = None
    iteration: int | None = None
    total_iterations: int | None = None
    parts: Mapping[str, int]
    models: Mapping[str, str]
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class ResultStatus:
    """One edit's folder. scores: of the candidates, best first; None is one that was not finite.
    problem: why its record cannot be read, or None; then the rest is empty."""

    folder: str
    image: str | None = None
    caption: str | None = None
    prompt: str | None = None
    scores: tuple[float | None, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Status:
    """How a run stands.

    state: not started, running, interrupted, complete, or unknown (of another host, or too damaged to say).
    iteration, total_iterations: as far as is known. mode: "single process" or "distributed, N processes".
    models: folder or hub id by part. run: what run.json holds. problems: one line each.
    """

    output_dir: str
    checkpoint_dir: str
    started: bool
    state: str
    iteration: int | None
    total_iterations: int | None
    mode: str | None
    models: Mapping[str, str]
    run: RunRecord | None
    checkpoints: tuple[CheckpointStatus, ...]
    results: tuple[ResultStatus, ...]
    problems: tuple[str, ...]

    @property
    def percent(self) -> float | None:
        """Iterations done, of all, in percent; all of none is everything."""
        if self.iteration is None or self.total_iterations is None:
            return None
        return 100.0 * self.iteration / self.total_iterations if self.total_iterations else 100.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        percent = self.percent
        return asdict(self) | {"percent": None if percent is None else round(percent, 1)}


def read_status(output_dir: str | Path = "output", checkpoint_dir: str | Path = "checkpoints") -> Status:
    """How the run stands that keeps its checkpoints and results in these folders; neither has to be there."""
    problems: list[str] = []
    try:
        run = read_run_file(checkpoint_dir)
    except MasklessError as error:
        run = None
        problems.append(str(error))
    checkpoints = tuple(_checkpoint(path) for path in _checkpoint_files(Path(checkpoint_dir), problems))
    results = tuple(_result(path, Path(output_dir)) for path in _folders(Path(output_dir), problems) if _is_edit(path))
    problems += [f"{Path(checkpoint_dir) / entry.file}: {entry.problem}" for entry in checkpoints if entry.problem]
    problems += [f"{Path(output_dir) / entry.folder}: {entry.problem}" for entry in results if entry.problem]
    readable = [entry for entry in checkpoints if entry.iteration is not None]
    newest = max(readable, key=lambda entry: (entry.file == LAST, entry.iteration or 0), default=None)
    known = run or newest
    state = _state(run, newest, checkpoints, results, damaged=bool(problems))
    if run is not None and state == UNKNOWN:
        problems.append(f"{RUN_FILE} was written on {run.host}; whether its process lives cannot be seen from here")
    return Status(
        output_dir=str(output_dir),
        checkpoint_dir=str(checkpoint_dir),
        started=state != NOT_STARTED,
        state=state,
        iteration=known.iteration if known else None,
        total_iterations=known.total_iterations if known else None,
        mode=None if run is None else _mode(run.processes),
        models=dict(known.models) if known else {},
        run=run,
        checkpoints=checkpoints,
        results=results,
        problems=tuple(problems),
    )


def _state(
    run: RunRecord | None,
    newest: CheckpointStatus | None,
    checkpoints: tuple[CheckpointStatus, ...],
    results: tuple[ResultStatus, ...],
    *,
    damaged: bool,
) -> str:
    """run.json's word where it is there, checked against the process; else what checkpoints and results let one say."""
    if run is not None:
        if run.state != RUNNING:
            return run.state
        lives = still_lives(run)
        return UNKNOWN if lives is None else RUNNING if lives else INTERRUPTED
    if newest is not None:
        return COMPLETE if newest.iteration == newest.total_iterations else INTERRUPTED
    if any(entry.problem is None for entry in results) and not checkpoints:
        return COMPLETE
    return UNKNOWN if checkpoints or results or damaged else NOT_STARTED


def _mode(processes: int) -> str:
    return "single process" if processes <= 1 else f"distributed, {processes} processes"


def _checkpoint_files(folder: Path, problems: list[str]) -> list[Path]:
    """last.pth first, then the others by name; not those that are being written."""
    try:
        files = [path for path in folder.iterdir() if path.suffix == ".pth" and not path.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"cannot look into {folder}: {error.strerror or error}")
        return []
    return sorted(files, key=lambda path: (path.name != LAST, len(path.name), path.name))


def _checkpoint(path: Path) -> CheckpointStatus:
    size = 0
    try:
        size = path.stat().st_size
        return _readable_checkpoint(path, size)
    except MasklessError as error:
        problem = str(error).removeprefix(f"cannot read the checkpoint {path}: ").replace(f"{path} is", "it is")
    except UNREADABLE as error:
        problem = f"it is damaged ({type(error).__name__})"
    return CheckpointStatus(file=path.name, size_bytes=size, parts={}, models={}, problem=problem)


def _readable_checkpoint(path: Path, size: int) -> CheckpointStatus:
    """Raises a MasklessError or one of UNREADABLE where it cannot be read after all."""
    from maskless.records.checkpoints import checkpoint_parts, load_checkpoint

    # torch does not compare the checksums that it writes.
    if size <= CHECKED_BYTES and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise MasklessError("it is damaged: its content is not what was written")
    checkpoint = load_checkpoint(path, mapped=True)
    done, total = (_whole(checkpoint.progress.get(name)) for name in ("iteration", "total_iterations"))
    return CheckpointStatus(
        file=path.name,
        size_bytes=size,
        origin=checkpoint.origin,
        iteration=done if total is not None else None,
        total_iterations=total if done is not None else None,
        parts={part.name: part.parameters for part in checkpoint_parts(checkpoint) if part.keys},
        models={str(name): str(source) for name, source in checkpoint.models.items()},
    )


def _folders(folder: Path, problems: list[str]) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"cannot look into {folder}: {error.strerror or error}")
        return []


def _is_edit(folder: Path) -> bool:
    """Whether a folder is an edit's, be it incomplete."""
    try:
        return (folder / RECORD).exists() or ((folder / "input_image.png").exists() and (folder / "results").is_dir())
    except OSError:  # it may not be looked into, which is told when its record is read
        return True


def _result(folder: Path, output_dir: Path) -> ResultStatus:
    name = str(folder.relative_to(output_dir))
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
        request, candidates = record["request"], record["candidates"]
        scores = tuple(_finite(candidates[index]["score"]) for index in record["order"])
        if not scores:
            raise ValueError("it names no candidate")
        lost = [entry["file"] for entry in candidates if not (folder / str(entry["file"])).is_file()]
        texts = {key: None if request[key] is None else str(request[key]) for key in ("image", "caption", "prompt")}
    except FileNotFoundError:
        return ResultStatus(folder=name, problem=f"it has no {RECORD}, so it is not complete")
    except UNREADABLE as error:
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        return ResultStatus(folder=name, problem=f"its {RECORD} is damaged ({told})")
    problem = f"{len(lost)} of its pictures are missing, the first is {lost[0]}" if lost else None
    return ResultStatus(folder=name, scores=scores, problem=problem, **texts)


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**63 else None


def _finite(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None
