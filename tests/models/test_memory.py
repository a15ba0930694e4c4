"""Memory levels: the same pictures from less memory, and every tensor where it has to be.

There need not be an accelerator here: under FakeTensorMode the device "meta" stands for one. Tensors then have shapes
and devices but no values, and mixing two devices is an error, as it is on a GPU.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from maskless.data.errors import MasklessError
from maskless.data.model_options import ModelOptions
from maskless.models.inpainters.denoising import Sampling
from maskless.models.inpainters.loading import load_pipeline
from maskless.models.memory import (
    LEVELS,
    _offload_by_layer,
    arrange,
    execution_device,
    is_out_of_memory,
    memory_advice,
    share_equal_weights,
    store_in_float16,
)
from maskless.models.pretrained import EditModels, load_models

ACCELERATOR = torch.device("meta")


def inpainted(models: EditModels) -> torch.Tensor:
    model = models.inpainter
    side = model.native_px
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 1, side, side)
    masks[:, :, 16:48, 16:48] = 1
    prompt = model.encode_prompt("a blue house")
    return model.inpaint(images, masks, prompt, Sampling(seed=1, steps=2, guidance_scale=5.0))


@pytest.mark.parametrize("memory", LEVELS[1:])
def test_every_level_works_on_the_cpu_and_gives_nearly_the_same(tiny_models, memory):
    full = inpainted(load_models(ModelOptions(models=str(tiny_models), device="cpu", dtype="float32")))
    models = load_models(ModelOptions(models=str(tiny_models), device="cpu", dtype="float32", memory=memory))
    assert (models.memory, models.device.type) == (memory, "cpu")
    assert "no network is moved" in models.placement and "\n" not in models.placement
    apart = (inpainted(models).float() - full.float()).abs()
    # float8 keeps three bits of each weight's mantissa; the other levels only change the order of sums.
    assert float(apart.mean()) < (3 if memory == "minimal" else 0.01)


@pytest.mark.parametrize("memory", ["low", "minimal"])
def test_the_bundled_models_work_in_less_memory(memory):
    """Their autoencoder is an AutoencoderTiny, of a factor that diffusers cannot tile."""
    full = inpainted(load_models(ModelOptions(device="cpu", dtype="float32")))
    less = inpainted(load_models(ModelOptions(device="cpu", dtype="float32", memory=memory)))
    assert float((full.float() - less.float()).abs().mean()) < 12


def test_the_bundled_redrawer_keeps_its_weights_in_half_precision_and_draws_the_same(monkeypatch):
    models = load_models(ModelOptions(device="cpu", dtype="float32"))
    monkeypatch.setattr("maskless.models.pretrained.store_in_float16", lambda networks: None)
    whole = load_models(ModelOptions(device="cpu", dtype="float32"))
    sizes = [
        sum(each.numel() * each.element_size() for each in loaded.redrawer.unet.parameters())
        for loaded in (models, whole)
    ]
    assert sizes[0] < 0.51 * sizes[1] and models.redrawer.unet.dtype == torch.float32
    assert torch.equal(*(inpainted(loaded.for_redrawing()) for loaded in (models, whole)))
    assert {weight.dtype for weight in models.inpainter.unet.parameters()} == {torch.float32}


def test_weights_that_two_models_have_in_common_are_held_once():
    models = load_models(ModelOptions(device="cpu", dtype="float32"))
    mine, others = (dict(model.vae.named_parameters()) for model in (models.inpainter, models.redrawer))
    assert all(each.data_ptr() == others[name].data_ptr() for name, each in mine.items())
    first, second, third = (torch.nn.Linear(3, 3) for _ in range(3))
    second.load_state_dict(first.state_dict())
    share_equal_weights([first, torch.nn.Conv2d(3, 3, 1)], [second, third])
    assert second.weight.data_ptr() == first.weight.data_ptr() != third.weight.data_ptr()
    second.to(torch.float16)
    assert first.weight.dtype == torch.float32, "a converted network gets its own weights"
    halved = torch.nn.Linear(3, 3)
    halved.load_state_dict({name: torch.ones_like(weight) for name, weight in first.state_dict().items()})
    first.load_state_dict(halved.state_dict())
    share_equal_weights([first], [halved.to(torch.float16)])
    assert halved.weight.dtype == torch.float16, "equal numbers in another format are other weights"


def test_weights_that_float16_would_change_stay_as_they_are(family_folder):
    unet = load_pipeline(str(family_folder("sd"))).unet
    store_in_float16([unet])
    assert {weight.dtype for weight in unet.parameters()} == {torch.float32}
    with torch.no_grad():
        for weight in unet.parameters():
            weight.copy_(weight.half())
    store_in_float16([unet])
    assert torch.float16 in {weight.dtype for weight in unet.parameters()} and unet.dtype == torch.float32


def test_low_slices_and_minimal_stores_the_denoiser_in_float8(tiny_models):
    full, low, minimal = (
        load_models(ModelOptions(models=str(tiny_models), device="cpu", memory=memory))
        for memory in ("full", "low", "minimal")
    )
    assert not full.inpainter.vae.use_slicing and full.placement == ""
    assert low.inpainter.vae.use_slicing and low.inpainter.vae.use_tiling
    assert {type(one).__name__ for one in low.inpainter.unet.attn_processors.values()} == {"SlicedAttnProcessor"}
    kinds = {parameter.dtype for parameter in minimal.inpainter.unet.parameters()}
    assert torch.float8_e4m3fn in kinds and torch.float8_e4m3fn not in {
        p.dtype for p in low.inpainter.unet.parameters()
    }
    assert torch.float8_e4m3fn not in {parameter.dtype for parameter in minimal.inpainter.vae.parameters()}


@pytest.fixture
def fake_models(tiny_models):
    """The tiny models with weights that have no values, not yet placed; inside a FakeTensorMode."""
    models = load_models(ModelOptions(models=str(tiny_models), device="cpu", dtype="float32"))
    mode, model = FakeTensorMode(allow_non_fake_inputs=True), models.inpainter
    for network in (model.unet, model.vae, model.pipeline.text_encoder, models.dino.model, models.clip.model):
        for module in network.modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None:
                        fake = mode.from_tensor(tensor.detach())
                        weight = isinstance(tensor, torch.nn.Parameter)
                        tensors[name] = torch.nn.Parameter(fake, requires_grad=False) if weight else fake
    for owner in (models.dino, models.clip):
        owner.mean, owner.std = mode.from_tensor(owner.mean), mode.from_tensor(owner.std)
    with mode:
        yield models


def on_accelerator(network: torch.nn.Module) -> bool:
    """Whether all of a network's weights are on the accelerator."""
    return {parameter.device.type for parameter in network.parameters()} == {"meta"}


