"""Outside an edit the saved picture is the source, for every kind of file in each of the eight orientations.

golden_pictures.json holds a hash of those pixels for each case, so that another version of Pillow that decodes a file
to other pixels is noticed. `PYTHONPATH=src:tests python tests/data/test_golden_pictures.py` writes it again.
"""

import hashlib
import io
import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, features

from maskless.data.picture import load_image
from maskless.data.result import EditedImage
from maskless.data.types import EditRequest
from raw_pictures import chunk, raw_png, raw_tiff

GOLDEN = Path(__file__).with_name("golden_pictures.json")
HEIGHT, WIDTH = 40, 56
Make = Callable[[int], bytes]


def noise(channels: int, dtype: type = np.uint8) -> np.ndarray:
    shape = (HEIGHT, WIDTH, channels) if channels > 1 else (HEIGHT, WIDTH)
    return np.random.default_rng(5).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def smooth() -> np.ndarray:
    """[H, W, 3]: colours that change slowly, as a lossy format expects them."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([rows * 6, columns * 4, 255 - rows * 3 - columns * 2], axis=2).clip(0, 255).astype(np.uint8)


def saved(image: Image.Image, file_format: str, *, exif: bool = True, **options: object) -> Make:
    """Makes the file of a picture in a format with Pillow, with an orientation if the format has one."""

    def make(orientation: int) -> bytes:
        block = Image.Exif()
        block[0x0112] = orientation
        file = io.BytesIO()
        image.save(file, format=file_format, **({"exif": block} if exif else {}), **options)
        return file.getvalue()

    return make


def deep_png(channels: int, colour_type: int) -> Make:
    def make(orientation: int) -> bytes:
        content = raw_png(noise(channels, np.uint16).reshape(HEIGHT, WIDTH, channels), colour_type)
        block = Image.Exif()
        block[0x0112] = orientation
        return content[:33] + chunk(b"eXIf", block.tobytes().removeprefix(b"Exif\0\0")) + content[33:]

    return make


def deep_tiff(orientation: int) -> bytes:
    """raw_tiff's last tag, the planar configuration, has its default; the orientation takes its place."""
    content = raw_tiff(noise(3, np.uint16), "<")
    entry = struct.pack("<HHIHH", 284, 3, 1, 1, 0)
    assert content.count(entry) == 1
    tags = content[content.index(entry) - 9 * 12 : content.index(entry)]
    ordered = sorted([tags[at : at + 12] for at in range(0, len(tags), 12)]
                     + [struct.pack("<HHIHH", 274, 3, 1, orientation, 0)])  # fmt: skip
    ordered.sort(key=lambda entry: struct.unpack("<H", entry[:2])[0])
    return content.replace(tags + entry, b"".join(ordered))


PALETTE = Image.fromarray(noise(3)).quantize(17)
KINDS: dict[str, Make] = {
    "png rgb": saved(Image.fromarray(noise(3)), "PNG"),
    "png rgba": saved(Image.fromarray(noise(4)), "PNG"),
    "png grey": saved(Image.fromarray(noise(1)), "PNG"),
    "png grey with alpha": saved(Image.fromarray(noise(2)), "PNG"),
    "png palette": saved(PALETTE, "PNG"),
    "png palette with transparency": saved(PALETTE, "PNG", transparency=3),
    "png black and white": saved(Image.fromarray(noise(1)).convert("1"), "PNG"),
    "png rgb 16 bit": deep_png(3, 2),
    "png rgba 16 bit": deep_png(4, 6),
    "png grey 16 bit": deep_png(1, 0),
    "tiff rgb": saved(Image.fromarray(noise(3)), "TIFF", compression="tiff_lzw"),
    "tiff rgba": saved(Image.fromarray(noise(4)), "TIFF"),
    "tiff cmyk": saved(Image.fromarray(noise(4), "CMYK"), "TIFF"),
    "tiff rgb 16 bit": deep_tiff,
    "webp lossless": saved(Image.fromarray(noise(3)), "WEBP", lossless=True),
    "webp lossless rgba": saved(Image.fromarray(noise(4)), "WEBP", lossless=True, exact=True),
    "webp lossy": saved(Image.fromarray(smooth()), "WEBP", quality=80),
    "gif": saved(PALETTE, "GIF", exif=False),
    "bmp": saved(Image.fromarray(noise(3)), "BMP", exif=False),
    "jpeg 4:2:0": saved(Image.fromarray(smooth()), "JPEG", subsampling=2),
    "jpeg 4:4:4": saved(Image.fromarray(smooth()), "JPEG", subsampling=0),
    "jpeg grey": saved(Image.fromarray(smooth()).convert("L"), "JPEG"),
    "jpeg cmyk": saved(Image.fromarray(smooth()).convert("CMYK"), "JPEG"),
}
if features.check("avif"):
    KINDS["avif"] = saved(Image.fromarray(smooth()), "AVIF", quality=80)
