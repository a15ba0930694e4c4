"""Strategies of hypothesis for pictures, anchors and boxes of any size."""

import torch
from hypothesis import strategies as st

from maskless.data.types import Anchors

sides = st.integers(32, 8000)
small_sides = st.integers(32, 200)
half_sizes = st.lists(st.integers(1, 16), min_size=1, max_size=6, unique=True)


@st.composite
def anchors_on_grids(draw):
    rows, columns = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    count = draw(st.integers(1, 5))
    points = [[draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))] for _ in range(count)]
    return Anchors(points_yx=torch.tensor(points), weight=torch.ones(count), grid_yx=(rows, columns))
