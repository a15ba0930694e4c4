"""Draw the pictures of comfyui/example_workflows: source, region and result of each, with the bundled models.

    python docs/make_workflow_pictures.py

The workflows run on the tests' stub of ComfyUI (tests/comfy_stub.py), with a sample as the loaded picture.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from maskless.data.picture import load_image

ROOT = Path(__file__).parents[1]
WORKFLOWS = ROOT / "comfyui/example_workflows"
SAMPLE = ROOT / "src/maskless/assets/samples/meadow.png"
SIDE, GAP = 384, 16


def main() -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    import comfy_stub

    with pytest.MonkeyPatch.context() as patch:
        comfy_stub.install(patch)
        nodes = asyncio.run(comfy_stub.load_custom_node(ROOT / "comfyui", patch))
        for path in sorted(WORKFLOWS.glob("*.json")):
            shown = run(json.loads(path.read_text("utf-8")), nodes)
            sheet = Image.new("RGB", (len(shown) * (SIDE + GAP) - GAP, SIDE), "white")
            for number, picture in enumerate(shown):
                sheet.paste(as_pil(picture), (number * (SIDE + GAP), 0))
            sheet.save(path.with_suffix(".jpg"), quality=92)


def run(workflow: dict[str, Any], nodes: dict[str, Any]) -> list[Tensor]:
    """What a workflow shows: the sample, the masks and the saved pictures, each [H, W, 3] in [0, 1]."""
    image = load_image(SAMPLE).rgb.movedim(0, -1)[None]
    links = {link[0]: link for link in workflow["links"]}
    outputs: dict[int, tuple[Any, ...]] = {}
    shown: list[Tensor] = [image[0]]
    for node in workflow["nodes"]:
        linked = [each for each in node["inputs"] if each["link"]]
        given = {each["name"]: outputs[links[each["link"]][1]][links[each["link"]][2]] for each in linked}
        if node["type"] == "LoadImage":
            outputs[node["id"]] = (image, torch.zeros(1, 64, 64))
        elif node["type"] == "ImageInvert":
            outputs[node["id"]] = (1 - given["image"],)
        elif node["type"] == "MaskPreview":
            shown.insert(1, given["mask"][0][..., None].expand(-1, -1, 3))
        elif node["type"] == "SaveImage":
            shown.append(given["images"][0])
        else:
            kind = nodes[node["type"]]
            chosen = widgets(kind.GET_SCHEMA(), node["widgets_values"])
            outputs[node["id"]] = kind.EXECUTE_NORMALIZED(**given, **chosen).result
    return shown


def widgets(schema: Any, values: list[Any]) -> dict[str, Any]:
    """The values of a node's widgets, which a workflow keeps in the order of the schema, by their names."""
    left, named = list(values), {}
    for part in schema.inputs:
        if part.io_type in {"STRING", "INT", "FLOAT", "COMBO"}:
            named[part.id] = left.pop(0)
            if part.values.get("control_after_generate"):
                left.pop(0)  # "fixed" or "randomize", which follows a seed
    return named


def as_pil(picture: Tensor) -> Image.Image:
    pixels = (picture * 255).round().to(torch.uint8).numpy()
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
