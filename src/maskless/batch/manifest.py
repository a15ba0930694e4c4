"""Manifests: the published release's images.json, JSONL, CSV, a folder or a pattern become checked rows.

The whole manifest is read and checked before anything else happens. No model library is imported for it.
"""

from __future__ import annotations

import csv
import glob
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from maskless.batch.places import exists_all, is_url, joined, list_folder, read_bytes
from maskless.batch.rows import Row, checked_row
from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError, require

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
"""Suffixes of the pictures that are taken from a folder."""
LAYOUTS = ("", "images", "datasets/images")
"""Where the pictures of a manifest may be, relative to its own folder."""
LOOKED_AT = 100
"""How many pictures of a manifest are looked for, to find the folder that they are in."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A bad row. line: its line in the manifest, from 1. text: what is wrong with it and what it should be."""

    line: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A checked manifest: its good rows in their order, and the problems of the bad ones."""

    source: str
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """What a manifest says about one picture, or the reason why that cannot be read. line: from 1."""

    line: int
    values: Mapping[str, Any] | None
    problem: str = ""


def read_manifest(
    source: str,
    *,
    image_dir: str | None = None,
    defaults: Mapping[str, Any] | None = None,
    config: EditConfig | None = None,
) -> Manifest:
    """Read and check a manifest.

    Args:
        source: a .json, .jsonl or .csv file, a folder of pictures, or a pattern such as "photos/*.jpg"; a path or URL.
        image_dir: the folder of the pictures; None looks beside the manifest, in images/ and in datasets/images/.
        defaults: fields for the rows that do not have them, such as one caption and prompt for a folder.
        config: the options of all rows, which a row's own options replace.
    Raises:
        MasklessError: the manifest as a whole cannot be read. Bad rows are listed as problems and raise nothing.
    """
    config = config or EditConfig()
    entries, beside = _entries(source)
    root = image_dir if image_dir is not None else _picture_folder(entries, beside)
    names = _default_ids(entries)
    given = {name: value for name, value in (defaults or {}).items() if value not in (None, "")}
    rows: list[Row] = []
    problems: list[Problem] = []
    for entry, name in zip(entries, names, strict=True):
        if entry.values is None:
            problems.append(Problem(line=entry.line, text=entry.problem))
            continue
        try:
            values = _placed(_with_defaults(entry.values, given), root)
            rows.append(checked_row(entry.line, name, values, config))
        except MasklessError as error:
            problems.append(Problem(line=entry.line, text=str(error)))
    rows, clashes = _without_clashes(rows)
    rows, missing = _without_missing(rows)
    problems = sorted([*problems, *clashes, *missing], key=lambda problem: problem.line)
    return Manifest(source=source, rows=tuple(rows), problems=tuple(problems))


def _entries(source: str) -> tuple[list[_Entry], str]:
    """The entries of a manifest, and the folder that their pictures' paths are relative to."""
    suffix = PurePosixPath(source).suffix.lower()
    readers: dict[str, Callable[[str], Iterator[_Entry]]] = {
        ".json": _json_entries, ".jsonl": _jsonl_entries, ".ndjson": _jsonl_entries, ".csv": _csv_entries,
    }  # fmt: skip
    if suffix in readers and not any(letter in source for letter in "*?["):
        try:
            text = read_bytes(source).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise MasklessError(f"cannot read {source}: it must be a text file in UTF-8") from error
        entries = list(readers[suffix](text))
        require(bool(entries), f"{source} has no rows")
        return entries, source.rpartition("/")[0] if is_url(source) else os.path.dirname(source)
    pictures = _pictures_of(source)
    require(
        bool(pictures),
        f"no pictures found: {source} must be a .json, .jsonl or .csv file, a folder of pictures, or a pattern such as "
        "'photos/*.jpg'",
    )
    return [_Entry(line=number, values={"image": path}) for number, path in enumerate(pictures, start=1)], ""


def _pictures_of(source: str) -> list[str]:
    """The pictures in a folder, or those that match a pattern, in the order of their names."""
    if is_url(source):
        found = list_folder(source)
    elif Path(source).is_dir():
        found = [str(path) for path in Path(source).iterdir() if not path.name.startswith(".")]
    else:
        found = glob.glob(source, recursive=True)
    return sorted(path for path in found if PurePosixPath(path).suffix.lower() in PICTURES)


def _jsonl_entries(text: str) -> Iterator[_Entry]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            values = json.loads(content)
        except (ValueError, RecursionError) as error:
            yield _Entry(line=line, values=None, problem=f"it must be a JSON object: {error}")
            continue
        if isinstance(values, dict):
            yield _Entry(line=line, values=_canonical(values))
        else:
            yield _Entry(line=line, values=None, problem=f"it must be a JSON object, got {type(values).__name__}")


def _csv_entries(text: str) -> Iterator[_Entry]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] | None = None
    before = 0
    try:
        for cells in reader:
            line, before = before + 1, reader.line_num  # a quoted cell may have several lines; this is its first
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = [cell.strip() for cell in cells]
            elif len(cells) > len(columns):
                problem = f"it must have at most {len(columns)} columns like the first line, got {len(cells)}"
                yield _Entry(line=line, values=None, problem=problem)
            else:
                yield _Entry(line=line, values=_canonical(dict(zip(columns[: len(cells)], cells, strict=True))))
    except csv.Error as error:
        yield _Entry(line=before + 1, values=None, problem=f"it must be CSV: {error}")


