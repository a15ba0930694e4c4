"""Colour pictures with 16 bits per channel, which Pillow reads and writes with 8 bits only."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_RGB, PNG_RGBA = 2, 6
METRES_PER_INCH = 0.0254


def read_deep(image: Image.Image) -> np.ndarray | None:
    """The pixels of a just-opened PNG or TIFF with 16 bits per channel, or None for any other file.

    Pillow decodes such files by keeping the high byte of every channel. If its decoder is set to the opposite byte
    order, it keeps the low byte, so decoding the file twice gives both bytes. The image must not have been loaded yet;
    afterwards it is loaded (with the high bytes).

    Returns:
        uint16 [H, W, C], where C is 2 (grey and alpha), 3 or 4.
    """
    raw_mode = _raw_mode(image)
    if raw_mode == "LA;16B":  # no decoder returns their low bytes, but read as RGBA the four bytes of a pixel are kept
        _set_raw_mode(image, "RGBA")
        octets = np.asarray(image).astype(np.uint16)
        return octets[..., 0::2] << 8 | octets[..., 1::2]
    swapped = _opposite_byte_order(raw_mode)
    if swapped is None or image.mode not in ("RGB", "RGBA"):
        return None
    reopened = _reopened(image)
    _set_raw_mode(reopened, swapped)
    high, low = np.asarray(image), np.asarray(reopened)
    return high.astype(np.uint16) << 8 | low


def encode_png(
    pixels: np.ndarray,
    *,
    icc_profile: bytes | None,
    exif: bytes | None,
    text: Mapping[str, str],
    dpi: tuple[float, float] | None = None,
) -> bytes:
    """The bytes of a 16-bit PNG.

    pixels: uint16 [H, W, 3|4]. text: keyword (1 to 79 Latin-1 letters) -> any text. dpi: pixels per inch across, down.
    """
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, PNG_RGBA if channels == 4 else PNG_RGB, 0, 0, 0)
    parts = [PNG_SIGNATURE, _chunk(b"IHDR", header)]
    if icc_profile:
        parts.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc_profile)))
    if dpi:
        across, down = (round(part / METRES_PER_INCH) for part in dpi)
        parts.append(_chunk(b"pHYs", struct.pack(">IIB", across, down, 1)))
    if exif:
        parts.append(_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    for keyword, value in text.items():
        parts.append(_chunk(b"iTXt", keyword.encode("latin-1") + b"\0\0\0\0\0" + value.encode("utf-8")))
    parts += [_chunk(b"IDAT", zlib.compress(_filtered(pixels), 6)), _chunk(b"IEND", b"")]
    return b"".join(parts)


def _filtered(pixels: np.ndarray) -> bytes:
    """Rows in PNG's filter 2 ("up"): the filter's number, then each byte minus the one of the row above."""
    height = pixels.shape[0]
    rows = np.ascontiguousarray(pixels.astype(">u2")).view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return filtered.tobytes()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _raw_mode(image: Image.Image) -> str:
    """Pillow's name for the layout of the file's pixels, such as "RGB;16B"; empty if the format is not PNG or TIFF."""
    tiles = getattr(image, "tile", None)
    if image.format not in ("PNG", "TIFF") or not tiles:
        return ""
    arguments = tiles[0][3]
    return str(arguments if isinstance(arguments, str) else arguments[0] if arguments else "")


def _set_raw_mode(image: Image.Image, raw_mode: str) -> None:
    tiles = []
    for codec, extents, offset, arguments in image.tile:  # type: ignore[attr-defined]
        arguments = raw_mode if isinstance(arguments, str) else (raw_mode, *arguments[1:])
        tiles.append((codec, extents, offset, arguments))
    image.tile = [type(image.tile[0])(*tile) for tile in tiles]  # type: ignore[attr-defined]


def _opposite_byte_order(raw_mode: str) -> str | None:
    """The same layout with the bytes of each channel swapped; None if the channels do not have 16 bits."""
    layout, _, order = raw_mode.partition(";")
    if order == "16N":
        order = "16L" if sys.byteorder == "little" else "16B"
    return {"16B": f"{layout};16L", "16L": f"{layout};16B"}.get(order)


def _reopened(image: Image.Image) -> Image.Image:
    from PIL import Image

    file: BinaryIO = image.fp  # type: ignore[attr-defined]
    position = file.tell()
    file.seek(0)
    copy = Image.open(io.BytesIO(file.read()))
    file.seek(position)
    return copy
