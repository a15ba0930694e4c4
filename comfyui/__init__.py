"""Maskless for ComfyUI: nodes that find the region of an edit, edit it, and keep every pixel outside of it.

ComfyUI loads this folder from custom_nodes and calls `comfy_entrypoint`.
"""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .nodes import EditRegion, FindRegion, PasteBack, RankCandidates


class MasklessExtension(ComfyExtension):
    """The nodes of Maskless."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The classes of the nodes."""
        return [FindRegion, EditRegion, PasteBack, RankCandidates]


async def comfy_entrypoint() -> ComfyExtension:
    """What ComfyUI calls."""
    return MasklessExtension()
