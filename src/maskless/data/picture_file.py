"""Picture files: opened and checked, decoded at their own depth, and written whole. Nothing here needs torch, so that a
wrong file is refused before torch is imported."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from maskless.data.errors import MasklessError, first_line
from maskless.data.files import write_bytes, written_whole
from maskless.data.metadata import Metadata
from maskless.data.sixteen_bit import encode_png, read_deep

MIN_SIDE_PX, MAX_SIDE_PX = 32, 8000
FORMATS = {".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG"} | (
    {".avif": "AVIF"} if features.check("avif") else {}
)
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif", "avif": ".avif"}
"""The suffix of the files of each format that the option `format` names."""
DEFAULT_QUALITY = {"JPEG": 95, "AVIF": 90}
LARGE_PNG = 2**25  # values; above this, a faster compression level is used, whose files are a little larger


def open_picture(path: Path) -> Image.Image:
    """A picture file whose header has been read and checked; its pixels are not decoded yet.

    Raises:
        MasklessError: the file does not exist, is a folder, is not an image, or is too large or too small.
    """
    try:
        if path.is_dir():
            raise MasklessError(f"{path} is a folder, not a picture file")
        image = Image.open(path)
    except FileNotFoundError as error:
        raise MasklessError(f"no such file: {path}") from error
    except UnidentifiedImageError as error:
        raise MasklessError(f"{path} is not a picture in a known format") from error
    except Image.DecompressionBombError as error:
        raise MasklessError(f"{path} is too large: {first_line(error)}") from error
    except PermissionError as error:
        raise MasklessError(f"cannot read {path}: {error.strerror}") from error
    except MasklessError:
        raise
    except Exception as error:  # whatever a decoder raises on a damaged or malicious header
        raise MasklessError(f"{path} is damaged or incomplete: {first_line(error)}") from error
    try:
        require_sides(image.size, str(path))
    except MasklessError:
        image.close()
        raise
    return image


def require_sides(size_xy: tuple[int, int], name: str) -> None:
    """Check the size that a header states, before anything is decoded: a huge picture never fills the memory."""
    width, height = size_xy
    if max(width, height) > MAX_SIDE_PX or min(width, height) < MIN_SIDE_PX:
        raise MasklessError(
            f"image sides must be from {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels, {name} is {width} x {height}"
        )


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Convert whatever a decoder raises in the block into a MasklessError of one line that names the picture."""
    try:
        yield
    except MasklessError:
        raise
    except MemoryError as error:
        raise MasklessError(f"there is not enough memory to open {name}; make the picture smaller") from error
    except Exception as error:  # decoders raise many types on damaged or malicious files
        raise MasklessError(f"{name} is damaged or incomplete: {first_line(error)}") from error


def decode(image: Image.Image, name: str) -> tuple[np.ndarray, bytes | None]:
    """The pixels of a picture and the colour profile that they are in, before it is turned upright.

    Returns:
        uint8 or uint16 [H, W] or [H, W, 2|3|4]. A profile of another colour space than RGB has been applied.
    Raises:
        MasklessError: the picture is damaged, incomplete, or has pixels of a kind that is not supported.
    """
    with decoding(name), _not_mapped(image):
        channels = read_deep(image)
        image.load()
        icc_profile = image.info.get("icc_profile") or None
        if channels is None:
            channels, icc_profile = _channels(image, icc_profile, name)
    rgb_profile = isinstance(icc_profile, bytes) and icc_profile[16:20] == b"RGB "
    return channels, icc_profile if rgb_profile else None  # saved files are RGB: any other profile would be invalid


@contextmanager
def _not_mapped(image: Image.Image) -> Iterator[None]:
    """Keep Pillow from mapping the file into memory while it is decoded: Pillow 13 maps an uncompressed TIFF that is
    stored sideways with width and height exchanged, which garbles it. It maps only what has a file name."""
    name = getattr(image, "filename", None)
    if name is not None:
        image.filename = ""  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if name is not None:
            image.filename = name  # type: ignore[attr-defined]


def lossless_format(image: Image.Image) -> str | None:
    """The format of a picture's file, as the option `format` names it, if it is one that is written without loss."""
    if image.format == "WEBP":
        return "webp" if _is_lossless_webp(image) else None
    return {"PNG": "png", "TIFF": "tiff"}.get(image.format or "")


