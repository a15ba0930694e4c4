"""What the user gives becomes a request that its task can be done with, or one line that says what is wrong."""

import numpy as np
import pytest
import torch
from PIL import Image

from maskless.data.canvas import without_margins
from maskless.data.errors import MasklessError
from maskless.data.picture import load_image
from maskless.engine.requests import make_request

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)


def with_hole(depth: type = np.uint8) -> np.ndarray:
    white = np.iinfo(depth).max
    pixels = np.random.default_rng(0).integers(0, white + 1, (48, 80, 4), dtype=depth)
    pixels[..., 3] = white
    pixels[10:20, 30:50, 3] = 0
    return pixels


def test_a_box_and_a_mask_say_the_same_in_any_form(tmp_path):
    wanted = torch.zeros(48, 80, dtype=torch.bool)
    wanted[10:20, 30:50] = True
    grey = Image.fromarray(wanted.numpy().astype(np.uint8) * 255)
    grey.save(tmp_path / "mask.png")
    given = [{"box": "30,10,50,20"}, {"box": (30, 10, 50, 20)}, {"mask": tmp_path / "mask.png"}, {"mask": grey}]
    given += [{"mask": wanted}, {"mask": wanted.numpy()}, {"mask": np.asarray(grey)}]
    for region in given:
        request = make_request(PIXELS, prompt="a house", **region)
        assert request.mask is not None and torch.equal(request.mask, wanted)
    assert make_request(PIXELS, prompt="a house").mask is None


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_complete_fills_what_is_transparent_and_makes_it_seen(depth):
    pixels = with_hole(depth)
    request = make_request(pixels, task="complete")
    assert torch.equal(request.mask, torch.from_numpy(pixels[..., 3] == 0))
    assert (request.source.alpha == np.iinfo(depth).max).all()
    assert np.array_equal(request.source.pixels, pixels[..., :3])


@pytest.mark.parametrize(
    "extend,margins",
    [
        (None, (20, 12, 20, 12)),
        (0.5, (40, 24, 40, 24)),
        (7, (7, 7, 7, 7)),
        ("left=0.5,top=4", (40, 4, 0, 0)),
        ("bottom=25%", (0, 0, 0, 12)),
        ("right = 16", (0, 0, 16, 0)),
    ],
)
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_larger_canvas_holds_the_picture_exactly(extend, margins, depth):
    pixels = with_hole(depth)
    request = make_request(pixels, task="extend", extend=extend)
    left, top, right, bottom = margins
    assert request.margins_px == margins and request.size_yx == (48 + top + bottom, 80 + left + right)
    assert np.array_equal(without_margins(request.source.pixels, margins), pixels[..., :3])
    assert np.array_equal(without_margins(request.source.alpha, margins), pixels[..., 3])
    assert not without_margins(request.mask.numpy(), margins).any()
    assert int(request.mask.sum()) == request.mask.numel() - 48 * 80


def test_repair_takes_holes_and_scratches():
    sound = np.full((48, 80, 4), (90, 140, 200, 255), np.uint8)
    sound[20:22, :, :3] = 250
    sound[40:44, 10:20, 3] = 0
    found = make_request(sound, task="repair").mask
    assert bool(found[20:22].all()) and bool(found[40:44, 10:20].all()) and float(found.float().mean()) < 0.2


@pytest.mark.parametrize(
    "given,message",
    [
        ({"task": "paint"}, "task must be one of complete, add, remove, .*, got 'paint'"),
        ({"prompt": " "}, "prompt must not be empty"),
        ({"prompt": "x", "mask": np.ones((48, 48), bool)}, "mask must be of the picture's size, 80 x 48, got 48 x 48"),
        ({"prompt": "x", "mask": np.zeros((48, 80), bool)}, "mask must be bright where .*, got one that is dark"),
        ({"prompt": "x", "mask": "none.png"}, "no such file: none.png"),
        ({"prompt": "x", "mask": np.ones((48, 80), bool), "box": "0,0,4,4"}, "a mask or a box, not both"),
        ({"prompt": "x", "box": "0,0,81,48"}, "inside the picture of 80 x 48, got '0,0,81,48'"),
        ({"prompt": "x", "box": "4,4,4,8"}, "box must be X0,Y0,X1,Y1"),
        ({"prompt": "x", "box": "1,2,3"}, "box must be X0,Y0,X1,Y1"),
        ({"prompt": "x", "box": "a,b,c,d"}, "box must be X0,Y0,X1,Y1"),
        ({"prompt": "x", "extend": 0.5}, "only the task extend can add canvas"),
        ({"task": "extend", "extend": "much"}, "extend must be 0.25 .*, got 'much'"),
        ({"task": "extend", "extend": "up=3"}, "extend must be"),
        ({"task": "extend", "extend": 0}, "extend must be"),
        ({"task": "extend", "extend": 9000}, "sides of the extended picture must be at most 8000 pixels"),
        ({"task": "extend", "box": "0,0,4,4"}, "leave out mask and box"),
        ({"task": "complete"}, "picture has none; give --mask FILE or --box"),
        ({"task": "repair"}, "found no scratch or hole to repair; give --mask FILE"),
        ({"task": "remove"}, "remove needs a location"),
        ({"task": "texture", "prompt": "striped"}, "texture needs a location"),
    ],
)
def test_bad_input_is_one_line(given, message):
    flat = np.full((48, 80, 3), 120, np.uint8)
    with pytest.raises(MasklessError, match=message) as caught:
        make_request(flat, **given)
    assert "\n" not in str(caught.value)