def _json_entries(text: str) -> Iterator[_Entry]:
    """The entries of {"1.png": ["caption", "prompt"], …}; a value may also be an object with the fields of a row."""
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MasklessError(f"the manifest must be JSON: {error}") from error
    position = _after_space(text, 0)
    if text[position] != "{":
        raise MasklessError('a .json manifest must be an object such as {"1.png": ["trees", "a big tree"]}')
    decoder, line, counted = json.JSONDecoder(), 1, 0
    position = _after_space(text, position + 1)
    while text[position] != "}":
        line, counted = line + text.count("\n", counted, position), position
        name, position = decoder.raw_decode(text, position)
        value, position = decoder.raw_decode(text, _after_space(text, _after_space(text, position) + 1))
        yield _named_entry(line, name, value)
        position = _after_space(text, position)
        if text[position] == ",":
            position = _after_space(text, position + 1)


def _after_space(text: str, position: int) -> int:
    while text[position] in " \t\r\n":
        position += 1
    return position


def _named_entry(line: int, name: str, value: Any) -> _Entry:
    if isinstance(value, dict):
        return _Entry(line=line, values={"image": name} | _canonical(value))
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return _Entry(line=line, values={"image": name, "caption": value[0], "prompt": value[1]})
    return _Entry(line=line, values=None, problem=f'{name!r} must have ["caption", "prompt"], got {value!r:.80}')


def _canonical(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with underscores for dashes, and `image` for `picture`."""
    named = {str(name).strip().replace("-", "_"): value for name, value in values.items()}
    if "picture" in named and "image" not in named:
        named["image"] = named.pop("picture")
    return named


def _with_defaults(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a row, and those of the command that the row lacks.

    A row that says what to do in words of its own takes no caption, prompt or task from the command's.
    """
    own = {name: value for name, value in values.items() if value not in (None, "")}
    left_out = {"instruction"} if "prompt" in own else set()
    if "instruction" in own:
        left_out = {"prompt", "task", "caption"}
    return {name: value for name, value in defaults.items() if name not in left_out} | own


def _placed(values: dict[str, Any], root: str) -> dict[str, Any]:
    """The fields with the picture and the mask as whole paths or URLs."""
    for name in ("image", "mask"):
        if isinstance(values.get(name), str):
            values[name] = joined(root, values[name])
    return values


def _picture_folder(entries: Sequence[_Entry], beside: str) -> str:
    """The folder among LAYOUTS that has the pictures; the manifest's own if none has any."""
    named = [entry.values["image"] for entry in entries[:LOOKED_AT] if entry.values and entry.values.get("image")]
    for layout in LAYOUTS:
        folder = joined(beside, layout) if layout else beside
        if exists_all({joined(folder, str(name)) for name in named}):
            return folder
    return beside


def _default_ids(entries: Sequence[_Entry]) -> list[str]:
    """An id for each entry that has none: its picture's name without the suffix, numbered where several are equal."""
    taken = {str(entry.values["id"]) for entry in entries if entry.values and entry.values.get("id") not in (None, "")}
    counts: dict[str, int] = {}
    ids = []
    for entry in entries:
        path = str((entry.values or {}).get("image") or "")
        if not entry.values or entry.values.get("id") not in (None, ""):
            ids.append("")
            continue
        stem = PurePosixPath(path).stem or str(entry.line)
        counts[stem] = counts.get(stem, 0) + 1
        name = stem if counts[stem] == 1 else f"{stem}-{counts[stem]}"
        while name in taken:
            counts[stem] += 1
            name = f"{stem}-{counts[stem]}"
        taken.add(name)
        ids.append(name)
    return ids


def _without_clashes(rows: Sequence[Row]) -> tuple[list[Row], list[Problem]]:
    """The rows without those whose id or folder an earlier row has, also where upper and lower case are the same."""
    ids: dict[str, int] = {}
    folders: dict[str, int] = {}
    kept, problems = [], []
    for row in rows:
        first_id, first_folder = ids.get(row.id), folders.get(row.folder.casefold())
        if first_id is not None:
            problems.append(Problem(line=row.line, text=f"its id must be its own, got {row.id!r} of line {first_id}"))
        elif first_folder is not None:
            text = f"its folder must be its own, got {row.folder!r} of line {first_folder}; choose another id"
            problems.append(Problem(line=row.line, text=text))
        else:
            ids[row.id] = folders[row.folder.casefold()] = row.line
            kept.append(row)
    return kept, problems


def _without_missing(rows: Sequence[Row]) -> tuple[list[Row], list[Problem]]:
    """The rows without those whose picture or mask does not exist."""
    named = {path for row in rows for path in (row.image, row.mask) if path is not None}
    there = exists_all(named)
    kept, problems = [], []
    for row in rows:
        missing = next((path for path in (row.image, row.mask) if path is not None and path not in there), None)
        if missing is None:
            kept.append(row)
        else:
            what = "image" if missing == row.image else "mask"
            problems.append(Problem(line=row.line, text=f"its {what} must be a file, got {missing}"))
    return kept, problems
