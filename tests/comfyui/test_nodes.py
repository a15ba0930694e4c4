"""The nodes for ComfyUI, loaded as ComfyUI loads them, on the bundled models."""

import asyncio
import inspect
import json
import tomllib
from pathlib import Path

import pytest
import torch

import comfy_stub
from maskless.data.errors import MasklessError
from maskless.data.picture import load_image

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "comfyui"
WORKFLOWS = FOLDER / "example_workflows"
SAMPLE = ROOT / "src" / "maskless" / "assets" / "samples" / "meadow.png"
WIDGETS = {"STRING", "INT", "FLOAT", "COMBO"}
BUILT_IN = {"LoadImage", "PreviewImage", "SaveImage", "MaskPreview", "ImageInvert"}


@pytest.fixture(scope="module")
def nodes():
    with pytest.MonkeyPatch.context() as patch:
        comfy_stub.install(patch)
        yield asyncio.run(comfy_stub.load_custom_node(FOLDER, patch))


@pytest.fixture(scope="module")
def image():
    """[1, H, W, 3]: a sample with values that no 8-bit picture has, some beyond the usual range."""
    sample = load_image(SAMPLE).rgb.movedim(0, -1)[None]
    sample = sample + torch.rand(sample.shape, generator=torch.Generator().manual_seed(0)) / 400
    sample[0, :4, :4] = 1.25
    return sample


@pytest.fixture(scope="module")
def found(nodes, image):
    return run(nodes["MasklessFindRegion"], image=image, caption="a red car", region="box", models="storybook")


def run(node, **inputs):
    return node.EXECUTE_NORMALIZED(**inputs).result


def square(height=72, width=120):
    mask = torch.zeros(1, height, width)
    mask[:, 20:44, 30:60] = 1
    return mask


def test_every_input_of_the_schema_is_a_parameter_and_every_output_is_named(nodes):
    assert set(nodes) == {"MasklessFindRegion", "MasklessEditRegion", "MasklessPasteBack", "MasklessRankCandidates"}
    for node in nodes.values():
        schema, parameters = node.GET_SCHEMA(), inspect.signature(node.execute).parameters
        assert {part.id for part in schema.inputs} == set(parameters)
        for part in schema.inputs:
            assert not part.optional or parameters[part.id].default is not inspect.Parameter.empty, part.id
            assert part.io_type not in WIDGETS or "default" in part.values, part.id
        assert schema.display_name.endswith("(Maskless)") and all(part.id for part in schema.outputs)


def test_find_region_gives_mask_box_and_reasons(nodes, image, found):
    mask, box, report = found
    (finding,) = json.loads(report)
    x0, y0, x1, y1 = finding["box_xyxy"]
    assert box == {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0} and finding["reason"]
    assert mask.shape == image.shape[:3] and mask.dtype == torch.float32
    assert float(mask.sum()) == (x1 - x0) * (y1 - y0) and float(mask[0, y0, x0]) == 1
    node = nodes["MasklessFindRegion"]
    by_object, _, _ = run(node, image=image, caption="a red car", region="object", models="storybook")
    assert 0 < float(by_object.sum()) != float(mask.sum())
    assert node.validate_inputs(caption="a car") is True and node.validate_inputs(caption=None) is True
    assert "caption is empty" in node.validate_inputs(caption=" ")


def test_edit_region_leaves_every_float_outside_the_mask(nodes, image, found):
    edited, mask, candidates, report = run(
        nodes["MasklessEditRegion"], image=image, caption="a red car", prompt="a blue house", task="replace", seed=3,
        steps=2, mask=found[0], models="storybook",
    )  # fmt: skip
    unchanged, outside = mask[0] == 0, found[0][0] == 0
    assert edited.shape == image.shape and mask.any() and not (mask[0].bool() & outside).any()
    assert torch.equal(edited[0][unchanged], image[0][unchanged]) and not torch.equal(edited, image)
    assert torch.equal(candidates[0], edited[0]) and len(json.loads(report)[0]) == len(candidates)
    assert all(torch.equal(each[outside], image[0][outside]) for each in candidates)


