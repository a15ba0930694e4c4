"""Changes of weights beyond LoRA, by the optional library lycoris: LoHa, LoKr, whole matrices, and DoRA of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from maskless.data.errors import MasklessError
from maskless.models.inpainters.lora_files import ScaleSettings, alpha_of, module_names

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

LORA = {"lora_down", "lora_up", "lora_mid"}
LOHA = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"}
LOKR = {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"}
WHOLE = {"diff"}
MAGNITUDE, OF_OUTPUTS, ALPHA = "dora_scale", "lora_magnitude_vector", "alpha"
"""Parts with DoRA's magnitudes: of a weight's outputs or inputs, as its shape says; of its outputs, in any shape."""
KNOWN = LORA | LOHA | LOKR | WHOLE | {MAGNITUDE, OF_OUTPUTS, ALPHA}
OTHER_NAMES = {"lora_A": "lora_down", "lora_B": "lora_up"}
"""PEFT's names of the parts of a layer."""
KEY = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_(?:A|B|down|up|mid|magnitude_vector)|(?:hada|lokr)_\w+|dora_scale|alpha|diff)"
    r"(?:\.default)?(?:\.weight)?"
)
BEYOND_LORA = re.compile(
    r"\.(?:lora_mid|lora_magnitude_vector|dora_scale|hada_|lokr_|diff$|diff_b$|w_norm$|b_norm$|oft_|on_input$)"
)
"""Parts of layers that are more than the two matrices of a LoRA and their alpha."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DecomposedLayer:
    """The change of one layer's weight. parts: its tensors by the names in KNOWN. alpha: see LoRA; None if the file has
    none, which means no scaling."""

    parts: dict[str, Tensor]
    alpha: float | None

    def fits(self, weight: Tensor | None) -> bool:
        """Whether the change has the shape of the weight."""
        if weight is None:
            return False
        try:
            self._magnitude(weight)
            return self._change().numel() == weight.numel()
        except (RuntimeError, ValueError, IndexError, KeyError):
            return False

    def merged(self, weight: Tensor, scale: float) -> Tensor:
        """The weight with the share `scale` of the trained change. weight: in float32."""
        from lycoris.functional import weight_decompose

        changed = weight + self._change().to(weight).reshape(weight.shape)
        magnitude = self._magnitude(weight)
        if magnitude is not None:
            on_outputs = magnitude.shape[0] == weight.shape[0]
            changed = weight_decompose(changed, magnitude.to(weight), wd_on_out=on_outputs, backend="torch")
        return weight + scale * (changed - weight)

    def _magnitude(self, weight: Tensor) -> Tensor | None:
        """DoRA's magnitudes of the weight's outputs [out, 1, ...] or inputs [1, in, ...]; None if the layer has none.

        Raises:
            ValueError, RuntimeError: they do not fit the weight.
        """
        rest = [1] * (weight.ndim - 2)
        of_outputs, magnitude = self.parts.get(OF_OUTPUTS), self.parts.get(MAGNITUDE)
        if magnitude is not None and magnitude.ndim > 1 and magnitude.shape[0] == 1:
            return magnitude.reshape(1, weight.shape[1], *rest)
        given = magnitude if of_outputs is None else of_outputs
        return None if given is None else given.reshape(weight.shape[0], 1, *rest)

    def _change(self) -> Tensor:
        """The trained change of the weight, in float32."""
        from lycoris.functional import locon, loha, lokr

        parts = {name: value.float() for name, value in self.parts.items()}
        get: Callable[[str], Any] = parts.get
        if "diff" in parts:
            return parts["diff"]
        if "hada_w1_a" in parts:
            of_loha = ("hada_w1_b", "hada_w1_a", "hada_w2_b", "hada_w2_a", "hada_t1", "hada_t2")
            gamma = self._scale(parts["hada_w1_b"].shape[0])
            return loha.diff_weight(*map(get, of_loha), gamma=gamma, backend="torch")
        if "lokr_w1" in parts or "lokr_w1_a" in parts:
            of_lokr = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
            low = get("lokr_w1_a") if get("lokr_w1_a") is not None else get("lokr_w2_a")
            # This function of the library divides by the rank itself; two whole matrices have no scale.
            gamma = 1.0 if low is None else self._scale(low.shape[1]) * low.shape[1]
            return lokr.diff_weight(*map(get, of_lokr), gamma=gamma, backend="torch")
        down, up, middle = parts["lora_down"], parts["lora_up"], get("lora_mid")
        return locon.diff_weight(down, up, middle, gamma=self._scale(down.shape[0]), backend="torch")

    def _scale(self, rank: int) -> float:
        return self.alpha / rank if self.alpha else 1.0


def is_beyond_lora(keys: Iterable[str]) -> bool:
    """Whether a file has more than LoRA layers, by the names in it."""
    return any(BEYOND_LORA.search(key) for key in keys)


def decomposed_layers(
    pipeline: DiffusionPipeline, weights: dict[str, Tensor], source: str, settings: dict[str, ScaleSettings]
) -> dict[str, DecomposedLayer]:
    """The changes in a file by the name of the layer in the pipeline.

    Raises:
        MasklessError: lycoris is not installed, or the file has a part that is not supported; nothing is left out.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in weights.items():
        found = KEY.fullmatch(key)
        part = None if found is None else OTHER_NAMES.get(found["part"], found["part"])
        if found is None or part not in KNOWN:
            raise MasklessError(
                f"LoRA {source} contains {key}, which is not supported; supported are LoRA, LoHa, LoKr, whole matrices "
                "and DoRA"
            )
        parts.setdefault(found["module"], {})[part] = value
    _require_library(source)
    names = module_names(pipeline, parts)
    layers = {}
    for module, tensors in parts.items():
        alpha, down = tensors.pop(ALPHA, None), tensors.get("lora_down")
        own = None if alpha is None else float(alpha)
        if own is None and down is not None:
            own = alpha_of(settings, names[module], down.shape[0])
        layers[names[module]] = DecomposedLayer(parts=tensors, alpha=own)
    return layers


def _require_library(source: str) -> None:
    try:
        import lycoris.functional  # noqa: F401
    except ImportError as error:
        raise MasklessError(
            f"LoRA {source} is a LyCORIS or DoRA file, which needs lycoris: pip install 'maskless[lycoris]'"
        ) from error
