"""Curves for TensorBoard. The package tensorboard is an extra; it is imported here, where it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from maskless.data.errors import MasklessError
from maskless.data.result import StepRecord
from maskless.records.names import safe_name

FOLDER = "tensorboard"


def summary_writer() -> Any:
    """The class that writes logs.

    Raises:
        MasklessError: tensorboard is not installed; it says how to install it.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MasklessError(
            "--tensorboard needs the package tensorboard; install it with: pip install 'maskless[tensorboard]'"
        ) from error
    return SummaryWriter


class TensorBoardLog:
    """Logs one run under {output_dir}/tensorboard/, in a folder of its own; a context manager that closes it."""

    def __init__(self, output_dir: str | Path, *, image_id: str, caption: str, sizes: Sequence[int]) -> None:
        """sizes: half-sizes of the boxes in 32nds of the shorter side, which name the probabilities."""
        writer = summary_writer()
        name = f"{safe_name(image_id, empty='image')}_{safe_name(caption, empty='no caption')}"
        self.folder = Path(output_dir) / FOLDER / f"{name} {datetime.now():%Y-%m-%d %H.%M.%S}"
        self._sizes = sizes
        self._writer = writer(str(self.folder), flush_secs=5)

    def after(self, record: StepRecord, probabilities: Float[Tensor, "K M"] | None) -> None:
        """Log an iteration that is complete. probabilities: pi(m|k) after it; None where nothing is learned."""
        for name in ("loss", "expected_loss", "inpaintings"):
            self._writer.add_scalar(name, getattr(record, name), record.iteration)
        for anchor, row in enumerate([] if probabilities is None else probabilities.tolist()):
            for size, probability in zip(self._sizes, row, strict=True):
                self._writer.add_scalar(f"probability/anchor_{anchor}/size_{size}", probability, record.iteration)

    def finished(self, overview: Path, iteration: int) -> None:
        """Log the picture of the whole edit."""
        from PIL import Image

        with Image.open(overview) as image:
            self._writer.add_image("overview", np.asarray(image.convert("RGB")), iteration, dataformats="HWC")

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(self, *_error: object) -> None:
        self._writer.close()
