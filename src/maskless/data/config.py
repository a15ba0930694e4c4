"""The options of one edit; model_options.py has those of loaded models, keep_options.py those of what a run keeps.

They are apart because they hold for different times. Each is one flat frozen dataclass that checks its values, and the
flags of the command line derive from its fields.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from maskless.data.choices import (
    ANCHOR_SOURCES,
    AS_IN_THE_PAPER,
    ESTIMATORS,
    LEARNING_SEARCHES,
    OURS,
    PUBLISHED_GUIDANCE,
    PUBLISHED_STEPS,
    RANKINGS,
    SEARCHES,
)
from maskless.data.errors import MasklessError
from maskless.data.options import OptionValue, check_all, option, require_unicode


@dataclass(frozen=True, kw_only=True)
class EditConfig:
    """The options of an edit, checked on construction.

    A field whose type allows None is resolved once, when the editor knows its models: None means "what the search or
    the model recommends, else the published number". Every field's `metadata` holds `help`, `group`, `minimum`,
    `maximum` (inclusive) and `choices`, from which the command line's flags are made.

    Raises:
        MasklessError: a value of the wrong type, out of range or not among the choices.
    """

    search: str = option(
        "placed",
        group="Search",
        choices=SEARCHES,
        help="How the region is found: placed edits the few regions that fit the caption best; learned trains "
        "AnchorNet on the edits of about forty regions; paper does so without what this package adds; exhaustive "
        "edits all regions.",
    )
    budget: int = option(
        3,
        group="Search",
        minimum=1,
        maximum=1000,
        help="How many regions the placed search edits and compares if the first is not clearly the right one.",
    )
    iterations: int = option(
        10,
        group="Search",
        minimum=0,
        maximum=10_000,
        help="How many times each anchor tries a region, in every epoch of the learned search.",
    )
    epochs: int = option(
        1,
        group="Search",
        minimum=1,
        maximum=10_000,
        help="How often the iterations are repeated; a checkpoint follows each epoch.",
    )
    lr: float = option(
        5e-3, group="Search", minimum=1e-8, maximum=1.0, help="Learning rate of AnchorNet, for the optimiser Adam."
    )
    gradient_accumulation: int = option(
        25,
        group="Search",
        minimum=1,
        maximum=100_000,
        help="How many edited regions are collected before AnchorNet is updated.",
    )
    updates: int = option(
        200,
        group="Search",
        minimum=1,
        maximum=100_000,
        help="Optimiser steps in each update of AnchorNet; a step costs about two milliseconds.",
    )
    estimator: str = option(
        "table",
        group="Search",
        choices=ESTIMATORS,
        help="How AnchorNet's gradient is computed: from the table of all losses so far, or as in the paper.",
    )
    seed: int = option(
        42,
        group="Search",
        minimum=0,
        maximum=2**63 - 1,
        random=True,
        help="Seed of all random choices; the same seed gives the same pictures. The word random chooses one, which is "
        "recorded.",
    )

    anchors: int = option(
        9, group="Regions", minimum=1, maximum=256, help="Number of points that boxes are tried around."
    )
    anchor_source: str | None = option(
        None,
        group="Regions",
        choices=ANCHOR_SOURCES,
        help="How the anchors are found: by DINO's attention, by the caption, or by both "
        "[default: both; attention with --search paper].",
    )
    max_window_size: int = option(
        15,
        group="Regions",
        minimum=1,
        maximum=16,
        help="Half the side of the largest box, in 32nds of the picture's shorter side.",
    )
    min_window_size: int = option(
        4,
        group="Regions",
        minimum=1,
        maximum=16,
        help="Half the side of the smallest box, in 32nds of the picture's shorter side.",
    )
    window_step: int = option(
        2,
        group="Regions",
        minimum=1,
        maximum=16,
        help="Difference between two half-sides, in 32nds of the picture's shorter side.",
    )
    fit_edges: bool | None = option(
        None,
        group="Regions",
        help="Fit the edges of the best box to the object that the caption names "
        "[default: yes; no with --search paper, which keeps all boxes square].",
    )

    alpha: float = option(
        1.0,
        group="Losses",
        minimum=0,
        maximum=1e6,
        help="Weight of the loss that measures how well the picture shows the prompt.",
    )
    beta: float = option(
        1.0,
        group="Losses",
        minimum=0,
        maximum=1e6,
        help="Weight of the loss that compares the change of the picture with the change of the text.",
    )
    gamma: float = option(
        1.0,
        group="Losses",
        minimum=0,
        maximum=1e6,
        help="Weight of the loss that measures how much the layout changed.",
    )
    delta: float | None = option(
        None,
        group="Losses",
        minimum=0,
        maximum=1e6,
        help="Weight of the loss that measures how well the edited region alone shows the prompt "
        "[default: 4; 0 with --search paper].",
    )
    location_weight: float | None = option(
        None,
        group="Losses",
        minimum=0,
        maximum=1e6,
        help="Penalty for regions that do not match the caption, in standard deviations of the losses "
        "[default: 2; 0 with --search paper].",
    )
    views: int = option(
        4,
        group="Losses",
        minimum=1,
        maximum=64,
        help="How many crops and mirror images of each candidate CLIP looks at; with --search placed, where the loss "
        "chooses nothing, it looks at one.",
    )

    ranking: str | None = option(
        None,
        group="Ranking",
        choices=RANKINGS,
        help="How results are ranked: by what their edits show (verified), by the region that the caption names "
        "(located), or by the similarities of the paper [default: verified with --search placed, else located; paper "
        "with --search paper].",
    )
    ranking_alpha: float = option(
        2.0,
        group="Ranking",
        minimum=0,
        maximum=1e6,
        help="Weight of the similarity to the prompt in the ranking of the paper.",
    )
    ranking_beta: float = option(
        1.0,
        group="Ranking",
        minimum=0,
        maximum=1e6,
        help="Weight of the similarity to the source picture in the ranking of the paper.",
    )

    steps: int | None = option(
        None, group="Inpainting", minimum=1, maximum=1000,
        help="Denoising steps of each inpainting [default: what the model recommends, else 50].",
    )  # fmt: skip
    guidance_scale: float | None = option(
        None,
        group="Inpainting",
        minimum=1.0,
        maximum=100.0,
        help="How strongly the prompt guides the inpainting; 1 is no guidance [default: what the model "
        "recommends, else 7.5].",
    )
    strength: float = option(
        1.0,
        group="Inpainting",
        minimum=0.01,
        maximum=1.0,
        help="The largest share of the noise that drawing starts from: 1 draws the region afresh, less keeps the "
        "layout of what is there. style, texture and repair take less by themselves.",
    )
    negative_prompt: str = option("", group="Inpainting", help="What the edited region should not show.")
    context: float = option(
        0.35,
        group="Inpainting",
        minimum=0.0,
        maximum=4.0,
        help="How much of the surroundings the inpainting model gets on each side of a box, as a fraction of its side.",
    )
    feather: float = option(
        0.06, group="Inpainting", minimum=0.0, maximum=0.5,
        help="Width of the blended seam inside a region, as a fraction of its side.",
    )  # fmt: skip
    keep_unchanged: bool | None = option(
        None, group="Inpainting",
        help="Keep those pixels of a region where the drawing of an object shows what was there before, such as the "
        "background around it [default: what the model recommends, else no; no with --search paper].",
    )  # fmt: skip
    whole_window: bool = option(
        False, group="Inpainting",
        help="Let a model that takes the picture (Kontext, Qwen-Image-Edit …) redraw its whole window; align that.",
    )  # fmt: skip
    align: bool = option(True, group="Inpainting", help="Align what an editor redraws with the picture before pasting.")
    align_limit: float = option(
        0.5, group="Inpainting", minimum=0.0, maximum=1.0,
        help="How much of the structure outside the region may differ then, 0 to 1; candidates above rank last.",
    )  # fmt: skip
    each_part: bool = option(
        False,
        group="Inpainting",
        help="Inpaint the parts of a region each in a crop of its own if they lie far apart; every part costs as many "
        "inpaintings as one region.",
    )
    keep_alpha: bool = option(
        False,
        group="Inpainting",
        help="Leave the transparency of the picture as it is. By default, what an edit paints becomes opaque; style "
        "and texture always leave it.",
    )
    batch_size: int | None = option(
        None,
        group="Inpainting",
        minimum=1,
        maximum=4096,
        help="How many candidates are inpainted at once [default: as many as fit the memory].",
    )

    def __post_init__(self) -> None:
        check_all(self)
        require_unicode("negative_prompt", self.negative_prompt)
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

    def resolved(
        self,
        *,
        steps: int | None = None,
        guidance_scale: float | None = None,
        keep_unchanged: bool = False,
        batch_size: int = 1,
        seed: int | None = None,
    ) -> ResolvedConfig:
        """These options with no None among them.

        Args:
            steps, guidance_scale: what the model recommends; the published number where it recommends nothing.
            keep_unchanged: what the model recommends; the paper's search keeps nothing inside a region.
            batch_size: how many candidates fit the memory. seed: the request's own; None leaves the config's.
        """
        chosen = asdict(self)
        defaults = AS_IN_THE_PAPER if self.search == "paper" else OURS
        if self.search == "placed":
            defaults = {**defaults, "ranking": "verified"}
        for name, value in defaults.items():
            chosen[name] = value if chosen[name] is None else chosen[name]
        chosen["steps"] = self.steps if self.steps is not None else steps or PUBLISHED_STEPS
        if self.guidance_scale is None:
            chosen["guidance_scale"] = guidance_scale or PUBLISHED_GUIDANCE
        if chosen["keep_unchanged"] is None:
            chosen["keep_unchanged"] = keep_unchanged and self.search != "paper"
        chosen["batch_size"] = self.batch_size or batch_size
        chosen["seed"] = self.seed if seed is None else seed
        return ResolvedConfig(**chosen)

    def require_learning(self, what: str) -> None:
        """Check that the search trains an AnchorNet. what: the option that needs it, for the message.

        Raises:
            MasklessError: it does not.
        """
        if self.search not in LEARNING_SEARCHES:
            raise MasklessError(
                f"{what} needs a search that trains AnchorNet (--search {' or '.join(LEARNING_SEARCHES)}), "
                f"got {self.search}"
            )

    def to_dict(self) -> dict[str, OptionValue]:
        """Plain values by field name; `EditConfig(**config.to_dict())` is the same config again."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig(EditConfig):
    """The options of an edit with every choice made: the user's own, else the search's or the model's, else the
    published one."""

    anchor_source: str
    fit_edges: bool
    delta: float
    location_weight: float
    ranking: str
    steps: int
    guidance_scale: float
    keep_unchanged: bool
    batch_size: int

    def differences(self, other: ResolvedConfig) -> dict[str, OptionValue]:
        """The options of `other` that differ from these, by name."""
        mine = asdict(self)
        return {name: value for name, value in asdict(other).items() if value != mine[name]}
