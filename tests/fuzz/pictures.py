"""Mutated pictures from seeds: valid files of every format and mode, with bits, chunks and tags of them damaged.

Each is loaded, edited and saved as a user's picture would be. It must end as an edit whose outside is the source's,
or as one line that says what is wrong.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin, features

from maskless.data.errors import MasklessError
from maskless.data.picture import SourceImage, load_image
from maskless.data.result import EditedImage
from maskless.data.types import EditRequest

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PNG16", *(("AVIF",) if features.check("avif") else ()))
MODES = {
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
    "JPEG": ("RGB", "L", "CMYK"),
    "TIFF": ("RGB", "RGBA", "L", "P", "CMYK", "1", "LAB", "I;16", "F"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("P", "L"),
    "BMP": ("RGB", "L", "P", "1", "RGBA"),
    "PNG16": ("RGB", "RGBA", "L", "LA"),
    "AVIF": ("RGB", "RGBA"),
}
SUFFIX = {"PNG16": ".png", "JPEG": ".jpg", "TIFF": ".tif"}
XMP = b'<x:xmpmeta tiff:Orientation="%d"><dc:title>a picture</dc:title></x:xmpmeta>'
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one picture ended. refused: the line that says why; None if it was edited."""

    seed: int
    kind: str
    refused: str | None


def mutated_picture(seed: int) -> tuple[str, str, bytes]:
    """The picture of a seed: the suffix of its file, a description of its kind, and its content."""
    rng = random.Random(seed)
    file_format = rng.choice(FORMATS)
    mode = rng.choice(MODES[file_format])
    content = _valid(file_format, mode, rng)
    kind = f"{file_format} {mode}"
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        name, mutate = rng.choice(MUTATIONS)
        content = mutate(content, rng)
        kind += f", {name}"
    return SUFFIX.get(file_format, f".{file_format.lower()}"), kind, content


def try_picture(seed: int, folder: Path) -> Outcome:
    """Load the picture of a seed, edit a box of it, save it and read it back.

    Raises:
        AssertionError: a pixel outside changed, an error has several lines, or a file was left behind.
        Exception: anything else that the package lets through; this is what the campaign looks for.
    """
    suffix, kind, content = mutated_picture(seed)
    path, saved = folder / f"{seed}{suffix}", folder / f"{seed} edited.png"
    path.write_bytes(content)
    refused = None
    try:
        source = load_image(path)
        _edit(source, seed).save(saved, text={"maskless": "{}"})
        _check(source, _edit(source, seed), load_image(saved))
        _save_elsewhere(source, seed, folder)
    except MasklessError as error:
        refused = str(error)
        assert "\n" not in refused, f"seed {seed} ({kind}): {refused!r}"
    path.unlink()
    saved.unlink(missing_ok=True)
    assert not list(folder.iterdir()), f"seed {seed} ({kind}) left {list(folder.iterdir())}"
    return Outcome(seed=seed, kind=kind, refused=refused)


def summary(outcomes: list[Outcome]) -> dict[str, int]:
    """How many pictures were edited, and how many were refused in one line."""
    counted = Counter("edited" if outcome.refused is None else "refused" for outcome in outcomes)
    return {"tried": len(outcomes), "edited": counted["edited"], "refused in one line": counted["refused"]}


