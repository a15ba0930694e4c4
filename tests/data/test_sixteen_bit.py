"""Pictures of 16 bits a channel come in whole, and the PNG files that go out are valid and hold the same pixels."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskless.data.sixteen_bit import encode_png, read_deep
from raw_pictures import raw_png, raw_tiff

HEIGHT, WIDTH = 40, 56
BARE = {"icc_profile": None, "exif": None, "text": {}}


def noise(channels: int, seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65536, (*size, channels), dtype=np.uint16)


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def chunks(content: bytes) -> dict[bytes, bytes]:
    """The chunks of a PNG by name, each with a correct checksum."""
    found, at = {}, 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        name, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert struct.unpack(">I", content[at + 8 + length : at + 12 + length])[0] == zlib.crc32(name + body)
        found[name] = body
        at += 12 + length
    return found


class TestReading:
    @pytest.mark.parametrize("channels,colour_type", [(3, 2), (2, 4), (4, 6)])
    def test_every_bit_of_a_png(self, channels, colour_type):
        pixels = noise(channels)
        found = read_deep(opened(raw_png(pixels, colour_type)))
        assert found is not None and found.dtype == np.uint16 and np.array_equal(found, pixels)

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_every_bit_of_a_tiff_in_either_byte_order(self, order):
        pixels = noise(3)
        found = read_deep(opened(raw_tiff(pixels, order)))
        assert found is not None and np.array_equal(found, pixels)

    def test_the_picture_is_loaded_afterwards_with_its_high_bytes(self):
        pixels = noise(3)
        image = opened(raw_png(pixels, 2))
        read_deep(image)
        assert np.array_equal(np.asarray(image), (pixels >> 8).astype(np.uint8))

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "BMP"])
    def test_eight_bits_are_not_its_business(self, kind):
        file = io.BytesIO()
        Image.fromarray(noise(3).astype(np.uint8)).save(file, format=kind)
        assert read_deep(opened(file.getvalue())) is None

    def test_grey_without_alpha_is_left_to_pillow(self):
        pixels = noise(1)
        image = opened(raw_png(pixels, 0))
        assert read_deep(image) is None and np.array_equal(np.asarray(image), pixels[..., 0])


class TestWriting:
    @settings(max_examples=25, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        channels=st.sampled_from([3, 4]),
        size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    )
    def test_what_is_written_is_read_again(self, seed, channels, size):
        pixels = noise(channels, seed, size)
        found = read_deep(opened(encode_png(pixels, **BARE)))
        assert found is not None and np.array_equal(found, pixels)

    def test_a_decoder_of_another_make_reads_it(self):
        """The rows are unfiltered here by PNG's own rule: with filter 2 a row adds to the one above it."""
        pixels = noise(4)
        found = chunks(encode_png(pixels, **BARE))
        assert struct.unpack(">IIBBBBB", found[b"IHDR"]) == (WIDTH, HEIGHT, 16, 6, 0, 0, 0)
        rows = np.frombuffer(zlib.decompress(found[b"IDAT"]), np.uint8).reshape(HEIGHT, -1)
        assert set(rows[:, 0]) == {2}
        whole = np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8)
        assert np.array_equal(np.ascontiguousarray(whole).view(">u2").reshape(pixels.shape), pixels)

    def test_filtering_pays(self):
        """A smooth picture is stored in much less than its own size."""
        ramp = np.broadcast_to(np.linspace(0, 65535, 256).astype(np.uint16)[None, :, None], (256, 256, 3))
        assert len(encode_png(ramp, **BARE)) < ramp.nbytes / 50

    def test_profile_exif_and_texts_in_any_script(self):
        exif = Image.Exif()
        exif[0x010F] = "Maker"
        text = {"maskless": '{"prompt": "ein Baum 🌳"}', "Autor": "ü"}
        content = encode_png(noise(3), icc_profile=b"a profile", exif=exif.tobytes(), text=text)
        chunks(content)
        stored = opened(content)
        stored.load()
        assert stored.text == text and stored.info["icc_profile"] == b"a profile"
        assert stored.getexif()[0x010F] == "Maker"

    def test_nothing_is_added_where_there_is_nothing(self):
        assert set(chunks(encode_png(noise(3), **BARE))) == {b"IHDR", b"IDAT", b"IEND"}
