"""What a picture file says about itself: EXIF data, XMP, resolution, PNG text and comments, read and written back."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image, PngImagePlugin

from maskless.data.provenance import Provenance, marked_xmp

ORIENTATION = 0x0112
"""The EXIF tag."""
# TIFF tags that describe the picture. The other tags describe the layout of the file and must not be copied.
DESCRIPTIVE_TAGS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825)
XMP_KEYWORD = "XML:com.adobe.xmp"
"""Keyword of the PNG text chunk that holds XMP."""
XMP_TAG = 700
"""Tag of a TIFF that holds XMP."""
JPEG_SEGMENT_BYTES = 65_000
"""What one segment of a JPEG file can hold, less the space of its headers."""
MAX_DPI = 65_535


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a picture file says about the picture beside its pixels and their colour profile.

    exif: without the orientation, which has been applied. xmp: the XMP packet, with the orientation set to upright.
    dpi: pixels per inch across and down. text: text chunks of a PNG, by keyword. comment: of a JPEG or GIF.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    comment: bytes | None = None

    def with_text(self, text: Mapping[str, str]) -> Metadata:
        """The same with more text chunks, which replace those of the same keyword."""
        return replace(self, text={**self.text, **text})

    def marked(self, provenance: Provenance) -> Metadata:
        """The same with XMP that says what was done to the picture."""
        return replace(self, xmp=marked_xmp(self.xmp, provenance))

    def png_text(self) -> dict[str, str]:
        """All that a PNG stores as text chunks: the text, the XMP packet and the comment."""
        chunks = dict(self.text)
        if self.comment and "Comment" not in chunks:
            chunks["Comment"] = self.comment.decode("utf-8", "replace")
        if self.xmp:
            chunks[XMP_KEYWORD] = self.xmp.decode("utf-8", "replace")
        # A name of a file may hold bytes that are not Unicode; they are written as escapes and not as an error.
        return {keyword: value.encode("utf-8", "backslashreplace").decode() for keyword, value in chunks.items()}

    def save_options(self, file_format: str) -> dict[str, Any]:
        """The arguments of Pillow's `save` that write this to a file of a format, as far as the format can hold it."""
        options: dict[str, Any] = {"exif": self.exif, "xmp": self.xmp, "dpi": self.dpi}
        if file_format == "PNG":
            options.pop("xmp")
            options["pnginfo"] = info = PngImagePlugin.PngInfo()
            for keyword, value in self.png_text().items():
                info.add_itxt(keyword, value)
        elif file_format == "JPEG":
            options["comment"] = self.comment
            options = {
                name: value
                for name, value in options.items()
                if not isinstance(value, bytes) or len(value) <= JPEG_SEGMENT_BYTES
            }
        elif file_format == "TIFF":
            options["exif"] = self._tiff_tags()
            options.pop("xmp")
        return {name: value for name, value in options.items() if value}

    def _tiff_tags(self) -> Image.Exif | None:
        """The EXIF data and the XMP packet as tags of a TIFF; None if there are none."""
        tags = Image.Exif()
        if self.exif:
            known = Image.Exif()
            known.load(self.exif)
            tags = _descriptive(known)
        if self.xmp:
            tags[XMP_TAG] = self.xmp
        return tags if len(tags) else None


def read_metadata(image: Image.Image) -> tuple[int, Metadata]:
    """The orientation (1 to 8; 1 is upright) and the metadata to save after the orientation has been applied.

    image: loaded. Metadata that is damaged is left out: the pixels are intact.
    """
    orientation, exif = 1, None
    try:
        orientation, exif = _exif(image)
    except Exception:  # whatever Pillow raises on a damaged block
        exif = None
    dpi = _dpi(image.info.get("dpi"))
    comment = image.info.get("comment")
    return orientation, Metadata(
        exif=exif,
        xmp=_xmp(image),
        dpi=dpi[::-1] if dpi is not None and orientation >= 5 else dpi,  # type: ignore[arg-type]
        text=_text(image),
        comment=comment if isinstance(comment, bytes) and comment else None,
    )


def _exif(image: Image.Image) -> tuple[int, bytes | None]:
    """The orientation, and the EXIF block without it."""
    raw = image.info.get("exif") or None
    exif = image.getexif()
    if image.format == "TIFF":
        # In a TIFF these tags also describe the layout of the file. load() has already turned the picture upright.
        descriptive = _descriptive(exif)
        return 1, descriptive.tobytes() if len(descriptive) else None
    orientation = exif.get(ORIENTATION, 1)
    if orientation == 1 and raw is not None:
        return 1, raw
    exif.pop(ORIENTATION, None)
    # Numbers such as infinity are possible in a damaged file; they mean nothing.
    known = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    try:
        return known, exif.tobytes() if len(exif) else None
    except Exception:  # a tag that Pillow reads but cannot write
        return known, None


def _descriptive(exif: Image.Exif) -> Image.Exif:
    """The tags that describe the picture and not the layout of a file."""
    descriptive = Image.Exif()
    for tag in DESCRIPTIVE_TAGS:
        if tag in exif:
            descriptive[tag] = exif.get_ifd(tag) if tag in (0x8769, 0x8825) else exif[tag]
    return descriptive


def _xmp(image: Image.Image) -> bytes | None:
    packet = image.info.get("xmp") or image.info.get(XMP_KEYWORD)
    packet = packet.encode("utf-8", "replace") if isinstance(packet, str) else packet
    if not isinstance(packet, bytes) or not packet:
        return None
    return re.sub(rb"(tiff:Orientation(?:\s*=\s*[\"']|>)\s*)[0-9]", rb"\g<1>1", packet)


def _dpi(value: object) -> tuple[float, float] | None:
    """A resolution that a file can hold, else None: damaged files give zeros, infinities or texts."""
    try:
        across, down = (float(part) for part in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    valid = all(math.isfinite(part) and 1 <= part <= MAX_DPI for part in (across, down))
    return (across, down) if valid else None


def _text(image: Image.Image) -> dict[str, str]:
    """The text chunks of a PNG, without those that hold EXIF data or XMP, which are kept as such."""
    chunks = getattr(image, "text", None) if image.format == "PNG" else None
    if not isinstance(chunks, dict):
        return {}
    return {
        keyword: str(value)
        for keyword, value in chunks.items()
        if 0 < len(keyword) < 80 and keyword != XMP_KEYWORD and not keyword.startswith("Raw profile type")
    }