def test_the_cancel_button_stops_an_edit_with_comfyuis_own_exception(nodes, image, found, monkeypatch):
    class InterruptProcessingException(Exception):
        pass

    steps = []

    def hook(value, total):
        steps.append((value, total))
        if value == 1:
            raise InterruptProcessingException

    monkeypatch.setattr(comfy_stub.ProgressBar, "hook", staticmethod(hook))
    with pytest.raises(InterruptProcessingException):
        run(
            nodes["MasklessEditRegion"], image=image, caption="a red car", prompt="a blue house", task="replace",
            seed=3, steps=2, mask=found[0], models="storybook",
        )  # fmt: skip
    assert steps == [(1, 2)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_paste_back_is_exact_for_any_size_alpha_and_number_format(nodes, dtype):
    generator = torch.Generator().manual_seed(0)
    original = (torch.rand(1, 72, 120, 4, generator=generator) * 1.2 - 0.1).to(dtype)
    drawn = torch.rand(2, 96, 160, 3, generator=generator)
    (pasted,) = run(nodes["MasklessPasteBack"], original=original, edited=drawn, mask=square(), feather=0.06)
    outside = square()[0] == 0
    assert pasted.shape == (2, 72, 120, 4) and pasted.dtype == dtype
    assert all(torch.equal(each[outside], original[0][outside]) for each in pasted)
    assert bool((pasted[0][~outside][:, 3] == 1).all()) and not torch.equal(pasted[0], pasted[1])
    empty = torch.zeros(1, 64, 64)
    (same,) = run(nodes["MasklessPasteBack"], original=original, edited=drawn, mask=empty, feather=0.06)
    assert torch.equal(same, original.expand(2, -1, -1, -1))


def test_rank_candidates_puts_a_changed_picture_before_noise(nodes, image, found):
    mask = found[0]
    noise = torch.where(mask[..., None] > 0, torch.rand_like(image), image)
    best, ranked, report = run(
        nodes["MasklessRankCandidates"], original=image, candidates=torch.cat([noise, image, noise]),
        prompt="a red car", mask=mask, models="storybook",
    )  # fmt: skip
    found_order = json.loads(report)
    assert found_order["order"][0] == 1 and sorted(found_order["order"]) == [0, 1, 2]
    assert found_order["scores"] == sorted(found_order["scores"], reverse=True)
    assert torch.equal(best[0], image[0]) and torch.equal(ranked[0], image[0]) and len(ranked) == 3


def test_bad_input_is_one_line(nodes, image):
    paste, rank = nodes["MasklessPasteBack"], nodes["MasklessRankCandidates"]
    with pytest.raises(MasklessError, match="the mask must have the picture's size, 128 x 128, got 120 x 72"):
        run(paste, original=torch.zeros(1, 128, 128, 3), edited=image, mask=square(), feather=0.0)
    with pytest.raises(MasklessError, match="as many pictures, got 2 and 3"):
        run(paste, original=image.expand(2, -1, -1, -1), edited=image.expand(3, -1, -1, -1), mask=square(), feather=0.0)
    with pytest.raises(MasklessError, match=r"an IMAGE must be \[B, H, W, 3\]"):
        run(paste, original=image[..., :2], edited=image[..., :2], mask=square(), feather=0.0)
    with pytest.raises(MasklessError, match="original must be one picture, got 2"):
        run(rank, original=image.expand(2, -1, -1, -1), candidates=image, prompt="a car", models="storybook")
    assert "prompt is empty" in rank.validate_inputs(prompt="")


def test_the_registrys_rules_hold():
    settings = tomllib.loads((FOLDER / "pyproject.toml").read_text("utf-8"))
    project, own = settings["project"], settings["tool"]["comfy"]
    assert "comfyui" not in project["name"].lower() and len(project["version"].split(".")) == 3
    assert {"PublisherId", "DisplayName", "Icon"} <= set(own)
    main = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == main["version"] and project["dependencies"][0].startswith(main["name"])
    for path in FOLDER.glob("*.py"):
        assert not {"eval(", "exec(", "subprocess"} & set(path.read_text("utf-8").split()), path.name


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.json")), ids=lambda path: path.stem)
def test_the_example_workflows_fit_the_schemas(path, nodes):
    """Every link joins an output to an input of its type, and every widget of ours has a value of its kind."""
    assert path.with_suffix(".jpg").is_file()
    workflow = json.loads(path.read_text("utf-8"))
    by_id = {node["id"]: node for node in workflow["nodes"]}
    for link, source, output, target, place, kind in workflow["links"]:
        start, end = by_id[source]["outputs"][output], by_id[target]["inputs"][place]
        assert (start["type"], end["type"], end["link"]) == (kind, kind, link) and link in start["links"]
    ours = [node for node in workflow["nodes"] if node["type"] not in BUILT_IN]
    assert ours
    for node in ours:
        schema = nodes[node["type"]].GET_SCHEMA()
        kinds = {part.id: part for part in schema.inputs}
        assert [(part.id, part.io_type) for part in schema.outputs] == [
            (each["name"], each["type"]) for each in node["outputs"]
        ]
        assert {each["name"] for each in node["inputs"]} == {
            name for name, part in kinds.items() if part.io_type not in WIDGETS
        }
        widgets = []
        for part in schema.inputs:
            if part.io_type in WIDGETS:
                widgets.append(part)
                widgets += [None] * bool(part.values.get("control_after_generate"))
        assert len(node["widgets_values"]) == len(widgets)
        for part, value in zip(widgets, node["widgets_values"], strict=True):
            options = ["fixed", "increment", "decrement", "randomize"] if part is None else part.values.get("options")
            assert options is None or value in options
            if part is not None and "min" in part.values:
                assert part.values["min"] <= value <= part.values["max"]
