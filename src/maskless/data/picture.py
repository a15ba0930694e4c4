"""Loading and saving pictures. Any file, PIL image, array or tensor becomes a SourceImage. The saved edit keeps the bit
depth, alpha, colour profile and metadata of the source, and every pixel that was not edited."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from maskless.data.errors import MasklessError, MasklessWarning
from maskless.data.metadata import JPEG_SEGMENT_BYTES, Metadata, read_metadata
from maskless.data.picture_file import (
    MAX_SIDE_PX,
    MIN_SIDE_PX,
    SUFFIXES,
    decode,
    decoding,
    lossless_format,
    open_picture,
    require_sides,
    require_writable_as,
    upright,
    write_picture,
)
from maskless.data.provenance import Provenance, marked_xmp

BAND_ROWS = 128
"""How many rows of a picture are computed at once, so that a large one needs no further copies of itself as floats."""
CONVERTED_ROWS = 16
"""How many rows are converted to floats at once: few enough for the processor's cache."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceImage:
    """A picture at its own bit depth, turned upright, with the metadata of its file.

    pixels: [H, W, 3], uint8, or uint16 for a source of 16 bits; pixels that an edit leaves alone are saved from here.
    floats: the exact values in [0, 1] of a picture that was given as floats, else None. alpha: [H, W] of the type of
    `pixels`, or None. icc_profile: the profile of `pixels`; None means sRGB or unknown. metadata: what else the file
    says. path: the file or URL that the picture was loaded from, or None. lossless_format: png, tiff or webp, if that
    is the format of the file and it keeps every pixel.
    """

    pixels: np.ndarray
    floats: Float[Tensor, "3 H W"] | None = None
    alpha: np.ndarray | None = None
    icc_profile: bytes | None = None
    metadata: Metadata = field(default_factory=Metadata)
    path: Path | str | None = None
    lossless_format: str | None = None

    def __post_init__(self) -> None:
        if self.pixels.shape[2:] != (3,) or self.pixels.dtype not in (np.uint8, np.uint16):
            raise MasklessError(
                f"pixels must be uint8 or uint16 [H, W, 3], got {self.pixels.dtype} {list(self.pixels.shape)}"
            )
        height, width = self.size_yx
        if self.floats is not None and self.floats.shape != (3, height, width):
            raise MasklessError(f"floats must be [3, {height}, {width}], got {list(self.floats.shape)}")
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

    @property
    def size_yx(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @cached_property
    def rgb(self) -> Float[Tensor, "3 H W"]:
        """The whole picture as floats in [0, 1]. They take four times the memory of 8-bit pixels, so they are computed
        when they are first needed; an edit of a region in a large picture does without."""
        return self.crop((0, 0, self.pixels.shape[1], self.pixels.shape[0]))

    def crop(self, box_xyxy: tuple[int, int, int, int]) -> Float[Tensor, "3 h w"]:
        """A box of the picture as floats in [0, 1]. box_xyxy: in pixels, half-open, inside the picture."""
        x0, y0, x1, y1 = box_xyxy
        if self.floats is not None:
            return self.floats[:, y0:y1, x0:x1]
        with torch.inference_mode(False):  # so that gradients can flow through what is computed from it
            return as_floats(self.pixels[y0:y1, x0:x1])

    def shows_the_same(self, other: SourceImage) -> bool:
        """Whether both have the same colours in all pixels."""
        if self.floats is None and other.floats is None and self.pixels.dtype == other.pixels.dtype:
            return np.array_equal(self.pixels, other.pixels)
        return torch.equal(self.rgb, other.rgb)


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


def output_suffix(source: SourceImage | None, file_format: str | None = None, quality: int | None = None) -> str:
    """The suffix of an edited picture's file.

    source: what is edited. file_format: one of `SUFFIXES`; None takes the source's own format if that keeps every
    pixel, else PNG. quality: see `save_image`.

    Raises:
        MasklessError: the format cannot hold such a picture or has no quality.
    """
    deep = source is not None and source.bit_depth == 16
    if file_format is None:
        own = None if source is None or deep else source.lossless_format
        suffix = SUFFIXES[own or "png"]
    else:
        suffix = SUFFIXES[file_format]
    alpha = source is not None and source.alpha is not None
    require_writable_as(Path(f"final_output{suffix}"), alpha=alpha, deep=deep, quality=quality)
    return suffix


def save_image(
    path: str | Path,
    pixels: np.ndarray,
    *,
    source: SourceImage | None = None,
    text: Mapping[str, str] | None = None,
    quality: int | None = None,
    provenance: Provenance | None = None,
) -> None:
    """Write a picture file whole or not at all, with the source's alpha, colour profile and metadata.

    path: the suffix determines the format: .png, .webp and .tif keep every pixel, .jpg and .avif do not. pixels:
    [H, W, 3], uint8, or uint16 for a PNG. text: text chunks of a PNG, keyword (Latin-1, up to 79 letters) -> any text;
    other formats ignore it. quality: 1 to 100, for .jpg, .avif, and for .webp, which then does not keep every pixel.
    provenance: what was done to the picture, which its XMP says then; the pixels are the same with and without.

    Raises:
        MasklessError: an unknown suffix, a bit depth, an alpha channel or a quality that the format does not have, or a
            file that cannot be written.
    """
    path, metadata, icc_profile = Path(path), Metadata(), None
    if source is not None:
        metadata, icc_profile = source.metadata, source.icc_profile
        require_writable_as(path, alpha=source.alpha is not None, deep=pixels.dtype == np.uint16, quality=quality)
        pixels = pixels if source.alpha is None else np.dstack([pixels, source.alpha])
    metadata = metadata.with_text(text or {})
    if provenance is not None:
        metadata = _marked(metadata, provenance, path)
    write_picture(path, pixels, icc_profile=icc_profile, metadata=metadata, quality=quality)


def _marked(metadata: Metadata, provenance: Provenance, path: Path) -> Metadata:
    """The metadata with the mark of an edit, which every format has room for."""
    marked = metadata.marked(provenance)
    if path.suffix.lower() in (".jpg", ".jpeg") and len(marked.xmp or b"") > JPEG_SEGMENT_BYTES:
        text = "the XMP of the source does not fit into a JPEG beside that of the edit, and is left out"
        warnings.warn(text, MasklessWarning, stacklevel=2)
        return replace(marked, xmp=marked_xmp(None, provenance))
    return marked


def _from_file(path: Path) -> SourceImage:
    with open_picture(path) as image:
        return _from_pil(image, path, str(path))


def _from_pil(image: Image.Image, path: Path | None, name: str) -> SourceImage:
    """The picture turned upright. A lazily opened image is loaded, but not otherwise changed."""
    require_sides(image.size, name)
    with decoding(name):
        kept_as = lossless_format(image)
    channels, icc_profile = decode(image, name)
    orientation, metadata = read_metadata(image)
    with _enough_memory(name):
        return _source(
            upright(channels, orientation),
            icc_profile=icc_profile,
            metadata=metadata,
            path=path,
            lossless_format=kept_as,
        )


@contextmanager
def _enough_memory(name: str) -> Iterator[None]:
    """Convert an allocation that fails in the block, of NumPy or of torch, into a MasklessError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate memory" not in str(error):
            raise
        raise MasklessError(f"there is not enough memory to open {name}; make the picture smaller") from error


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
    """channels: float32 [H, W] or [H, W, 1|2|3|4]. `floats` keeps them unchanged; `pixels` have eight bits."""
    low, high = channels.aminmax() if channels.numel() else (torch.tensor(0.0), torch.tensor(0.0))
    if not (low >= 0 and high <= 1):  # not (low < 0 or high > 1), which would accept NaN
        raise MasklessError(f"an image of floats must be in [0, 1], got {float(low):g} to {float(high):g}")
    channels = channels.reshape(*channels.shape[:2], -1)
    colour, alpha = (channels[..., :-1], channels[..., -1]) if channels.shape[2] in (2, 4) else (channels, None)
    rgb = colour.expand(-1, -1, 3).movedim(-1, 0).contiguous()
    return SourceImage(
        floats=rgb, pixels=_eight_bit(rgb.movedim(0, -1)), alpha=None if alpha is None else _eight_bit(alpha)
    )


def _eight_bit(values: Tensor) -> np.ndarray:
    return (values * 255).round().to(torch.uint8).contiguous().numpy()


def as_floats(pixels: np.ndarray) -> Float[Tensor, "3 H W"]:
    """Pixels [H, W, 3], uint8 or uint16, as floats in [0, 1].

    float32 has 24 bits of precision, so v / 65535 rounds back to v, and nothing of a 16-bit picture is lost.
    """
    height, width, _ = pixels.shape
    floats, white = np.empty((3, height, width), np.float32), np.float32(np.iinfo(pixels.dtype).max)
    for top in range(0, height, CONVERTED_ROWS):
        band = slice(top, top + CONVERTED_ROWS)
        planes = np.ascontiguousarray(pixels[band].transpose(2, 0, 1))
        np.divide(planes, white, out=floats[:, band], dtype=np.float32)
    return torch.from_numpy(floats)


def _source(
    channels: np.ndarray,
    *,
    icc_profile: bytes | None = None,
    metadata: Metadata | None = None,
    path: Path | None = None,
    lossless_format: str | None = None,
) -> SourceImage:
    """A SourceImage of upright uint8 or uint16 pixels [H, W] or [H, W, 2|3|4]. Grey is repeated as R, G and B."""
    channels = channels[..., None] if channels.ndim == 2 else channels
    alpha = np.ascontiguousarray(channels[..., -1]) if channels.shape[2] in (2, 4) else None
    colour = channels[..., : channels.shape[2] - (alpha is not None)]
    pixels = np.ascontiguousarray(np.broadcast_to(colour, (*colour.shape[:2], 3)))
    return SourceImage(
        pixels=pixels,
        alpha=alpha,
        icc_profile=icc_profile,
        metadata=metadata or Metadata(),
        path=path,
        lossless_format=lossless_format,
    )
