"""Schedulers by name."""

import pytest
import torch

from maskless.data import config
from maskless.data.config import ModelOptions
from maskless.data.errors import MasklessError
from maskless.models.inpainters.schedulers import SCHEDULERS, choose_scheduler, draws_noise, step_options


def test_the_options_names_are_the_schedulers():
    assert config.SCHEDULERS == tuple(SCHEDULERS)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_draws_and_gives_all_candidates_the_same_noise(family_model, draw, name):
    model = family_model("sd", scheduler=name)
    together = draw(model, 3, steps=4)
    assert int((together[:1].int() - draw(model, 1, steps=4).int()).abs().max()) <= 1
    assert torch.equal(draw(model, 3, steps=4), together)
    if name != "ddim":
        assert not torch.equal(draw(family_model("sd"), 3, steps=4), together)


def test_lcm_draws_noise_at_its_steps_by_the_seed(family_model, draw):
    model = family_model("sd-inpainting", scheduler="lcm")
    assert draws_noise(model._scheduler)
    assert not torch.equal(draw(model, seed=1), draw(model, seed=2))


def test_few_step_schedulers_recommend_their_steps(family_model, family_editor):
    model = family_model("sd", scheduler="lcm", recommended_steps=50, recommended_guidance=7.5)
    assert (model.recommended_steps, model.recommended_guidance) == (6, 1.0)
    assert family_model("sd", scheduler="unipc", recommended_steps=20).recommended_steps == 20
    editor = family_editor("sd", scheduler="hyper-sd")
    result = editor.edit(torch.rand(3, 32, 32), prompt="a blue house", box=(4, 4, 20, 20))
    assert (result.config.steps, result.config.guidance_scale) == (8, 1.0)


def test_its_own_lcm_stays_and_another_that_draws_noise_does_not(family_folder):
    from diffusers import DDPMScheduler, EulerAncestralDiscreteScheduler, LCMScheduler

    from maskless.models.inpainters.loading import load_pipeline, make_inpainter

    for own, expected in (
        (LCMScheduler, LCMScheduler), (DDPMScheduler, None), (EulerAncestralDiscreteScheduler, None)
    ):  # fmt: skip
        pipeline = load_pipeline(str(family_folder("sd")))
        pipeline.scheduler = own.from_config(pipeline.scheduler.config)
        kind = type(make_inpainter(pipeline)._scheduler).__name__
        assert kind == (expected.__name__ if expected else "DDIMScheduler")


def test_too_many_steps_for_lcm_are_one_clear_line(family_model, draw):
    with pytest.raises(MasklessError, match="LCMScheduler does not support 60 steps"):
        draw(family_model("sd", scheduler="lcm"), steps=60)


def test_an_unknown_scheduler_is_refused():
    with pytest.raises(MasklessError, match="scheduler must be one of ddim, deis"):
        ModelOptions(scheduler="magic")


def test_a_named_scheduler_keeps_the_models_own_settings():
    from diffusers import DDIMScheduler

    own = DDIMScheduler(beta_start=0.001, prediction_type="v_prediction")
    chosen = choose_scheduler(own, "dpm++-karras")
    assert type(chosen).__name__ == "DPMSolverMultistepScheduler" and chosen.config.use_karras_sigmas
    assert (chosen.config.beta_start, chosen.config.prediction_type) == (0.001, "v_prediction")
    assert choose_scheduler(own, None) is own


def test_the_noise_of_a_step_is_that_of_its_seed_and_number_for_every_picture():
    from diffusers import DDIMScheduler, LCMScheduler

    def noise(seed: int, step: int, count: int) -> list[list[float]]:
        generators = step_options(LCMScheduler(), seed, step, count)["generator"]
        return [torch.randn(2, generator=generator).tolist() for generator in generators]

    first, second = noise(1, 0, 2)
    assert first == second == noise(1, 0, 1)[0]
    assert first != noise(1, 1, 1)[0] and first != noise(2, 0, 1)[0]
    assert step_options(DDIMScheduler(), 1, 0, 2) == {}
