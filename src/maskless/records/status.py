"""The status of a run, read from its files: run.json, the checkpoints and the results. No model is loaded.

Damaged files never make the reading fail; they are listed among the problems.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maskless.data.errors import MasklessError, first_line
from maskless.data.files import finite, remove_leftovers
from maskless.records.run_file import COMPLETE, INTERRUPTED, RUN_FILE, RUNNING, RunRecord, is_alive, read_run_file

NOT_STARTED, UNKNOWN = "not started", "unknown"
LAST = "last.pth"
RECORD = "result.json"
CHECKED_BYTES = 256 * 2**20
"""Checkpoints up to this size are read completely and compared with their checksums."""
UNREADABLE = (OSError, ValueError, TypeError, LookupError, AttributeError, EOFError, RuntimeError, OverflowError,
              AssertionError, MemoryError, struct.error, zlib.error, zipfile.BadZipFile)  # fmt: skip
"""The exceptions that the readers raise on damaged files."""


@dataclass(frozen=True, kw_only=True)
class CheckpointStatus:
    """One .pth file.

    file: its path relative to the folder of all checkpoints. step, total_steps: the progress that it records. parts:
    number of parameters of each network in it. models: folder or hub id of each model. problem: the reason why it
    cannot be read, or None; if there is a problem, the other fields are empty.
    """

    file: str
    size_bytes: int
    origin: str | None = None
    step: int | None = None
    total_steps: int | None = None
    parts: Mapping[str, int]
    models: Mapping[str, str]
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class ResultStatus:
    """The folder of one edit.

    scores: scores of the candidates, best first; None for a score that was not finite. problem: the reason why its
    record cannot be read, or that pictures are missing, or None. If the record cannot be read, the other fields are
    empty.
    """

    folder: str
    image: str | None = None
    caption: str | None = None
    prompt: str | None = None
    scores: tuple[float | None, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Status:
    """The status of a run.

    started: False if there are no files of a run. state: not started, running, interrupted, complete, or unknown (the
    run is on another host, or its files are too damaged). step, total_steps: the progress, or None if it is not known.
    models: folder or hub id of each model. run: the content of run.json. problems: one line each.
    """

    output_dir: str
    checkpoint_dir: str
    started: bool
    state: str
    step: int | None
    total_steps: int | None
    models: Mapping[str, str]
    run: RunRecord | None
    checkpoints: tuple[CheckpointStatus, ...]
    results: tuple[ResultStatus, ...]
    problems: tuple[str, ...]

    @property
    def percent(self) -> float | None:
        """Share of the steps that are complete, in percent; 100 if there are none to make."""
        if self.step is None or self.total_steps is None:
            return None
        return 100.0 * self.step / self.total_steps if self.total_steps else 100.0

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        percent = self.percent
        return asdict(self) | {"percent": None if percent is None else round(percent, 1)}


def read_status(output_dir: str | Path = "output", checkpoint_dir: str | Path = "checkpoints") -> Status:
    """The status of the latest run whose checkpoints and results are below these folders; both may be missing.

    Temporary files that killed runs left there are removed.
    """
    problems: list[str] = []
    root = Path(checkpoint_dir)
    for folder in (root, Path(output_dir)):
        for each in (folder, *_folders(folder, [])):
            remove_leftovers(each)
    pictures = _folders(root, problems)
    run = _latest_run([root, *pictures], problems)
    files = [
        *_checkpoint_files(root, []),
        *(path for folder in pictures for path in _checkpoint_files(folder, problems)),
    ]
    checkpoints = tuple(_checkpoint(path, root) for path in files)
    results = tuple(_result(path, Path(output_dir)) for path in _folders(Path(output_dir), problems) if _is_edit(path))
    problems += [f"{root / entry.file}: {entry.problem}" for entry in checkpoints if entry.problem]
    problems += [f"{Path(output_dir) / entry.folder}: {entry.problem}" for entry in results if entry.problem]
    readable = [entry for entry in checkpoints if entry.step is not None]
    newest = max(readable, key=lambda entry: (Path(entry.file).name == LAST, entry.step or 0), default=None)
    known = run or newest
    state = _state(run, newest, checkpoints, results, damaged=bool(problems))
    if run is not None and state == UNKNOWN:
        problems.append(f"{RUN_FILE} was written on {run.host}; from here it is not known if that process still runs")
    return Status(
        output_dir=str(output_dir),
        checkpoint_dir=str(checkpoint_dir),
        started=state != NOT_STARTED,
        state=state,
        step=known.step if known else None,
        total_steps=known.total_steps if known else None,
        models=dict(known.models) if known else {},
        run=run,
        checkpoints=checkpoints,
        results=results,
        problems=tuple(problems),
    )


def _latest_run(folders: list[Path], problems: list[str]) -> RunRecord | None:
    """The run in these folders whose run.json was updated last; None if there is no run.json."""
    runs = []
    for folder in folders:
        try:
            runs.append(read_run_file(folder))
        except MasklessError as error:
            problems.append(str(error))
    return max((run for run in runs if run is not None), key=lambda run: run.updated, default=None)


def _state(
    run: RunRecord | None,
    newest: CheckpointStatus | None,
    checkpoints: tuple[CheckpointStatus, ...],
    results: tuple[ResultStatus, ...],
    *,
    damaged: bool,
) -> str:
    """The state according to run.json and its process; without run.json, according to the checkpoints and results."""
    if run is not None:
        if run.state != RUNNING:
            return run.state
        alive = is_alive(run)
        return UNKNOWN if alive is None else RUNNING if alive else INTERRUPTED
    if newest is not None:
        return COMPLETE if newest.step == newest.total_steps else INTERRUPTED
    if any(entry.problem is None for entry in results) and not checkpoints:
        return COMPLETE
    return UNKNOWN if checkpoints or results or damaged else NOT_STARTED


def _checkpoint_files(folder: Path, problems: list[str]) -> list[Path]:
    """The checkpoints in a folder, last.pth first, then the others by name, without those that are being written."""
    try:
        files = [path for path in folder.iterdir() if path.suffix == ".pth" and not path.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"cannot list {folder}: {error.strerror or error}")
        return []
    return sorted(files, key=lambda path: (path.name != LAST, len(path.name), path.name))


def _checkpoint(path: Path, root: Path) -> CheckpointStatus:
    size, name = 0, path.relative_to(root).as_posix()
    try:
        size = path.stat().st_size
        return _readable_checkpoint(path, name, size)
    except MasklessError as error:
        problem = str(error).removeprefix(f"cannot read the checkpoint {path}: ").replace(f"{path} is", "it is")
    except UNREADABLE as error:
        problem = f"it is damaged ({type(error).__name__})"
    return CheckpointStatus(file=name, size_bytes=size, parts={}, models={}, problem=problem)


def _readable_checkpoint(path: Path, name: str, size: int) -> CheckpointStatus:
    """The status of a checkpoint that can be read; for any other it raises a MasklessError or one of UNREADABLE."""
    from maskless.records.checkpoints import checkpoint_parts, load_checkpoint

    # torch.load does not verify the checksums that torch.save writes.
    if size <= CHECKED_BYTES and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise MasklessError("it is damaged: its content does not match its checksums")
    checkpoint = load_checkpoint(path, mapped=True)
    done, total = (_count(checkpoint.progress.get(name)) for name in ("iteration", "total_iterations"))
    return CheckpointStatus(
        file=name,
        size_bytes=size,
        origin=checkpoint.origin,
        step=done if total is not None else None,
        total_steps=total if done is not None else None,
        parts={part.name: part.parameters for part in checkpoint_parts(checkpoint) if part.keys},
        models={str(name): str(source) for name, source in checkpoint.models.items()},
    )


def _folders(folder: Path, problems: list[str]) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"cannot list {folder}: {error.strerror or error}")
        return []


def _is_edit(folder: Path) -> bool:
    """Whether a folder is that of an edit, complete or not."""
    try:
        return (folder / RECORD).exists() or ((folder / "input_image.png").exists() and (folder / "results").is_dir())
    except OSError:  # no permission; reading its record will report the problem
        return True


def _result(folder: Path, output_dir: Path) -> ResultStatus:
    name = str(folder.relative_to(output_dir))
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
        request, candidates = record["request"], record["candidates"]
        scores = tuple(_score(candidates[index]["score"]) for index in record["order"])
        if not scores:
            raise ValueError("it has no candidates")
        missing = [entry["file"] for entry in candidates if not (folder / str(entry["file"])).is_file()]
        texts = {key: None if request[key] is None else str(request[key]) for key in ("image", "caption", "prompt")}
    except FileNotFoundError:
        return ResultStatus(folder=name, problem=f"it has no {RECORD}, so it is not complete")
    except UNREADABLE as error:
        return ResultStatus(
            folder=name, problem=f"its {RECORD} is damaged ({type(error).__name__}: {first_line(error)})"
        )
    problem = f"{len(missing)} of its pictures are missing, the first is {missing[0]}" if missing else None
    return ResultStatus(folder=name, scores=scores, problem=problem, **texts)


def _count(value: Any) -> int | None:
    """The value if it is a non-negative integer of 64 bits, else None."""
    return value if type(value) is int and 0 <= value < 2**63 else None


def _score(value: Any) -> float | None:
    return None if value is None else finite(float(value))
