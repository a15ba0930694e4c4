"""Edits of regions: each is made once, from one noise, and kept; what they give to losses, rankings and checkpoints."""

import io
from dataclasses import replace

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.data.result import EditedImage
from maskless.data.types import Regions
from maskless.engine import region_edits
from maskless.engine.region_edits import RegionEdits
from maskless.engine.run import resolved
from maskless.engine.stopwatch import Stopwatch
from maskless.locating.view import PictureView

BOXES = [[8, 8, 32, 32], [4, 4, 40, 40], [84, 20, 108, 44], [8, 8, 32, 32]]
"""Two anchors of two sizes each; the last box is the first one again."""
STEPS, GUIDED = 2, 2


@pytest.fixture
def make(editor, picture):
    """Edits of BOXES, with nothing drawn yet."""

    def make(
        prompt: str = "a blue house", image: torch.Tensor = picture, find_neighbours=None, find_replaced=None, **options
    ) -> RegionEdits:
        request = editor.request(image, caption="a red square", prompt=prompt)
        config = resolved(replace(editor.config, **options), request, editor.models)
        regions = Regions(
            boxes_xyxy=torch.tensor(BOXES),
            anchor_index=torch.tensor([0, 0, 1, 1]),
            size_index=torch.tensor([0, 1, 0, 1]),
        )
        view = PictureView(request.image, editor.models)
        return RegionEdits(request, view, regions, editor.models, config, Stopwatch(), find_neighbours, find_replaced)

    return make


def test_a_region_is_inpainted_once_and_its_loss_stays(make, editor):
    edits, forwards = make(), editor.models.inpainter.unet_forwards
    assert edits.inpaintings == edits.unet_forwards == 0, "nothing is drawn on construction"
    first = edits([2, 0])
    assert (edits.inpaintings, edits.unet_forwards) == (2, 2 * STEPS * GUIDED)
    again = edits([0, 1, 2])
    assert (edits.inpaintings, edits.unet_forwards) == (3, 3 * STEPS * GUIDED)
    assert editor.models.inpainter.unet_forwards - forwards == edits.unet_forwards
    assert torch.equal(again[[2, 0]], first) and torch.equal(edits.losses([0, 1, 2]).total, again)
    assert len({float(loss) for loss in again}) == 3


def test_losses_carry_no_gradient(make):
    assert not make()([0]).requires_grad


def test_one_box_gives_one_edit_whatever_it_is_drawn_with(make):
    """All regions start from the same noise, so the same box comes out the same in another batch."""
    edits = make(batch_size=1)
    edits([0, 3])
    first, last = edits.candidates([0, 3]).crops
    assert torch.equal(first, last)
    together = make(batch_size=4)
    together([0, 1, 2])
    assert int((together.candidates([0]).crops[0].int() - first.int()).abs().max()) <= 1


def test_a_composite_is_the_picture_but_for_its_box(make, picture):
    edits = make()
    edits([1])
    composite = edits.composite(1)
    x0, y0, x1, y1 = BOXES[1]
    inside = torch.zeros(picture.shape[1:], dtype=torch.bool)
    inside[y0:y1, x0:x1] = True
    assert torch.equal(composite[:, ~inside], picture[:, ~inside])
    assert (composite != picture)[:, inside].any(dim=0).float().mean() > 0.9


def test_neighbours_in_a_region_stay_bit_for_bit(make, picture):
    neighbour = torch.zeros(picture.shape[1:], dtype=torch.bool)
    neighbour[4:20, 30:40] = True
    boxes = []

    def find(box):
        boxes.append(box)
        return neighbour if box == tuple(BOXES[1]) else None

    edits = make(find_neighbours=find)
    edits([1, 2])
    candidates = edits.candidates([1, 2])
    assert sorted(boxes) == sorted(tuple(BOXES[cell]) for cell in (1, 2)), "each region is looked at once"
    assert candidates.masks is not None and not (candidates.masks[0] & neighbour).any()
    assert int(candidates.masks[0].sum()) == 36 * 36 - 160 and int(candidates.masks[1].sum()) == 24 * 24
    assert [candidates.kept_px(index) for index in (0, 1)] == [160, 0]
    composite = edits.composite(1)
    assert torch.equal(composite[:, neighbour], picture[:, neighbour])
    assert (composite != picture)[:, 10:30, 10:25].any()
    plain = make()
    plain([1, 2])
    assert plain.candidates([1, 2]).masks is None
    assert torch.equal(plain.candidates([2]).crops, candidates.crops[1:]), "a region without neighbours is unchanged"


