"""What a picture file says beside its pixels is kept, in every format that can hold it; damaged parts are left out."""

import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from maskless.data.metadata import XMP_KEYWORD, Metadata, read_metadata
from maskless.data.picture import load_image, save_image

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" dc:title="a"/></x:xmpmeta>'
UPRIGHT = XMP.replace(b'"6"', b'"1"')


def stored(file_format: str, **options: object) -> Image.Image:
    """A picture as a file of a format, opened and loaded."""
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, format=file_format, **options)
    image = Image.open(io.BytesIO(file.getvalue()))
    image.load()
    return image


def with_text(**text: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for keyword, value in text.items():
        info.add_itxt(XMP_KEYWORD if keyword == "xmp" else keyword, value)
    return info


def test_everything_that_a_png_says_is_read():
    image = stored("PNG", pnginfo=with_text(Title="ein Baum 🌳", xmp=XMP.decode()), dpi=(300, 150))
    orientation, metadata = read_metadata(image)
    assert orientation == 6 and metadata.xmp == UPRIGHT
    assert dict(metadata.text) == {"Title": "ein Baum 🌳"}
    assert metadata.dpi == pytest.approx((150, 300), abs=0.1), "turned with the picture"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
def test_the_metadata_of_a_jpeg_reaches_every_format_that_can_hold_it(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    Image.fromarray(PIXELS).save(
        tmp_path / "a.jpg", exif=exif, xmp=UPRIGHT, dpi=(300, 300), comment=b"by hand", quality=100
    )
    source = load_image(tmp_path / "a.jpg")
    save_image(tmp_path / f"b{suffix}", source.pixels, source=source)
    back = load_image(tmp_path / f"b{suffix}").metadata
    image = Image.open(tmp_path / f"b{suffix}")
    assert image.getexif()[0x010F] == "Maker" and back.xmp == UPRIGHT
    if suffix in (".png", ".jpg", ".tif"):
        assert back.dpi == pytest.approx((300, 300), abs=0.1)
    if suffix == ".jpg":
        assert back.comment == b"by hand"
    if suffix == ".png":
        assert back.text["Comment"] == "by hand"


def test_sixteen_bits_keep_it_as_well(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (40, 56, 3), dtype=np.uint16)
    Image.fromarray(PIXELS).save(tmp_path / "a.png", pnginfo=with_text(Title="x", xmp=UPRIGHT.decode()), dpi=(72, 72))
    source = load_image(tmp_path / "a.png")
    save_image(tmp_path / "b.png", deep, source=source)
    back = load_image(tmp_path / "b.png")
    assert back.bit_depth == 16 and dict(back.metadata.text) == {"Title": "x"} and back.metadata.xmp == UPRIGHT
    assert back.metadata.dpi == pytest.approx((72, 72), abs=0.1)


def test_settings_take_the_place_of_those_of_an_earlier_edit(tmp_path):
    save_image(tmp_path / "a.png", PIXELS, text={"maskless": "old", "Title": "kept"})
    save_image(tmp_path / "b.png", PIXELS, source=load_image(tmp_path / "a.png"), text={"maskless": "new"})
    assert dict(load_image(tmp_path / "b.png").metadata.text) == {"maskless": "new", "Title": "kept"}


@pytest.mark.parametrize("orientation", [float("inf"), (6, 6), 0, 9, -1, b"6"])
def test_an_impossible_orientation_is_upright(orientation):
    image = Image.fromarray(PIXELS)
    image.getexif()[0x0112] = orientation
    assert read_metadata(image)[0] == 1


@pytest.mark.parametrize("dpi", [(0, 0), (float("inf"), 72), (float("nan"),) * 2, ("a", "b"), 72, None, (1e9, 1e9)])
def test_an_impossible_resolution_is_left_out(dpi):
    image = Image.fromarray(PIXELS)
    image.info["dpi"] = dpi
    assert read_metadata(image)[1].dpi is None


def test_what_does_not_fit_into_a_jpeg_is_left_out(tmp_path):
    source = load_image(PIXELS)
    object.__setattr__(source, "metadata", Metadata(xmp=b"x" * 70_000, exif=b"Exif\0\0" + b"x" * 70_000))
    save_image(tmp_path / "a.jpg", source.pixels, source=source)
    assert load_image(tmp_path / "a.jpg").metadata.xmp is None


def test_text_that_is_no_unicode_is_written_as_escapes(tmp_path):
    save_image(tmp_path / "a.png", PIXELS, text={"maskless": '{"image": "\udcff.png"}'})
    assert load_image(tmp_path / "a.png").metadata.text["maskless"] == '{"image": "\\udcff.png"}'
