"""Each edit has a folder of its own; the same edit, made again, has the same one."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from maskless.data.config import EditConfig
from maskless.data.model_options import ModelOptions
from maskless.data.picture import load_image
from maskless.engine.requests import make_request
from maskless.records.folders import edit_folder, identity, identity_in, picture_folder
from maskless.records.outputs import save_edit

SCENE = np.random.default_rng(3).integers(0, 256, (96, 128, 3), dtype=np.uint8)


def test_only_the_same_edit_has_the_same_identity():
    request, config, models = make_request(SCENE, caption="a", prompt="b"), EditConfig(), ModelOptions()
    same = identity(make_request(SCENE.copy(), caption="a", prompt="b"), EditConfig(), ModelOptions())
    assert identity(request, config, models) == same and len(same) == 16
    mask = torch.zeros(96, 128, dtype=torch.bool)
    mask[20:40, 20:40] = True
    transparent = np.dstack([SCENE, np.full((96, 128), 7, np.uint8)])
    others = [
        identity(make_request(given, caption="a", prompt="b"), config, models) for given in (SCENE[::-1], transparent)
    ]
    changed = ({"caption": "c"}, {"prompt": "c"}, {"mask": mask}, {"task": "add"}, {"seed": 1})
    others += [identity(replace(request, **change), config, models) for change in changed]
    others += [identity(request, EditConfig(seed=43), models), identity(request, config, ModelOptions(dtype="float32"))]
    assert len({same, *others}) == 1 + len(others)


def test_another_edit_of_the_same_caption_is_numbered(make_result, tmp_path):
    other_picture = make_result(SCENE[::-1].copy())
    results = [make_result(SCENE), other_picture]
    folders = [save_edit(result, tmp_path).folder.name for result in results]
    assert folders == ["0_trees", "0_trees (2)"]
    own = identity(other_picture.request, other_picture.config, other_picture.models)
    assert edit_folder(other_picture.request, own, output_dir=tmp_path) == "0_trees (2)"
    assert edit_folder(other_picture.request, "a third", output_dir=tmp_path) == "0_trees (3)"
    assert save_edit(other_picture, tmp_path, overwrite=True).folder.name == "0_trees", "the old way"
    assert np.array_equal(load_image(tmp_path / "0_trees/input_image.png").pixels, SCENE[::-1])


def test_a_folder_that_another_edit_took_meanwhile_is_not_written_to(make_result, tmp_path):
    result = make_result(SCENE)
    (tmp_path / "0_trees").mkdir()
    (tmp_path / "0_trees/result.json").write_text('{"request": {"identity": "another"}}')
    assert save_edit(result, tmp_path, folder_name="0_trees").folder.name == "0_trees (2)"


@pytest.mark.parametrize("file", ["result.json", "run.json"])
@pytest.mark.parametrize("content", ["{}", "[1]", "damaged", '{"request": 3}', '{"identity": 3}'])
def test_what_cannot_be_read_belongs_to_another_edit(tmp_path, file, content):
    request = make_request(SCENE, caption="trees", prompt="b")
    assert picture_folder(request) == "0_trees"
    outputs, checkpoints = tmp_path / "output", tmp_path / "checkpoints"
    place = (outputs if file == "result.json" else checkpoints) / "0_trees" / file
    place.parent.mkdir(parents=True)
    place.write_text(content)
    assert edit_folder(request, "own", output_dir=outputs, checkpoint_dir=checkpoints) == "0_trees (2)"
    assert edit_folder(request, "own", output_dir=outputs, checkpoint_dir=checkpoints, overwrite=True) == "0_trees"
    own = {"identity": "own"}
    place.write_text(json.dumps({"request": own} if file == "result.json" else own))
    assert edit_folder(request, "own", output_dir=outputs, checkpoint_dir=checkpoints) == "0_trees"
    assert identity_in(place) == "own" and identity_in(tmp_path / "nothing.json") is None
