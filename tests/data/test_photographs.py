"""The bundled photographs, which need no weights: formats, exactness, and what is said of their origin."""

from pathlib import Path

import numpy as np
import pytest
import torch

import maskless
from maskless.data.paste import paste_pixels
from maskless.data.picture import load_image, save_image
from maskless.data.picture_file import FORMATS, SUFFIXES
from maskless.data.provenance import Provenance

FOLDER = Path(maskless.__file__).parent / "assets" / "photographs"
PHOTOGRAPHS = sorted(path for path in FOLDER.iterdir() if path.suffix in FORMATS)
LOSSLESS = [SUFFIXES[name] for name in ("png", "webp", "tiff")]
each = pytest.mark.parametrize("path", PHOTOGRAPHS, ids=[path.stem for path in PHOTOGRAPHS])


def test_each_is_small_and_its_source_and_licence_are_beside_it():
    said = (FOLDER / "SOURCES.md").read_text("utf-8")
    assert len(PHOTOGRAPHS) == 3 and all(path.stat().st_size < 200_000 for path in PHOTOGRAPHS)
    for path in PHOTOGRAPHS:
        row = next(line for line in said.splitlines() if f"`{path.name}`" in line)
        assert "CC0" in row or "public domain" in row
        height, width, _ = load_image(path).pixels.shape
        assert f"{width} × {height}" in row


@each
@pytest.mark.parametrize("suffix", LOSSLESS)
def test_an_edit_of_a_photograph_changes_its_box_alone(path, suffix, tmp_path):
    source = load_image(path)
    height, width, _ = source.pixels.shape
    box = (width // 4, height // 4, width // 2, height // 2)
    edited = paste_pixels(source.pixels, torch.rand(3, 64, 64), box, box, feather=0.06)
    mark = Provenance(box_xyxy=box, size_px=(width, height))
    save_image(tmp_path / f"a{suffix}", edited, source=source, provenance=mark)
    differs = (load_image(tmp_path / f"a{suffix}").pixels != source.pixels).any(axis=2)
    x0, y0, x1, y1 = box
    assert differs[y0:y1, x0:x1].mean() > 0.8 and differs.sum() == differs[y0:y1, x0:x1].sum()


@each
@pytest.mark.parametrize("suffix, error", [(".jpg", 8), (".avif", 8)])
def test_lossy_formats_stay_close_to_a_photograph(path, suffix, error, tmp_path):
    if suffix not in FORMATS:
        pytest.skip("this Pillow writes no AVIF")
    source = load_image(path)
    save_image(tmp_path / f"a{suffix}", source.pixels, source=source)
    back = load_image(tmp_path / f"a{suffix}").pixels.astype(float)
    assert np.abs(back - source.pixels).mean() < error
