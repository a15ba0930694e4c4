"""Schedulers by name, which add the same noise to all candidates (mistake 9), and their noise levels. Method step 7."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from maskless.data.errors import MasklessError, first_line

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

EDM = ("EDMDPMSolverMultistepScheduler", "EDMEulerScheduler")
"""Schedulers of models with the preconditioning of EDM (arXiv 2206.00364), such as Playground v2.5."""
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
    *EDM,
)
"""Schedulers whose steps add no noise."""
DISTILLED = ("LCMScheduler", "TCDScheduler")
"""Schedulers that add noise at every step, as the models distilled for them require."""
REPLACED = (
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DPMSolverSDEScheduler",
    "EulerAncestralDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "SASolverScheduler",
)
"""Schedulers for the same models as DDIM, which replaces them where a model's folder names one of them."""
PREDICTIONS = ("epsilon", "v_prediction", "sample")
"""What the UNet of a supported model may predict."""


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

    If the model's own scheduler is one of REPLACED, or otherwise adds noise and is not one of DISTILLED, DDIM with the
    same settings replaces it.

    Raises:
        MasklessError: the model's own scheduler is of a kind that is not supported, or the named one does not fit it.
    """
    import diffusers

    kind, config = type(own).__name__, own.config
    prediction = config.get("prediction_type", "epsilon")
    if kind not in (*DETERMINISTIC, *DISTILLED, *REPLACED):
        raise MasklessError(f"the model's scheduler {kind} is not supported; use a model with another one")
    if prediction not in PREDICTIONS or config.get("use_flow_sigmas"):
        kind_of_model = "flow matching" if config.get("use_flow_sigmas") else str(prediction)
        raise MasklessError(
            f"a UNet must predict {', '.join(PREDICTIONS[:-1])} or {PREDICTIONS[-1]}, but the model's scheduler is for "
            f"{kind_of_model}; use another model"
        )
    if name is not None and kind in EDM:
        raise MasklessError(
            f"scheduler {name} does not work with this model, which was trained for {kind}; leave the option out"
        )
    if name is not None:
        chosen = SCHEDULERS[name]
        return getattr(diffusers, chosen.kind).from_config(config, **chosen.settings)
    if kind == "PNDMScheduler" and not config.get("skip_prk_steps"):
        # Its Runge-Kutta steps can only start from pure noise.
        return diffusers.PNDMScheduler.from_config(config, skip_prk_steps=True)
    if not draws_noise(own) or kind in DISTILLED:
        return own
    return diffusers.DDIMScheduler.from_config(config)


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


def start_at(scheduler: SchedulerMixin, steps: int, strength: float) -> Tensor:
    """The timesteps of the last share of the steps, at least one; the scheduler begins there.

    A second-order scheduler evaluates the model at two timesteps in each step but the last, and both belong together.

    Args:
        scheduler: with the timesteps of all steps, from `set_steps`.
        steps: number of steps from pure noise.
        strength: share of the steps that are made, above 0 and below 1.
    """
    skipped, timesteps = steps - max(1, round(steps * strength)), scheduler.timesteps
    kind = type(scheduler).__name__
    if kind == "PNDMScheduler":
        # It evaluates its second timestep twice, whichever that is.
        rest = torch.cat([timesteps[:1], timesteps[2:]])[skipped:]
        return torch.cat([rest[:2], rest[1:2], rest[2:]])
    first = skipped * scheduler.order
    if kind == "LMSDiscreteScheduler":
        # It derives its order from the number of its step, so that must count from the first one that is made.
        scheduler.timesteps, scheduler.sigmas = timesteps[first:], scheduler.sigmas[first:]
        return scheduler.timesteps
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return timesteps[first:]


def clean_latents(
    scheduler: SchedulerMixin, prediction: Float[Tensor, "N C h w"], timestep: Tensor, scaled: Float[Tensor, "N C h w"]
) -> Float[Tensor, "N C h w"]:
    """The clean latents that a UNet's prediction implies.

    scaled: the UNet's input, which is sqrt(a) clean + sqrt(1 - a) noise, where a is the cumulative alpha of DDPM (arXiv
    2006.11239, eq. 4); for the schedulers of EDM it is (clean + sigma noise) / sqrt(sigma^2 + data_std^2).
    """
    if type(scheduler).__name__ in EDM:
        sigma = _edm_sigma(timestep)
        noisy = scaled * math.hypot(sigma, data_std(scheduler))
        return scheduler.precondition_outputs(noisy, prediction, sigma)
    a = scheduler.alphas_cumprod[int(timestep)].to(scaled)
    kind = scheduler.config.prediction_type
    if kind == "sample":
        return prediction
    if kind == "v_prediction":
        return a.sqrt() * scaled - (1 - a).sqrt() * prediction
    return (scaled - (1 - a).sqrt() * prediction) / a.sqrt()


def share_of_noise(scheduler: SchedulerMixin, timestep: Tensor) -> float:
    """The time t of a flow, (1 - t) clean + t noise, with the noise level of this timestep of the diffusion."""
    if type(scheduler).__name__ in EDM:
        return _edm_sigma(timestep) / (1 + _edm_sigma(timestep))
    kept = float(scheduler.alphas_cumprod[int(timestep)])
    signal, noise = kept**0.5, (1 - kept) ** 0.5
    return noise / (signal + noise)


def data_std(scheduler: SchedulerMixin) -> float:
    """The standard deviation of clean latents that the scheduler expects."""
    return float(scheduler.config.sigma_data) if type(scheduler).__name__ in EDM else 1.0


def _edm_sigma(timestep: Tensor) -> float:
    """The standard deviation of the noise at a timestep of EDM, which is log(sigma) / 4."""
    return math.exp(4 * float(timestep))


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
