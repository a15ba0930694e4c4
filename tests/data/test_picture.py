"""Every kind of picture can be loaded, and is saved with its untouched pixels, bit depth, alpha, EXIF and profile."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from maskless.data.errors import MasklessError
from maskless.data.metadata import Metadata
from maskless.data.picture import BAND_ROWS, SourceImage, load_image, save_image
from maskless.data.sixteen_bit import encode_png
from raw_pictures import chunk, raw_png, raw_tiff

HEIGHT, WIDTH = 40, 56
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(channels: int, dtype=np.uint8, seed: int = 0) -> np.ndarray:
    shape = (HEIGHT, WIDTH, channels) if channels > 1 else (HEIGHT, WIDTH)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def rgb_of(source: SourceImage) -> np.ndarray:
    scale = np.iinfo(source.pixels.dtype).max
    return (source.rgb.movedim(0, -1).double() * scale).round().numpy().astype(source.pixels.dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_value_becomes_the_nearest_float_in_all_bands_of_rows(dtype):
    white = np.iinfo(dtype).max
    rows = 2 * BAND_ROWS + 7
    pixels = np.resize(np.arange(white + 1, dtype=dtype), (rows, 90, 3))
    expected = torch.from_numpy(pixels.astype(np.float32) / np.float32(white)).movedim(-1, 0)
    source = load_image(pixels)
    assert torch.equal(source.rgb, expected) and source.rgb.is_contiguous() and np.array_equal(source.pixels, pixels)


def test_a_large_picture_becomes_floats_only_where_and_when_they_are_needed():
    pixels = np.zeros((1500, 1000, 3), np.uint8)

    def memory(work):
        tracemalloc.start()
        found = work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            work()
        return found, peak + sum(max(0, event.self_cpu_memory_usage) for event in profile.events())

    source, loading = memory(lambda: load_image(pixels))
    assert loading < 1.2 * pixels.nbytes, "a copy of the pixels"
    part, cropping = memory(lambda: source.crop((100, 200, 300, 450)))
    assert part.shape == (3, 250, 200) and cropping < 1.5 * part.nbytes
    copy, converting = memory(lambda: load_image(pixels).rgb)
    assert converting < 1.2 * (copy.nbytes + pixels.nbytes), "the floats, the pixels, and a few rows"


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_a_part_has_the_floats_of_the_whole_picture(kind):
    pixels = noise(3, kind) if kind is not np.float32 else (noise(3, np.uint16) / 65535).astype(np.float32)
    source = load_image(pixels)
    part = source.crop((3, 5, 30, 20))
    assert torch.equal(part, source.rgb[:, 5:20, 3:30]) and source.rgb is source.rgb
    with torch.inference_mode():
        assert not load_image(noise(3)).rgb.is_inference(), "gradients can flow through what is computed from it"


def test_pictures_that_show_the_same():
    pixels = noise(3)
    source, deep = load_image(pixels), load_image(pixels.astype(np.uint16) * 257)
    assert source.shows_the_same(load_image(pixels)) and source.shows_the_same(load_image(source.rgb))
    assert source.shows_the_same(deep), "255 of 255 and 65535 of 65535 are both white"
    other = pixels.copy()
    other[0, 0, 0] ^= 1
    assert not source.shows_the_same(load_image(other))
    assert not load_image(source.rgb).shows_the_same(load_image(source.rgb * 0.999))


def test_floats_must_be_of_the_pixels_size():
    with pytest.raises(MasklessError, match=r"floats must be \[3, 40, 50\], got \[3, 40, 49\]"):
        SourceImage(pixels=np.zeros((40, 50, 3), np.uint8), floats=torch.zeros(3, 40, 49))


class TestKinds:
    @pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
    def test_rgb(self, tmp_path, suffix):
        pixels = noise(3)
        Image.fromarray(pixels).save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
        source = load_image(tmp_path / f"a{suffix}")
        assert np.array_equal(source.pixels, pixels)
        assert np.array_equal(rgb_of(source), pixels)
        assert source.rgb.dtype == torch.float32 and tuple(source.rgb.shape) == (3, HEIGHT, WIDTH)
        assert source.alpha is None and source.bit_depth == 8

    @pytest.mark.parametrize("mode", ["L", "1"])
    def test_grey(self, tmp_path, mode):
        grey = noise(1)
        image = Image.fromarray(grey).convert(mode)
        image.save(tmp_path / "a.png")
        source = load_image(tmp_path / "a.png")
        expected = np.asarray(image.convert("L"))
        assert all(np.array_equal(source.pixels[..., c], expected) for c in range(3))

    @pytest.mark.parametrize("mode,channels", [("LA", 2), ("RGBA", 4)])
    def test_alpha(self, tmp_path, mode, channels):
        pixels = noise(channels)
        Image.fromarray(pixels, mode).save(tmp_path / "a.png")
        source = load_image(tmp_path / "a.png")
        assert source.alpha is not None and np.array_equal(source.alpha, pixels[..., -1])
        assert np.array_equal(source.pixels, np.broadcast_to(pixels[..., :-1], (HEIGHT, WIDTH, 3)))

    def test_palette(self, tmp_path):
        image = Image.fromarray(noise(3)).quantize(17)
        image.save(tmp_path / "a.gif")
        assert np.array_equal(load_image(tmp_path / "a.gif").pixels, np.asarray(image.convert("RGB")))

    def test_palette_with_transparency(self, tmp_path):
        image = Image.fromarray(noise(3)).quantize(9)
        image.save(tmp_path / "a.png", transparency=3)
        source = load_image(tmp_path / "a.png")
        assert source.alpha is not None and np.array_equal(source.alpha == 0, np.asarray(image) == 3)

    def test_cmyk_without_a_profile(self, tmp_path):
        Image.fromarray(noise(4), "CMYK").save(tmp_path / "a.tif")
        expected = np.asarray(Image.open(tmp_path / "a.tif").convert("RGB"))
        assert np.array_equal(load_image(tmp_path / "a.tif").pixels, expected)

    def test_grey_with_a_profile_becomes_srgb_without_one(self, tmp_path):
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
        Image.fromarray(noise(1)).save(tmp_path / "a.png", icc_profile=lab)
        source = load_image(tmp_path / "a.png")  # the profile is of the wrong kind, so the plain conversion is used
        assert source.icc_profile is None and np.array_equal(source.pixels[..., 0], noise(1))

    @pytest.mark.parametrize("channels,colour_type", [(1, 0), (3, 2), (2, 4), (4, 6)])
    def test_sixteen_bit_png(self, tmp_path, channels, colour_type):
        pixels = noise(channels, np.uint16)
        (tmp_path / "a.png").write_bytes(raw_png(pixels, colour_type))
        source = load_image(tmp_path / "a.png")
        expected = pixels.reshape(HEIGHT, WIDTH, channels)
        colour = expected[..., : 1 if channels < 3 else 3]
        assert source.bit_depth == 16
        assert np.array_equal(source.pixels, np.broadcast_to(colour, (HEIGHT, WIDTH, 3)))
        assert np.array_equal(rgb_of(source), source.pixels)
        assert (source.alpha is None) == (channels % 2 == 1)
        if source.alpha is not None:
            assert np.array_equal(source.alpha, expected[..., -1])

    def test_sixteen_bit_colour_tiff(self, tmp_path):
        pixels = noise(3, np.uint16)
        (tmp_path / "a.tif").write_bytes(raw_tiff(pixels, "<"))
        assert np.array_equal(load_image(tmp_path / "a.tif").pixels, pixels)

    def test_first_frame_of_an_animation(self, tmp_path):
        frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue")]
        frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
        assert tuple(load_image(tmp_path / "a.gif").pixels[0, 0]) == (255, 0, 0)

    def test_a_source_image_is_returned_as_it_is(self):
        source = load_image(noise(3))
        assert load_image(source) is source


class TestArraysAndTensors:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("channels", [1, 2, 3, 4])
    def test_integers(self, dtype, channels):
        pixels = noise(channels, dtype)
        source = load_image(pixels)
        assert source.pixels.dtype == dtype and np.array_equal(rgb_of(source), source.pixels)
        assert (source.alpha is None) == (channels % 2 == 1)

    def test_floats_are_not_changed(self):
        tensor = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
        assert torch.equal(load_image(tensor).rgb, tensor)
        assert torch.equal(load_image(tensor.movedim(0, -1).numpy()).rgb, tensor)
        assert torch.equal(load_image(tensor[None]).rgb, tensor)

    def test_grey_and_alpha_floats(self):
        tensor = torch.rand(2, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
        source = load_image(tensor)
        assert torch.equal(source.rgb, tensor[:1].expand(3, -1, -1))
        assert source.alpha is not None and np.array_equal(source.alpha, (tensor[1] * 255).round().byte().numpy())

    def test_the_callers_array_is_copied(self):
        pixels = noise(3)
        source = load_image(pixels)
        before = source.pixels.copy()
        pixels[:] = 0
        assert np.array_equal(source.pixels, before)

    @pytest.mark.parametrize(
        "bad,message",
        [
            (np.zeros((HEIGHT, WIDTH, 5), np.uint8), "must be [H, W] or [H, W, 1|2|3|4], got [40, 56, 5]"),
            (np.zeros((HEIGHT, WIDTH), np.int64), "must be uint8, uint16 or floats in [0, 1], got int64"),
            (np.full((HEIGHT, WIDTH, 3), 255.0), "must be in [0, 1], got 255 to 255"),
            (np.full((HEIGHT, WIDTH, 3), np.nan), "must be in [0, 1], got nan"),
            (torch.zeros(HEIGHT, WIDTH), "must be [1|2|3|4, H, W], got [40, 56]"),
            (torch.zeros(3, HEIGHT, WIDTH, dtype=torch.int64), "must be uint8 or floats in [0, 1], got torch.int64"),
            (torch.full((3, HEIGHT, WIDTH), -0.1), "must be in [0, 1], got -0.1 to -0.1"),
            (torch.zeros(3, 31, 64), "from 32 to 8000 pixels, got 64 x 31"),
        ],
    )
    def test_wrong_shapes_types_and_ranges_are_refused(self, bad, message):
        with pytest.raises(MasklessError) as caught:
            load_image(bad)
        assert message in str(caught.value)


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_is_applied_and_removed_from_the_exif(self, tmp_path, orientation):
        image = Image.fromarray(noise(3))
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = orientation, "Maker"
        image.save(tmp_path / "a.png", exif=exif)
        source = load_image(tmp_path / "a.png")
        upright = ImageOps.exif_transpose(Image.open(tmp_path / "a.png"))
        assert np.array_equal(source.pixels, np.asarray(upright))
        save_image(tmp_path / "b.png", source.pixels, source=source)
        kept = Image.open(tmp_path / "b.png").getexif()
        assert kept[0x010F] == "Maker" and kept.get(0x0112, 1) == 1
        assert np.array_equal(load_image(tmp_path / "b.png").pixels, source.pixels)

    def test_of_a_sixteen_bit_file(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        pixels = noise(3, np.uint16)
        (tmp_path / "a.png").write_bytes(encode_png(pixels, icc_profile=None, exif=exif.tobytes(), text={}))
        assert np.array_equal(load_image(tmp_path / "a.png").pixels, np.rot90(pixels, -1))

    def test_of_a_jpeg(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 8
        Image.new("RGB", (WIDTH, HEIGHT), "red").save(tmp_path / "a.jpg", exif=exif)
        assert load_image(tmp_path / "a.jpg").pixels.shape == (WIDTH, HEIGHT, 3)


class TestSaving:
    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1), deep=st.booleans(), alpha=st.booleans())
    def test_untouched_pixels_are_stored_bit_for_bit(self, tmp_path_factory, seed, deep, alpha):
        folder = tmp_path_factory.mktemp("save")
        pixels = noise(4 if alpha else 3, np.uint16 if deep else np.uint8, seed)
        source = load_image(pixels)
        edited = source.pixels.copy()
        edited[5:20, 7:30] = 0
        save_image(folder / "a.png", edited, source=source)
        back = load_image(folder / "a.png")
        outside = np.ones((HEIGHT, WIDTH), bool)
        outside[5:20, 7:30] = False
        assert back.bit_depth == source.bit_depth
        assert np.array_equal(back.pixels[outside], pixels[..., :3][outside])
        assert not back.pixels[5:20, 7:30].any()
        assert (back.alpha is None) == (not alpha)
        if back.alpha is not None:
            assert np.array_equal(back.alpha, pixels[..., 3])

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_profile_exif_and_text_are_kept(self, tmp_path, dtype):
        exif = Image.Exif()
        exif[0x010F], exif[0x0131] = "Maker", "Soft"
        source = SourceImage(
            pixels=noise(3, dtype),
            metadata=Metadata(exif=exif.tobytes()),
            icc_profile=SRGB,
        )
        save_image(tmp_path / "a.png", source.pixels, source=source, text={"maskless": '{"prompt": "ein Baum 🌳"}'})
        stored = Image.open(tmp_path / "a.png")
        stored.load()
        assert stored.text["maskless"] == '{"prompt": "ein Baum 🌳"}'
        assert stored.getexif()[0x010F] == "Maker"
        back = load_image(tmp_path / "a.png")
        assert back.icc_profile == SRGB and np.array_equal(back.pixels, source.pixels)

    def test_exif_of_a_jpeg_reaches_the_png_byte_for_byte(self, tmp_path):
        exif = Image.Exif()
        exif[0x010F] = "Maker"
        exif.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
        Image.fromarray(noise(3)).save(tmp_path / "a.jpg", exif=exif, icc_profile=SRGB)
        source = load_image(tmp_path / "a.jpg")
        save_image(tmp_path / "b.png", source.pixels, source=source)
        stored = Image.open(tmp_path / "b.png")
        assert stored.getexif().get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:09"
        assert stored.info["icc_profile"] == SRGB

    def test_tags_for_the_layout_of_a_tiff_are_not_copied(self, tmp_path):
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[0x010F] = "Maker"
        Image.fromarray(noise(3)).save(tmp_path / "a.tif", tiffinfo=tags)
        source = load_image(tmp_path / "a.tif")
        save_image(tmp_path / "b.png", source.pixels, source=source)
        kept = Image.open(tmp_path / "b.png").getexif()
        assert kept[0x010F] == "Maker" and 0x0111 not in kept and 0x0100 not in kept

    @pytest.mark.parametrize("suffix", [".webp", ".tif", ".PNG"])
    def test_other_lossless_formats(self, tmp_path, suffix):
        source = load_image(noise(4))
        save_image(tmp_path / f"a{suffix}", source.pixels, source=source)
        back = load_image(tmp_path / f"a{suffix}")
        assert np.array_equal(back.pixels, source.pixels)
        assert back.alpha is not None and np.array_equal(back.alpha, source.alpha)

    def test_a_jpeg_is_nearly_the_same(self, tmp_path):
        pixels = np.full((HEIGHT, WIDTH, 3), (200, 40, 90), np.uint8)
        save_image(tmp_path / "a.jpg", pixels)
        assert np.abs(load_image(tmp_path / "a.jpg").pixels.astype(int) - pixels).max() <= 3

    @pytest.mark.parametrize(
        "name,channels,dtype,message",
        [
            ("a.xyz", 3, np.uint8, "must end in one of .png"),
            ("a", 3, np.uint8, "must end in one of .png"),
            ("a.jpg", 4, np.uint8, "cannot store the source's alpha"),
            ("a.tif", 3, np.uint16, "must be saved as .png"),
        ],
    )
    def test_what_a_format_cannot_store_is_refused(self, tmp_path, name, channels, dtype, message):
        source = load_image(noise(channels, dtype))
        with pytest.raises(MasklessError, match=message):
            save_image(tmp_path / name, source.pixels, source=source)
        assert not list(tmp_path.iterdir())

    def test_a_folder_of_that_name_is_refused_and_no_file_is_left(self, tmp_path):
        (tmp_path / "a.png").mkdir()
        with pytest.raises(MasklessError, match="cannot write"):
            save_image(tmp_path / "a.png", noise(3))
        assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


class TestBadFiles:
    def refused(self, path) -> str:
        with pytest.raises(MasklessError) as caught:
            load_image(path)
        message = str(caught.value)
        assert path.name in message and "\n" not in message
        return message

    def test_no_such_file(self, tmp_path):
        assert "no such file" in self.refused(tmp_path / "nothing.png")

    def test_a_folder(self, tmp_path):
        assert "is a folder" in self.refused(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
    def test_not_an_image(self, tmp_path, content):
        (tmp_path / "a.png").write_bytes(content)
        assert self.refused(tmp_path / "a.png")

    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".gif", ".bmp"])
    @pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
    def test_truncated(self, tmp_path, suffix, share):
        file = io.BytesIO()
        Image.fromarray(noise(3)).save(file, format=Image.registered_extensions()[suffix])
        content = file.getvalue()
        (tmp_path / f"a{suffix}").write_bytes(content[: int(len(content) * share)])
        self.refused(tmp_path / f"a{suffix}")

    def test_truncated_sixteen_bit(self, tmp_path):
        content = raw_png(noise(3, np.uint16), 2)
        (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
        assert "damaged or incomplete" in self.refused(tmp_path / "a.png")

    def test_corrupt_bytes(self, tmp_path):
        content = bytearray(raw_png(noise(3, np.uint16), 2))
        content[60:90] = b"\xff" * 30
        (tmp_path / "a.png").write_bytes(content)
        assert "damaged or incomplete" in self.refused(tmp_path / "a.png")

    @pytest.mark.parametrize("width,height", [(60_000, 60_000), (12_000, 8_000), (8_001, 40)])
    def test_decompression_bomb(self, tmp_path, width, height):
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        (tmp_path / "a.png").write_bytes(png + chunk(b"IEND", b""))
        assert "too large" in (message := self.refused(tmp_path / "a.png")) or "from 32 to 8000" in message

    def test_too_small(self, tmp_path):
        Image.new("RGB", (31, 500)).save(tmp_path / "a.png")
        assert "31 x 500" in self.refused(tmp_path / "a.png")

    def test_floating_point_tiff(self, tmp_path):
        Image.fromarray(np.ones((HEIGHT, WIDTH), np.float32)).save(tmp_path / "a.tif")
        assert "floating-point" in self.refused(tmp_path / "a.tif")

    def test_a_picture_with_damaged_exif_is_loaded(self, tmp_path):
        Image.fromarray(noise(3)).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
        assert np.array_equal(load_image(tmp_path / "a.png").pixels, noise(3))
