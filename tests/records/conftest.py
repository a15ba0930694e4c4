"""A hand-made EditResult: real types and a given picture, but random crops in place of an inpainting."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from maskless.data.boxes import propose_regions
from maskless.data.config import EditConfig
from maskless.data.model_options import ModelOptions
from maskless.data.picture import ImageLike, load_image
from maskless.data.result import AnchorNetReport, Candidates, Cost, EditResult, SearchStep
from maskless.data.types import Anchors, EditRequest, Losses
from maskless.method.losses import NAMES


@pytest.fixture
def make_result() -> Callable[..., EditResult]:
    def make(image: ImageLike, caption: str = "trees", prompt: str = "a big tree", **config) -> EditResult:
        """Nine anchors on a 3 x 3 raster with different sizes; scores and losses are random, with a fixed seed."""
        generator = torch.Generator().manual_seed(0)
        options = EditConfig(**config).resolved(steps=None, guidance_scale=None, batch_size=9, seed=None)
        source = load_image(image)
        size_yx = (source.rgb.shape[1], source.rgb.shape[2])
        points = torch.tensor([[y, x] for y in (6, 16, 26) for x in (6, 16, 26)])
        anchors = Anchors(points_yx=points, weight=torch.linspace(1, 0.2, 9), grid_yx=(32, 32))
        sizes = len(options.sizes)
        chosen = torch.arange(9) % sizes
        regions = propose_regions(anchors, options.sizes, size_yx)[torch.arange(9) * sizes + chosen]
        terms = torch.rand(len(NAMES), 9, generator=generator).T
        scores = torch.rand(9, generator=generator)
        rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
        heat = torch.exp(-((rows - 16) ** 2 + (columns - 20) ** 2) / 40.0)
        logits = torch.rand(9, sizes, generator=generator)
        return EditResult(
            request=EditRequest(source=source, caption=caption, prompt=prompt),
            config=options,
            used=options,
            models=ModelOptions(),
            anchors=anchors,
            candidates=Candidates(
                regions=regions,
                windows_xyxy=regions.boxes_xyxy,
                crops=torch.randint(0, 256, (9, 3, 64, 64), generator=generator, dtype=torch.uint8),
                seeds=(options.seed,) * 9,
                feather=options.feather,
            ),
            losses=Losses(names=NAMES, terms=terms, total=terms.sum(1)),
            scores=scores,
            order=tuple(np.argsort(-scores.numpy()).tolist()),
            attention=heat / heat.sum(),
            relevance=heat.flip(1),
            anchor_net=AnchorNetReport(
                probabilities_before=logits.softmax(1),
                probabilities_after=(6 * logits).softmax(1),
                expected_loss_before=1.52,
                expected_loss_after=float("nan"),
            ),
            history=tuple(
                SearchStep(
                    step=step, total_steps=10, epoch=1, loss=2 - 0.1 * step, expected_loss=1.8 - 0.09 * step,
                    chosen=tuple(chosen.tolist()), inpaintings=9 * step, updates=200 * (step // 3), seconds=0.5,
                )
                for step in range(1, 11)
            ),
            cost=Cost(
                inpaintings=54, unet_forwards=1080, seconds={"inpainting": 12.34567, "clip": 1.2}, peak_memory_mb=812.4
            ),
        )  # fmt: skip

    return make
