"""Ranking of edits that other tools have made."""

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.data.picture import load_image
from maskless.engine.finder import Finder
from maskless.engine.rank_pictures import rank_pictures
from maskless.storybook.world.graph import SceneGraph, SceneObject
from maskless.storybook.world.scenes import draw


@pytest.fixture(scope="module")
def finder():
    return Finder.from_pretrained("storybook")


def test_the_edit_that_shows_the_prompt_comes_first(finder):
    car = SceneObject(kind="car", colour="red", centre_xy=(0.5, 0.6), size=0.4)
    graph = SceneGraph(objects=(car,), background="meadow", style="flat", horizon=0.4, detail_seed=1)
    wanted = graph.replace_object(0, kind="house", colour="blue")
    other = graph.replace_object(0, kind="tree", colour="yellow")
    source, right, wrong = (load_image(draw(each).image).rgb for each in (graph, wanted, other))
    view = finder.look(source)
    arguments = {"caption": "a red car", "prompt": "a blue house", "box_xyxy": (32, 44, 96, 108)}
    ranking = rank_pictures(view, torch.stack([source, wrong, right]), **arguments)
    assert ranking.order[0] == 2 and sorted(ranking.order) == [0, 1, 2]
    assert float(ranking.score[2]) == float(ranking.score.max())
    larger = torch.nn.functional.interpolate(torch.stack([source, wrong, right]), scale_factor=2)
    assert rank_pictures(view, larger, **arguments).order[0] == 2


def test_bad_input_is_one_line(finder, picture):
    view = finder.look(picture)
    with pytest.raises(MasklessError, match="at least one picture"):
        rank_pictures(view, torch.zeros(0, 3, 72, 120), prompt="a tent")
    with pytest.raises(MasklessError, match="prompt must say what the edit should show"):
        rank_pictures(view, picture[None], prompt=" ")
