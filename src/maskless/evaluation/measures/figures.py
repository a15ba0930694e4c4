"""The table of all figures that the suites report: each is named here once.

The constants are names: keys of what a ledger keeps, and the column `metric` of a row. `FIGURES` says of each name what
it means and which direction is better, and its order is the order of the rows of a suite. To add a figure, name it
here and compute it where the others of its suite are computed (for methods that edit, `measure` in methods/trials.py).

Only the parts of an edit's success have no entry: each kind of edit names its own, in requests/jobs.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower"]
ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure. meaning: what it is, for a reader. better: which direction is better, None where neither is."""

    name: str
    meaning: str
    better: Better | None = None


FIGURES: dict[str, Figure] = {}
"""Every figure by its name."""


def heading(metric: str) -> str:
    """A metric's name with an arrow in the direction that is better; the name alone where the table lacks it."""
    figure = FIGURES.get(metric)
    return metric if figure is None else metric + ARROWS[figure.better]


def _named(name: str, meaning: str, better: Better | None = None) -> str:
    """Add a figure to the table, and return its name."""
    assert name not in FIGURES, f"two figures are called {name!r}"
    FIGURES[name] = Figure(name=name, meaning=meaning, better=better)
    return name


# An edit of a drawn scene, judged (storybook, ablations, tasks).
SUCCESS = _named("success", "the judge sees the edit done and everything else still there", "higher")
SUCCESS_DRAWN_RIGHT = _named(
    "success with objects drawn right", "success, and the critic calls each new object a right drawing", "higher"
)
REGION_HIT = _named("region hit", "the middle of the edited region lies in the true box", "higher")
REGION_IOU = _named("region IoU", "intersection over union of the edited region and the true one", "higher")
REGION_PRECISION = _named("region precision", "share of the edited region that is in the mask", "higher")
REGION_RECALL = _named("region recall", "share of the mask that is in the edited region", "higher")
REGION_SIZE = _named("region size", "share of the picture that the edited region covers")
IDENTICAL_OUTSIDE = _named("identical outside", "share of unchanged pixels outside the edited region", "higher")
UNTOUCHED_IDENTICAL = _named("untouched pixels identical", "no pixel outside the edited part has changed", "higher")

# The background. Storybook scores it as PIE-Bench does; pie-bench gives those figures under PIE-Bench's own names.
BACKGROUND_PSNR = _named(
    "background PSNR dB",
    "peak signal-to-noise ratio of the background: in storybook with the edited part black in both pictures, in "
    "pie-bench of the background's own pixels",
    "higher",
)
BACKGROUND_SSIM = _named("background SSIM", "structural similarity of the background, measured likewise", "higher")
BACKGROUND_MSE = _named("background MSE", "mean squared error of the background, measured likewise", "lower")
BACKGROUND_IDENTICAL = _named("background identical", "share of unchanged pixels outside the mask", "higher")
BACKGROUND_LPIPS = _named("background LPIPS", "perceptual distance of the background's own pixels", "lower")

# pie-bench: how the whole picture moved, measured outside the mask (docs/alignment.md).
OUTSIDE_SHIFT = _named("outside shift px", "how far the background moved at the middle of the picture", "lower")
OUTSIDE_ZOOM = _named("outside zoom %", "how much larger or smaller the background became, without its sign", "lower")
OUTSIDE_RESIDUAL = _named(
    "outside residual", "share of the background's structure that differs after the best alignment, 0 to 1", "lower"
)
OUTSIDE_ALIGNED = _named("outside aligned", "the background could be aligned; others have no shift and zoom", "higher")

# What CLIP and DINO see.
CLIP_WHOLE = _named("CLIP whole", "cosine of the edited picture and the prompt", "higher")
CLIP_EDITED = _named("CLIP edited", "cosine of the picture and the prompt, all but the true box black", "higher")
CLIP_PART = _named("CLIP of the edited part", "cosine of the masked part, cropped, and the prompt", "higher")
CLIP_DIRECTIONAL = _named(
    "CLIP directional", "cosine of the change of the picture and the change of the text", "higher"
)
STRUCTURE_DISTANCE = _named("structure distance", "change of the similarities among DINO's keys", "lower")

