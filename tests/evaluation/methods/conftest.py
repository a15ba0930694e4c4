"""A request for the methods that edit: small models, two anchors, one step."""

from dataclasses import replace

import pytest

from maskless.data.picture import load_image
from maskless.data.types import EditRequest
from maskless.evaluation.methods.cases import Case

TRUTH = (84, 20, 108, 44)


@pytest.fixture
def case(editor, picture) -> Case:
    """Two anchors and three sizes, one iteration, one denoising step without guidance."""
    config = replace(editor.config, steps=1, guidance_scale=1.0, iterations=1, anchors=2, updates=2, window_step=4)
    request = EditRequest(source=load_image(picture), caption="a red square", prompt="a blue house", seed=7)
    return Case(models=editor.models, request=request, config=config, truth_xyxy=TRUTH)
