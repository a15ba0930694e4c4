"""Logs are read back with TensorBoard's own reader."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from maskless.data.errors import MasklessError
from maskless.records.tensorboard import TensorBoardLog, summary_writer


def test_every_curve_is_logged(make_result, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = make_result(np.full((64, 64, 3), 200, np.uint8))
    probabilities = torch.softmax(torch.rand(9, 6, generator=torch.Generator().manual_seed(0)), 1)
    overview = tmp_path / "overview.png"
    Image.new("RGB", (30, 20), "red").save(overview)
    with TensorBoardLog(tmp_path, image_id="7", caption="a/b", sizes=result.config.sizes) as log:
        for record in result.history:
            log.after(record, probabilities)
        log.finished(overview, len(result.history))
    assert log.folder.parent == tmp_path / "tensorboard" and log.folder.name.startswith("7_a-b")
    read = EventAccumulator(str(log.folder))
    read.Reload()
    scalars = read.Tags()["scalars"]
    assert {"loss", "expected_loss", "inpaintings"} < set(scalars) and len(scalars) == 3 + 9 * 6
    for name in ("loss", "expected_loss", "inpaintings"):
        found = [(event.step, event.value) for event in read.Scalars(name)]
        assert found == [(step.step, pytest.approx(getattr(step, name))) for step in result.history]
    assert read.Scalars("probability/anchor_2/size_8")[-1].value == pytest.approx(float(probabilities[2, 2]))
    (image,) = read.Images("overview")
    assert (image.width, image.height, image.step) == (30, 20, 10)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(MasklessError, match=r"pip install 'maskless\[tensorboard\]'"):
        summary_writer()
