"""A gallery with one edit of every kind: eleven pictures in a folder, and index.html, one file that shows them all.

Each picture file holds the facts of the edit that made it. So the page is written from the pictures, and a gallery that
was stopped continues where it stopped.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskless.data.errors import MasklessError
from maskless.data.files import finite, require_writable, write_bytes, written_whole
from maskless.data.picture import ImageLike, load_image
from maskless.data.provenance import ProvenanceOptions
from maskless.data.result import EditResult
from maskless.data.tasks import FACTS
from maskless.data.types import EditRequest
from maskless.engine.editor import Editor
from maskless.method.scratches import scratched
from maskless.records.credentials import Signer
from maskless.records.html import before_after, box_outline, facts, mask_outline, page, picture_bytes, text
from maskless.records.outputs import library_versions, settings_text
from maskless.records.overview import thumbnail

PAGE_NAME = "index.html"
KEYWORD = "maskless-gallery"
"""Keyword of a PNG text beside the settings: the facts for the page, and the fingerprint of the request."""
PICTURE_PX, PICTURE_BYTES = 768, 110_000
MASK_PX = 320
GREY = 150
NEW_OBJECT = "a yellow star"


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """One edit of the gallery.

    file: name of the picture in the gallery's folder. The other fields are arguments of `Editor.request`; options holds
    those that only some tasks take, such as box and extend.
    """

    file: str
    task: str
    image: ImageLike
    caption: str = ""
    prompt: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The heading on the page."""
        return FACTS[self.task].title


@dataclass(frozen=True, kw_only=True)
class FinishedExhibit:
    """An exhibit with its picture, or with the reason why there is none.

    facts: what the page says about the edit. kept: an earlier gallery made the picture. problem: why the edit was not
    possible; None where it was.
    """

    exhibit: Exhibit
    path: Path
    facts: Mapping[str, Any]
    kept: bool = False
    problem: str | None = None


def exhibits(image: ImageLike | None = None, caption: str = "", prompt: str = "") -> tuple[Exhibit, ...]:
    """The ten kinds of edit and the generation, of the bundled samples or of one picture.

    Args:
        image: the user's picture; None takes the samples. caption: the object in it that the edits are about.
        prompt: the object that replaces it or is added; where it is empty, an object that the bundled models know.
    Raises:
        MasklessError: an image without a caption, or a caption without an image.
    """
    if image is None:
        if caption or prompt:
            raise MasklessError("the samples have captions of their own; give --image FILE with --caption and --prompt")
        folder = Path(str(resources.files("maskless"))) / "assets" / "samples"
        desert, meadow, room = (folder / f"{name}.png" for name in ("desert", "meadow", "room"))
        return _plan((desert, meadow, room), named="a red car", other="a blue cake", new=NEW_OBJECT)
    if not caption.strip():
        raise MasklessError("the edits of a picture need to know what is in it: give --caption “a red car”")
    source = load_image(image)
    return _plan((source, source, source), named=caption, other=caption, new=prompt or NEW_OBJECT)


