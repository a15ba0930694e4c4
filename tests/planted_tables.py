"""Region tables whose best region, previews and judge are known."""

import torch

from maskless.data.config import EditConfig
from maskless.evaluation.methods.region_table import RegionTable

K, M = 3, 4


def planted_table(losses, *, success=None, previews=None, shared=False, **changes):
    """A table of K x M = 3 x 4 proposals and the middle, from losses [S][13]; region 12 is the middle.

    Anchor k's boxes are around (20 + 40 k, 20), of sides 8, 16, 24 and 32. shared: the last two sizes of the last
    anchor are one box, so the table has 11 different proposals.
    """
    losses = torch.tensor(losses, dtype=torch.float32)
    columns = losses.shape[1]
    column_of = torch.arange(K * M).reshape(K, M)
    if shared:
        column_of[-1, -1] = column_of[-1, -2]
    boxes = [[20 + 40 * k - r, 20 - r, 20 + 40 * k + r, 20 + r] for k in range(K) for r in (4, 8, 12, 16)]
    boxes = [*boxes[: columns - 1], [0, 0, 64, 64]]
    success = torch.zeros_like(losses) if success is None else torch.tensor(success, dtype=torch.float32)
    nothing = torch.zeros_like(losses)
    names = ("text_to_image", "image_to_image", "location", "gone")
    values = {
        "losses": losses,
        "success": success.bool(),
        "score": success,
        "previews": {n: torch.tensor(v, dtype=torch.float32) for n, v in (previews or {}).items()},
        "scores": {name: nothing for name in names},
        "column_of": column_of,
        "boxes_xyxy": torch.tensor(boxes),
        "features": torch.randn(K, 12 * M, 8, 8, generator=torch.Generator().manual_seed(0)),
        "config": EditConfig(anchors=K, max_window_size=10, iterations=6, steps=8, ranking="paper").resolved(),
        "seed": 5,
        "forwards": {8: 16.0, 1: 2.0, 2: 4.0},
        "seconds": {8: 0.8, 1: 0.1, 2: 0.2},
    } | changes
    return RegionTable(**values)
