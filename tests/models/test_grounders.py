"""Grounders from tiny random weights in their real format: their boxes are those that transformers computes."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.data.model_options import ModelOptions
from maskless.models.grounders import KINDS, MAX_DETECTIONS, load_grounder
from maskless.models.pretrained import load_encoders
from tiny_grounders import build_grounder

TEXT = "a red square"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return {kind: build_grounder(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_its_boxes_are_inside_the_picture_and_best_first(folders, kind, picture):
    grounder = load_grounder(folders[kind])
    found = grounder.find(picture, TEXT)
    assert 1 <= len(found) <= MAX_DETECTIONS and found.boxes_xyxy.shape == (len(found), 4)
    x0, y0, x1, y1 = found.boxes_xyxy.unbind(1)
    assert bool(((0 <= x0) & (x0 < x1) & (x1 <= 120) & (0 <= y0) & (y0 < y1) & (y1 <= 72)).all())
    assert found.score.tolist() == sorted(found.score.tolist(), reverse=True)
    assert float(found.score.min()) >= grounder.threshold and float(found.score.max()) <= 1
    again = grounder.find(picture, TEXT)
    assert torch.equal(again.boxes_xyxy, found.boxes_xyxy)
    large = torch.nn.functional.interpolate(picture[None], scale_factor=3)[0]
    assert grounder.find(large, TEXT).boxes_xyxy[:, 2:].max() > 120, "the boxes are in pixels of the given picture"


@pytest.mark.parametrize("kind", ["owlv2", "grounding-dino"])
def test_the_same_output_of_the_network_gives_the_boxes_of_transformers(folders, kind, picture):
    from transformers import GroundingDinoImageProcessorPil, Owlv2ImageProcessorPil

    grounder, outputs = load_grounder(folders[kind]), []
    grounder.model.register_forward_hook(lambda _model, _inputs, output: outputs.append(output))
    boxes, scores = grounder._detect(picture, TEXT)
    processor = {"owlv2": Owlv2ImageProcessorPil, "grounding-dino": GroundingDinoImageProcessorPil}[kind]()
    post = processor.post_process_object_detection(outputs[0], threshold=-1.0, target_sizes=[(72, 120)])[0]
    in_pixels = boxes * torch.tensor([120, 72, 120, 72])
    assert torch.allclose(in_pixels, post["boxes"], atol=1e-3) and torch.allclose(scores, post["scores"], atol=1e-5)


def test_grounding_dino_gets_the_pixels_and_the_tokens_of_transformers(folders, picture):
    from PIL import Image
    from transformers import BertTokenizer, GroundingDinoImageProcessorPil, GroundingDinoProcessor

    folder = folders["grounding-dino"]
    grounder, inputs = load_grounder(folder), {}
    grounder.model.register_forward_pre_hook(lambda _model, _args, given: inputs.update(given), with_kwargs=True)
    eight_bits = (picture * 255).round().byte()
    grounder.find(eight_bits.float() / 255, "A red  square.")
    processor = GroundingDinoProcessor(
        GroundingDinoImageProcessorPil.from_pretrained(folder), BertTokenizer.from_pretrained(folder)
    )
    image = Image.fromarray(eight_bits.movedim(0, -1).numpy())
    expected = processor(images=image, text=[["a red square"]], return_tensors="pt")
    assert torch.equal(inputs["input_ids"], expected["input_ids"])
    assert inputs["pixel_values"].shape == expected["pixel_values"].shape
    assert float((inputs["pixel_values"] - expected["pixel_values"]).abs().mean()) < 0.02


def test_clipseg_makes_a_box_of_each_part_of_its_map(folders, picture):
    grounder = load_grounder(folders["clipseg"])
    heat = torch.full((64, 64), -9.0)
    heat[8:16, 4:20], heat[40:56, 32:64] = 9.0, 2.0

    def replaced(_model, _inputs, output):
        output.logits = heat[None]
        return output

    grounder.model.register_forward_hook(replaced)
    found = grounder.find(picture, TEXT)
    assert found.boxes_xyxy.tolist() == [[8, 9, 38, 18], [60, 45, 120, 63]]
    assert found.score.tolist() == pytest.approx([0.9999, 0.8808], abs=1e-3)


def test_it_is_loaded_beside_dino_and_clip_and_has_its_name(folders, tiny_models):
    options = ModelOptions(models=str(tiny_models), grounder=str(folders["owlv2"]), device="cpu")
    models = load_encoders(options)
    assert type(models.grounder).__name__ == "Owlv2" and models.names["grounder"] == str(folders["owlv2"])
    assert set(models.weights) == {"dino", "clip", "grounder"}
    assert load_encoders(ModelOptions(models=str(tiny_models), device="cpu")).grounder is None


def test_what_cannot_be_a_grounder_is_one_line(folders, tiny_models, tmp_path):
    with pytest.raises(MasklessError, match="grounder must be an OWLv2, a Grounding DINO or a CLIPSeg, got clip in"):
        load_grounder(tiny_models / "clip")
    for wanted, message in (
        ("nowhere", "no such grounder model"),
        (str(tiny_models / "clip" / "vocab.json"), "must be a folder"),
    ):
        with pytest.raises(MasklessError, match=message):
            load_encoders(ModelOptions(models=str(tiny_models), grounder=wanted))
    broken = Path(shutil.copytree(folders["grounding-dino"], tmp_path / "broken"))
    settings = json.loads((broken / "preprocessor_config.json").read_text("utf-8")) | {"size": {"shortest_edge": "big"}}
    (broken / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(MasklessError, match="must hold shortest_edge and longest_edge"):
        load_grounder(broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(MasklessError, match="no weights"):
        load_grounder(broken)
