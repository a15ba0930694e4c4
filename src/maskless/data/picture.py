"""Loading and saving pictures. Any file, PIL image, array or tensor becomes a SourceImage. The saved edit keeps the bit
depth, alpha, EXIF data and ICC profile of the source, and every pixel that was not edited."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from maskless.data.errors import MasklessError, first_line
from maskless.data.files import write_bytes, written_whole
from maskless.data.sixteen_bit import encode_png, read_deep

MIN_SIDE_PX, MAX_SIDE_PX = 32, 8000
ORIENTATION = 0x0112  # the EXIF tag
FORMATS = {".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG"}
LARGE_PNG = 2**25  # values; above this, a faster compression level is used, whose files are a little larger
# What Pillow's decoders raise on damaged or malicious files.
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error, zlib.error)
# TIFF tags that describe the picture. The other tags describe the layout of the file and must not be copied.
DESCRIPTIVE_TAGS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825)


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceImage:
    """A picture at its own bit depth, turned upright, with the metadata of its file.

    rgb: floats in [0, 1], the input of the models. pixels: [H, W, 3], uint8, or uint16 for a source of 16 bits; pixels
    that an edit leaves alone are saved from here. alpha: [H, W] of the same type, or None. exif: without the
    orientation, which has been applied. icc_profile: the profile of `pixels`; None means sRGB or unknown. path: the
    file that the picture was loaded from, or None.
    """

    rgb: Float[Tensor, "3 H W"]
    pixels: np.ndarray
    alpha: np.ndarray | None = None
    exif: bytes | None = None
    icc_profile: bytes | None = None
    path: Path | None = None

    def __post_init__(self) -> None:
        height, width = self.rgb.shape[1:]
        if self.pixels.shape != (height, width, 3) or self.pixels.dtype not in (np.uint8, np.uint16):
            raise MasklessError(
                f"pixels must be uint8 or uint16 [{height}, {width}, 3], "
                f"got {self.pixels.dtype} {list(self.pixels.shape)}"
            )
        if self.alpha is not None and (self.alpha.shape != (height, width) or self.alpha.dtype != self.pixels.dtype):
            raise MasklessError(f"alpha must be {self.pixels.dtype} [{height}, {width}], got {list(self.alpha.shape)}")
        if not all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in (height, width)):
            raise MasklessError(
                f"image sides must be from {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels, got {width} x {height}"
            )

    @property
    def bit_depth(self) -> int:
        """Bits per channel, 8 or 16."""
        return 8 * self.pixels.dtype.itemsize


ImageLike: TypeAlias = str | Path | Image.Image | np.ndarray | Tensor | SourceImage


def load_image(image: ImageLike) -> SourceImage:
    """Load a picture of any kind and apply its EXIF orientation.

    image: a path; a PIL image of any mode; an array [H, W] or [H, W, 1|2|3|4] of uint8, uint16 or floats in [0, 1]; or
    a tensor [1|2|3|4, H, W] of uint8 or floats in [0, 1]. The last of two or four channels is alpha. Grey becomes RGB.
    Other colour spaces (CMYK, Lab, grey with a profile) become sRGB. Of an animation the first frame is taken.

    Raises:
        MasklessError: the file does not exist, is a folder, is not an image or is truncated; the picture is too large
            or too small; or its shape, type or range is none of those above.
    """
    if isinstance(image, SourceImage):
        return image
    if isinstance(image, (str, Path)):
        return _from_file(Path(image))
    if isinstance(image, Image.Image):
        return _from_pil(image, None, "the PIL image")
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Tensor):
        return _from_tensor(image)
    raise MasklessError(f"an image must be a path, a PIL image, an array or a tensor, got {type(image).__name__}")


def save_image(
    path: str | Path, pixels: np.ndarray, *, source: SourceImage | None = None, text: Mapping[str, str] | None = None
) -> None:
    """Write a picture file whole or not at all, with the source's alpha, EXIF data and ICC profile.

    path: the suffix determines the format: .png, .webp and .tif keep every pixel, .jpg does not. pixels: [H, W, 3],
    uint8, or uint16 for a PNG. text: text chunks of a PNG, keyword (Latin-1, up to 79 letters) -> any text; other
    formats ignore it.

    Raises:
        MasklessError: an unknown suffix, a bit depth or an alpha channel that the format cannot store, or a file that
            cannot be written.
    """
    path = Path(path)
    file_format = FORMATS.get(path.suffix.lower())
    if file_format is None:
        raise MasklessError(f"the name of a picture file must end in one of {', '.join(FORMATS)}, got {path.name!r}")
    alpha = source.alpha if source is not None else None
    if alpha is not None:
        if file_format == "JPEG":
            raise MasklessError(f"JPEG cannot store the source's alpha channel; save as .png, got {path.name!r}")
        pixels = np.dstack([pixels, alpha])
    exif = source.exif if source is not None else None
    icc_profile = source.icc_profile if source is not None else None
    if pixels.dtype == np.uint16:
        if file_format != "PNG":
            raise MasklessError(f"a picture with 16 bits per channel must be saved as .png, got {path.name!r}")
        write_bytes(path, encode_png(pixels, icc_profile=icc_profile, exif=exif, text=text or {}))
        return
    _save_with_pillow(path, pixels, file_format, exif, icc_profile, text or {})


def _save_with_pillow(
    path: Path, pixels: np.ndarray, file_format: str, exif: bytes | None, icc: bytes | None, text: Mapping[str, str]
) -> None:
    options: dict[str, object] = {name: value for name, value in (("exif", exif), ("icc_profile", icc)) if value}
    if file_format == "PNG":
        info = PngImagePlugin.PngInfo()
        for keyword, value in text.items():
            info.add_itxt(keyword, value)
        options["pnginfo"] = info
        if pixels.size > LARGE_PNG:
            options["compress_level"] = 3
    elif file_format == "WEBP":
        options |= {"lossless": True, "exact": True}
    elif file_format == "TIFF":
        options["compression"] = "tiff_deflate"
    else:
        options |= {"quality": 95, "subsampling": 0}
    with written_whole(path) as temporary:
        Image.fromarray(pixels).save(temporary, format=file_format, **options)


def _from_file(path: Path) -> SourceImage:
    if path.is_dir():
        raise MasklessError(f"{path} is a folder, not a picture file")
    try:
        image = Image.open(path)
    except FileNotFoundError as error:
        raise MasklessError(f"no such file: {path}") from error
    except UnidentifiedImageError as error:
        raise MasklessError(f"{path} is not a picture in a known format") from error
    except Image.DecompressionBombError as error:
        raise MasklessError(f"{path} is too large: {first_line(error)}") from error
    except PermissionError as error:
        raise MasklessError(f"cannot read {path}: {error.strerror}") from error
    except DECODE_ERRORS as error:
        raise MasklessError(f"{path} is damaged or incomplete: {first_line(error)}") from error
    with image:
        return _from_pil(image, path, str(path))


def _from_pil(image: Image.Image, path: Path | None, name: str) -> SourceImage:
    """The picture turned upright. A lazily opened image is loaded, but not otherwise changed."""
    width, height = image.size
    # The size is known from the header. It is checked before decoding, so that a huge picture never fills the memory.
    if max(width, height) > MAX_SIDE_PX or min(width, height) < MIN_SIDE_PX:
        raise MasklessError(
            f"image sides must be from {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels, {name} is {width} x {height}"
        )
    try:
        channels = read_deep(image)
        image.load()
    except DECODE_ERRORS as error:
        raise MasklessError(f"{name} is damaged or incomplete: {first_line(error)}") from error
    orientation, exif = _exif(image)
    icc_profile = image.info.get("icc_profile") or None
    if channels is None:
        channels, icc_profile = _channels(image, icc_profile, name)
    return _source(_upright(channels, orientation), exif=exif, icc_profile=_rgb_only(icc_profile), path=path)


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


def _exif(image: Image.Image) -> tuple[int, bytes | None]:
    """The orientation (1 to 8; 1 is upright) and the EXIF block to save after the orientation has been applied."""
    raw = image.info.get("exif") or None
    try:
        exif = image.getexif()
        orientation = int(exif.get(ORIENTATION, 1))
        if image.format == "TIFF":
            # In a TIFF these tags also describe the layout of the file. load() has already turned the picture upright.
            descriptive = Image.Exif()
            for tag in DESCRIPTIVE_TAGS:
                if tag in exif:
                    descriptive[tag] = exif.get_ifd(tag) if tag in (0x8769, 0x8825) else exif[tag]
            return 1, descriptive.tobytes() if len(descriptive) else None
        if orientation == 1:
            return 1, raw
        del exif[ORIENTATION]
        return orientation if 1 <= orientation <= 8 else 1, exif.tobytes() if len(exif) else None
    except DECODE_ERRORS:
        return 1, None  # the pixels are intact, so only the damaged metadata is dropped


def _upright(channels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels turned and mirrored according to the EXIF orientation, 1 to 8. channels: [H, W, ...]."""
    mirrored = np.swapaxes(channels, 0, 1) if orientation in (5, 7) else channels
    if orientation in (2, 4):
        turned = np.flip(channels, axis=1 if orientation == 2 else 0)
    else:
        turned = np.rot90(mirrored, {3: 2, 6: -1, 7: 2, 8: 1}.get(orientation, 0))
    return np.ascontiguousarray(turned)