def upright(channels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels turned and mirrored according to the EXIF orientation, 1 to 8. channels: [H, W, ...]."""
    mirrored = np.swapaxes(channels, 0, 1) if orientation in (5, 7) else channels
    if orientation in (2, 4):
        turned = np.flip(channels, axis=1 if orientation == 2 else 0)
    else:
        turned = np.rot90(mirrored, {3: 2, 6: -1, 7: 2, 8: 1}.get(orientation, 0))
    return np.ascontiguousarray(turned)


def require_writable_as(path: Path, *, alpha: bool, deep: bool, quality: int | None = None) -> str:
    """Pillow's name of the format that a path's suffix stands for, if it can hold such a picture.

    Raises:
        MasklessError: an unknown suffix, an alpha channel, a bit depth or a quality that the format does not have.
    """
    file_format = FORMATS.get(path.suffix.lower())
    if file_format is None:
        raise MasklessError(f"the name of a picture file must end in one of {', '.join(FORMATS)}, got {path.name!r}")
    if alpha and file_format == "JPEG":
        raise MasklessError(f"JPEG cannot store the source's alpha channel; save as .png, got {path.name!r}")
    if deep and file_format != "PNG":
        raise MasklessError(f"a picture with 16 bits per channel must be saved as .png, got {path.name!r}")
    if quality is not None and file_format in ("PNG", "TIFF"):
        raise MasklessError(f"{file_format} keeps every pixel and takes no quality; choose jpeg, webp or avif")
    return file_format


def write_picture(
    path: Path, pixels: np.ndarray, *, icc_profile: bytes | None, metadata: Metadata, quality: int | None = None
) -> None:
    """Write a picture file whole or not at all. pixels: uint8 or uint16 [H, W, 3|4]. quality: 1 to 100.

    Raises:
        MasklessError: see `require_writable_as`, or the file cannot be written.
    """
    deep = pixels.dtype == np.uint16
    file_format = require_writable_as(path, alpha=pixels.shape[2] == 4, deep=deep, quality=quality)
    if deep:
        exif, dpi = metadata.exif, metadata.dpi
        write_bytes(path, encode_png(pixels, icc_profile=icc_profile, exif=exif, text=metadata.png_text(), dpi=dpi))
        return
    options = dict(_encoder_options(file_format, pixels.size, quality))
    if icc_profile:
        options["icc_profile"] = icc_profile
    image = Image.fromarray(pixels)
    with written_whole(path) as temporary:
        try:
            image.save(temporary, format=file_format, **options, **metadata.save_options(file_format))
        except (OSError, MemoryError):
            raise
        except Exception:  # EXIF data that Pillow reads but cannot write must not cost the picture or its XMP
            bare = replace(metadata, exif=None, dpi=None)
            image.save(temporary, format=file_format, **options, **bare.save_options(file_format))


def _encoder_options(file_format: str, values: int, quality: int | None) -> Mapping[str, object]:
    if file_format == "PNG":
        return {"compress_level": 3} if values > LARGE_PNG else {}
    if file_format == "WEBP":
        return {"exact": True} | ({"lossless": True} if quality is None else {"quality": quality})
    if file_format == "TIFF":
        return {"compression": "tiff_deflate"}
    full_colour = {"subsampling": 0} if file_format == "JPEG" else {"subsampling": "4:4:4"}
    return {"quality": DEFAULT_QUALITY[file_format] if quality is None else quality, **full_colour}


def _channels(image: Image.Image, icc_profile: bytes | None, name: str) -> tuple[np.ndarray, bytes | None]:
    """Pixels [H, W] or [H, W, 2|3|4] of uint8 or uint16, and their colour profile after any conversion."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise MasklessError(f"32-bit pixels must be from 0 to 65535, {name} has {values.min()} to {values.max()}")
        return values.astype(np.uint16), icc_profile
    if image.mode == "F":
        raise MasklessError(f"{name} has floating-point pixels; save it with 8 or 16 bits per channel or pass an array")
    if "transparency" in image.info or image.mode in ("PA", "La", "RGBa"):
        image = image.convert("RGBA")
    if image.mode in ("RGB", "RGBA") or (image.mode in ("L", "LA") and not icc_profile):
        return np.asarray(image), icc_profile
    if icc_profile and image.mode in ("CMYK", "L", "LA", "LAB"):
        return _in_srgb(image, icc_profile), None
    return np.asarray(image.convert("RGB")), icc_profile


def _in_srgb(image: Image.Image, icc_profile: bytes) -> np.ndarray:
    """The picture converted to sRGB by the file's own profile, or by Pillow's plain conversion if that is broken.

    Returns:
        uint8 [H, W, 3], or [H, W, 4] where there is an alpha channel.
    """
    from PIL import ImageCms

    alpha = np.asarray(image.getchannel("A")) if image.mode == "LA" else None
    colours = image.convert("L") if image.mode == "LA" else image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
        converted = ImageCms.profileToProfile(colours, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, TypeError):
        converted = None
    rgb = np.asarray(converted if isinstance(converted, Image.Image) else colours.convert("RGB"))
    return rgb if alpha is None else np.dstack([rgb, alpha])


def _is_lossless_webp(image: Image.Image) -> bool:
    """Whether the first picture of a WebP file is stored without loss, in a chunk VP8L."""
    file = getattr(image, "fp", None)
    if file is None:
        return False
    file.seek(12)  # after "RIFF", the size, and "WEBP"
    while len(head := file.read(8)) == 8:
        kind, size = head[:4], int.from_bytes(head[4:], "little")
        if kind in (b"VP8 ", b"VP8L"):
            return bool(kind == b"VP8L")
        file.seek(16 if kind == b"ANMF" else size + size % 2, 1)
    return False
