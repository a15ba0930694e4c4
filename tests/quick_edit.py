"""The arguments of a quick edit on the command line, and the checkpoint that it leaves."""

from typing import Any

QUICK = [
    "--search", "learned", "--steps", "1", "--anchors", "2", "--iterations", "2", "--views", "1", "--device", "cpu",
    "--dtype", "float32",
]  # fmt: skip
TEXTS = ["--caption", "a red square", "--prompt", "a blue house"]
LAST = "checkpoints/0_a red square/last.pth"


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    """The record of an edit without what a clock or a memory meter says."""
    cost = {name: value for name, value in record["cost"].items() if name not in ("seconds", "peak_memory_mb")}
    history = [{name: value for name, value in step.items() if name != "seconds"} for step in record["history"]]
    return record | {"cost": cost, "history": history}
