"""The protocol that every kind of edit implements: iterate over a run, then call `result`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from maskless.data.config import EditConfig, ResolvedConfig
from maskless.data.errors import MasklessError
from maskless.data.result import Cost, EditResult, StepRecord
from maskless.data.tasks import FACTS
from maskless.data.types import EditRequest
from maskless.engine.batching import batch_size_for
from maskless.engine.stopwatch import Stopwatch, peak_memory_mb
from maskless.method.search import State
from maskless.models.pretrained import EditModels


@runtime_checkable
class Run(Protocol):
    """One edit of one picture.

    A run has its own AnchorNet, optimiser, generator and drawn pictures. It shares the models, which do not change, so
    several threads can iterate over runs with the same models at the same time, each over its own run.

    request: the edit that the user requested. models: the frozen networks. config: the options of the user, resolved.
    used: the options that the run uses, which differ from `config` where the task replaces some. total_steps: number of
    steps that draw something; the first step, number 0, only analyses the picture.
    """

    request: EditRequest
    models: EditModels
    config: ResolvedConfig
    used: ResolvedConfig

    @property
    def total_steps(self) -> int: ...

    @property
    def history(self) -> tuple[StepRecord, ...]:
        """The steps so far, including those of an earlier run that this run continues."""

    def __iter__(self) -> Iterator[StepRecord]:
        """All steps of the run, from the first. Completed steps are replayed, the others are made now."""

    def result(self) -> EditResult:
        """The ranked candidates. Steps that are still to be made are made first."""

    def preview(self) -> Float[Tensor, "3 h w"] | None:
        """The best candidate so far as a small picture in [0, 1]; None if there is none yet. Nothing new is drawn."""

    def drawing(self) -> Float[Tensor, "3 h w"] | None:
        """What is being drawn, as a small picture in [0, 1]: the picture with what the model expects to end at, decoded
        by the preview autoencoder. Call it in the function that `watched` calls after each denoising step. It is None
        elsewhere, without a preview autoencoder, and while another model than the inpainter draws."""

    @property
    def probabilities(self) -> Float[Tensor, "K M"] | None:
        """AnchorNet's present pi(m|k), each row sums to 1; None before the first step, or if the run learns nothing."""

    def state(self) -> State | None:
        """Everything that is needed to continue later; None before the first step, or if the run cannot be
        continued."""

    def resume(self, state: State) -> None:
        """Continue from the `state()` of an earlier run of the same request. Call it before the first step only.

        Raises:
            MasklessError: the run cannot be continued, or the state belongs to another edit.
        """


class Steps:
    """The steps of a run: each is made once, when it is first requested, and replayed afterwards."""

    def __init__(self, make: Callable[[], Iterator[StepRecord]], history: Sequence[StepRecord] = ()) -> None:
        """make: yields the steps that are still to be made; it is called again after an error or an interruption.
        history: the steps of an earlier run."""
        self.history = list(history)
        self._make = make
        self._live: Iterator[StepRecord] | None = None

    def __iter__(self) -> Iterator[StepRecord]:
        position = 0
        while position < len(self.history) or self._make_next():
            yield self.history[position]
            position += 1

    def finish(self) -> None:
        """Make all remaining steps."""
        while self._make_next():
            pass

    def _make_next(self) -> bool:
        """Make the next step, and return whether there was one."""
        if self._live is None:
            self._live = self._make()
        try:
            with gradients():
                record = next(self._live, None)
        except BaseException:
            self._live = None
            raise
        if record is not None:
            self.history.append(record)
        return record is not None


def cannot_resume(request: EditRequest) -> MasklessError:
    """The error of a run that has no state to continue from."""
    known = " with a mask or a box" if FACTS[request.task].searches else ""
    return MasklessError(
        f"only a search for a region can continue from a checkpoint, got the task {request.task}{known}"
    )


@contextmanager
def gradients() -> Iterator[None]:
    """Enable gradients in a block, so that AnchorNet can learn even if the caller runs under torch.no_grad or
    torch.inference_mode, as servers and node-graph editors do."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def resolved(config: EditConfig, request: EditRequest, models: EditModels) -> ResolvedConfig:
    """The options with a value for every None, from the request, the inpainting model and the available memory."""
    inpainter = models.inpainter
    return config.resolved(
        steps=inpainter.recommended_steps,
        guidance_scale=inpainter.recommended_guidance,
        keep_unchanged=models.refinement is not None and models.refinement.keep_unchanged,
        batch_size=batch_size_for(models.device, inpainter.native_px, models.memory),
        seed=request.seed,
    )


def cost_of(models: EditModels, stopwatch: Stopwatch, *, inpaintings: int, unet_forwards: int) -> Cost:
    """The cost of a run so far."""
    return Cost(
        inpaintings=inpaintings,
        unet_forwards=unet_forwards,
        seconds=dict(stopwatch.seconds),
        peak_memory_mb=peak_memory_mb(models.device),
    )


def total_cost(costs: Sequence[Cost]) -> Cost:
    """The sum of costs; of the peak memory, the maximum."""
    stages = {stage for cost in costs for stage in cost.seconds}
    return Cost(
        inpaintings=sum(cost.inpaintings for cost in costs),
        unet_forwards=sum(cost.unet_forwards for cost in costs),
        seconds={stage: sum(cost.seconds.get(stage, 0.0) for cost in costs) for stage in sorted(stages)},
        peak_memory_mb=max(cost.peak_memory_mb for cost in costs),
    )
