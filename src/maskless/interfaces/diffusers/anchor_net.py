"""AnchorNet as a model of diffusers, with `from_pretrained` and `save_pretrained`."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor

from maskless.data.errors import MasklessError, require
from maskless.method.anchor_net import AnchorNet
from maskless.records.checkpoints import load_checkpoint


class AnchorNetModel(ModelMixin, ConfigMixin):
    """pi(m|k): a distribution over M sizes of the region for each of K anchors.

    It can start the searches of `MasklessInpaintPipeline` with `search="learned"`, as component `anchor_net`.
    """

    @register_to_config
    def __init__(self, sizes: int = 6) -> None:
        """sizes: M, the number of box sizes that an anchor has."""
        super().__init__()
        self.net = AnchorNet(sizes, torch.Generator().manual_seed(0))

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> AnchorNetModel:
        """The AnchorNet of a checkpoint: of `maskless edit` or `maskless train`, or of the published release.

        Raises:
            MasklessError: a file that is not such a checkpoint, or whose AnchorNet has other layers.
        """
        weights = load_checkpoint(path).anchor_net
        require("layers.7.weight" in weights, f"the AnchorNet in {path} has no layer layers.7")
        model = cls(sizes=len(weights["layers.7.weight"]))
        try:
            model.net.load_state_dict(weights)
        except RuntimeError as error:
            raise MasklessError(f"the AnchorNet in {path} has other layers than this one") from error
        return model

    def forward(self, regions: Float[Tensor, "K C 8 8"]) -> Float[Tensor, "K M"]:
        """log pi(m|k). regions: see `maskless.method.anchor_net.region_features`."""
        return self.net(regions)
