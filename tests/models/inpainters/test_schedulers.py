"""Schedulers by name."""

from collections.abc import Callable

import pytest
import torch

from maskless.data import choices
from maskless.data.errors import MasklessError
from maskless.data.model_options import ModelOptions
from maskless.models.inpainters.denoising import Sampling
from maskless.models.inpainters.loading import load_pipeline, make_inpainter
from maskless.models.inpainters.schedulers import (
    DETERMINISTIC,
    DISTILLED,
    EDM,
    REPLACED,
    SCHEDULERS,
    choose_scheduler,
    clean_latents,
    draws_noise,
    step_options,
)
from tiny_families import NATIVE_PX


def test_the_options_names_are_the_schedulers():
    assert choices.SCHEDULERS == tuple(SCHEDULERS)


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


PICTURE = torch.rand(1, 3, NATIVE_PX, NATIVE_PX, generator=torch.Generator().manual_seed(0))
LATENTS = torch.randn(1, 4, NATIVE_PX // 2, NATIVE_PX // 2, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def error_after(family_folder) -> Callable[..., float]:
    """How far from LATENTS a run ends whose model always predicts exactly them: what is left is noise."""
    pipeline = load_pipeline(str(family_folder("sd")))
    settings = pipeline.scheduler.config

    def measured(strength: float, *, steps: int = 11, scheduler: str | None = None, own: str | None = None) -> float:
        import diffusers

        pipeline.scheduler = getattr(diffusers, own or "DDIMScheduler").from_config(
            {} if own in EDM else settings, **({"skip_prk_steps": False} if own == "PNDMScheduler" else {})
        )
        model = make_inpainter(pipeline, scheduler=scheduler, native_px=NATIVE_PX)

        def predict(run, scaled, timestep, _prompt, _guidance):
            at = [clean_latents(run.scheduler, torch.full_like(scaled, value), timestep, scaled) for value in (0.0, 1)]
            return (LATENTS - at[0]) / (at[1] - at[0])

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model, "_predict", predict)
            patch.setattr(model, "latents_of", lambda _pictures: LATENTS)
            sampling = Sampling(seed=1, steps=steps, guidance_scale=1.0, strength=strength)
            text = model.encode_prompt("a house")
            end = model.advance(model.begin(PICTURE, torch.ones_like(PICTURE[:, :1]), text, sampling))
        return float((end.latents - LATENTS).abs().mean())

    return measured


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_no_noise_is_left_wherever_a_named_scheduler_starts(error_after, name, strength):
    # The last step of DDIM, DEIS, PNDM and TCD leaves the noise of their first training step, 0.03 of 1, by design.
    assert error_after(strength, scheduler=name) < 0.026


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("kind", [*DETERMINISTIC, *DISTILLED, *REPLACED])
def test_no_noise_is_left_wherever_a_models_own_scheduler_starts(error_after, kind, strength):
    if kind == "LMSDiscreteScheduler":
        pytest.importorskip("scipy")
    if kind == "DPMSolverSDEScheduler":
        pytest.importorskip("torchsde")
    # EDM's own schedules end at 0.002 of noise.
    assert error_after(strength, own=kind) < 0.026


def test_a_second_order_scheduler_makes_its_pairs_of_steps(family_model):
    model = family_model("sd", scheduler="heun")
    text, everywhere = model.encode_prompt("a house"), torch.ones_like(PICTURE[:, :1])
    for strength, expected in ((1.0, 19), (0.5, 9), (0.05, 1)):
        sampling = Sampling(seed=1, steps=10, guidance_scale=1.0, strength=strength)
        timesteps = model.begin(PICTURE, everywhere, text, sampling).timesteps
        assert len(timesteps) == expected
        assert len(timesteps.unique()) == len(timesteps) // 2 + 1
        assert len(timesteps) == 1 or timesteps[0] != timesteps[1], "not from the middle of a pair"


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("FlowMatchEulerDiscreteScheduler", {}, "scheduler FlowMatchEulerDiscreteScheduler is not supported"),
        ("ScoreSdeVeScheduler", {}, "scheduler ScoreSdeVeScheduler is not supported"),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True}, "flow matching"),
    ],
)
def test_a_scheduler_that_would_be_used_wrong_is_refused(family_folder, kind, settings, message):
    import diffusers

    pipeline = load_pipeline(str(family_folder("sd")))
    pipeline.scheduler = getattr(diffusers, kind)(**settings)
    with pytest.raises(MasklessError, match=message) as caught:
        make_inpainter(pipeline)
    assert "\n" not in str(caught.value)


@pytest.fixture
def playground(family_folder):
    """A pipeline of Playground v2.5's kind: EDM's preconditioning, and an autoencoder with statistics."""
    from diffusers import EDMDPMSolverMultistepScheduler, StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(str(family_folder("sdxl")))
    pipeline.scheduler = EDMDPMSolverMultistepScheduler()
    pipeline.vae.register_to_config(
        latents_mean=[-1.6, 1.1, 0.5, -0.4], latents_std=[8.4, 5.9, 6.1, 5.2], scaling_factor=0.5
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_a_model_of_edm_is_drawn_as_diffusers_draws_it(playground):
    model = make_inpainter(playground, native_px=NATIVE_PX)
    own = model.inpaint(
        PICTURE, torch.ones_like(PICTURE[:, :1]), model.encode_prompt("a blue house", "a tree"),
        Sampling(seed=1, steps=5, guidance_scale=3.0),
    )[0]  # fmt: skip
    stock = playground(
        "a blue house", negative_prompt="a tree", latents=model.draw_noise(1), num_inference_steps=5,
        guidance_scale=3.0, height=NATIVE_PX, width=NATIVE_PX, output_type="pt",
    ).images[0]  # fmt: skip
    assert float((own / 255 - stock).abs().max()) < 0.02
    back = model.decode(model.latents_of(PICTURE * 2 - 1))
    with torch.no_grad():
        plain = playground.vae.decode(model.encode(PICTURE * 2 - 1)).sample
    assert torch.allclose(back / 255, (plain / 2 + 0.5).clamp(0, 1), atol=0.01)


def test_a_model_of_edm_takes_no_other_scheduler(playground):
    with pytest.raises(MasklessError, match="scheduler ddim does not work with this model, which was trained for EDM"):
        make_inpainter(playground, scheduler="ddim")
