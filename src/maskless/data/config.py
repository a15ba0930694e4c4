"""Every option of an edit, in one flat frozen dataclass. The command line derives its flags from the fields here."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from maskless.data.errors import MasklessError

ANCHOR_SOURCES = ("attention", "text", "both")
ESTIMATORS = ("table", "straight-through")
RANKINGS = ("paper", "located")
DEVICES = ("auto", "cpu", "cuda", "mps")
TASKS = (
    "complete", "add", "remove", "replace", "extend", "repair", "style", "background", "texture", "creative", "generate"
)  # fmt: skip
NEED_NO_PROMPT = ("complete", "extend", "repair", "remove")
"""Tasks that can do without a prompt: what belongs there follows from the surroundings."""
DTYPES = ("auto", "float32", "bfloat16", "float16")
MEMORY = ("full", "balanced", "low", "minimal")
SCHEDULERS = (
    "ddim", "deis", "dpm++", "dpm++-karras", "dpm++-sde", "euler", "euler-a", "heun", "pndm", "unipc", "lcm", "tcd",
    "hyper-sd",
)  # fmt: skip


def _option(
    default: Any,
    *,
    group: str,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A field whose metadata is all that a flag needs: help text, group, inclusive range or choices."""
    metadata = {"group": group, "help": help, "minimum": minimum, "maximum": maximum, "choices": choices}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class EditConfig:
    """The options of an edit, checked on construction.

    A field whose type allows None is resolved once, when the editor knows its models: None means "what the model
    recommends, else the published number". Every field's `metadata` holds `help`, `group`, `minimum`, `maximum`
    (inclusive) and `choices`, from which the command line's flags are made.

    Raises:
        MasklessError: a value of the wrong type, out of range or not among the choices.
    """

    iterations: int = _option(
        10, group="Search", minimum=0, maximum=10_000, help="Iterations of AnchorNet for each epoch."
    )
    epochs: int = _option(1, group="Search", minimum=1, maximum=10_000, help="Passes of that many iterations.")
    lr: float = _option(5e-3, group="Search", minimum=1e-8, maximum=1.0, help="Learning rate of AnchorNet (Adam).")
    gradient_accumulation: int = _option(
        25, group="Search", minimum=1, maximum=100_000, help="Region edits between two updates of AnchorNet."
    )
    updates: int = _option(
        200,
        group="Search",
        minimum=1,
        maximum=100_000,
        help="Optimiser steps on the table of losses at each update; they cost microseconds beside an inpainting.",
    )
    estimator: str = _option("table", group="Search", choices=ESTIMATORS, help="Where AnchorNet's gradient comes from.")
    seed: int = _option(42, group="Search", minimum=0, maximum=2**63 - 1, help="Seed of the noise and of the search.")

    anchors: int = _option(9, group="Regions", minimum=1, maximum=256, help="Anchor points K.")
    anchor_source: str = _option(
        "both",
        group="Regions",
        choices=ANCHOR_SOURCES,
        help="Where anchors come from: DINO's attention (the paper), relevance to the caption, or both.",
    )
    max_window_size: int = _option(
        15, group="Regions", minimum=1, maximum=16, help="Largest half-size of a box, in 32nds of the shorter side."
    )
    min_window_size: int = _option(
        4, group="Regions", minimum=1, maximum=16, help="Smallest half-size of a box, in 32nds of the shorter side."
    )
    window_step: int = _option(
        2, group="Regions", minimum=1, maximum=16, help="Step between half-sizes, in 32nds of the shorter side."
    )

    fit_edges: bool = _option(
        True,
        group="Regions",
        help="Move the edges of the region that the caption names best to where it does so better; off is the paper.",
    )

    alpha: float = _option(1.0, group="Losses", minimum=0, maximum=1e6, help="Weight of the CLIP loss.")
    beta: float = _option(1.0, group="Losses", minimum=0, maximum=1e6, help="Weight of the directional loss.")
    gamma: float = _option(1.0, group="Losses", minimum=0, maximum=1e6, help="Weight of the structure loss.")
    delta: float = _option(
        4.0,
        group="Losses",
        minimum=0,
        maximum=1e6,
        help="Weight of the CLIP loss of the edited region alone; 0 is the paper.",
    )
    place: float = _option(
        2.0,
        group="Losses",
        minimum=0,
        maximum=1e6,
        help="Weight of the caption's place in the search, in spreads of the losses; 0 is the paper.",
    )
    views: int = _option(
        4, group="Losses", minimum=1, maximum=64, help="Augmented views of each candidate that CLIP looks at."
    )

    ranking: str = _option(
        "located",
        group="Ranking",
        choices=RANKINGS,
        help="Rule that orders the results: the region that the caption names, or the paper's similarities.",
    )
    ranking_alpha: float = _option(
        2.0, group="Ranking", minimum=0, maximum=1e6, help="Weight of text-to-image similarity in the paper's ranking."
    )
    ranking_beta: float = _option(
        1.0, group="Ranking", minimum=0, maximum=1e6, help="Weight of image-to-image similarity in the paper's ranking."
    )

    steps: int | None = _option(
        None, group="Inpainting", minimum=1, maximum=1000, help="Denoising steps [default: the model's, else 50]."
    )
    guidance_scale: float | None = _option(
        None,
        group="Inpainting",
        minimum=1.0,
        maximum=100.0,
        help="Classifier-free guidance; 1 is none [default: the model's, else 7.5].",
    )
    scheduler: str | None = _option(
        None,
        group="Inpainting",
        choices=SCHEDULERS,
        help="How the noise is taken away, step by step [default: the model's own].",
    )
    lora: str | None = _option(
        None,
        group="Inpainting",
        help="LoRA files added to the inpainting model: FILE[:SCALE], separated by commas.",
    )
    negative_prompt: str = _option("", group="Inpainting", help="What the edited region should not show.")
    context: float = _option(
        0.35,
        group="Inpainting",
        minimum=0.0,
        maximum=4.0,
        help="Surroundings that the inpainting sees, on each side of a box, as a fraction of its side.",
    )
    feather: float = _option(
        0.06,
        group="Inpainting",
        minimum=0.0,
        maximum=0.5,
        help="Width of the seam blended inside a region, as a fraction of its side.",
    )
    batch_size: int | None = _option(
        None, group="Inpainting", minimum=1, maximum=4096, help="Candidates inpainted at once [default: what fits]."
    )

    checkpoint_interval: int = _option(
        10, group="Checkpoints", minimum=1, maximum=1_000_000, help="Epochs between two numbered checkpoints."
    )
    slim_checkpoint: bool = _option(
        False, group="Checkpoints", help="Leave DINO's frozen weights out of the checkpoints."
    )

    device: str = _option("auto", group="Models", choices=DEVICES, help="Where the models run.")
    dtype: str = _option("auto", group="Models", choices=DTYPES, help="Number format of the inpainting model.")
    memory: str = _option(
        "full", group="Models", choices=MEMORY, help="How much of the models is on the device at once; lower is slower."
    )
    offline: bool = _option(False, group="Models", help="Never ask the hub; also by HF_HUB_OFFLINE=1.")
    allow_pickle: bool = _option(
        False, group="Models", help="Also read weights that are not safetensors; a pickle can hold code."
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            value = _checked(option.name, getattr(self, option.name), option.type, option.metadata)
            object.__setattr__(self, option.name, value)
        if self.min_window_size > self.max_window_size:
            raise MasklessError(
                f"min_window_size must be at most max_window_size ({self.max_window_size}), got {self.min_window_size}"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Half-sizes r of the box proposals, in 32nds of the image's shorter side; M = len(sizes). Method step 3.

        A window of 15 gives 4, 6, 8, 10, 12, 14: the published M = 6.
        """
        return tuple(range(self.min_window_size, self.max_window_size + 1, self.window_step))

    @property
    def total_iterations(self) -> int:
        """Iterations over all epochs."""
        return self.epochs * self.iterations

    def resolved(self, *, steps: int | None = None, guidance_scale: float | None = None) -> EditConfig:
        """The same options with every None but `batch_size` replaced: by the model's recommendation where one is
        given, else by the published number. A value the user chose always stays."""
        return replace(
            self,
            steps=self.steps if self.steps is not None else steps or 50,
            guidance_scale=self.guidance_scale if self.guidance_scale is not None else guidance_scale or 7.5,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name; `EditConfig(**config.to_dict())` is the same config again."""
        return asdict(self)


def _checked(name: str, value: Any, kind: Any, metadata: Any) -> Any:
    """The value in its field's own type, or a MasklessError that names the field, what it takes and what came."""
    kind = str(kind)
    if value is None and "None" in kind:
        return None
    base = kind.split(" ")[0]
    if base == "bool":
        good = isinstance(value, bool)
    elif base == "int":
        good = isinstance(value, int) and not isinstance(value, bool)
    elif base == "float":
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        value = float(value) if good else value
    else:
        good = isinstance(value, str)
    if not good:
        raise MasklessError(f"{name} must be {_article(base)}, got {value!r}")
    if metadata["choices"] and value not in metadata["choices"]:
        raise MasklessError(f"{name} must be one of {', '.join(metadata['choices'])}, got {value!r}")
    low, high = metadata["minimum"], metadata["maximum"]
    if (low is not None and value < low) or (high is not None and value > high):
        raise MasklessError(f"{name} must be from {low:g} to {high:g}, got {value:g}")
    return value


def _article(base: str) -> str:
    return {"int": "a whole number", "float": "a finite number", "bool": "true or false"}.get(base, "a text")
