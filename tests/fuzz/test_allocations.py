"""Memory that runs out while an edit is written leaves no half file."""

import numpy as np

from fuzz.allocations import check_whole, fail_everywhere
from maskless.data.picture import load_image, save_image
from maskless.records.outputs import save_edit


def test_memory_that_runs_out_while_an_edit_is_written_leaves_no_half_file(make_result, tmp_path, unchecked):
    earlier = make_result(np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8))
    result = make_result(np.random.default_rng(1).integers(0, 256, (64, 80, 3), dtype=np.uint8))
    before = save_edit(earlier, tmp_path)
    final = before.final.read_bytes()
    found = fail_everywhere(lambda: save_edit(result, tmp_path), tmp_path, 6)
    assert found["broken"] == 0 and found["ended in an error"] >= 5, "the last call may be that which ends the counting"
    assert before.final.read_bytes() == final and (tmp_path / "0_trees (2)/result.json").is_file()


def test_memory_that_runs_out_while_a_picture_is_saved_leaves_the_old_one(tmp_path, unchecked):
    pixels = np.random.default_rng(0).integers(0, 65536, (64, 80, 4), dtype=np.uint16)
    source = load_image(pixels)
    save_image(tmp_path / "a.png", source.pixels, source=source)
    content = (tmp_path / "a.png").read_bytes()
    found = fail_everywhere(lambda: save_image(tmp_path / "a.png", source.pixels, source=source), tmp_path, 40)
    assert found["broken"] == 0
    assert (tmp_path / "a.png").read_bytes() == content
    check_whole(tmp_path)
