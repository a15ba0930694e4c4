"""Picture files are checked before they are decoded, written in every format, and refused in one line."""

import io
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from maskless.data.errors import MasklessError
from maskless.data.metadata import Metadata
from maskless.data.picture import load_image, save_image
from maskless.data.picture_file import lossless_format, open_picture, require_writable_as, write_picture
from raw_pictures import chunk, raw_png

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def write(path: Path, **options: object) -> Path:
    Image.fromarray(PIXELS).save(path, **options)
    return path


def test_a_file_is_opened_without_decoding_it(tmp_path):
    path = write(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:200])
    with open_picture(path) as image:
        assert image.size == (56, 40)
    with pytest.raises(MasklessError, match="damaged or incomplete"):
        load_image(path)


def test_a_name_that_no_system_can_hold_is_one_line(tmp_path):
    for name in ("x" * 5000, "a\0b"):
        with pytest.raises(MasklessError) as caught:
            open_picture(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name,options,expected",
    [
        ("a.png", {}, "png"),
        ("a.tif", {}, "tiff"),
        ("a.webp", {"lossless": True}, "webp"),
        ("a.webp", {"lossless": True, "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}, "webp"),
        ("a.webp", {"quality": 80}, None),
        ("a.jpg", {}, None),
        ("a.bmp", {}, None),
    ],
)
def test_the_format_of_a_source_that_keeps_every_pixel(tmp_path, name, options, expected):
    with open_picture(write(tmp_path / name, **options)) as image:
        assert lossless_format(image) == expected
    assert load_image(tmp_path / name).lossless_format == expected


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif"])
def test_a_lower_quality_makes_a_smaller_file(tmp_path, suffix):
    sizes = []
    for quality in (95, 20):
        write_picture(tmp_path / f"a{suffix}", PIXELS, icc_profile=None, metadata=Metadata(), quality=quality)
        sizes.append((tmp_path / f"a{suffix}").stat().st_size)
        assert load_image(tmp_path / f"a{suffix}").pixels.shape == PIXELS.shape
    assert sizes[0] > 2 * sizes[1]


@pytest.mark.parametrize(
    "name,given,message",
    [
        ("a.png", {"quality": 80}, "PNG keeps every pixel and takes no quality"),
        ("a.tif", {"quality": 80}, "TIFF keeps every pixel and takes no quality"),
        ("a.jpg", {"alpha": True}, "JPEG cannot store the source's alpha"),
        ("a.avif", {"deep": True}, "must be saved as .png"),
        ("a.gif", {}, "must end in one of"),
    ],
)
def test_what_a_format_does_not_have_is_refused(name, given, message):
    with pytest.raises(MasklessError, match=message):
        require_writable_as(Path(name), **{"alpha": False, "deep": False, **given})


def test_metadata_that_cannot_be_written_does_not_cost_the_picture(tmp_path):
    metadata = Metadata(exif=b"Exif\0\0not exif at all", dpi=(72, 72), text={"Title": "kept"})
    for suffix in (".png", ".jpg", ".tif", ".webp", ".avif"):
        write_picture(tmp_path / f"a{suffix}", PIXELS, icc_profile=None, metadata=metadata)
        assert load_image(tmp_path / f"a{suffix}").pixels.shape == PIXELS.shape


def test_a_gif_with_damaged_transparency_is_one_line(tmp_path):
    image = Image.fromarray(PIXELS).quantize(8)
    image.info["transparency"] = b"\0" * 300  # more entries than the palette has
    with pytest.raises(MasklessError, match="the PIL image is damaged or incomplete"):
        load_image(image)


def test_an_orientation_of_infinity_is_upright(tmp_path):
    ratio = b"II*\0\x08\0\0\0\x01\0" + b"\x12\x01\x05\0\x01\0\0\0\x1a\0\0\0" + b"\0\0\0\0" + b"\x01\0\0\0\0\0\0\0"
    path = tmp_path / "a.png"
    write(path, exif=b"Exif\0\0" + ratio)
    assert np.array_equal(load_image(path).pixels, PIXELS)


def test_an_uncompressed_tiff_that_is_stored_sideways_is_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.asarray(ImageOps.exif_transpose(Image.fromarray(PIXELS)))
    rgba = np.dstack([upright, upright[..., :1]])
    Image.fromarray(rgba).save(tmp_path / "a.tif", exif=exif)  # Pillow maps four channels into memory
    for given in (tmp_path / "a.tif", Image.open(tmp_path / "a.tif")):
        assert np.array_equal(load_image(given).pixels, np.rot90(rgba[..., :3], -1))


def test_a_picture_that_does_not_fit_the_memory_is_one_line(tmp_path):
    side = 2500
    rows = zlib.compress(bytes(side * (1 + 8 * side)), 1)
    head = raw_png(np.zeros((1, 1, 4), np.uint16), 6)[:8]
    header = side.to_bytes(4, "big") * 2 + bytes([16, 6, 0, 0, 0])
    path = tmp_path / "large.png"
    path.write_bytes(head + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    script = """
        import resource, sys
        from maskless.data.errors import MasklessError
        from maskless.data.picture import load_image
        load_image(sys.argv[2])  # what is imported later needs memory as well
        for megabytes in (20, 60, 120):
            pages = int(open("/proc/self/statm").read().split()[0])
            limit = pages * resource.getpagesize() + megabytes * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
            try:
                load_image(sys.argv[1])
            except MasklessError as error:
                print(error)
    """
    if not Path("/proc/self/statm").exists():
        pytest.skip("the memory of a process is read from /proc")
    small = write(tmp_path / "small.png")
    command = [sys.executable, "-c", textwrap.dedent(script), str(path), str(small)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert done.stdout == 3 * f"there is not enough memory to open {path}; make the picture smaller\n"


def test_saving_with_a_quality(tmp_path):
    source = load_image(PIXELS)
    save_image(tmp_path / "a.webp", source.pixels, source=source)
    assert np.array_equal(load_image(tmp_path / "a.webp").pixels, PIXELS)
    save_image(tmp_path / "a.webp", source.pixels, source=source, quality=50)
    stored = io.BytesIO((tmp_path / "a.webp").read_bytes())
    assert not np.array_equal(np.asarray(Image.open(stored).convert("RGB")), PIXELS)
