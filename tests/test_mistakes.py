"""One test for each mistake of the published release, numbered as in docs/method.md; each would catch it."""

import inspect

import numpy as np
import pytest
import torch

from maskless.data.boxes import propose_regions, scale_to_grid
from maskless.data.config import EditConfig
from maskless.data.picture import load_image
from maskless.data.types import Anchors
from maskless.engine import search_run
from maskless.method.anchor_net import frozen_projection, region_features, roi_align
from maskless.method.anchors import find_anchors
from maskless.method.search import final_sizes, planned_updates, policy, search
from maskless.models.inpainters.denoising import Sampling
from maskless.records.names import safe_name
from planted import K, M, planted_search

TEXTS = {"caption": "a red square", "prompt": "a blue house"}
FAST = {"search": "learned", "iterations": 1, "updates": 2, "anchors": 3}


def test_mistake_01_anchor_net_learns():
    state, regions, evaluate = planted_search(best=3)
    before = {name: value.clone() for name, value in state.anchor_net.state_dict().items()}
    list(search(state, regions, evaluate, EditConfig()))
    assert all(not torch.equal(before[name], value) for name, value in state.anchor_net.state_dict().items())
    assert float(policy(state, regions)[:, 3].min()) > 0.9


def test_mistake_02_accumulated_edits_are_flushed():
    """Ten iterations of nine edits, 25 to an update: after 27, 54 and 81 edits, and the last nine at the end."""
    config = EditConfig(updates=1)
    state, regions, evaluate = planted_search(best=3)
    updates = [record.updates for record in search(state, regions, evaluate, config)]
    assert updates == [0, 0, 1, 1, 1, 2, 2, 2, 3, 4]
    assert state.updates == planned_updates(K, config) and state.pending == 0


def test_mistake_03_rows_and_columns_are_not_swapped():
    """An anchor low on the left of a wide picture has its box low on the left, in the drawing and in the pixels."""
    anchors = Anchors(points_yx=torch.tensor([[12, 4]]), weight=torch.ones(1), grid_yx=(16, 32))
    x0, y0, x1, y1 = propose_regions(anchors, [4], (160, 320)).boxes_xyxy[0].tolist()
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == (45, 125)


def test_mistake_03_the_edit_is_where_the_attention_is(editor, picture):
    attention = torch.zeros(16, 27)
    attention[3, 24] = 1.0
    anchors = find_anchors(attention, None, count=1, source="attention")
    box = propose_regions(anchors, [4], (72, 120)).boxes_xyxy[0]
    grid = scale_to_grid(box[None], (72, 120), (16, 27))[0]
    assert grid[0] <= 24.5 <= grid[2] and grid[1] <= 3.5 <= grid[3]
    result = editor.edit(editor.request(picture, **TEXTS), **FAST)
    changed = (result.best.tensor() != result.request.image).any(dim=0).nonzero()
    x0, y0, x1, y1 = result.best.box_xyxy
    assert y0 <= int(changed[:, 0].min()) and int(changed[:, 0].max()) < y1
    assert x0 <= int(changed[:, 1].min()) and int(changed[:, 1].max()) < x1


def test_mistake_04_roi_align_reads_the_whole_box():
    """On a map whose value is its own column, a box's cells hold their own columns, to the far end of the map."""
    ramp = (torch.arange(32.0) + 0.5).expand(1, 32, 32)
    pooled = roi_align(ramp, torch.tensor([[16.0, 8.0, 32.0, 24.0]]))[0, 0]
    assert torch.allclose(pooled[0], torch.tensor([17.0, 19, 21, 23, 25, 27, 29, 31]), atol=0.01)


def test_mistake_05_features_stay_with_their_anchor():
    """A map whose value is its own row and column: every row of the result holds its own anchor's boxes, in order."""
    rows, columns = torch.meshgrid(torch.arange(32.0) + 0.5, torch.arange(32.0) + 0.5, indexing="ij")
    features = torch.stack([rows, columns])
    anchors = Anchors(points_yx=torch.tensor([[8, 20], [20, 9], [15, 15]]), weight=torch.ones(3), grid_yx=(32, 32))
    boxes = propose_regions(anchors, [2, 4, 6], (32, 32)).boxes_xyxy.to(torch.float32)
    projection = frozen_projection(2)
    together = region_features(features, boxes, projection, 3).reshape(3, 3, 12, 8, 8)
    for k in range(3):
        for m in range(3):
            alone = region_features(features, boxes[k * 3 + m : k * 3 + m + 1], projection, 1)[0]
            assert torch.allclose(together[k, m], alone, atol=1e-5)


