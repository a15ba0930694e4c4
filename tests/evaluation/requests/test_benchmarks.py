"""The benchmark formats, on small sets that the tests write."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maskless.data.errors import MasklessError
from maskless.evaluation.requests.benchmarks import PIE_SIDE, decode_mask, encode_mask, read_folder


def _pie_bench(folder, **changes):
    entry = {
        "image_path": "1_change_object/000.jpg",
        "original_prompt": "a [red] car",
        "editing_prompt": "a [blue] house",
        "editing_instruction": "make it a blue house",
        "editing_type_id": "1",
        "blended_word": "car house",
        "mask": [PIE_SIDE * 10 + 20, 30, PIE_SIDE * 11 + 20, 30],
    } | changes
    (folder / "annotation_images/1_change_object").mkdir(parents=True)
    Image.new("RGB", (PIE_SIDE, PIE_SIDE)).save(folder / "annotation_images/1_change_object/000.jpg")
    (folder / "mapping_file.json").write_text(json.dumps({"000": entry}))
    return folder


def test_pie_bench_is_read(tmp_path):
    (item,) = read_folder(_pie_bench(tmp_path))
    assert (item.name, item.caption, item.prompt, item.kind) == ("000", "a red car", "a blue house", "change object")
    assert item.image.is_file() and item.mask is not None
    assert int(item.mask[1:-1, 1:-1].sum()) == 60 and bool(item.mask[10, 20]) and bool(item.mask[11, 49])
    assert not bool(item.mask[10, 50])


def test_the_border_is_always_edited_and_a_run_past_the_end_is_cut():
    mask = decode_mask([8 * 6 + 3, 1000], side=8)
    assert bool(mask[0].all() and mask[-1].all() and mask[:, 0].all() and mask[:, -1].all())
    assert mask[6, 1:7].tolist() == [False, False, True, True, True, True]
    assert not bool(mask[1:6, 1:7].any())


@given(st.integers(0, 2**32 - 1))
def test_a_mask_survives_encoding(seed):
    mask = torch.rand(9, 9, generator=torch.Generator().manual_seed(seed)) > 0.5
    again = decode_mask(encode_mask(mask), side=9)
    assert torch.equal(again[1:-1, 1:-1], mask[1:-1, 1:-1])


def test_a_csv_is_read(tmp_path):
    Image.new("L", (8, 6), 255).save(tmp_path / "m.png")
    (tmp_path / "requests.csv").write_text('image,caption,prompt,mask\na.png,,"a red car, big",m.png\nb.png,x,y,\n')
    first, second = read_folder(tmp_path)
    assert first.image == tmp_path / "a.png" and first.prompt == "a red car, big" and first.mask.shape == (6, 8)
    assert second.mask is None and second.caption == "x"


def test_triples_are_read(tmp_path):
    (tmp_path / "17").mkdir()
    for name in ("source.png", "target.jpg", "mask.png"):
        Image.new("RGB", (8, 6)).save(tmp_path / "17" / name)
    (tmp_path / "17/instruction.txt").write_text("make it snow\n")
    (item,) = read_folder(tmp_path)
    assert item.instruction == item.prompt == "make it snow" and item.target == tmp_path / "17/target.jpg"
    assert not bool(item.mask.any())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: None, "must hold mapping_file.json"),
        (lambda f: (f / "mapping_file.json").write_text("{"), "not a mapping file"),
        (lambda f: (f / "requests.csv").write_text("image,prompt\n"), "column 'caption'"),
        (lambda f: (f / "requests.csv").write_text("image,caption,prompt\na.png,x,\n"), "row 1"),
        (lambda f: _pie_bench(f, mask=[1]), "not a mapping file"),
        (lambda f: _pie_bench(f, editing_type_id="12"), "not a mapping file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, spoil, message):
    spoil(tmp_path)
    with pytest.raises(MasklessError, match=message):
        read_folder(tmp_path)