# The losses of the region that was picked.
CLIP_LOSS = _named("CLIP loss", "L_clip of the region that was picked", "lower")
DIRECTIONAL_LOSS = _named("directional loss", "L_dir of the region that was picked", "lower")
STRUCTURE_LOSS = _named("structure loss", "L_str of the region that was picked", "lower")
LOCAL_LOSS = _named("local loss", "L_local of the region that was picked", "lower")

# What it cost.
SECONDS = _named("seconds", "time from the request to the picture", "lower")
UNET_FORWARDS = _named("UNet forwards", "calls of the denoiser for one picture; guidance counts twice", "lower")
INPAINTINGS = _named("inpaintings", "regions that were inpainted", "lower")
PEAK_MEMORY = _named("peak memory MB", "most memory in use at any time", "lower")

# pie-bench: an edit of a benchmark's request.
REFUSED = _named("refused", "the editor found nothing to edit", "lower")
IDENTICAL_OUTSIDE_REGION = _named(
    "identical outside the region", "share of unchanged pixels outside the region that the editor chose", "higher"
)

# pie-bench: PIE-Bench's own figures, under its names (protocols.py says what is peculiar to them).
PSNR_UNEDIT_PART = _named("psnr_unedit_part", "PIE-Bench's PSNR in dB, the edited part black", "higher")
MSE_UNEDIT_PART = _named("mse_unedit_part", "PIE-Bench's mean squared error, the edited part black", "lower")
SSIM_UNEDIT_PART = _named("ssim_unedit_part", "PIE-Bench's structural similarity, the edited part black", "higher")
LPIPS_UNEDIT_PART = _named("lpips_unedit_part", "PIE-Bench's LPIPS, the edited part black", "lower")
PIE_STRUCTURE_DISTANCE = _named("structure_distance", "PIE-Bench's structure distance, of pixels of 0 to 255", "lower")
PIE_CLIP = _named("clip_similarity_target_image", "PIE-Bench's CLIP score, 0 to 100", "higher")
PIE_CLIP_PART = _named(
    "clip_similarity_target_image_edit_part",
    "PIE-Bench's CLIP score, 0 to 100, all but the edited part black",
    "higher",
)

# pie-bench: MagicBrush's distances from the picture that was wanted.
TARGET_L1 = _named("L1", "mean absolute difference from the target picture", "lower")
TARGET_L2 = _named("L2", "mean squared difference from the target picture", "lower")
TARGET_CLIP = _named("CLIP-I", "cosine of CLIP's embeddings of the result and the target picture", "higher")
TARGET_DINO = _named("DINO", "cosine of DINO's embeddings of the result and the target picture", "higher")

# regret: what a policy picked.
REGRET = _named("regret", "loss of the picked region minus that of the best proposal", "lower")
REGRET_IN_DEVIATIONS = _named(
    "regret in standard deviations", "regret in standard deviations of the table's losses", "lower"
)
BEST = _named("best", "the picked region has the least loss of all proposals", "higher")
AMONG_THE_BEST_3 = _named("among the best 3", "the picked region is among the three of least loss", "higher")
JUDGED_REGRET = _named(
    "regret under the judge", "success of the best proposal minus that of the picked region", "lower"
)

# regret: the tables themselves.
PREVIEW_SPEARMAN = _named(
    "Spearman with the finished losses", "rank correlation of these losses and those of finished edits", "higher"
)
LOSS_DEVIATION = _named("standard deviation of the losses", "over the proposals of one request")
RANDOM_SUCCESS = _named("success of a random region", "mean success of all proposals")
BEST_SUCCESS = _named("success of the best by the judge", "largest success of any proposal")
LEAST_LOSS_SUCCESS = _named("success of the best by the loss", "success of the proposal of least loss", "higher")
JUDGE_SPEARMAN = _named(
    "Spearman of lower loss and the judge's score", "rank correlation over the proposals of one request", "higher"
)
VARIANCE_OF_REGIONS = _named("variance due to region", "share of the losses' variance")
VARIANCE_OF_NOISE = _named("variance due to noise", "share of the losses' variance")
VARIANCE_OF_REST = _named("variance due to region x noise and the rest", "share of the losses' variance")