def use_all(models: EditModels, *, encoders: bool) -> list[str]:
    """Run the networks one after the other, as an edit does; after each, which of them lie on the accelerator."""
    model, dino, clip = models.inpainter, models.dino, models.clip
    networks = {
        "text": model.pipeline.text_encoder,
        "vae": model.vae,
        "unet": model.unet,
        "dino": dino.model,
        "clip": clip.model,
    }
    whole = []

    def note() -> None:
        whole.append(" ".join(name for name, network in networks.items() if on_accelerator(network)))

    if encoders:
        hidden = dino._forward(dino.preprocess(torch.rand(3, 64, 64)).to(dino.device)).last_hidden_state
        assert hidden.device == ACCELERATOR
        note()
    prompt = model.encode_prompt("a blue house").prompt
    note()
    latents = model.encode(torch.rand(1, 3, 64, 64).to(model.device))
    assert latents.device == ACCELERATOR
    note()
    inputs = torch.zeros(1, 9, 8, 8, device=model.device)
    predicted = model.unet(inputs, torch.ones(1, device=model.device), encoder_hidden_states=prompt).sample
    assert predicted.device == ACCELERATOR
    note()
    assert model.vae.decode(latents).sample.device == ACCELERATOR
    if encoders:
        clip.encode_text("a house")
        assert clip.encode(torch.rand(1, 3, 64, 64)).embedding.device.type == "cpu"
        note()
    return whole


@pytest.mark.parametrize(
    ("memory", "encoders", "expected"),
    [
        ("balanced", False, ["text", "vae", "unet"]),
        ("low", True, ["dino", "text", "vae", "unet", "clip"]),
        ("minimal", True, [""] * 5),
    ],
)
def test_networks_take_turns_on_the_device(fake_models, monkeypatch, memory, encoders, expected):
    # Weights without values cannot be cast in place; that float8 and layers go together is tested below.
    monkeypatch.setattr("maskless.models.memory._store_in_float8", lambda *_: "")
    model = fake_models.inpainter
    networks = [model.pipeline.text_encoder, model.vae, model.unet]
    others = [fake_models.dino.model, fake_models.clip.model] if encoders else []
    placement = arrange(networks, others, device=ACCELERATOR, memory=memory, dtype=torch.float32)
    assert "at a time on the device" in placement
    assert {execution_device(network) for network in (*networks, *others)} == {ACCELERATOR}
    assert use_all(fake_models, encoders=encoders) == expected


@pytest.mark.parametrize("memory", LEVELS[1:])
def test_a_pipeline_of_diffusers_knows_where_its_networks_compute(tiny_models, memory):
    pipeline = load_pipeline(str(tiny_models / "inpainting"))
    networks = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    arrange(networks, [], device=ACCELERATOR, memory=memory, dtype=torch.float32)
    assert pipeline._execution_device == ACCELERATOR
    assert {parameter.device.type for network in networks for parameter in network.parameters()} == {"cpu"}


def test_float8_weights_are_loaded_by_layer_and_stay_what_they_are(tiny_models):
    whole, layered = (
        load_models(ModelOptions(models=str(tiny_models), device="cpu", dtype="float32", memory="minimal"))
        for _ in range(2)
    )
    kept = {name: weight.clone() for name, weight in layered.inpainter.unet.state_dict().items()}
    for network in (layered.inpainter.unet, layered.inpainter.vae, layered.inpainter.pipeline.text_encoder):
        _offload_by_layer(network, torch.device("cpu"))
    assert torch.equal(inpainted(whole), inpainted(layered))
    after = layered.inpainter.unet.state_dict()
    assert all(after[name].dtype == weight.dtype for name, weight in kept.items())
    assert all(torch.equal(after[name].float(), weight.float()) for name, weight in kept.items())


def test_running_out_of_memory_is_known_and_says_what_to_try(tiny_models, monkeypatch):
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory")) and is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert memory_advice("full") == "try --memory balanced or low or minimal"
    assert "lowest" in memory_advice("minimal") and "smaller model" in memory_advice("minimal")

    def no_room(*_arguments, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr("maskless.models.pretrained.arrange", no_room)
    with pytest.raises(MasklessError, match="do not fit on cpu; try --memory low or minimal"):
        load_models(ModelOptions(models=str(tiny_models), device="cpu", memory="balanced"))