UNSTABLE = ("webp lossy", "avif")
"""Kinds whose encoders give other bytes on other processors, so that a hash would say nothing."""


def outside_of_an_edit(content: bytes, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pixels [N, 3|4] outside an edit: of the source as it was loaded, and of the edit that was saved."""
    (folder / "source").write_bytes(content)
    source = load_image(folder / "source")
    height, width = source.rgb.shape[1:]
    box = (width // 3, height // 4, width - 9, height - 8)
    crop = torch.full((3, 16, 16), 200, dtype=torch.uint8)
    request = EditRequest(source=source, caption="", prompt="x")
    edited = EditedImage(request=request, box_xyxy=box, window_xyxy=box, crop=crop, feather=0.06)
    edited.save(folder / "edited.png")
    stored, outside = load_image(folder / "edited.png"), ~edited.touched().numpy()
    assert not np.array_equal(stored.pixels, source.pixels)
    loaded, kept = (
        picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
        for picture in (source, stored)
    )
    return loaded[outside], kept[outside]


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(f"{values.dtype} {values.shape} ".encode() + values.tobytes()).hexdigest()[:16]


def hashes(kind: str, folder: Path) -> list[str]:
    """A hash for each orientation that the format has."""
    found = []
    for orientation in range(1, 2 if kind in ("gif", "bmp") else 9):
        loaded, kept = outside_of_an_edit(KINDS[kind](orientation), folder)
        assert np.array_equal(loaded, kept), f"{kind}, orientation {orientation}"
        found.append(digest(kept))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_outside_an_edit_every_kind_of_picture_keeps_its_pixels(kind, tmp_path):
    found = hashes(kind, tmp_path)
    assert len(set(found)) == len(found), "each orientation gives another arrangement of the pixels"
    if kind not in UNSTABLE:
        assert found == json.loads(GOLDEN.read_text("utf-8"))[kind]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "16" not in kind and kind not in ("gif", "bmp")])
def test_every_kind_is_upright_as_pillow_turns_it(kind, tmp_path):
    for orientation in range(1, 9):
        content = KINDS[kind](orientation)
        opened = Image.open(io.BytesIO(content))
        opened.load()  # this turns a TIFF
        turned = opened if opened.format == "TIFF" else ImageOps.exif_transpose(opened)
        expected = np.asarray(turned.convert("RGBA" if load_alpha(content, tmp_path) else "RGB"))
        source = load_image(tmp_path / "source")
        assert np.array_equal(source.pixels, expected[..., :3])
        assert source.alpha is None or np.array_equal(source.alpha, expected[..., 3])


def load_alpha(content: bytes, folder: Path) -> bool:
    (folder / "source").write_bytes(content)
    return load_image(folder / "source").alpha is not None


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        table = {kind: hashes(kind, Path(place)) for kind in KINDS if kind not in UNSTABLE}
    GOLDEN.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
