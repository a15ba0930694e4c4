"""What benchmarks measure: values by hand, torchmetrics where it has the same metric, and each quirk by its name."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from maskless.data.errors import MasklessError
from maskless.data.model_options import ModelOptions
from maskless.evaluation.measures import protocols
from maskless.evaluation.measures.metrics import mask_of_box
from maskless.evaluation.measures.protocols import Instruments

SIDE = 64
NOTHING = Instruments()


@pytest.fixture(scope="module")
def tools(tiny_models):
    from maskless.models.pretrained import load_models

    models = load_models(ModelOptions(models=str(tiny_models), device="cpu", dtype="float32"))
    return Instruments(clip=models.clip, dino=models.dino)


@pytest.fixture
def pictures():
    """Noise, the same a little off everywhere and quite another in the box, and the box's mask."""
    rng = np.random.default_rng(0)
    before = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    after = np.clip(before.astype(int) + rng.integers(-9, 10, before.shape), 0, 255).astype(np.uint8)
    after[8:40, 16:56] = 255 - before[8:40, 16:56]
    return before, after, mask_of_box((16, 8, 56, 40), (SIDE, SIDE))


def test_values_by_hand():
    """Half of the picture is edited; of the other half a half, a quarter of all, is off by 51 / 255 = 0.2."""
    before = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    after = before.copy()
    after[:16] = 51
    after[32:] = 200
    edited = mask_of_box((0, 32, SIDE, SIDE), (SIDE, SIDE))
    pie = protocols.pie_figures(NOTHING, before, after, edited, "")
    assert pie["mse_unedit_part"] == pytest.approx(0.04 / 4), "pixels that were masked out count as perfect"
    assert pie["psnr_unedit_part"] == pytest.approx(20)
    right = protocols.corrected_figures(NOTHING, before, after, edited, "", "")
    assert right["background MSE"] == pytest.approx(0.04 / 2)
    assert right["background PSNR dB"] == pytest.approx(10 * math.log10(50))
    assert right["background identical"] == 0.5
    # Flat parts: (2 * 0 * 0.2 + C1) / (0.04 + C1) where all of the window differs, 1 where none does.
    far = 1e-4 / (0.04 + 1e-4)
    assert far < right["background SSIM"] < 0.5 + far and pie["ssim_unedit_part"] > right["background SSIM"]


def test_the_larger_the_mask_the_better_by_the_letter_only():
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    small, large = (mask_of_box((0, 0, SIDE, rows), (SIDE, SIDE)) for rows in (8, 56))
    pie = [protocols.pie_figures(NOTHING, before, after, mask, "") for mask in (small, large)]
    right = [protocols.corrected_figures(NOTHING, before, after, mask, "", "") for mask in (small, large)]
    assert pie[1]["psnr_unedit_part"] > pie[0]["psnr_unedit_part"] + 7
    assert right[1]["background PSNR dB"] == pytest.approx(right[0]["background PSNR dB"], abs=0.5)
    assert pie[1]["ssim_unedit_part"] > 0.7 > 0.1 > right[1]["background SSIM"]


def test_they_are_the_same_as_torchmetrics(pictures):
    """As PIE-Bench calls it: float32 of 8 bits by 255, times the mask."""
    torchmetrics = pytest.importorskip("torchmetrics")
    before, after, edited = pictures
    keep = 1 - edited.numpy()[:, :, None].astype(np.float32)
    x, y = (torch.tensor(p.astype(np.float32) / 255 * keep).permute(2, 0, 1)[None] for p in (after, before))
    pie = protocols.pie_figures(NOTHING, before, after, edited, "")
    image = torchmetrics.image
    assert pie["psnr_unedit_part"] == pytest.approx(float(image.PeakSignalNoiseRatio(data_range=1.0)(x, y)), abs=1e-4)
    ssim = image.StructuralSimilarityIndexMeasure(data_range=1.0)(x, y)
    assert pie["ssim_unedit_part"] == pytest.approx(float(ssim), abs=1e-4)
    mse = torchmetrics.regression.MeanSquaredError()(x[0].contiguous(), y[0].contiguous())
    assert pie["mse_unedit_part"] == pytest.approx(float(mse), rel=1e-4)


def test_the_clip_score_is_that_of_torchmetrics(tools, pictures):
    """With CLIP's own processing: Pillow's bicubic, shorter side first, then the centre."""
    metric = pytest.importorskip("torchmetrics.functional.multimodal.clip_score")
    clip = tools.clip
    wide = np.asarray(Image.fromarray(pictures[1]).resize((112, 80)))

    class Model:
        config = clip.model.config

        def to(self, _device):
            return self

        def get_image_features(self, pixels):
            return clip.model.visual_projection(clip.model.vision_model(pixel_values=pixels).pooler_output)

        def get_text_features(self, ids, attention):
            hidden = clip.model.text_model(input_ids=ids, attention_mask=attention).pooler_output
            return clip.model.text_projection(hidden)

    def processor(images=None, text=None, **_):
        if text is not None:
            ids = clip.tokenizer(text, return_tensors="pt")
            return {"input_ids": ids.input_ids, "attention_mask": ids.attention_mask}
        (image,) = (Image.fromarray(one.permute(1, 2, 0).numpy()) for one in images)
        scaled = image.resize((int(64 * 112 / 80), 64), Image.Resampling.BICUBIC)
        cut = np.asarray(scaled.crop((12, 0, 76, 64))) / 255
        pixels = (torch.tensor(cut, dtype=torch.float32) - 0.5) / 0.25
        return {"pixel_values": pixels.permute(2, 0, 1)[None]}

    for text in ("a red car", "x"):
        score, _ = metric._clip_score_update(torch.tensor(wide.copy()).permute(2, 0, 1), text, Model(), processor)
        assert protocols.clip_score(clip, wide, text) == pytest.approx(max(0.0, float(score)), abs=1e-3)


