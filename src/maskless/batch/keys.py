"""Content keys: the same picture, texts, options and models give the same key, and any change gives another.

key = hash of (picture bytes, mask bytes, id, texts, box, options, weights of the models, weights of a given AnchorNet).
The device and the number of workers are not part of it, so a batch can move to other machines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskless.batch.places import digest, stamp
from maskless.batch.rows import Row
from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.data.keep_options import KeepOptions
from maskless.data.model_options import ModelOptions

VERSION = 1
"""Increased when the outputs of an unchanged row change so much that they should be made again."""
WEIGHT_OPTIONS = ("scheduler", "dtype")
"""Those of the ModelOptions that are part of the key as they are; models, redraw and lora are part by their content."""
MISSING = "missing"
"""Stands for the digest of a picture that cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """The digests of the files of a row, each with its stamp, which spares reading an unchanged file again."""

    image: str
    image_stamp: str | None
    mask: str | None = None
    mask_stamp: str | None = None

    def to_dict(self) -> dict[str, str | None]:
        """Plain values; `Content(**content.to_dict())` is the same again."""
        return {
            "image": self.image, "image_stamp": self.image_stamp, "mask": self.mask, "mask_stamp": self.mask_stamp,
        }  # fmt: skip


def content_of(row: Row, known: Mapping[str, Any] | None = None) -> Content:
    """The content of a row's files. known: an earlier content; a file whose stamp has not changed is not read."""
    known = known or {}
    image, image_stamp = _digest(row.image, known.get("image"), known.get("image_stamp"))
    if row.mask is None:
        return Content(image=image, image_stamp=image_stamp)
    mask, mask_stamp = _digest(row.mask, known.get("mask"), known.get("mask_stamp"))
    return Content(image=image, image_stamp=image_stamp, mask=mask, mask_stamp=mask_stamp)


def _digest(place: str, known: str | None, known_stamp: str | None) -> tuple[str, str | None]:
    now = stamp(place)
    if known is not None and known != MISSING and now is not None and now == known_stamp:
        return known, now
    try:
        return digest(place), now
    except MasklessError:
        return MISSING, None


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The keys of the rows of one batch. base: a hash of everything that is the same for all rows."""

    base: str

    @staticmethod
    def of(models: Mapping[str, str], options: ModelOptions, config: EditConfig, keep: KeepOptions,
           anchor_net: str | None = None) -> Keys:  # fmt: skip
        """models: the identity of each model, from `model_identity`. anchor_net: digest of a given AnchorNet's file."""
        parts = {
            "version": VERSION,
            "models": dict(models),
            "options": {name: getattr(options, name) for name in WEIGHT_OPTIONS},
            "config": config.to_dict(),
            "draw_box": keep.draw_box,
            "anchor_net": anchor_net,
        }
        if not keep.provenance or keep.sign is not None:  # the default is not part of the keys of earlier batches
            parts["provenance"] = [keep.provenance, keep.sign is not None]
        return Keys(base=_hash(parts))

    def key(self, row: Row, content: Content) -> str:
        """The key of a row, 32 hexadecimal digits."""
        edit = [row.id, row.task, row.caption, row.prompt, row.box, row.extend, sorted(row.options)]
        return _hash([self.base, content.image, content.mask, edit])[:32]


def row_name(row_id: str) -> str:
    """The name that the markers of a row begin with, whatever its content is: 16 hexadecimal digits."""
    return hashlib.sha256(row_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def model_identity(options: ModelOptions) -> dict[str, str]:
    """What identifies each model: the commit of a model of the hub, and a hash of the files of any other.

    Models that are not on this disk yet are downloaded.

    Raises:
        MasklessError: unknown models, or a failed download.
    """
    from maskless.models.sources import PREVIEW, fetch_models

    found = {}
    for part, source in fetch_models(options).items():
        if part == PREVIEW:  # it changes no picture
            continue
        found[part] = _hash_of_files(source.path) if Path(source.name).exists() else source.name
    for number, entry in enumerate(filter(None, (options.lora or "").split(","))):
        file = Path(entry) if Path(entry).exists() else Path(entry.rpartition(":")[0])
        found[f"lora {number}"] = f"{_hash_of_files(file)} {entry.removeprefix(str(file))}" if file.exists() else entry
    return found


def _hash_of_files(path: Path) -> str:
    """A hash of the names and contents of the files below a folder, or of a single file."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    parts = []
    for file in files:
        with file.open("rb") as opened:
            parts.append([file.relative_to(path).as_posix(), hashlib.file_digest(opened, "sha256").hexdigest()])
    return _hash(parts)


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