def test_what_a_drawing_does_not_change_stays_bit_for_bit(make, picture):
    """A white square on the window as it was; the replaced object beside it counts as changed with its surroundings."""
    neighbour, replaced = torch.zeros(2, *picture.shape[1:], dtype=torch.bool)
    neighbour[4:20, 30:40] = True
    replaced[10:20, 4:10] = True
    edits = make(
        keep_unchanged=True, feather=0.1, find_neighbours=lambda box: neighbour, find_replaced=lambda box: replaced
    )
    drawn, _masks = edits._windows([1], 96)
    x0, y0, x1, y1 = edits.windows_xyxy[1].tolist()
    rows, columns = (
        slice(*(round((v - start) * 96 / (x1 - x0)) for v in span)) for start, span in ((y0, (8, 26)), (x0, (10, 28)))
    )
    drawn[..., rows, columns] = 1.0
    edits._crops[1] = (drawn[0] * 255).round().to(torch.uint8)
    candidates = edits.candidates([1])
    (mask,) = candidates.masks
    assert mask[9:25, 11:27].all() and mask[11:19, 6:10].all()
    assert not (mask & neighbour).any() and not mask[30:].any() and not mask[:, 34:].any()
    assert candidates.feather == 0.02
    edited = EditedImage.of(edits._request, candidates, 0).tensor()
    assert torch.equal(edited[:, ~mask], picture[:, ~mask]) and float(edited[:, 14:20, 15:24].min()) > 0.95


def test_the_window_of_a_candidate_is_read_once_for_each_size(make, monkeypatch):
    read = []
    crop = region_edits.crop_source
    monkeypatch.setattr(region_edits, "crop_source", lambda *given: read.append(given[2]) or crop(*given))
    edits = make(keep_unchanged=True)
    edits([0, 1])
    edits.candidates([1])
    assert read == [edits._models.inpainter.native_px] * 2


def test_a_displaced_edge_of_a_neighbour_does_not_stain_the_drawing(make):
    """Colours are matched around the box, where the drawing is right, and not along the neighbour."""
    neighbour = torch.zeros(128, 128, dtype=torch.bool)
    neighbour[4:20, 30:40] = True
    edits = make(find_neighbours=lambda box: neighbour)
    pictures, masks = edits._windows([1], 64)
    drawn = (pictures * 255).round().to(torch.uint8)
    x0, y0, x1, _y1 = edits.windows_xyxy[1].tolist()
    rows, columns = (
        slice(*(round((v - start) * 64 / (x1 - x0)) for v in span)) for start, span in ((y0, (10, 18)), (x0, (31, 33)))
    )
    assert (masks[..., rows, columns] == 0).all(), "this is the neighbour's edge"
    drawn[..., rows, columns] = 255 - drawn[..., rows, columns]
    matched = edits._matched([1], drawn, pictures)
    assert int((matched.int() - drawn.int()).abs().max()) <= 2


def test_a_composite_of_a_large_picture_is_as_large_as_clip_looks_at(make, picture):
    edits = make(image=picture.repeat(1, 10, 10))
    edits([2])
    composite = edits.composite(2)
    assert composite.shape == (3, 307, 512)
    x0, y0, x1, y1 = (edge * 512 / 1200 for edge in BOXES[2])
    changed = (composite != edits._view.small).any(dim=0).nonzero()
    assert int(changed[:, 0].min()) >= y0 - 1 and int(changed[:, 0].max()) <= y1 + 1
    assert int(changed[:, 1].min()) >= x0 - 1 and int(changed[:, 1].max()) <= x1 + 1