def test_mistake_06_anchors_near_the_border_keep_their_place():
    attention = torch.zeros(32, 32)
    corners = [(0, 0), (0, 31), (31, 0), (31, 31)]
    for row, column in corners:
        attention[row, column] = 0.25
    anchors = find_anchors(attention, None, count=4, source="attention")
    assert sorted(map(tuple, anchors.points_yx.tolist())) == corners
    boxes = propose_regions(anchors, EditConfig().sizes, (128, 128)).boxes_xyxy
    assert boxes.shape == (4 * M, 4)
    assert len({tuple(box) for box in boxes.tolist()}) == 4 * M, "no two fall together in the centre"
    assert int(boxes.min()) == 0 and int(boxes.max()) == 128


def test_mistake_07_edits_and_sources_reach_clip_on_one_scale(editor, picture):
    """Where the edit is the source itself, CLIP sees no difference: no direction and no change of structure."""
    run = editor.start(editor.request(picture, **TEXTS), **FAST)
    edits = run.edits
    edits([0])
    from maskless.data.paste import crop_window

    window = edits.windows_xyxy[0].tolist()
    unchanged = crop_window(picture, window, editor.models.inpainter.native_px)
    edits._crops[0] = (unchanged * 255).round().to(torch.uint8)
    composite = edits.composite(0)
    assert float(composite.min()) >= 0 and float(composite.max()) <= 1
    assert float((composite - picture).abs().mean()) < 0.02
    assert edits._scorer.losses(composite[None], edits._small_boxes[:1]).of(0)["structure"] < 0.05


def test_mistake_08_dinos_input_is_normalised_and_the_projection_is_frozen_and_saved(editor):
    dino = editor.models.dino
    grey = torch.tensor([0.485, 0.456, 0.406])[:, None, None].expand(3, 64, 64)
    assert float(dino.preprocess(grey).abs().max()) < 1e-6
    white = dino.preprocess(torch.ones(3, 64, 64))
    assert torch.allclose(white[0, :, 0, 0], torch.tensor([2.2489, 2.4286, 2.6400]), atol=1e-3)
    run = editor.start(editor.request(torch.rand(3, 64, 64), **TEXTS), **FAST)
    next(iter(run))
    assert torch.equal(run.state()["projection"], frozen_projection(32))


def test_mistake_09_every_candidate_starts_from_the_same_noise(editor):
    """Two equal pictures in one batch come out equal, so regions differ by region alone."""
    model = editor.models.inpainter
    images = torch.rand(1, 3, 64, 64).expand(3, -1, -1, -1)
    masks = torch.ones(3, 1, 64, 64)
    edited = model.inpaint(images, masks, model.encode_prompt("a house"), Sampling(seed=1, steps=2, guidance_scale=5.0))
    assert int((edited[0].int() - edited[1].int()).abs().max()) <= 1
    assert int((edited[0].int() - edited[2].int()).abs().max()) <= 1


def test_mistake_10_there_is_no_noise_at_the_end():
    state, regions, evaluate = planted_search(best=3)
    list(search(state, regions, evaluate, EditConfig(updates=5)))
    before = state.generator.get_state()
    chosen = final_sizes(state, regions)
    assert torch.equal(chosen, policy(state, regions).argmax(dim=1))
    assert all(torch.equal(final_sizes(state, regions), chosen) for _ in range(5))
    assert torch.equal(state.generator.get_state(), before)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_mistake_11_the_picture_keeps_its_size_and_every_pixel_outside(editor, depth):
    white = np.iinfo(depth).max
    original = np.random.default_rng(0).integers(0, white + 1, (150, 311, 3), dtype=depth)
    result = editor.edit(original, **TEXTS, **FAST)
    edited = result.best.pixels()
    assert edited.shape == original.shape and edited.dtype == depth
    x0, y0, x1, y1 = result.best.box_xyxy
    outside = np.ones((150, 311), dtype=bool)
    outside[y0:y1, x0:x1] = False
    assert outside.any() and np.array_equal(edited[outside], original[outside])
    assert np.array_equal(load_image(original).pixels, original)


def test_mistake_12_any_caption_names_a_file_and_long_prompts_are_read_to_the_end(editor, picture):
    for text in ("../../x", "CON", "a" * 300, "", "a\\b:c*d", "🌳"):
        name = safe_name(text)
        assert name and not set(name) & set("/\\:*\0") and not name.startswith(".") and len(name.encode()) <= 255
    prompt = "a blue house " * 30
    ends = [editor.models.inpainter.encode_prompt(prompt + end).prompt for end in ("at night", "at noon")]
    assert not torch.equal(*ends)
    assert len(editor.edit(editor.request(picture, caption="a car", prompt=prompt), **FAST).order) == 3


def test_mistake_13_it_runs_on_the_cpu_without_the_hub(editor, picture, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = editor.edit(editor.request(picture, **TEXTS), **FAST)
    assert editor.models.device.type == "cpu" and len(result.order) == 3
    assert "distributed" not in inspect.getsource(search_run) and "nccl" not in inspect.getsource(search_run)