def _plan(pictures: Sequence[ImageLike], *, named: str, other: str, new: str) -> tuple[Exhibit, ...]:
    """The exhibits of three pictures.

    named: an object in the first two pictures. other: an object in the third. new: an object to add.
    """
    first, second, third = pictures
    height, width = load_image(third).size_yx
    centre = {"box": [width // 3, height // 3, width - width // 3, height - height // 3]}
    instead = "a blue house" if new == NEW_OBJECT else new
    planned: tuple[tuple[str, str, ImageLike, dict[str, Any]], ...] = (
        ("01_complete_center", "complete", third, {"options": centre}),
        ("02_add_object", "add", second, {"prompt": new}),
        ("03_remove_object", "remove", third, {"caption": other}),
        ("04_replace_object", "replace", first, {"caption": named, "prompt": instead}),
        ("05_extend_image", "extend", second, {"options": {"extend": 0.25}}),
        ("06_repair_image", "repair", scratched(load_image(first)), {}),
        ("07_style_transfer", "style", second, {"caption": named, "prompt": f"{named}, pencil sketch"}),
        ("08_change_background", "background", second, {"caption": named, "prompt": "empty snow"}),
        ("09_add_texture", "texture", first, {"caption": named, "prompt": _striped(named)}),
        ("10_creative_edit", "creative", second, {"prompt": f"{new} and a blue house"}),
        ("generated_image", "generate", second, {"prompt": f"{named} in the snow"}),
    )
    return tuple(Exhibit(file=f"{name}.png", task=task, image=image, **texts) for name, task, image, texts in planned)


def _striped(named: str) -> str:
    """The object with stripes: “a red car” becomes “a striped red car”."""
    article, _, rest = named.strip().partition(" ")
    return f"a striped {rest}" if article.lower() in ("a", "an", "the") and rest else f"a striped {named.strip()}"


def make_gallery(
    editor: Editor, planned: Sequence[Exhibit], folder: str | Path, provenance: ProvenanceOptions | None = None
) -> Iterator[FinishedExhibit]:
    """Make the pictures one after the other, and write the page after the last.

    A picture that the same models made of the same request with the same options is kept. An edit that is not possible,
    such as one whose object is not found, leaves no picture and does not stop the others.

    Raises:
        MasklessError: the folder cannot be written.
    """
    folder = Path(folder)
    require_writable(folder)
    finished: list[FinishedExhibit] = []
    sections: list[str] = []
    for exhibit in planned:
        request = editor.request(
            exhibit.image, caption=exhibit.caption, prompt=exhibit.prompt, task=exhibit.task, **exhibit.options
        )
        finished.append(_finished(editor, exhibit, request, folder / exhibit.file, provenance or ProvenanceOptions()))
        sections.append(_section(finished[-1], request))
        yield finished[-1]
    write_bytes(folder / PAGE_NAME, _page(sections, finished).encode())


def _finished(
    editor: Editor, exhibit: Exhibit, request: EditRequest, path: Path, provenance: ProvenanceOptions
) -> FinishedExhibit:
    """The exhibit with the picture in its file; the picture is made first where the file is not of this request."""
    fingerprint = _fingerprint(editor, request, provenance)
    known = _read_facts(path)
    if known.get("asked") == fingerprint:
        return FinishedExhibit(exhibit=exhibit, path=path, facts=known, kept=True)
    try:
        result = editor.edit(request)
    except MasklessError as error:
        if known:  # only a picture that an earlier gallery has made is removed
            path.unlink(missing_ok=True)
        return FinishedExhibit(exhibit=exhibit, path=path, facts={}, problem=str(error))
    found = _facts_of(result) | {"asked": fingerprint}
    settings = settings_text(result, result.order[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    notes = {**settings, KEYWORD: json.dumps(found, allow_nan=False)}
    with written_whole(path) as temporary:
        result.best.save(temporary, text=notes, provenance=provenance.provenance)
        signer = Signer.of(provenance)
        if signer is not None:
            signer.sign_file(temporary, result.best.provenance, signer.ingredient(request.source), title=path.name)
    return FinishedExhibit(exhibit=exhibit, path=path, facts=found)


def _facts_of(result: EditResult) -> dict[str, Any]:
    """What the page says about an edit: its region, the losses of the best candidate, and the cost."""
    best = result.order[0]
    losses = {name: value for name, value in result.losses.of(best).items() if name != "total"}
    mask = result.best.mask
    return {
        "prompt": result.request.prompt,
        "box_xyxy": list(result.best.box_xyxy),
        "mask": None if mask is None else _packed(mask.numpy()),
        "score": finite(float(result.scores[best])),
        "losses": {name: finite(value) for name, value in losses.items()},
        "candidates": len(result.candidates),
        "inpaintings": result.cost.inpaintings,
        "seconds": round(sum(result.cost.seconds.values()), 2),
    }


def _fingerprint(editor: Editor, request: EditRequest, provenance: ProvenanceOptions) -> str:
    """A hash of everything that decides the picture: the request, the options, the models' files and the version."""
    digest = hashlib.sha256()
    digest.update(np.ascontiguousarray(request.image.numpy()).tobytes())
    if request.mask is not None:
        digest.update(request.mask.numpy().tobytes())
    words = [request.task, request.caption, request.prompt, request.seed, list(request.margins_px)]
    models = [[part, source, _weights(source)] for part, source in sorted(editor.models.names.items())]
    options = [editor.config.to_dict(), editor.models.options.to_dict()]
    known = [words, options, models, library_versions()["maskless"], [provenance.provenance, provenance.sign]]
    digest.update(json.dumps(known, sort_keys=True).encode())
    return digest.hexdigest()


def _weights(source: str) -> list[list[Any]]:
    """Name, size and time of the last change of every weights file in a folder; nothing for a hub id."""
    files = sorted(Path(source).rglob("*.safetensors"))
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _read_facts(path: Path) -> dict[str, Any]:
    """The facts in a picture file of an earlier gallery; empty where there is no such file or it is damaged."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.load()
            found = json.loads(picture.info.get(KEYWORD, "{}"))
    except (OSError, SyntaxError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _page(sections: Sequence[str], finished: Sequence[FinishedExhibit]) -> str:
    seconds = sum(each.facts.get("seconds", 0.0) for each in finished)
    made = sum(each.problem is None for each in finished)
    head = (
        "<header><h1>What Maskless does</h1>"
        f'<p class="faint">{made} edits, {seconds:.0f} seconds in all. Move the line in a picture to compare before '
        "and after. Outside the outlined region every pixel is that of the original.</p></header>"
    )
    foot = (
        '<footer class="faint">Made by Maskless. This page is one file that holds its pictures and loads nothing from '
        "the network. The pictures are also in the folder of this page, with their settings inside.</footer>"
    )
    return page("Gallery · Maskless", "\n".join([head, *sections, foot]))


def _section(finished: FinishedExhibit, request: EditRequest) -> str:
    exhibit = finished.exhibit
    title = f"<h2>{text(exhibit.title)}</h2>"
    words = {"caption": exhibit.caption, "prompt": exhibit.prompt or finished.facts.get("prompt", "")}
    rows: dict[str, object] = {name: f"“{value}”" for name, value in words.items() if value}
    if finished.problem is not None:
        return f"<section>{title}{facts(rows)}<p>Not possible: {text(finished.problem)}</p></section>"
    found = finished.facts
    x0, y0, x1, y1 = found["box_xyxy"]
    rows["region"] = f"{x1 - x0} × {y1 - y0} at ({x0}, {y0})"
    rows["score"] = f"{_number(found['score'])}, best of {found['candidates']}"
    rows |= {f"{name} loss": _number(value) for name, value in found["losses"].items()}
    rows["inpaintings"] = found["inpaintings"]
    rows["time"] = f"{found['seconds']:.1f} s"
    rows["file"] = exhibit.file
    height, width = request.size_yx
    size_px = (width, height)
    region = "" if FACTS[exhibit.task].whole_picture else _outline(found, size_px)
    pictures = [
        picture_bytes(thumbnail(pixels, longest_px=PICTURE_PX), longest_px=PICTURE_PX, most_bytes=PICTURE_BYTES)
        for pixels in (_before(request), load_image(finished.path).pixels)
    ]
    label = exhibit.prompt or exhibit.title
    # The line starts left of the region, so that all of the change is visible at once; where the region is nearly the
    # whole picture, it starts in the middle.
    at = max(3, round(100 * x0 / width) - 4) if x1 - x0 < 0.8 * width else 50
    slider = before_after(pictures[0], pictures[1], label, size_px=size_px, region=region, at_percent=at)
    return f'<section>{title}<div class="wide">{slider}<div>{facts(rows)}</div></div></section>'


def _before(request: EditRequest) -> np.ndarray:
    """[H, W, 3]: the picture before the edit, grey where there was nothing."""
    pixels = request.source.pixels.copy()
    if FACTS[request.task].draws_on_nothing:
        nothing = torch.ones(request.size_yx, dtype=torch.bool) if request.mask is None else request.mask
        pixels[nothing.numpy()] = GREY * (257 if pixels.dtype == np.uint16 else 1)
    return pixels


def _outline(found: Mapping[str, Any], size_px: tuple[int, int]) -> str:
    """The outline of the edit's region over the picture: that of its mask, or of its box where it has no mask."""
    from PIL import Image

    if found["mask"] is None:
        x0, y0, x1, y1 = found["box_xyxy"]
        return box_outline([(x0, y0, x1, y1)], size_px)
    with Image.open(io.BytesIO(base64.b64decode(found["mask"]))) as packed:
        return mask_outline(np.asarray(packed.convert("L")) > 127)


def _packed(mask: np.ndarray) -> str:
    """A mask as a small PNG, in base64."""
    from PIL import Image

    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    picture.thumbnail((MASK_PX, MASK_PX), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    picture.convert("1", dither=Image.Dither.NONE).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")
