"""Which files of a repository loading needs."""

from maskless.models.listing import choose_files, pickled_folders, variant_of


def test_files_are_chosen_by_what_loading_needs():
    unet = "unet/diffusion_pytorch_model"
    names = [
        "model_index.json", "README.md", "sd.safetensors", "sd.ckpt", "scheduler/scheduler_config.json",
        "unet/config.json", f"{unet}.safetensors.index.json", f"{unet}-00001-of-00002.safetensors",
        f"{unet}-00002-of-00002.safetensors", f"{unet}.fp16.safetensors", f"{unet}.safetensors.index.fp16.json",
        f"{unet}.bin", f"{unet}.fp16-00001-of-00002.safetensors", "unet/diffusion_flax_model.msgpack",
        "text_encoder/model.safetensors", "tokenizer/vocab.json", "tokenizer/spiece.model",
        "safety_checker/model.safetensors",
    ]  # fmt: skip
    components = ["scheduler", "unet", "text_encoder", "tokenizer"]
    chosen = choose_files(names, components, settings_only=False)
    assert [names.index(name) for name in chosen] == [0, 4, 5, 6, 7, 8, 14, 15, 16]
    assert pickled_folders(names, chosen, components) == []
    settings = choose_files(names, components, settings_only=True)
    assert [name for name in settings if name.endswith(".safetensors")] == []
    assert pickled_folders(["pytorch_model.bin", "model.fp16.bin"], ["config.json"], None) == ["pytorch_model.bin"]


def test_weights_in_16_bits_are_chosen_only_where_a_folder_has_no_others():
    names = [
        "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bf16.safetensors", "vae/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors", "text_encoder/model.fp16-00001-of-00002.safetensors",
        "text_encoder/model.fp16-00002-of-00002.safetensors", "text_encoder/model.safetensors.index.fp16.json",
        "text_encoder_2/model.bf16.safetensors", "text_encoder_2/model.ema.safetensors",
    ]  # fmt: skip
    chosen = choose_files(names, ["unet", "vae", "text_encoder", "text_encoder_2"], settings_only=False)
    assert [names.index(name) for name in chosen] == [0, 1, 4, 2, 6, 7, 8, 9]
    assert choose_files(["config.json", "model.fp16.safetensors"], None, settings_only=False)[1:] == [
        "model.fp16.safetensors"
    ]


def test_the_precision_is_read_from_the_name():
    found = {
        "model.safetensors": None, "model-00001-of-00002.safetensors": None, "model.safetensors.index.json": None,
        "model.fp16.safetensors": "fp16", "model.fp16-00001-of-00002.safetensors": "fp16",
        "model.safetensors.index.fp16.json": "fp16", "model.bf16.safetensors.index.json": "bf16",
    }  # fmt: skip
    assert {name: variant_of(name) for name in found} == found
