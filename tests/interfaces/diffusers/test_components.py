"""The components of the pipeline are those of an Editor's models, and make the same models again."""

from maskless.data.model_options import ModelOptions
from maskless.interfaces.diffusers.components import components_of, edit_models
from maskless.interfaces.diffusers.pipeline import MasklessInpaintPipeline
from maskless.models.pretrained import load_encoders, load_models


def test_models_become_components_and_components_the_same_models(tiny_models):
    models = load_models(ModelOptions(models=str(tiny_models), device="cpu", dtype="float32"))
    again = edit_models(MasklessInpaintPipeline(**components_of(models)))
    assert again.dino.model is models.dino.model and again.clip.tokenizer is models.clip.tokenizer
    for name in ("native_px", "recommended_steps", "recommended_guidance", "takes_picture"):
        assert getattr(again.inpainter, name) == getattr(models.inpainter, name), name
    assert again.dino.mean.tolist() == models.dino.mean.tolist() and again.clip.std.tolist() == models.clip.std.tolist()
    assert again.dtype == models.dtype and again.device == models.device


def test_encoders_alone_have_nothing_that_draws(tiny_models):
    encoders = load_encoders(ModelOptions(models=str(tiny_models), device="cpu"))
    assert set(components_of(encoders)) == {"dino", "clip", "clip_tokenizer", "normalisation"}
