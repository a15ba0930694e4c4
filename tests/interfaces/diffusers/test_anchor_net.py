"""AnchorNet as a model of diffusers."""

import pytest
import torch
from diffusers import ModelMixin

from maskless.data.errors import MasklessError
from maskless.interfaces.diffusers.anchor_net import AnchorNetModel


def test_it_is_saved_and_loaded_as_diffusers_models_are(tmp_path):
    model = AnchorNetModel(sizes=4)
    with torch.no_grad():
        model.net.layers[7].bias[1] = 3.0
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    loaded = AnchorNetModel.from_pretrained(tmp_path)
    regions = torch.randn(5, 48, 8, 8, generator=torch.Generator().manual_seed(0))
    assert isinstance(loaded, ModelMixin) and loaded.config.sizes == 4
    assert torch.equal(loaded(regions), model(regions))
    assert loaded.num_parameters() == model.net.parameter_count


def test_it_is_read_from_a_checkpoint_of_the_release(tmp_path):
    net = AnchorNetModel(sizes=6).net
    with torch.no_grad():
        net.layers[7].bias[5] = 2.0
    content = {f"module.anchor_net.{name.removeprefix('layers.')}": value for name, value in net.state_dict().items()}
    torch.save(content, tmp_path / "last.pth")
    model = AnchorNetModel.from_checkpoint(tmp_path / "last.pth")
    assert all(map(torch.equal, model.net.state_dict().values(), net.state_dict().values()))
    content["module.anchor_net.7.weight"] = torch.zeros(6, 5)
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(MasklessError, match="has other layers than this one"):
        AnchorNetModel.from_checkpoint(tmp_path / "other.pth")
