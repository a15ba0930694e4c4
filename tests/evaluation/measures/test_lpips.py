"""LPIPS in plain torch: torchmetrics' own and the published heads give the same; weights are read by name."""

from pathlib import Path

import pytest
import torch
from torch import nn

from maskless.data.errors import MasklessError
from maskless.evaluation.measures.lpips import Lpips
from weights_of_lpips import squeezenet_weights, write_lpips


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_lpips(tmp_path_factory.mktemp("lpips"))


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(0)
    before = torch.rand(3, 70, 97, generator=generator)
    return before, (before + 0.2 * torch.randn(3, 70, 97, generator=generator)).clamp(0, 1)


def test_it_is_the_same_as_torchmetrics(folder, pictures, monkeypatch):
    """With torchmetrics' loop over SqueezeNet's layers, its normalisation and the published heads that it ships."""
    theirs = pytest.importorskip("torchmetrics.functional.image.lpips")
    published = Path(theirs.__file__).parent / "lpips_models" / "squeeze.pth"
    heads = torch.load(published, map_location="cpu", weights_only=True)
    ours = Lpips.from_folder(folder)
    for number, head in enumerate(ours.heads):
        head.copy_(heads[f"lin{number}.model.1.weight"])
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda *_, **__: ours.features)
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *given, **options: load(*given, **{**options, "weights_only": True}))
    reference = theirs._LPIPS(net="squeeze", pnet_rand=True)
    a, b = pictures
    wanted = float(reference(a[None] * 2 - 1, b[None] * 2 - 1))
    assert wanted > 0 and ours.distance(a, b) == pytest.approx(wanted, rel=1e-5)
    spatial = theirs._LPIPS(net="squeeze", pnet_rand=True, spatial=True)
    mapped = spatial(a[None] * 2 - 1, b[None] * 2 - 1)[0, 0]
    assert torch.allclose(ours.spatial(a, b), mapped, atol=1e-6)


def test_its_network_has_the_published_number_of_weights():
    """SqueezeNet 1.1 has 1,235,496 parameters, 513,000 of them in its classifier."""
    net = Lpips().features
    assert sum(value.numel() for value in net.parameters()) == 1_235_496 - 513_000
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in net) == 3


def test_the_same_picture_is_at_no_distance(folder, pictures):
    net, (a, b) = Lpips.from_folder(folder), pictures
    assert net.distance(a, a) == 0 < net.distance(a, b)
    half = a.clone()
    half[:, :, 60:] = b[:, :, 60:]
    seen = net.spatial(a, half)
    assert seen.shape == (70, 97) and float(seen[:, 80:].mean()) > 5 * float(seen[:, :20].mean())


def test_safetensors_are_read_too(folder, tmp_path, pictures):
    from safetensors.torch import save_file

    net, heads = squeezenet_weights()
    save_file(net | heads, tmp_path / "all.safetensors")
    assert Lpips.from_folder(tmp_path).distance(*pictures) == Lpips.from_folder(folder).distance(*pictures)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.joinpath("squeeze.pth").unlink(), "lacks the weights lin0.model.1.weight"),
        (lambda f: f.joinpath("squeeze.pth").write_bytes(b"nonsense"), "squeeze.pth: cannot be read as weights"),
        (lambda f: [file.unlink() for file in f.iterdir()], "must be a folder with SqueezeNet 1.1"),
        (lambda f: torch.save({"features.0.weight": torch.zeros(96, 3, 7, 7)}, f / "z.pth"), "as in SqueezeNet 1.1"),
        (lambda f: torch.save([1, 2], f / "z.pth"), "must hold named weights, got list"),
    ],
)
def test_weights_that_cannot_be_used_are_named(tmp_path, spoil, message):
    spoil(write_lpips(tmp_path))
    with pytest.raises(MasklessError, match=message):
        Lpips.from_folder(tmp_path)


def test_pictures_of_two_sizes_or_too_small_are_refused(folder, unchecked):
    net = Lpips.from_folder(folder)
    for a, b in ((torch.zeros(3, 32, 32), torch.zeros(3, 32, 40)), (torch.zeros(3, 8, 32), torch.zeros(3, 8, 32))):
        with pytest.raises(MasklessError, match="two pictures of one size"):
            net.distance(a, b)
