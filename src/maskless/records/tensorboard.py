"""Curves for TensorBoard. The package tensorboard is an optional extra, so it is imported only when it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from maskless.data.errors import MasklessError
from maskless.data.keep_options import KeepOptions
from maskless.data.result import StepRecord
from maskless.engine.run import Run
from maskless.records.names import safe_name

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"


def summary_writer() -> type[SummaryWriter]:
    """The class SummaryWriter, which writes logs.

    Raises:
        MasklessError: tensorboard is not installed; the message says how to install it.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MasklessError(
            "--tensorboard needs the package tensorboard; install it with: pip install 'maskless[tensorboard]'"
        ) from error
    return SummaryWriter


class TensorBoardLog:
    """The log of one run, in its own folder under {output_dir}/tensorboard/; a context manager that closes the log."""

    def __init__(self, output_dir: str | Path, *, image_id: str, caption: str, sizes: Sequence[int]) -> None:
        """sizes: half-sizes of the boxes in 32nds of the shorter side, for the names of the probabilities' curves."""
        writer = summary_writer()
        name = f"{safe_name(image_id, empty='image')}_{safe_name(caption, empty='no caption')}"
        self.folder = Path(output_dir) / FOLDER / f"{name} {datetime.now():%Y-%m-%d %H.%M.%S}"
        self._sizes = sizes
        self._writer = writer(str(self.folder), flush_secs=5)

    @classmethod
    def of(cls, run: Run, keep: KeepOptions) -> TensorBoardLog:
        """The log of a run, in the folder of its outputs."""
        request = run.request
        return cls(keep.output_dir, image_id=keep.image_id, caption=request.caption, sizes=run.used.sizes)

    def after(self, step: StepRecord, probabilities: Float[Tensor, "K M"] | None) -> None:
        """Log a complete step. probabilities: pi(m|k) after this step; None if nothing is learned."""
        values = step.to_dict()
        for name in ("loss", "expected_loss", "inpaintings"):
            if name in values and step.step:
                self._writer.add_scalar(name, values[name], step.step)
        rows = probabilities.tolist() if probabilities is not None and step.step else []
        for anchor, row in enumerate(rows):
            for size, probability in zip(self._sizes, row, strict=True):
                self._writer.add_scalar(f"probability/anchor_{anchor}/size_{size}", probability, step.step)

    def finished(self, overview: Path, iteration: int) -> None:
        """Log the overview of the finished edit. iteration: the number of the last step."""
        from PIL import Image

        with Image.open(overview) as image:
            self._writer.add_image("overview", np.asarray(image.convert("RGB")), iteration, dataformats="HWC")

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(self, *_error: object) -> None:
        self._writer.close()