# search-study.
FIRST_ANCHOR = _named("first anchor on the object", "the first anchor lies in the named object's box", "higher")
ANY_ANCHOR = _named("any anchor on the object", "at least one anchor lies in the named object's box", "higher")
CLEAN_PROPOSAL = _named(
    "a clean box among the proposals", "some proposal covers the named object and little of the others", "higher"
)
BEST_PROPOSAL_IOU = _named("best IoU among the proposals", "with the named object's box", "higher")
PICK_IOU = _named("IoU of the best with the object", "of the region that is ranked first", "higher")
TRUE_EDIT_CLOSER = _named(
    "true edit is closer", "the picture with the prompt's object is closer to the prompt than with another", "higher"
)
PICK_CLEAN = _named(
    "the best is clean", "the region that is ranked first covers the named object and little of the others", "higher"
)
CAPTION_FOUND = _named("caption found", "some region is more similar to the caption than to generic texts")
LOSS_FELL = _named("expected loss fell", "AnchorNet's expected loss is lower after learning than before", "higher")
LOSS_FALL = _named("fall of the expected loss", "before learning minus after it", "higher")
GAP_CLOSED = _named(
    "share of the gap closed", "of the way from a uniform policy to the best size of every anchor", "higher"
)
BEST_SIZES = _named("anchors that take their best size", "share of the anchors", "higher")
LARGEST_PROBABILITY = _named("largest probability, mean over anchors", "how decided the policy is after learning")
SECONDS_OF_LEARNING = _named("seconds beside the inpainting", "time of an edit without its inpaintings", "lower")

# models: the gates of the bundled networks.
AUTOENCODER_PSNR = _named("PSNR dB", "of a picture through the autoencoder and back", "higher")
CROP_CLASSIFIED = _named("crop: kind and colour", "CLIP names both right, of one object's crop", "higher")
CAPTION_RETRIEVED = _named("scene to caption R@1 of 100", "CLIP finds a scene's own caption first", "higher")
EDIT_PREFERRED = _named("edited scene preferred", "CLIP prefers the edited scene for the prompt", "higher")
ANCHORS_ON_OBJECTS = _named("anchors on an object", "share of the nine anchors by attention", "higher")
OBJECTS_RIGHT = _named("objects right", "the judge sees an object of that kind and colour there", "higher")
OBJECTS_TOO_MANY = _named("objects too many a scene", "objects that the judge sees and that are not there", "lower")
BACKGROUND_RIGHT = _named("background right", "the judge names the scene's background", "higher")
STYLE_RIGHT = _named("style right", "the judge names the scene's style", "higher")
PROMPT_SEEN = _named("prompted kind and colour seen", "the judge sees what was inpainted", "higher")
EMPTIED = _named("emptied box seen empty", "the judge sees no object where one was removed", "higher")
OTHERS_SEEN = _named(
    "other objects still seen", "the judge sees every other object that the box leaves whole", "higher"
)

# crispness: a drawn box compared with what the renderer draws there.
EDGES = _named("edges relative to the truth", "strongest 5 % of the gradients in the box, as a multiple of the truth's")
BOX_BACKGROUND = _named(
    "background difference of 255", "mean absolute difference from the truth in the box, away from the object", "lower"
)
NEW_OBJECT_SEEN = _named("requested object seen", "the judge sees its kind and colour in the box", "higher")
NEW_OBJECT_RIGHT = _named(
    "requested object drawn right",
    "the critic, which knows lumps too, takes it for a right drawing of its kind",
    "higher",
)
PARTS_FOUND = _named("parts found", "share of the truth's visible named parts that the critic finds", "higher")
BOX_PSNR = _named("PSNR in the box dB", "of the result and the truth", "higher")
BOX_AUTOENCODER_PSNR = _named("PSNR of the autoencoder dB", "in the box, of the truth encoded and decoded")
BOX_PSNR_BEHIND = _named(
    "dB behind the autoencoder", "the autoencoder's PSNR in the box minus that of the result", "lower"
)
BOX_EMPTY = _named("box seen empty", "the judge sees no object in the box", "higher")
