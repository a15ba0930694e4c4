"""What the nodes use of ComfyUI, for tests without ComfyUI: the same names, parameters and checks, in our own words.

Compared with Comfy-Org/ComfyUI: comfy_api/latest/_io.py at 04e2a914334246661a77665aa14068a0670e3321 (inputs, outputs,
Schema, ComfyNode, NodeOutput), comfy_api/latest/__init__.py at 168efe45bb99ae9dd3d565efd7e7b22e99a8c49f
(ComfyExtension), and nodes.py at 02217e36a45bcbe2dd8fa24187aa5e053d9aea2e (load_custom_node).
"""

import importlib.util
import inspect
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

BASE = ("id", "display_name", "optional", "tooltip", "lazy", "extra_dict", "raw_link", "advanced")
WIDGET = (*BASE, "default", "socketless", "force_input")
PARAMETERS = {
    "IMAGE": BASE,
    "MASK": BASE,
    "STRING": (*WIDGET, "multiline", "placeholder", "dynamic_prompts"),
    "INT": (*WIDGET, "min", "max", "step", "control_after_generate", "display_mode"),
    "FLOAT": (*WIDGET, "min", "max", "step", "round", "display_mode", "gradient_stops"),
    "COMBO": (*WIDGET, "options", "control_after_generate", "upload", "image_folder", "remote", "remote_combo"),
    "BOUNDING_BOX": BASE,
}
"""The parameters that an input of each type takes. An unknown one is a TypeError, as in ComfyUI."""
OUTPUT = ("id", "display_name", "tooltip", "is_output_list")


def _part(io_type, allowed):
    """The class of an input or an output of a type."""

    class Part:
        def __init__(self, *positional, **named):
            values = dict(zip(allowed, positional, strict=False)) | named
            unknown = set(values) - set(allowed)
            if unknown:
                raise TypeError(f"{io_type} takes no {sorted(unknown)}")
            self.io_type, self.id, self.optional = io_type, values.get("id"), values.get("optional", False)
            self.values = {name: value for name, value in values.items() if value is not None}

    return Part


@dataclass
class Schema:
    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    hidden: list = field(default_factory=list)
    description: str = ""
    search_aliases: list = field(default_factory=list)
    is_input_list: bool = False
    is_output_node: bool = False

    def validate(self):
        for parts in (self.inputs, self.outputs):
            ids = [part.id for part in parts]
            if len(set(ids)) != len(ids):
                raise ValueError(f"ids must be unique, got {ids}")


class NodeOutput:
    def __init__(self, *args, ui=None, expand=None, block_execution=None):
        self.args, self.ui = args, ui

    @property
    def result(self):
        return self.args or None


class ComfyNode:
    @classmethod
    def define_schema(cls):
        raise NotImplementedError

    @classmethod
    def execute(cls, **kwargs):
        raise NotImplementedError

    @classmethod
    def GET_SCHEMA(cls):
        schema = cls.define_schema()
        schema.validate()
        return schema

    @classmethod
    def EXECUTE_NORMALIZED(cls, **kwargs):
        output = cls.execute(**kwargs)
        if not isinstance(output, NodeOutput):
            raise TypeError(f"a node must return a NodeOutput, got {type(output)}")
        return output


class ComfyExtension:
    async def on_load(self):
        pass


class ProgressBar:
    """comfy.utils.ProgressBar. `hook` stands for the server's, which raises when the user cancels."""

    hook = staticmethod(lambda value, total: None)

    def __init__(self, total, node_id=None):
        self.total = total

    def update_absolute(self, value, total=None, preview=None):
        ProgressBar.hook(value, total or self.total)


def install(monkeypatch):
    """Make `comfy_api.latest` and `comfy.utils` importable until the end of a test."""
    types = {"IMAGE": "Image", "MASK": "Mask", "STRING": "String", "INT": "Int", "FLOAT": "Float", "COMBO": "Combo",
             "BOUNDING_BOX": "BoundingBox"}  # fmt: skip
    io = SimpleNamespace(Schema=Schema, ComfyNode=ComfyNode, NodeOutput=NodeOutput)
    for io_type, name in types.items():
        kinds = {"Input": _part(io_type, PARAMETERS[io_type]), "Output": _part(io_type, OUTPUT), "io_type": io_type}
        setattr(io, name, SimpleNamespace(**kinds))
    latest, utils = ModuleType("comfy_api.latest"), ModuleType("comfy.utils")
    latest.ComfyExtension, latest.io, latest.IO, utils.ProgressBar = ComfyExtension, io, io, ProgressBar
    comfy_api, comfy = ModuleType("comfy_api"), ModuleType("comfy")
    comfy_api.latest, comfy.utils = latest, utils
    for module in (comfy_api, latest, comfy, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)


async def load_custom_node(folder: Path, monkeypatch) -> dict[str, type]:
    """The nodes of a folder of custom_nodes by their ids, loaded as ComfyUI's nodes.py does it."""
    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    entrypoint = module.comfy_entrypoint
    extension = await entrypoint() if inspect.iscoroutinefunction(entrypoint) else entrypoint()
    assert isinstance(extension, ComfyExtension)
    await extension.on_load()
    nodes = await extension.get_node_list()
    assert isinstance(nodes, list)
    return {node.GET_SCHEMA().node_id: node for node in nodes}