def _rgb_only(icc_profile: bytes | None) -> bytes | None:
    """The profile if it describes RGB, else None: saved files are always RGB, so any other profile would be invalid."""
    return icc_profile if icc_profile and icc_profile[16:20] == b"RGB " else None


def _from_array(array: np.ndarray) -> SourceImage:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (2, 3, 4)):
        raise MasklessError(f"an array image must be [H, W] or [H, W, 1|2|3|4], got {list(array.shape)}")
    if array.dtype in (np.uint8, np.uint16):
        return _source(np.array(array))
    if not np.issubdtype(array.dtype, np.floating):
        raise MasklessError(f"an array image must be uint8, uint16 or floats in [0, 1], got {array.dtype}")
    return _from_floats(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)))


def _from_tensor(tensor: Tensor) -> SourceImage:
    if tensor.ndim == 4 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 2, 3, 4):
        raise MasklessError(f"a tensor image must be [1|2|3|4, H, W], got {list(tensor.shape)}")
    channels_last = tensor.detach().cpu().movedim(0, -1)
    if tensor.dtype == torch.uint8:
        return _from_array(channels_last.numpy())
    if not tensor.is_floating_point():
        raise MasklessError(f"a tensor image must be uint8 or floats in [0, 1], got {tensor.dtype}")
    return _from_floats(channels_last.to(torch.float32))


