"""Schedulers by name, and the rule that no candidate gets noise of its own (mistake 9). Method step 7."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch

from maskless.data.errors import MasklessError

DETERMINISTIC = (
    "DDIMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
"""Schedulers that draw no noise of their own."""
DISTILLED = ("LCMScheduler", "TCDScheduler")
"""Schedulers that draw noise at every step, which models distilled for them cannot do without."""


@dataclass(frozen=True, kw_only=True)
class NamedScheduler:
    """A scheduler of diffusers. steps, guidance_scale: what it is made for; None where the model's own advice holds."""

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    steps: int | None = None
    guidance_scale: float | None = None


SCHEDULERS = {
    "ddim": NamedScheduler(kind="DDIMScheduler"),
    "deis": NamedScheduler(kind="DEISMultistepScheduler"),
    "dpm++": NamedScheduler(kind="DPMSolverMultistepScheduler", settings={"algorithm_type": "dpmsolver++"}),
    "dpm++-karras": NamedScheduler(
        kind="DPMSolverMultistepScheduler", settings={"algorithm_type": "dpmsolver++", "use_karras_sigmas": True}
    ),
    "dpm++-sde": NamedScheduler(kind="DPMSolverMultistepScheduler", settings={"algorithm_type": "sde-dpmsolver++"}),
    "euler": NamedScheduler(kind="EulerDiscreteScheduler"),
    "euler-a": NamedScheduler(kind="EulerAncestralDiscreteScheduler"),
    "heun": NamedScheduler(kind="HeunDiscreteScheduler"),
    "pndm": NamedScheduler(kind="PNDMScheduler", settings={"skip_prk_steps": True}),
    "unipc": NamedScheduler(kind="UniPCMultistepScheduler"),
    "lcm": NamedScheduler(kind="LCMScheduler", steps=6, guidance_scale=1.0),
    "tcd": NamedScheduler(kind="TCDScheduler", steps=6, guidance_scale=1.0),
    # Hyper-SD's LoRAs for a fixed number of steps want DDIM with the last steps of the training's thousand.
    "hyper-sd": NamedScheduler(
        kind="DDIMScheduler", settings={"timestep_spacing": "trailing"}, steps=8, guidance_scale=1.0
    ),
}
"""By the names of `EditConfig.scheduler`."""


def choose_scheduler(own: Any, name: str | None) -> Any:
    """The scheduler of that name with the model's settings; without a name the model's own.

    One of its own that draws noise, and that it was not distilled for, gives way to DDIM with the same settings.
    """
    import diffusers

    if name is not None:
        chosen = SCHEDULERS[name]
        return getattr(diffusers, chosen.kind).from_config(own.config, **chosen.settings)
    if not draws_noise(own) or type(own).__name__ in DISTILLED:
        return own
    return diffusers.DDIMScheduler.from_config(own.config)


def draws_noise(scheduler: Any) -> bool:
    """Whether its steps add noise, and so need a generator."""
    return type(scheduler).__name__ not in DETERMINISTIC or "sde" in str(scheduler.config.get("algorithm_type", ""))


def set_steps(scheduler: Any, steps: int, device: torch.device) -> None:
    """Lay out the timesteps.

    Raises:
        MasklessError: the scheduler cannot take so many.
    """
    try:
        scheduler.set_timesteps(steps, device=device)
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise MasklessError(f"{type(scheduler).__name__} cannot take {steps} steps: {reason}") from error


def step_options(scheduler: Any, seed: int, step: int, count: int) -> dict[str, Any]:
    """Further arguments of a step: for one that draws noise, generators that give every picture of the batch the same.

    They follow from the seed and the step alone, so that a run stopped in the middle goes on with the same noise.
    """
    if not draws_noise(scheduler) or "generator" not in inspect.signature(scheduler.step).parameters:
        return {}
    drawn = (seed * 1009 + step + 1) % 2**63
    return {"generator": [torch.Generator().manual_seed(drawn) for _ in range(count)]}
