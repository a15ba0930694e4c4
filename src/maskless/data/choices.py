"""The values that options can have, and the defaults that depend on another option or on a model."""

from __future__ import annotations

from maskless.data.options import OptionValue

SEARCHES = ("placed", "learned", "paper", "exhaustive")
LEARNING_SEARCHES = ("learned", "paper")
"""The searches that train AnchorNet, and can start from one that was trained before."""
ANCHOR_SOURCES = ("attention", "text", "both")
ESTIMATORS = ("table", "straight-through")
RANKINGS = ("paper", "located", "verified")
DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16", "float16")
MEMORY = ("full", "balanced", "low", "minimal")
SCHEDULERS = (
    "ddim", "deis", "dpm++", "dpm++-karras", "dpm++-sde", "euler", "euler-a", "heun", "pndm", "unipc", "lcm", "tcd",
    "hyper-sd",
)  # fmt: skip
PICTURE_FORMATS = ("png", "jpeg", "webp", "tiff", "avif")
OURS: dict[str, OptionValue] = {
    "anchor_source": "both", "fit_edges": True, "delta": 4.0, "location_weight": 2.0, "ranking": "located",
}  # fmt: skip
"""The defaults of the options that add something to the paper."""
AS_IN_THE_PAPER: dict[str, OptionValue] = {
    "anchor_source": "attention", "fit_edges": False, "delta": 0.0, "location_weight": 0.0, "ranking": "paper",
}  # fmt: skip
"""The same options without what this package adds, the defaults of the search "paper"."""
PUBLISHED_STEPS, PUBLISHED_GUIDANCE = 50, 7.5
"""What an inpainting takes where neither the user nor the model says otherwise."""