def _from_floats(channels: Tensor) -> SourceImage:
    """channels: float32 [H, W] or [H, W, 1|2|3|4]. `rgb` keeps the floats unchanged; `pixels` have eight bits."""
    low, high = channels.aminmax() if channels.numel() else (torch.tensor(0.0), torch.tensor(0.0))
    if not (low >= 0 and high <= 1):  # not (low < 0 or high > 1), which would accept NaN
        raise MasklessError(f"an image of floats must be in [0, 1], got {float(low):g} to {float(high):g}")
    channels = channels.reshape(*channels.shape[:2], -1)
    colour, alpha = (channels[..., :-1], channels[..., -1]) if channels.shape[2] in (2, 4) else (channels, None)
    rgb = colour.expand(-1, -1, 3).movedim(-1, 0).contiguous()
    return SourceImage(
        rgb=rgb, pixels=_eight_bit(rgb.movedim(0, -1)), alpha=None if alpha is None else _eight_bit(alpha)
    )


def _eight_bit(values: Tensor) -> np.ndarray:
    return (values * 255).round().to(torch.uint8).contiguous().numpy()


def _source(
    channels: np.ndarray, *, exif: bytes | None = None, icc_profile: bytes | None = None, path: Path | None = None
) -> SourceImage:
    """A SourceImage of upright uint8 or uint16 pixels [H, W] or [H, W, 2|3|4]. Grey is repeated as R, G and B."""
    channels = channels[..., None] if channels.ndim == 2 else channels
    alpha = np.ascontiguousarray(channels[..., -1]) if channels.shape[2] in (2, 4) else None
    colour = channels[..., : channels.shape[2] - (alpha is not None)]
    pixels = np.ascontiguousarray(np.broadcast_to(colour, (*colour.shape[:2], 3)))
    # float32 has 24 bits of precision, so v / 65535 rounds back to v: `rgb` loses nothing of a 16-bit picture.
    scale = float(np.iinfo(pixels.dtype).max)
    rgb = torch.from_numpy(pixels.astype(np.float32)).div_(scale).movedim(-1, 0).contiguous()
    return SourceImage(rgb=rgb, pixels=pixels, alpha=alpha, exif=exif, icc_profile=icc_profile, path=path)
