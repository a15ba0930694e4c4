"""What the suites of `maskless evaluate` share: their options, and the editor, judge and ledger that they measure
with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.engine.editor import Editor
from maskless.evaluation.measures.ledger import Ledger, fingerprint
from maskless.evaluation.measures.rows import Row
from maskless.storybook.critic import Critic
from maskless.storybook.judge import Judge

Progress = Callable[[int, int], None]
"""Called with the number of completed measurements and the total number."""
Note = Callable[[str], None]
"""Called with a line of information for the reader of the figures."""


def _nothing(*_given: object) -> None:
    """The default for `progress` and `note`, which ignores its arguments."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SuiteOptions:
    """What a suite may be given. Each suite names those that it takes in its constant `TAKES`.

    split: which scenes of the drawn world: train, validation or held-out. requests: the kind of requests, one of
    `jobs.REQUESTS`. limit: how many requests; the suite's own
    number where None. seed_offset: the first scene of the split, or the first request of a folder. models: the models
    that edit, "storybook" (bundled) or a folder.
    methods: which methods, tasks, groups or policies to measure; all where None. steps, iterations, anchors: fields of
    EditConfig for all methods; the defaults where None. seeds: how many noises of each region.
    folder: a benchmark's requests. results: another tool's pictures of them, measured in place of edits.
    clip, dino, lpips: the networks that measure, by folder.
    ledger: a file of what was measured, to resume from and to add to. page: a file for one page of pictures.
    sheets: a folder for pictures or plots. progress, note: called during the measurement.
    """

    split: str = "held-out"
    requests: str = "plain"
    limit: int | None = None
    seed_offset: int = 0
    models: str = "storybook"
    methods: Sequence[str] | None = None
    steps: int | None = None
    iterations: int | None = None
    anchors: int | None = None
    seeds: int | None = None
    folder: Path | None = None
    results: Path | None = None
    clip: str | None = None
    dino: str | None = None
    lpips: Path | None = None
    ledger: Path | None = None
    page: Path | None = None
    sheets: Path | None = None
    progress: Progress = _nothing
    note: Note = _nothing

    def edit_config(self, *names: str) -> EditConfig:
        """The options of an edit, with those of the named fields that are not None.

        Raises:
            MasklessError: a value is out of range.
        """
        given = {name: getattr(self, name) for name in names}
        return EditConfig(**{name: value for name, value in given.items() if value is not None})


class Suite(Protocol):
    """A module of maskless.evaluation.suites. TAKES: fields of SuiteOptions that its `run` reads."""

    TAKES: tuple[str, ...]

    def run(self, options: SuiteOptions) -> list[Row]:
        """Measure, and return one row for each figure."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Workbench:
    """The editor that is measured, the judge and critic of its pictures, and the ledger of what was measured so far."""

    editor: Editor
    judge: Judge
    critic: Critic
    ledger: Ledger


def prepare(
    options: SuiteOptions, suite: str, code: Sequence[str | Path], config: EditConfig | None = None
) -> Workbench:
    """Load everything that a suite on drawn scenes needs.

    code: the source files that the figures depend on, for the ledger's fingerprint.

    Raises:
        MasklessError: models or judge cannot be loaded.
    """
    editor = Editor.from_pretrained(options.models, config=config)
    folder, of_critic = judge_folder(options.models), critic_folder(options.models)
    mark = fingerprint(editor.models, editor.config, code, judge=folder, critic=of_critic)
    return Workbench(
        editor=editor,
        judge=Judge.from_pretrained(folder),
        critic=Critic.from_pretrained(of_critic),
        ledger=Ledger(options.ledger, suite=suite, fingerprint=mark),
    )


def judge_folder(models: str) -> Path:
    """The folder of the judge that belongs to a set of models, "storybook" (bundled) or a folder."""
    return (_bundled() if models == "storybook" else Path(models)) / "judge"


def critic_folder(models: str) -> Path:
    """The folder of the critic: that of a set of models, or the bundled one where they have none."""
    own = Path(models) / "critic"
    return own if models != "storybook" and own.is_dir() else _bundled() / "critic"


def _bundled() -> Path:
    return Path(str(resources.files("maskless"))) / "assets" / "storybook"


def chosen(names: Sequence[str] | None, known: Iterable[str], *, what: str) -> list[str]:
    """The given names in the order of the known ones; all known names if None.

    what: what the names stand for, such as "the tasks"; used in the error message.

    Raises:
        MasklessError: a name is unknown, or none is given.
    """
    every = list(known)
    unknown = [name for name in names or () if name not in every]
    if unknown or names is not None and not names:
        raise MasklessError(f"{what} must be among {', '.join(every)}, got {', '.join(unknown) or 'none'}")
    return [name for name in every if names is None or name in names]
