"""The folder of an edit: {image_id}_{caption}, numbered where another edit has that name already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskless.data.config import EditConfig
from maskless.data.model_options import ModelOptions
from maskless.records.names import picture_folder_name

if TYPE_CHECKING:
    from maskless.data.types import EditRequest

RECORD_NAME, RUN_FILE = "result.json", "run.json"


def picture_folder(request: EditRequest, image_id: str = "0") -> str:
    """The name of a picture's folder, among the outputs and among the checkpoints: {image_id}_{caption}."""
    return picture_folder_name(request.task, request.caption, image_id)


def identity(request: EditRequest, config: EditConfig, models: ModelOptions) -> str:
    """Sixteen digits that only the same edit has: the same pixels, texts, region, seed, options and models."""
    digest = hashlib.sha256()
    pixels = request.source.pixels
    digest.update(pixels.data)
    if request.source.alpha is not None:
        digest.update(request.source.alpha.data)
    for region in (request.mask, request.amount):
        if region is not None:
            digest.update(region.contiguous().numpy().data)
    words = [request.task, request.caption, request.prompt, request.seed, list(request.margins_px), pixels.shape]
    digest.update(json.dumps([words, config.to_dict(), models.to_dict()], sort_keys=True).encode())
    return digest.hexdigest()[:16]


def edit_folder(
    request: EditRequest,
    identity: str,
    *,
    output_dir: str | Path,
    checkpoint_dir: str | Path | None = None,
    image_id: str = "0",
    overwrite: bool = False,
) -> str:
    """The name of an edit's folder: the first of `picture_folder`, "… (2)", "… (3)" that no other edit has.

    The same edit, made again, has the same folder. identity: that of the edit. checkpoint_dir: None looks at the
    outputs only. overwrite: take the first name, whatever is there.
    """
    name = picture_folder(request, image_id)
    for candidate in numbered(name):
        places = [Path(output_dir) / candidate / RECORD_NAME]
        if checkpoint_dir is not None:
            places.append(Path(checkpoint_dir) / candidate / RUN_FILE)
        if overwrite or all(identity_in(place) in (None, identity) for place in places):
            return candidate
    raise AssertionError("the numbers do not end")


def numbered(name: str) -> Iterator[str]:
    """A name for a folder, and the same with a number: "…", "… (2)", "… (3)", without end."""
    yield name
    number = 2
    while True:
        yield f"{name} ({number})"
        number += 1


def identity_in(record: Path) -> str | None:
    """The identity of the edit that a record is of; None if there is no record, and empty if it does not say."""
    try:
        content: Any = json.loads(record.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return ""
    if not isinstance(content, dict):
        return ""
    request = content.get("request") if record.name == RECORD_NAME else content
    found = request.get("identity") if isinstance(request, dict) else None
    return found if isinstance(found, str) else ""