def _edit(source: SourceImage, seed: int) -> EditedImage:
    """An edit of a box in the middle, with random content."""
    height, width = source.rgb.shape[1:]
    box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
    crop = torch.randint(0, 256, (3, 16, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    request = EditRequest(source=source, caption="", prompt="x")
    return EditedImage(request=request, box_xyxy=box, window_xyxy=box, crop=crop, feather=0.06)


def _check(source: SourceImage, edited: EditedImage, stored: SourceImage) -> None:
    """Outside the box every pixel and its alpha are the source's, and what was saved is what was edited."""
    outside = ~edited.touched().numpy()
    assert stored.pixels.dtype == source.pixels.dtype
    assert np.array_equal(stored.pixels[outside], source.pixels[outside])
    assert np.array_equal(stored.pixels, edited.pixels())
    assert (stored.alpha is None) == (source.alpha is None)
    if stored.alpha is not None and source.alpha is not None:
        assert np.array_equal(stored.alpha[outside], source.alpha[outside])
        assert np.array_equal(stored.alpha, edited.source.alpha)


def _save_elsewhere(source: SourceImage, seed: int, folder: Path) -> None:
    """Save the edit in another format, with its metadata; lossless ones must hold the same pixels."""
    suffix = random.Random(seed).choice((".tif", ".webp", ".jpg", ".avif" if "AVIF" in FORMATS else ".tif"))
    path = folder / f"{seed} again{suffix}"
    try:
        edited = _edit(source, seed)
        edited.save(path)
        stored = load_image(path)
        if suffix in (".tif", ".webp"):
            assert np.array_equal(stored.pixels, edited.pixels())
    except MasklessError as error:
        if "must be saved as .png" not in str(error) and "cannot store the source's alpha" not in str(error):
            raise AssertionError(f"seed {seed} cannot be saved as {suffix}: {error}") from error
    finally:
        path.unlink(missing_ok=True)


def _valid(file_format: str, mode: str, rng: random.Random) -> bytes:
    """A sound file: random pixels of a format and mode, often with EXIF data, XMP, resolution, text or transparency."""
    width, height = rng.randint(32, 72), rng.randint(32, 72)
    numpy = np.random.default_rng(rng.randrange(2**32))
    if file_format == "PNG16":
        return _png16(numpy, mode, width, height)
    if mode in ("I;16", "F"):
        high = 65536 if mode == "I;16" else 2
        image = Image.fromarray(numpy.integers(0, high, (height, width)).astype("uint16" if high > 2 else "float32"))
    else:
        channels = {"L": 1, "LA": 2, "P": 3, "1": 1, "RGBA": 4, "CMYK": 4}.get(mode, 3)
        shape = (height, width, channels) if channels > 1 else (height, width)
        pixels = numpy.integers(0, 256, shape, dtype=np.uint8)
        if mode in ("P", "LAB"):
            image = Image.fromarray(pixels)
            image = image.quantize(rng.choice((2, 16, 200))) if mode == "P" else Image.frombytes(
                "LAB", (width, height), pixels.tobytes()
            )  # fmt: skip
        else:
            image = Image.fromarray(pixels, None if channels != 4 or mode == "RGBA" else mode)
            image = image.convert(mode)
    file, options = io.BytesIO(), _options(file_format, mode, rng)
    try:
        image.save(file, format=file_format, **options)
    except Exception:  # Pillow itself refuses to write some of the impossible metadata
        file = io.BytesIO()
        image.save(file, format=file_format)
    return file.getvalue()


def _options(file_format: str, mode: str, rng: random.Random) -> dict[str, object]:
    """Arguments of Pillow's `save`: metadata, some of it impossible, and the format's own choices."""
    options: dict[str, object] = {}
    if rng.random() < 0.6 and file_format in ("PNG", "JPEG", "WEBP", "AVIF", "TIFF"):
        options["exif"] = _exif(rng)
    if rng.random() < 0.3 and file_format in ("JPEG", "WEBP", "AVIF"):
        options["xmp"] = XMP % rng.randint(0, 9)
    if rng.random() < 0.4 and file_format in ("PNG", "JPEG", "TIFF", "BMP"):
        options["dpi"] = (rng.choice((1, 72, 300)), rng.choice((1, 72, 300)))
    if file_format == "PNG" and rng.random() < 0.4:
        info = PngImagePlugin.PngInfo()
        info.add_itxt(rng.choice(("Title", "maskless", "XML:com.adobe.xmp", "Raw profile type exif")), "ein Baum 🌳")
        info.add_text("Comment", "x" * rng.choice((0, 1, 2000)), zip=rng.random() < 0.5)
        options["pnginfo"] = info
    if mode == "P" and file_format in ("PNG", "GIF") and rng.random() < 0.6:
        options["transparency"] = rng.choice((0, 1, 255) if file_format == "GIF" else (0, 1, b"\0\x80\xff"))
    if file_format == "JPEG":
        options |= {"subsampling": rng.choice((0, 1, 2)), "progressive": rng.random() < 0.3}
    if file_format == "WEBP":
        options["lossless"] = rng.random() < 0.5
    if file_format == "TIFF" and mode in ("RGB", "RGBA", "L"):
        options["compression"] = rng.choice(("raw", "tiff_lzw", "tiff_deflate", "packbits"))
    if rng.random() < 0.2:
        options["icc_profile"] = rng.choice((b"", b"damaged", b"\0" * 16 + b"RGB " + b"\0" * 120))
    return options


def _exif(rng: random.Random) -> bytes:
    """An EXIF block with an orientation, possible or not, of any type."""
    kind = rng.choice((1, 2, 3, 4, 5, 7, 9, 10, 11, 12))
    value = struct.pack("<II", rng.choice(EXTREMES), rng.choice((0, 1))) if rng.random() < 0.5 else None
    possible = struct.pack("<HH", rng.randint(1, 8), 0)
    entries = [(0x0112, 3, 1, possible)] if rng.random() < 0.5 else [(0x0112, kind, 1, struct.pack("<I", 50))]
    entries.append((0x010F, 2, 4, b"abc\0"))
    if rng.random() < 0.3:
        entries.append((rng.choice((0x011A, 0x8769, 0x8825, 0x9286)), kind, rng.choice((0, 1, 9)), b"\xff\xff\0\0"))
    entries.sort()
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    for tag, its_kind, count, inline in entries:
        block += struct.pack("<HHI", tag, its_kind, count) + inline
    return b"Exif\0\0" + block + b"\0" * 4 + (value or b"\0\0\0\0\0\0\0\0") * 4


def _png16(numpy: np.random.Generator, mode: str, width: int, height: int) -> bytes:
    channels, colour_type = {"L": (1, 0), "RGB": (3, 2), "LA": (2, 4), "RGBA": (4, 6)}[mode]
    rows = numpy.integers(0, 65536, (height, width * channels)).astype(">u2")
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(body)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _flip_bits(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 3, 20))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _damage_head(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        damaged[rng.randrange(min(len(damaged), 120))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(damaged)


def _extreme_number(content: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(max(1, len(content) - 4)), rng.choice((2, 4))
    number = (rng.choice(EXTREMES) & (2 ** (8 * size) - 1)).to_bytes(size, rng.choice(("big", "little")))
    return content[:at] + number + content[at + size :]


def _truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(1, len(content) + 1)]


def _repeat(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    part = content[start : start + rng.choice((1, 8, 200))]
    at = rng.randrange(len(content))
    return content[:at] + part * rng.choice((1, 2, 50)) + content[at:]


def _append(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(rng.choice((1, 100, 5000)))


def _damage_chunk(content: bytes, rng: random.Random) -> bytes:
    """A PNG with one chunk damaged, repeated or left out, and its checksum right; other files with bits flipped."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _flip_bits(content, rng)
    chunks, at = [], 8
    while at + 8 <= len(content):
        size = struct.unpack(">I", content[at : at + 4])[0]
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    if not chunks:
        return content
    place = rng.randrange(len(chunks))
    kind, body = chunks[place]
    change = rng.choice(("damage", "repeat", "leave out", "rename"))
    if change == "damage" and body:
        chunks[place] = (kind, _flip_bits(body, rng))
    elif change == "repeat":
        chunks.insert(place, (kind, body))
    elif change == "leave out":
        del chunks[place]
    else:
        chunks[place] = (rng.choice((b"tRNS", b"eXIf", b"iCCP", b"pHYs", b"acTL", b"fcTL", b"PLTE", b"iTXt")), body)
    return content[:8] + b"".join(_chunk(kind, body) for kind, body in chunks)


MUTATIONS = (
    ("bits flipped", _flip_bits),
    ("head damaged", _damage_head),
    ("extreme number", _extreme_number),
    ("truncated", _truncate),
    ("part repeated", _repeat),
    ("bytes appended", _append),
    ("chunk damaged", _damage_chunk),
)