def test_the_source_is_not_changed():
    source = load_image(with_hole())
    make_request(source, task="complete")
    assert (source.alpha == 0).sum() == 200


def drawn(mask: np.ndarray, colour: int, *, inverted: bool = False) -> Image.Image:
    """A mask as a picture of one colour whose alpha channel is opaque where the mask is, or elsewhere."""
    grey = np.full((*mask.shape, 3), colour, np.uint8)
    return Image.fromarray(np.dstack([grey, ((mask ^ inverted) * 255).astype(np.uint8)]))


def test_a_mask_in_the_alpha_channel_is_read_or_asked_about():
    wanted = np.zeros((48, 80), bool)
    wanted[10:20, 30:50] = True
    with_holes = Image.fromarray(np.dstack([PIXELS, (~wanted * 255).astype(np.uint8)]))
    strokes = np.zeros((48, 80, 4), np.uint8)
    strokes[wanted] = 255  # white strokes on an empty canvas: what is not drawn is black and transparent
    for mask, mode in (
        (with_holes, None),
        (Image.fromarray(strokes), None),
        (drawn(wanted, 0), "opaque"),
        (drawn(wanted, 255), "opaque"),
        (drawn(wanted, 255, inverted=True), "transparent"),
        (drawn(wanted, 120, inverted=True).convert("LA"), "transparent"),
        (Image.fromarray(wanted.astype(np.uint8) * 255), "bright"),
    ):
        found = make_request(PIXELS, prompt="x", mask=mask, mask_mode=mode).mask
        assert np.array_equal(found.numpy(), wanted), mode
    other_picture = Image.fromarray(np.dstack([PIXELS[::-1], (~wanted * 255).astype(np.uint8)]))
    for mask in (drawn(wanted, 0), drawn(wanted, 255), drawn(wanted, 90, inverted=True), other_picture):
        with pytest.raises(MasklessError, match="opaque .--mask-mode opaque. or where it is transparent"):
            make_request(PIXELS, prompt="x", mask=mask)


@pytest.mark.parametrize(
    "mask,mode,message",
    [
        (np.full((48, 80), 255, np.uint8), "opaque", "needs a mask with transparency"),
        (np.full((48, 80), 255, np.uint8), "dark", "must be one of bright, opaque, transparent, got 'dark'"),
        (np.full((48, 80, 4), 255, np.uint8), "transparent", "must be transparent where .* opaque everywhere"),
        (None, "opaque", "there is no mask"),
    ],
)
def test_a_mask_mode_that_does_not_fit_is_one_line(mask, mode, message):
    with pytest.raises(MasklessError, match=message):
        make_request(PIXELS, prompt="x", mask=mask, mask_mode=mode)


def test_the_grey_values_of_a_soft_mask_are_kept():
    grey = np.tile(np.linspace(0, 255, 80).astype(np.uint8), (48, 1))
    cut = make_request(PIXELS, prompt="x", mask=grey)
    soft = make_request(PIXELS, prompt="x", mask=grey, soft_mask=True)
    assert cut.amount is None and torch.equal(cut.mask, torch.from_numpy(grey > 127))
    assert torch.allclose(soft.amount, torch.from_numpy(grey.astype(np.float32) / 255))
    assert torch.equal(soft.mask, torch.from_numpy(grey > 0))
    holes = Image.fromarray(np.dstack([PIXELS, 255 - grey]))
    assert torch.allclose(make_request(PIXELS, prompt="x", mask=holes, soft_mask=True).amount, soft.amount, atol=1e-6)
    with pytest.raises(MasklessError, match="soft_mask says how to read a mask, and there is no mask"):
        make_request(PIXELS, prompt="x", soft_mask=True)