def test_the_edited_part_is_a_spot_in_a_black_frame_by_the_letter(tools, pictures):
    before, after, edited = pictures
    pie = protocols.pie_figures(tools, before, after, edited, "a red car")
    assert pie["clip_similarity_target_image"] == protocols.clip_score(tools.clip, after, "a red car")
    black = after.copy()
    black[~edited.numpy()] = 0
    assert pie["clip_similarity_target_image_edit_part"] == protocols.clip_score(tools.clip, black, "a red car")
    right = protocols.corrected_figures(tools, before, after, edited, "noise", "a red car")
    crop = torch.from_numpy(after[8:40, 16:56] / np.float32(255)).movedim(-1, 0)
    wanted = float(tools.clip.encode(crop[None]).embedding[0] @ tools.clip.encode_text("a red car"))
    assert right["CLIP of the edited part"] == pytest.approx(wanted, abs=1e-3)


def test_structure_is_read_from_0_to_255_by_the_letter(tools, pictures):
    """By hand: keys of pixels that are 255 times too bright, cosines, mean square of the difference."""
    before, after, edited = pictures
    pie = protocols.pie_figures(tools, before, after, edited, "")
    dino = tools.dino

    def similarity(pixels, scale):
        image = torch.from_numpy(pixels.astype(np.float32)).movedim(-1, 0) * scale
        keys = dino.keys(image).double()
        norms = keys.norm(dim=1)
        return keys @ keys.T / (norms[:, None] * norms[None])

    loud = (similarity(before, 1.0) - similarity(after, 1.0)).square().mean()
    assert pie["structure_distance"] == pytest.approx(float(loud), rel=1e-3)
    right = protocols.corrected_figures(tools, before, after, edited, "", "")
    quiet = (similarity(before, 1 / 255) - similarity(after, 1 / 255)).square().mean()
    assert right["structure distance"] == pytest.approx(float(quiet), rel=1e-3)
    assert abs(float(loud - quiet)) > 1e-3


def test_lpips_sees_black_by_the_letter_and_no_edit_when_put_right(tmp_path, pictures):
    from maskless.evaluation.measures.lpips import Lpips
    from weights_of_lpips import write_lpips

    tools = Instruments(lpips=Lpips.from_folder(write_lpips(tmp_path)))
    before, after, edited = pictures
    inside = np.where(edited.numpy()[:, :, None], after, before)
    assert protocols.pie_figures(tools, before, inside, edited, "")["lpips_unedit_part"] == 0
    assert protocols.corrected_figures(tools, before, inside, edited, "", "")["background LPIPS"] == 0
    pie = protocols.pie_figures(tools, before, after, edited, "")["lpips_unedit_part"]
    right = protocols.corrected_figures(tools, before, after, edited, "", "")["background LPIPS"]
    black = [
        torch.from_numpy(p * (1 - edited.numpy()[:, :, None].astype(np.float32)) / 255).movedim(-1, 0)
        for p in (before, after)
    ]
    assert 0 < pie == pytest.approx(tools.lpips.distance(*black), rel=1e-4) and right > 0


def test_without_background_there_is_no_number_and_no_difference_is_100_db(pictures):
    before, after, edited = pictures
    everything = torch.ones_like(edited)
    pie = protocols.pie_figures(NOTHING, before, after, everything, "")
    assert all(math.isnan(value) for value in pie.values())
    assert protocols.pie_figures(NOTHING, before, before, edited, "")["psnr_unedit_part"] == 100


def test_measures_against_the_wanted_picture(tools):
    """A quarter of the values is off by 0.2."""
    target = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    result = target.copy()
    result[:16] = 51
    found = protocols.target_figures(tools, target, result)
    assert (found["L1"], found["L2"]) == (pytest.approx(0.05), pytest.approx(0.01))
    assert found["CLIP-I"] < 1 and found["DINO"] < 1
    same = protocols.target_figures(tools, target, target)
    assert (same["L1"], same["L2"]) == (0, 0)
    assert same["CLIP-I"] == pytest.approx(1, abs=1e-4) and same["DINO"] == pytest.approx(1, abs=1e-4)


def test_a_row_of_pictures_counts_by_its_last_square():
    row = np.zeros((512, 2048, 3), dtype=np.uint8)
    row[:, 1536:] = 7
    assert protocols.last_square(row).shape == (512, 512, 3) and bool((protocols.last_square(row) == 7).all())
    square = row[:64, :64]
    assert protocols.last_square(square) is square
    with pytest.raises(MasklessError, match="must be at least 512 x 512, got 64 x 32"):
        protocols.last_square(row[:32, :64])


def test_the_region_against_the_mask():
    size = (10, 10)
    found = protocols.region_figures(mask_of_box((0, 0, 4, 5), size), mask_of_box((2, 0, 6, 5), size))
    assert found == pytest.approx(
        {"region IoU": 1 / 3, "region precision": 0.5, "region recall": 0.5, "region size": 0.2}
    )
