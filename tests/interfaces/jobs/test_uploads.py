"""Pictures that clients send, checked by their content before anything is decoded."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from maskless.data.errors import MasklessError
from maskless.interfaces.jobs.uploads import NotAPicture, TooLarge, UploadLimits, checked_upload

LIMITS = UploadLimits(max_bytes=100_000, max_pixels=200 * 200)


def encoded(kind: str, width: int = 64, height: int = 48) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(file, format=kind)
    return file.getvalue()


def huge_png() -> bytes:
    """A PNG of a few bytes whose header says 30,000 x 30,000 pixels."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("TIFF", ".tif"), ("BMP", ".bmp"), ("GIF", ".gif")],
)
def test_the_suffix_is_that_of_the_content(kind, suffix):
    upload = checked_upload(encoded(kind), LIMITS)
    assert (upload.suffix, upload.size_px) == (suffix, (64, 48))


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"", MasklessError, "got an empty one"),
        (b"x" * 100_001, TooLarge, "image must be at most"),
        (b"<svg/>", NotAPicture, "must be a picture in one of the formats"),
        (b"%!PS-Adobe-3.0", NotAPicture, "must be a picture"),
        (huge_png(), TooLarge, "image"),
        (encoded("PNG", 300, 300), TooLarge, "at most 0.04 megapixels, got 300 x 300"),
        (encoded("PNG", 20, 100), MasklessError, "sides must be from 32 to 8000 pixels, got 20 x 100"),
        (encoded("PPM"), NotAPicture, "must be a picture in one of the formats"),
    ],
)
def test_what_is_refused(content, error, words):
    with pytest.raises(error, match=words):
        checked_upload(content, LIMITS)


def test_the_field_is_named():
    with pytest.raises(MasklessError, match="^mask must be"):
        checked_upload(b"", LIMITS, what="mask")
