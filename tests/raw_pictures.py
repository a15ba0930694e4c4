"""Picture files of 16 bits a channel, written byte by byte and independently of the package."""

import struct
import zlib

import numpy as np


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def raw_png(pixels: np.ndarray, colour_type: int) -> bytes:
    """A 16-bit PNG of any colour type, with filter 0."""
    height, width = pixels.shape[:2]
    rows = pixels.astype(">u2").reshape(height, -1)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def raw_tiff(pixels: np.ndarray, order: str) -> bytes:
    """An uncompressed 16-bit RGB TIFF, one strip, in either byte order."""
    height, width = pixels.shape[:2]
    body = pixels.astype(f"{order}u2").tobytes()
    offset, bits_at = 8, 8 + len(body)
    tags = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, bits_at), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, offset), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(body)), (284, 3, 1, 1),
    ]  # fmt: skip
    directory = struct.pack(f"{order}H", len(tags))
    for tag, kind, count, value in tags:
        inline = struct.pack(f"{order}HH", value, 0) if kind == 3 and count == 1 else struct.pack(f"{order}I", value)
        directory += struct.pack(f"{order}HHI", tag, kind, count) + inline
    bits = struct.pack(f"{order}HHH", 16, 16, 16)
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(f"{order}HI", 42, bits_at + len(bits))
    return head + body + bits + directory + struct.pack(f"{order}I", 0)
