"""A tiny ONNX file with MI-GAN's inputs and output: holes get one colour, and the rest stays as it is."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

COLOUR = 200


def write_eraser(path: Path, *, image: str = "image", channels: int = 3) -> Path:
    """image: the name of the first input. channels: how many it has."""
    sides = ["height", "width"]
    inputs = [
        helper.make_tensor_value_info(image, TensorProto.UINT8, ["batch", channels, *sides]),
        helper.make_tensor_value_info("mask", TensorProto.UINT8, ["batch", 1, *sides]),
    ]
    output = helper.make_tensor_value_info("result", TensorProto.UINT8, ["batch", channels, *sides])
    colour = numpy_helper.from_array(np.array(COLOUR, np.uint8), "colour")
    nodes = [
        helper.make_node("Cast", ["mask"], ["known"], to=TensorProto.BOOL),
        helper.make_node("Where", ["known", image, "colour"], ["result"]),
    ]
    graph = helper.make_graph(nodes, "eraser", inputs, [output], [colour])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path
