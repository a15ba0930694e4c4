"""A finding: its JSON, its mask and its overlay on the disk."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from maskless.data.errors import MasklessError
from maskless.data.finding import Finding, FoundRegion
from maskless.data.picture import load_image


def region(box=(10, 4, 30, 24), score=2.0) -> FoundRegion:
    return FoundRegion(box_xyxy=box, score=score, signs={"shown": 1.0, "fit": float("nan")}, reason="It fits.")


def finding(height=40, width=60, **changes) -> Finding:
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[4:24, 10:30] = True
    fields = {"source": load_image(np.full((height, width, 3), 90, np.uint8)), "caption": "a cat", "mask": mask}
    return Finding(**{**fields, "regions": (region(), region((0, 0, 8, 8), 1.0)), "looks_like": True, "clear": False,
                      **changes})  # fmt: skip


def test_it_writes_its_record_its_mask_and_an_overlay(tmp_path):
    found = finding()
    found.save(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == ["mask.png", "overlay.png", "region.json"]
    record = json.loads((folder / "region.json").read_text("utf-8"))
    assert record == found.to_dict()
    assert record["box_xyxy"] == [10, 4, 30, 24] and record["size_px"] == [60, 40] and record["looks_like"] is True
    assert record["signs"] == {"shown": 1.0, "fit": None} and record["mask_share"] == round(400 / 2400, 4)
    assert [other["box_xyxy"] for other in record["alternatives"]] == [[0, 0, 8, 8]]
    mask = np.asarray(Image.open(folder / "mask.png"))
    assert mask.shape == (40, 60) and np.array_equal(mask == 255, found.mask.numpy()) and set(mask.ravel()) == {0, 255}
    overlay = np.asarray(Image.open(folder / "overlay.png")).astype(int)
    assert overlay.shape == (40, 60, 3) and (overlay[35, 50] == 90).all()
    assert overlay[14, 20, 0] > 120 and overlay[23, 12, 0] > 200  # tinted inside, the edge of the best box


def test_the_overlay_of_a_large_picture_is_reduced_and_the_mask_is_not():
    found = finding(height=1500, width=3000)
    assert found.overlay().size == (1024, 512) and found.mask_image().size == (3000, 1500)


def test_its_identity_is_that_of_picture_and_caption():
    assert finding().identity == finding(looks_like=False).identity
    assert len({finding().identity, finding(caption="a dog").identity, finding(width=61).identity}) == 3


@pytest.mark.parametrize("changes", [{"mask": torch.zeros(3, 3, dtype=torch.bool)}, {"regions": ()}])
def test_what_does_not_fit_the_picture_is_refused(changes):
    with pytest.raises(MasklessError, match="mask must be|regions must not be empty"):
        finding(**changes)