def test_candidates_are_the_regions_that_are_asked_for_in_their_order(make):
    edits = make(feather=0.1, seed=7)
    edits([0, 1, 2])
    candidates = edits.candidates([2, 0])
    assert candidates.regions.boxes_xyxy.tolist() == [BOXES[2], BOXES[0]]
    assert candidates.seeds == (7, 7) and candidates.feather == 0.1 and candidates.masks is None
    assert torch.equal(candidates.windows_xyxy, edits.windows_xyxy[[2, 0]])
    assert not torch.equal(*candidates.crops)
    for box, (x0, y0, x1, y1) in zip(BOXES, edits.windows_xyxy.tolist(), strict=True):
        assert x0 <= box[0] and y0 <= box[1] and x1 >= box[2] and y1 >= box[3] and x1 - x0 == y1 - y0


def test_hard_weights_give_the_loss_of_the_composite_that_they_choose(make):
    """A weight of 1 on the chosen size is the hard composite, but for the soft edge of its mask."""
    edits = make(feather=0.0)
    hard = edits([1, 2])
    soft = edits.soft_losses(torch.tensor([1, 0]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert torch.allclose(soft, hard, rtol=0.05)


def test_soft_losses_reach_the_weight_of_every_size_also_through_a_box_drawn_for_another_region(make):
    edits = make()
    edits([0, 1])
    weights = torch.tensor([[0.6, 0.4], [0.3, 0.7]], requires_grad=True)
    losses = edits.soft_losses(torch.tensor([1, 1]), weights)  # the second anchor's box is that of region 0
    losses.sum().backward()
    assert losses.shape == (2,) and weights.grad is not None
    assert bool((weights.grad.abs() > 0).all()) and bool(weights.grad.isfinite().all())


def test_scores_compare_the_composite_with_the_prompt_and_with_the_source(make, editor, picture):
    edits = make()
    edits([0, 2])
    scores = edits.scores([2, 0], torch.tensor([0.5, 9.0, -1.5, 9.0]))
    clip = editor.models.clip
    whole = clip.encode(torch.stack([edits.composite(2), edits.composite(0)])).embedding
    assert torch.allclose(scores.text_to_image, whole @ clip.encode_text("a blue house"), atol=1e-5)
    assert scores.location.tolist() == [-1.5, 0.5]
    assert bool((scores.image_to_image <= 1 + 1e-5).all()) and bool((scores.image_to_image > 0.5).all())


def test_what_is_saved_is_taken_over_and_nothing_is_drawn_again(make, editor):
    edits = make()
    losses = edits([2, 0])
    file = io.BytesIO()
    torch.save(edits.to_dict(), file)
    file.seek(0)
    later, forwards = make(), editor.models.inpainter.unet_forwards
    later.restore(torch.load(file, weights_only=True))
    assert torch.equal(later([2, 0]), losses) and editor.models.inpainter.unet_forwards == forwards
    assert torch.equal(later.candidates([0, 2]).crops, edits.candidates([0, 2]).crops)
    assert (later.inpaintings, later.unet_forwards) == (2, edits.unet_forwards)
    assert later([1]).isfinite().all() and later.unet_forwards == 3 * STEPS * GUIDED


def test_edits_of_which_none_is_made_are_saved_too(make):
    edits, later = make(), make()
    later.restore(edits.to_dict())
    assert later.inpaintings == 0 and later([0]).shape == (1,)


def test_what_another_version_saved_is_refused(make):
    edits = make()
    edits([0])
    saved = dict(edits.to_dict())
    saved["losses"] = saved["losses"][:, 1:]
    with pytest.raises(MasklessError, match=r"must hold 5 losses .* got 4: another version wrote it"):
        make().restore(saved)


def test_the_negative_prompt_changes_what_is_drawn(make):
    crops = []
    for negative in ("", "grey"):
        edits = make(negative_prompt=negative)
        edits([0])
        crops.append(edits.candidates([0]).crops)
    assert not torch.equal(*crops)
