"""Schedulers by name, which add the same noise to all candidates (mistake 9). Method step 7."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from maskless.data.errors import MasklessError, first_line

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

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
"""Schedulers whose steps add no noise."""
DISTILLED = ("LCMScheduler", "TCDScheduler")
"""Schedulers that add noise at every step, as the models distilled for them require."""


@dataclass(frozen=True, kw_only=True)
class NamedScheduler:
    """A scheduler of diffusers.

    kind: its class. settings: settings that replace those of the model's own scheduler. steps, guidance_scale: the
    values that it is made for; None if the model's recommendation applies.
    """

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
    # Hyper-SD's LoRAs for a fixed number of steps need DDIM with trailing timesteps.
    "hyper-sd": NamedScheduler(
        kind="DDIMScheduler", settings={"timestep_spacing": "trailing"}, steps=8, guidance_scale=1.0
    ),
}
"""The schedulers by name, as the option `scheduler` accepts them."""


def choose_scheduler(own: SchedulerMixin, name: str | None) -> SchedulerMixin:
    """The scheduler of this name with the settings of the model's own; without a name, the model's own.

    If the model's own scheduler adds noise and is not one of DISTILLED, DDIM with the same settings replaces it.
    """
    import diffusers

    if name is not None:
        chosen = SCHEDULERS[name]
        return getattr(diffusers, chosen.kind).from_config(own.config, **chosen.settings)
    if not draws_noise(own) or type(own).__name__ in DISTILLED:
        return own
    return diffusers.DDIMScheduler.from_config(own.config)


def draws_noise(scheduler: SchedulerMixin) -> bool:
    """Whether the scheduler's steps add noise and so need a generator."""
    return type(scheduler).__name__ not in DETERMINISTIC or "sde" in str(scheduler.config.get("algorithm_type", ""))


def set_steps(scheduler: SchedulerMixin, steps: int, device: torch.device) -> None:
    """Set the timesteps of a scheduler for a number of steps.

    Raises:
        MasklessError: the scheduler does not support that number of steps.
    """
    try:
        scheduler.set_timesteps(steps, device=device)
    except ValueError as error:
        reason = first_line(error)
        raise MasklessError(f"{type(scheduler).__name__} does not support {steps} steps: {reason}") from error


def step_options(
    scheduler: SchedulerMixin, seed: int, step: int, count: int
) -> dict[str, torch.Generator | list[torch.Generator]]:
    """Further arguments of a scheduler's step: if it adds noise, generators that add the same noise to all pictures.

    They depend only on the seed and the step, so that a run that was stopped continues with the same noise.
    """
    if not draws_noise(scheduler) or "generator" not in inspect.signature(scheduler.step).parameters:
        return {}
    drawn = (seed * 1009 + step + 1) % 2**63
    return {"generator": [torch.Generator().manual_seed(drawn) for _ in range(count)]}
