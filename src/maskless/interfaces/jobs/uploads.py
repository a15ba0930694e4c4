"""Pictures that clients send: checked by their content, their bytes and their pixels before anything is decoded."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

from maskless.data.errors import MasklessError, first_line, require
from maskless.data.picture_file import MAX_SIDE_PX, MIN_SIDE_PX

SUFFIXES = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "WEBP": ".webp",
    "TIFF": ".tif",
    "BMP": ".bmp",
    "GIF": ".gif",
    "AVIF": ".avif",
}
"""The formats that clients may send, and the suffix that each is stored with, whatever its name was."""
MEGABYTE = 2**20


class TooLarge(MasklessError):
    """A picture of more bytes or pixels than the server accepts."""


class NotAPicture(MasklessError):
    """A file whose content is not a picture in a format that the server accepts."""


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """The largest picture that is accepted. max_bytes: of its file. max_pixels: width times height."""

    max_bytes: int
    max_pixels: int


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A picture file that passed the checks. suffix: of its format. size_px: width and height in the file."""

    content: bytes
    suffix: str
    size_px: tuple[int, int]


def checked_upload(content: bytes, limits: UploadLimits, *, what: str = "image") -> Upload:
    """Check a file by its content; its name and its media type, which the client chooses, are not used.

    what: the name of the field, for the messages.

    Raises:
        TooLarge: too many bytes or pixels. NotAPicture: not a picture in a format of SUFFIXES, or a damaged one.
        MasklessError: an empty file, or sides that an edit does not accept.
    """
    from PIL import Image, features

    readable = tuple(name for name in SUFFIXES if name != "AVIF" or features.check("avif"))
    require(bool(content), f"{what} must be a picture file, got an empty one")
    if len(content) > limits.max_bytes:
        raise TooLarge(
            f"{what} must be at most {limits.max_bytes / MEGABYTE:g} MB, got {len(content) / MEGABYTE:.1f} MB"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=readable) as image:
                size_px, kind = image.size, str(image.format)
    except Image.UnidentifiedImageError:
        raise NotAPicture(f"{what} must be a picture in one of the formats {', '.join(readable)}") from None
    except Image.DecompressionBombError as error:
        raise TooLarge(f"{what} is too large: {first_line(error)}") from None
    except Exception as error:  # whatever a decoder raises on a damaged or malicious header
        raise NotAPicture(f"{what} is damaged: {first_line(error)}") from None
    width, height = size_px
    if width * height > limits.max_pixels:
        raise TooLarge(f"{what} must have at most {limits.max_pixels / 1e6:g} megapixels, got {width} x {height}")
    require(
        MIN_SIDE_PX <= min(size_px) and max(size_px) <= MAX_SIDE_PX,
        f"{what} sides must be from {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels, got {width} x {height}",
    )
    return Upload(content=content, suffix=SUFFIXES.get(kind, ".png"), size_px=size_px)
