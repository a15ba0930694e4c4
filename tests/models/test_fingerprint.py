"""What identifies weights: the same numbers always, other numbers or another shape never."""

import torch
from torch import nn

from maskless.data.model_options import ModelOptions
from maskless.models.fingerprint import fingerprint_of
from maskless.models.pretrained import load_models


def test_the_same_weights_have_the_same_fingerprint_and_other_weights_another():
    def network(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(300, 4), nn.LayerNorm(4))

    with torch.random.fork_rng(devices=[]):
        first, same, other = network(0), network(0), network(1)
    assert fingerprint_of([first]) == fingerprint_of([same]) != fingerprint_of([other])
    assert fingerprint_of([first, other]) != fingerprint_of([other, first]) != fingerprint_of([first])
    same[0].weight.data = same[0].weight.data.T.contiguous()
    assert fingerprint_of([same]) != fingerprint_of([first])
    assert len(fingerprint_of([nn.Identity()])) == 16


def test_the_bundled_models_are_identified_by_part_wherever_they_lie(tiny_models, tmp_path):
    import shutil

    shutil.copytree(tiny_models, tmp_path / "moved")
    folders = (tiny_models, tmp_path / "moved")
    here, there = (load_models(ModelOptions(models=str(folder), device="cpu")).weights for folder in folders)
    assert here == there and set(here) == {"inpainting", "dino", "clip"} and len(set(here.values())) == 3
