"""Tiny transformers written to GGUF files by the gguf library, as ComfyUI-GGUF's converter writes large ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ARCHITECTURES = {"flux": "flux", "flux-fill": "flux", "flux-kontext": "flux", "flux2-klein": "flux2", "sd3": "sd3",
                 "qwen-image": "qwen_image", "qwen-image-edit": "qwen_image", "z-image": "lumina2"}  # fmt: skip
"""By family."""


def transformer_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a family's transformer under diffusers' names, in float32."""
    from safetensors.torch import load_file

    return load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")


def write_gguf(
    path: Path, weights: dict[str, Tensor], *, kind: str = "Q8_0", architecture: str = "flux", every: bool = False
) -> Path:
    """Write weights as this format: those of layers whose rows it can hold, and the others as F32.

    kind: F16, BF16, or the name of a quantized format that the library can write. every: also what is no layer's.
    """
    import gguf

    quantized = gguf.GGMLQuantizationType[kind]
    block = gguf.GGML_QUANT_SIZES[quantized][0]
    writer = gguf.GGUFWriter(path, arch=architecture)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for name, weight in weights.items():
        values = weight.float().numpy()
        fits = values.ndim == 2 and values.shape[-1] % block == 0 and (every or name.endswith(".weight"))
        if fits:
            writer.add_tensor(name, gguf.quants.quantize(values, quantized), raw_dtype=quantized)
        else:
            writer.add_tensor(name, values.astype(np.float32), raw_dtype=gguf.GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def original_names(family: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names of the original training code, with queries, keys and values in one matrix."""
    weights = dict(weights)
    renamed = {"z-image": _z_image, "sd3": _sd3, "flux2-klein": _klein}[family](weights)
    return renamed | weights


def _fused(weights: dict[str, Tensor], names: list[str]) -> Tensor:
    return torch.cat([weights.pop(name) for name in names])


def _swapped(weight: Tensor) -> Tensor:
    """The original code has the shift before the scale."""
    scale, shift = weight.chunk(2)
    return torch.cat([shift, scale])


def _z_image(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name in sorted(weights):
        if name.endswith(".attention.to_q.weight"):
            stem = name.removesuffix("to_q.weight")
            found[f"{stem}qkv.weight"] = _fused(weights, [f"{stem}to_{part}.weight" for part in "qkv"])
    for name in sorted(weights):
        new = name.replace("all_final_layer.2-1.", "final_layer.").replace("all_x_embedder.2-1.", "x_embedder.")
        new = new.replace("to_out.0", "out").replace("norm_k", "k_norm").replace("norm_q", "q_norm")
        found[new] = weights.pop(name)
    return found


def _sd3(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    places = {
        "pos_embed.pos_embed": "pos_embed", "pos_embed.proj": "x_embedder.proj", "proj_out": "final_layer.linear",
        "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
        "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
        "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
        "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    }  # fmt: skip
    block = {
        "attn.to_out.0": "x_block.attn.proj", "norm1.linear": "x_block.adaLN_modulation.1",
        "ff.net.0.proj": "x_block.mlp.fc1", "ff.net.2": "x_block.mlp.fc2",
    }  # fmt: skip
    for leaf in ("weight", "bias"):
        for side, parts in (("x", ("to_q", "to_k", "to_v")), ("context", ("add_q_proj", "add_k_proj", "add_v_proj"))):
            names = [f"transformer_blocks.0.attn.{part}.{leaf}" for part in parts]
            found[f"joint_blocks.0.{side}_block.attn.qkv.{leaf}"] = _fused(weights, names)
        context = weights.pop(f"transformer_blocks.0.norm1_context.linear.{leaf}")
        found[f"joint_blocks.0.context_block.adaLN_modulation.1.{leaf}"] = _swapped(context)
        found[f"final_layer.adaLN_modulation.1.{leaf}"] = _swapped(weights.pop(f"norm_out.linear.{leaf}"))
    places |= {f"transformer_blocks.0.{new}": f"joint_blocks.0.{old}" for new, old in block.items()}
    for name in sorted(weights):
        place = next((new for new in places if name == new or name.startswith(f"{new}.")), None)
        if place is not None:
            found[places[place] + name.removeprefix(place)] = weights.pop(name)
    return found


def _klein(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {"final_layer.adaLN_modulation.1.weight": _swapped(weights.pop("norm_out.linear.weight"))}
    for old, parts in (("img", ("to_q", "to_k", "to_v")), ("txt", ("add_q_proj", "add_k_proj", "add_v_proj"))):
        names = [f"transformer_blocks.0.attn.{part}.weight" for part in parts]
        found[f"double_blocks.0.{old}_attn.qkv.weight"] = _fused(weights, names)
    places = {
        "x_embedder": "img_in", "context_embedder": "txt_in", "proj_out": "final_layer.linear",
        "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
        "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
        "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
        "double_stream_modulation_txt.linear": "double_stream_modulation_txt.lin",
        "single_stream_modulation.linear": "single_stream_modulation.lin",
        "transformer_blocks.0.attn.norm_q.weight": "double_blocks.0.img_attn.norm.query_norm.scale",
        "transformer_blocks.0.attn.norm_k.weight": "double_blocks.0.img_attn.norm.key_norm.scale",
        "transformer_blocks.0.attn.norm_added_q.weight": "double_blocks.0.txt_attn.norm.query_norm.scale",
        "transformer_blocks.0.attn.norm_added_k.weight": "double_blocks.0.txt_attn.norm.key_norm.scale",
        "transformer_blocks.0.attn.to_out.0": "double_blocks.0.img_attn.proj",
        "transformer_blocks.0.attn.to_add_out": "double_blocks.0.txt_attn.proj",
        "transformer_blocks.0.ff.linear_in": "double_blocks.0.img_mlp.0",
        "transformer_blocks.0.ff.linear_out": "double_blocks.0.img_mlp.2",
        "transformer_blocks.0.ff_context.linear_in": "double_blocks.0.txt_mlp.0",
        "transformer_blocks.0.ff_context.linear_out": "double_blocks.0.txt_mlp.2",
        "single_transformer_blocks.0.attn.to_qkv_mlp_proj": "single_blocks.0.linear1",
        "single_transformer_blocks.0.attn.to_out": "single_blocks.0.linear2",
        "single_transformer_blocks.0.attn.norm_q.weight": "single_blocks.0.norm.query_norm.scale",
        "single_transformer_blocks.0.attn.norm_k.weight": "single_blocks.0.norm.key_norm.scale",
    }  # fmt: skip
    for name in sorted(weights):
        place = next((new for new in places if name == new or name.startswith(f"{new}.")), None)
        if place is not None:
            found[places[place] + name.removeprefix(place)] = weights.pop(name)
    return found


def write_large_flux(path: Path, *, double: int, single: int, in_channels: int = 384) -> Path:
    """A file of FLUX.1 at its real width under the names of the original code, quantized and all zeros. Where the file
    system keeps no zeros it takes no space."""
    import gguf

    width, file_type = 3072, gguf.GGMLQuantizationType.Q4_0
    weights = {"img_in": (width, in_channels), "txt_in": (width, 4096), "final_layer.linear": (64, width),
               "final_layer.adaLN_modulation.1": (2 * width, width)}  # fmt: skip
    for name, into in (("time_in", 256), ("guidance_in", 256), ("vector_in", 768)):
        weights |= {f"{name}.in_layer": (width, into), f"{name}.out_layer": (width, width)}
    scales = []
    for number in range(double):
        for side in ("img", "txt"):
            stem = f"double_blocks.{number}.{side}"
            weights |= {f"{stem}_mod.lin": (6 * width, width), f"{stem}_attn.qkv": (3 * width, width),
                        f"{stem}_attn.proj": (width, width), f"{stem}_mlp.0": (4 * width, width),
                        f"{stem}_mlp.2": (width, 4 * width)}  # fmt: skip
            scales += [f"{stem}_attn.norm.{part}_norm.scale" for part in ("query", "key")]
    for number in range(single):
        stem = f"single_blocks.{number}"
        weights |= {f"{stem}.linear1": (7 * width, width), f"{stem}.linear2": (width, 5 * width),
                    f"{stem}.modulation.lin": (3 * width, width)}  # fmt: skip
        scales += [f"{stem}.norm.{part}_norm.scale" for part in ("query", "key")]
    writer, size = gguf.GGUFWriter(path, arch="flux"), 0
    plain = {f"{name}.bias": (shape[0],) for name, shape in weights.items()} | dict.fromkeys(scales, (128,))
    for name, shape in plain.items():
        writer.add_tensor_info(name, shape, np.dtype(np.float32), 4 * shape[0])
        size += 4 * shape[0]
    for name, shape in weights.items():
        packed = gguf.quant_shape_to_byte_shape(shape, file_type)
        writer.add_tensor_info(f"{name}.weight", packed, np.dtype(np.uint8), packed[0] * packed[1], file_type)
        size += packed[0] * packed[1]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + size + 2**20)
    return path
