"""DINO: a ViT trained by self-distillation without labels. The attention of its last CLS token finds the objects.

After "Emerging Properties in Self-Supervised Vision Transformers" (arXiv 2104.14294): a student sees small and large
crops, a teacher whose weights are a moving average of the student's sees the large ones. The student learns to predict
the teacher's output, balanced and sharpened (equation 2).
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViTConfig, ViTModel

from maskless.storybook.training.loop import Run, set_float32_dtype
from maskless.storybook.world.backgrounds import BACKGROUNDS
from maskless.storybook.world.edits import Window, choose_other, window_around
from maskless.storybook.world.graph import sample
from maskless.storybook.world.scenes import VisibleObject, draw, render, split_seed
from maskless.storybook.world.sheets import sheet, to_tensor

BATCH = 32
LEARNING_RATE = 7e-4
FIRST_SEED = 300_000_000
EMA_DECAY = 0.99
EXPORT = "dino"
SIDE, PATCH = 128, 4
LARGE, SMALL = 48, 24  # pixels along a crop, which are 12 and 6 patches
SMALL_CROPS = 4
OUTPUTS = 256
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
TEACHER_TEMPERATURE, STUDENT_TEMPERATURE = 0.3, 0.1
SINKHORN_ROUNDS = 3


class Student(nn.Module):
    """A ViT with DINO's head: a bottleneck, normalised, and its products with the prototypes.

    From pixels [N, 3, H, W] in [-1, 1] to outputs [N, OUTPUTS].
    """

    def __init__(self, vit: ViTModel) -> None:
        super().__init__()
        width = vit.config.hidden_size
        self.vit = vit
        self.head = nn.Sequential(nn.Linear(width, 512), nn.GELU(), nn.Linear(512, 128))
        self.prototypes = nn.utils.parametrizations.weight_norm(nn.Linear(128, OUTPUTS, bias=False))
        self.prototypes.parametrizations.weight.original0.data.fill_(1.0)
        self.prototypes.parametrizations.weight.original0.requires_grad = False

    def forward(self, pixels: Tensor) -> Tensor:
        token = self.vit(pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0]
        return self.prototypes(F.normalize(self.head(token).float(), dim=-1))


def build(run: Run) -> nn.ModuleDict:
    """Student and teacher, alike at first."""
    config = ViTConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        hidden_act="gelu",
    )
    student = Student(ViTModel(config, add_pooling_layer=False))
    teacher = copy.deepcopy(student).requires_grad_(False)
    return nn.ModuleDict({"student": student, "teacher": teacher})


def example(seed: int) -> dict[str, Tensor]:
    """Two large and four small crops around one object, half of them with another background behind it.

    large [2, 3, 48, 48] and small [4, 3, 24, 24] in [-1, 1]. Crops of one drawn scene share its background, which is
    easier to recognise than the object; with two backgrounds (background augmentation, arXiv 2103.12719) the object is
    what all crops have in common.
    """
    rng = np.random.default_rng(seed)
    graph = sample(seed)
    while not graph.objects:
        graph = sample(int(rng.integers(2**31)))
    first = draw(graph, SIDE)
    second = draw(graph.with_background(choose_other(tuple(BACKGROUNDS), graph.background, rng)), SIDE)
    item = first.objects[int(rng.integers(len(first.objects)))]
    large = [_crop(scene.image, window_around(item, SIDE, rng), rng, LARGE) for scene in (first, second)]
    small = [
        _crop(scene.image, _part(item, rng), rng, SMALL) for scene in (first, second) for _ in range(SMALL_CROPS // 2)
    ]
    return {"large": torch.stack(large), "small": torch.stack(small)}


def _part(item: VisibleObject, rng: np.random.Generator) -> Window:
    """A square window on a part of an object, 50 to 100 % of the object's longer side wide."""
    x0, y0, x1, y1 = item.box_xyxy
    width = max(8, int(max(x1 - x0, y1 - y0) * rng.uniform(0.5, 1.0)))
    left = int(np.clip(rng.uniform(x0, x1) - width / 2, 0, SIDE - width))
    top = int(np.clip(rng.uniform(y0, y1) - width / 2, 0, SIDE - width))
    return left, top, left + width, top + width


def _crop(image: Image.Image, window: Window, rng: np.random.Generator, size: int) -> Tensor:
    """A window resized to [3, size, size] in [-1, 1], randomly mirrored, tinted and lightened."""
    crop = to_tensor(image.crop(window).resize((size, size), Image.Resampling.BILINEAR))
    if rng.random() < 0.5:
        crop = crop.flip(-1)
    gain = torch.from_numpy(rng.uniform(0.8, 1.2, (3, 1, 1))).float()
    return ((crop - 0.5) * gain + 0.5 + float(rng.uniform(-0.1, 0.1))).clamp(0, 1) * 2 - 1


