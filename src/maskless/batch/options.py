"""The options of a batch, beside those of its edits. The flags of `maskless batch` derive from the fields here."""

from __future__ import annotations

from dataclasses import dataclass

from maskless.data.errors import require
from maskless.data.options import check_all, option

ENGINES = ("local", "ray")
BATCH = "Batch"


@dataclass(frozen=True, kw_only=True)
class ManifestOptions:
    """How a manifest is read, and what its rows are edited with.

    Raises:
        MasklessError: a value of the wrong type, out of range or not among the choices.
    """

    image_dir: str | None = option(
        None, group=BATCH, help="Folder or URL of the pictures [default: beside the manifest, or images/ there]."
    )
    skip_invalid: bool = option(False, group=BATCH, help="Leave out bad rows of the manifest in place of stopping.")
    threads: int = option(
        1,
        group=BATCH,
        minimum=1,
        maximum=4096,
        help="CPU threads of each worker. The last bits of a result depend on it, so choose the same everywhere.",
    )

    def __post_init__(self) -> None:
        check_all(self)


@dataclass(frozen=True, kw_only=True)
class BatchOptions(ManifestOptions):
    """How a batch is run; of these options only share_anchornet changes its results.

    Raises:
        MasklessError: a value of the wrong type, out of range or not among the choices.
    """

    engine: str = option(
        "local", group=BATCH, choices=ENGINES, help="Edit in this process, or on the workers of a Ray cluster."
    )
    workers: int | None = option(
        None,
        group=BATCH,
        minimum=1,
        maximum=100_000,
        help="Workers of the engine ray [default: one for each GPU; without a GPU one for each machine].",
    )
    address: str | None = option(
        None, group=BATCH, help="Ray cluster to use, such as auto [default: Ray is started on this machine]."
    )
    shard: str | None = option(
        None, group=BATCH, help="Do each n-th row only: i/n with i from 0 to n - 1 [default: that of torchrun, or all]."
    )
    resume: bool = option(False, group=BATCH, help="Do what is missing in the output folder.")
    retry_failed: bool = option(False, group=BATCH, help="As --resume, and try the rows again that failed before.")
    row_timeout: float | None = option(
        None, group=BATCH, minimum=0.001, maximum=1e9, help="Seconds that a row may take [default: no limit]."
    )
    share_anchornet: bool = option(
        False, group=BATCH, help="First train one AnchorNet on all rows, and start every search from it."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.engine == "ray" or (self.workers is None and self.address is None),
            "workers and address belong to --engine ray; to use several processes without Ray, start shards",
        )
        require(
            not self.share_anchornet or (self.engine == "local" and self.shard is None),
            "share_anchornet needs one local process; otherwise run maskless train first, and give its file to "
            "--load-checkpoint",
        )
