"""Erasing by a small network in an ONNX file, as MI-GAN is published: it continues the surroundings of a hole.

The file's inputs are `image` (uint8 [1, 3, H, W]) and `mask` (uint8 [1, 1, H, W], 255 where the picture is known and 0
in the hole), and its output is the filled picture (uint8 [1, 3, H, W]). Method step 7.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from maskless.data.errors import MasklessError, first_line
from maskless.models.inpainters.denoising import Sampling, step_completed
from maskless.models.inpainters.protocol import Denoiser

INPUTS = {"image": 3, "mask": 1}
"""The inputs of the file, and their numbers of channels."""
KNOWN, HOLE = 255, 0
"""The values of the mask."""
NATIVE_PX, CELL_PX = 512, 8


class OnnxEraser:
    """The attributes are those of InpaintingModel. It has no noise, no steps and no prompt, and it runs on the CPU."""

    pipeline: Any = None
    native_px: int = NATIVE_PX
    cell_px: int = CELL_PX
    takes_picture: bool = False
    redraws_window: bool = False
    follows_prompt: bool = False
    recommended_steps: int | None = 1
    recommended_guidance: float | None = 1.0
    denoiser: Denoiser | None = None

    def __init__(self, path: str | Path) -> None:
        """path: an ONNX file.

        Raises:
            MasklessError: the extra is not installed, or the file is damaged or has other inputs or outputs.
        """
        try:
            import onnxruntime
        except ImportError:
            raise MasklessError("erasing with an ONNX file needs onnxruntime: pip install 'maskless[onnx]'") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            # From its bytes, so that it cannot name other files as its weights.
            content = Path(path).read_bytes()
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except OSError as error:
            raise MasklessError(f"cannot read {path}: {error.strerror or error}") from error
        except Exception as error:  # onnxruntime raises types of its own, which it does not export
            raise MasklessError(f"{path} is not an ONNX model that can be read here: {first_line(error)}") from error
        self._require_layout(path)
        self.fingerprint = hashlib.sha256(content).hexdigest()[:16]
        self.unet_forwards = 0

    def _require_layout(self, path: str | Path) -> None:
        found = {each.name: (each.type, each.shape) for each in self._session.get_inputs()}
        outputs = self._session.get_outputs()
        fits = set(found) == set(INPUTS) and len(outputs) == 1 and outputs[0].type == "tensor(uint8)"
        for name, channels in INPUTS.items():
            kind, shape = found.get(name, ("", []))
            fits = fits and kind == "tensor(uint8)" and len(shape) == 4 and shape[1] in (channels, None, "channels")
        if not fits:
            shown = ", ".join(f"{name}: {kind} {shape}" for name, (kind, shape) in found.items())
            raise MasklessError(
                f"{path} must take image (uint8 [1, 3, H, W]) and mask (uint8 [1, 1, H, W]) and give one picture "
                f"(uint8), as MI-GAN's pipeline does; it takes {shown[:200] or 'nothing'}"
            )

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def encode_prompt(self, prompt: str, negative_prompt: str = "") -> None:
        """Nothing: the surroundings alone decide what is drawn."""

    def draw_noise(self, seed: int, side_px: int | None = None) -> None:
        """Nothing: the same picture and mask always give the same result."""

    def inpaint(
        self,
        images: Float[Tensor, "N 3 S S"],
        masks: Float[Tensor, "N 1 S S"],
        prompt: Any,
        sampling: Sampling,
    ) -> UInt8[Tensor, "N 3 S S"]:
        """Fill the masked part of each picture; the rest is the input. A pixel is part of the hole if its mask is above
        one half."""
        pictures = (images.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        holes = np.where(masks.detach().float().cpu().numpy() > 0.5, HOLE, KNOWN).astype(np.uint8)
        filled = []
        for picture, hole in zip(pictures, holes, strict=True):
            filled.append(self._filled(picture[None], hole[None]))
            self.unet_forwards += 1
            step_completed(1, 1)
        return torch.from_numpy(np.concatenate(filled))

    def _filled(self, picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
        try:
            result = self._session.run(None, {"image": picture, "mask": hole})[0]
        except Exception as error:  # see above
            raise MasklessError(f"the erasing model cannot be computed: {first_line(error)}") from error
        if result.shape != picture.shape or result.dtype != np.uint8:
            raise MasklessError(
                f"the erasing model must give uint8 {list(picture.shape)}, got {result.dtype} {list(result.shape)}"
            )
        return np.asarray(result)


def onnx_file(source: Path) -> Path | None:
    """The ONNX file that a path is, or that is the only one in a folder; None if there is none.

    Raises:
        MasklessError: a folder with several.
    """
    if source.is_file():
        return source if source.suffix == ".onnx" else None
    found = sorted(source.glob("*.onnx"))
    if len(found) > 1:
        raise MasklessError(f"{source} holds {len(found)} ONNX files; name one of them")
    return found[0] if found else None