def loss(model: nn.ModuleDict, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Cross-entropy of the student's crops with the teacher's, over all pairs of different crops of a scene."""
    large, small = batch["large"].transpose(0, 1), batch["small"].transpose(0, 1)  # [crops, N, 3, side, side]
    with torch.no_grad():
        raw = model["teacher"](large.flatten(0, 1)).float()
        target = balanced_targets(raw).unflatten(0, large.shape[:2])
    logits = (
        torch.cat([model["student"](large.flatten(0, 1)), model["student"](small.flatten(0, 1))]).float()
        / STUDENT_TEMPERATURE
    )
    student = logits.log_softmax(dim=-1).unflatten(0, (len(large) + len(small), large.shape[1]))
    terms = [
        -(target[t] * student[s]).sum(dim=-1).mean() for t in range(len(large)) for s in range(len(student)) if s != t
    ]
    return torch.stack(terms).mean()


def balanced_targets(outputs: Tensor) -> Tensor:
    """The teacher's outputs [N, P] as targets: rows that sum to 1 and, together, use every prototype equally.

    By Sinkhorn-Knopp (SwAV, arXiv 2006.09882), which replaces DINO's centring as in DINOv2 (arXiv 2304.07193). The
    outputs are divided by their standard deviation in the batch first: those of a new teacher are nearly equal, so that
    with a fixed temperature a network this small would not get away from uniform targets (docs/training-log.md).
    """
    centred = outputs - outputs.mean(dim=0)
    shares = (centred / centred.std().clamp(min=1e-6) / TEACHER_TEMPERATURE).exp()
    for _ in range(SINKHORN_ROUNDS):
        shares = shares / shares.sum(dim=0, keepdim=True).clamp(min=1e-12) / shares.shape[1]
        shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-12) / shares.shape[0]
    return shares * shares.shape[0]


def after_step(model: nn.ModuleDict, step: int) -> None:
    """Move the teacher's weights towards the student's; the momentum rises from 0.98 to 0.998."""
    momentum = 0.998 - 0.018 * 0.999**step
    with torch.no_grad():
        torch._foreach_lerp_(list(model["teacher"].parameters()), list(model["student"].parameters()), 1 - momentum)


def validate(model: nn.ModuleDict) -> tuple[dict[str, float], Image.Image]:
    """Share of the nine strongest cells of the CLS attention, no two adjacent, that lie on an object; and a sheet.

    The sheet shows eight validation scenes and their attention.
    """
    teacher: ViTModel = model["teacher"].vit
    vit = ViTModel(copy.deepcopy(teacher.config), add_pooling_layer=False).to(teacher.device).eval()
    vit.load_state_dict(teacher.state_dict())
    vit.set_attn_implementation("eager")
    scenes = [scene for scene in (render(split_seed("validation", i)) for i in range(60)) if scene.objects]
    hits, maps = [], []
    for scene in scenes:
        truth = np.any([item.mask for item in scene.objects], axis=0)
        out = vit(to_tensor(scene.image)[None].to(vit.device) * 2 - 1, output_attentions=True)
        attention = out.attentions[-1][0, :, 0, 1:].float().mean(dim=0).unflatten(0, (SIDE // PATCH,) * 2)
        maps.append(attention)
        hits.append(_top_cells_on(attention.cpu(), truth))
    pictures = torch.stack([to_tensor(scene.image) for scene in scenes[:8]])
    bright = torch.stack(
        [F.interpolate((m / m.max())[None, None], scale_factor=PATCH)[0].expand(3, -1, -1) for m in maps[:8]]
    )
    return {"anchors_on_object": float(np.mean(hits))}, sheet([pictures, bright])


def _top_cells_on(attention: Tensor, truth: np.ndarray, count: int = 9) -> float:
    """Choose the strongest cells greedily, no two adjacent; the share of them whose centre lies on an object.

    `attention` is [h, w], one value a patch, `truth` [H, W] is True on objects.
    """
    left, on = attention.clone(), 0
    for _ in range(count):
        row, column = divmod(int(left.argmax()), left.shape[1])
        left[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = -1
        on += bool(truth[row * PATCH + PATCH // 2, column * PATCH + PATCH // 2])
    return on / count


def export(model: nn.ModuleDict, models: Path) -> None:
    """Write the folder that ViTModel and ViTImageProcessor open: the teacher's ViT in 16 bits."""
    teacher: ViTModel = model["teacher"].vit
    vit = ViTModel(teacher.config, add_pooling_layer=False)
    vit.load_state_dict(teacher.state_dict())
    vit.half().save_pretrained(models / "dino")
    set_float32_dtype(models / "dino")
    (models / "dino" / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "ViTImageProcessor",
                "do_resize": True,
                "size": {"height": SIDE, "width": SIDE},
                "do_rescale": True,
                "rescale_factor": 1 / 255,
                "do_normalize": True,
                "image_mean": list(MEAN),
                "image_std": list(STD),
                "resample": 2,
            },
            indent=2,
        )
    )


def restore(model: nn.ModuleDict, models: Path) -> None:
    """Load the exported ViT into student and teacher; their heads, which are not exported, start with new weights."""
    vit = ViTModel.from_pretrained(models / EXPORT, add_pooling_layer=False, torch_dtype=torch.float32)
    for part in ("student", "teacher"):
        kept: ViTModel = model[part].vit
        kept.load_state_dict(vit.state_dict())
