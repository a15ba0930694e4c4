"""The options of what a run keeps on the disk."""

from __future__ import annotations

from dataclasses import dataclass

from maskless.data.choices import PICTURE_FORMATS
from maskless.data.options import option
from maskless.data.provenance import ProvenanceOptions


@dataclass(frozen=True, kw_only=True)
class KeepOptions(ProvenanceOptions):
    """The options of what a run keeps on the disk: its pictures and what they say, its checkpoints, its log.

    Raises:
        MasklessError: a value of the wrong type, out of range or not among the choices.
    """

    output_dir: str = option("output", group="Output", help="Folder that the pictures are written to.")
    image_id: str = option("0", group="Output", help="How the names of files begin.")
    draw_box: bool = option(False, group="Output", help="Also write the source with each box drawn on it.")
    format: str | None = option(
        None,
        group="Output",
        choices=PICTURE_FORMATS,
        help="Format of the edited pictures; jpeg and avif change pixels everywhere a little [default: the source's "
        "own if it keeps every pixel, else png].",
    )
    quality: int | None = option(
        None,
        group="Output",
        minimum=1,
        maximum=100,
        help="Quality of jpeg (default 95), avif (default 90) or webp, which keeps every pixel without it.",
    )
    overwrite: bool = option(
        False,
        group="Output",
        help="Write to the folder of the caption even if it holds another edit, in place of a numbered one.",
    )
    tensorboard: bool = option(
        False, group="Output", help="Write curves for TensorBoard to tensorboard/ in the output folder, step by step."
    )
    checkpoint_dir: str = option(
        "checkpoints", group="Checkpoints", help="Folder that checkpoints are written to, in a folder for each picture."
    )
    checkpoint_interval: int = option(
        10, group="Checkpoints", minimum=1, maximum=1_000_000, help="Number of epochs between two numbered checkpoints."
    )
    slim_checkpoint: bool = option(
        False, group="Checkpoints", help="Leave the weights of DINO, which are not trained, out of the checkpoints."
    )
