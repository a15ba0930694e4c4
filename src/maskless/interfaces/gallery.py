"""Every kind of edit once: eleven pictures in a folder and index.html, a page of one file that shows them.

A picture carries what made it: the page is made of the pictures, and a gallery that was stopped goes on where it was.
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
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from maskless.data.errors import MasklessError
from maskless.data.files import require_writable, write_bytes
from maskless.data.picture import ImageLike, load_image
from maskless.data.result import EditResult
from maskless.data.types import LOSS_NAMES, EditRequest
from maskless.engine.editor import Editor
from maskless.method.scratches import scratched
from maskless.records.html import before_after, box_outline, facts, mask_outline, page, picture_bytes, text
from maskless.records.outputs import library_versions, settings_text
from maskless.records.overview import thumbnail

if TYPE_CHECKING:
    pass

PAGE_NAME = "index.html"
KEYWORD = "maskless-gallery"
"""PNG text beside the settings: what the page tells of a picture, and the fingerprint of what was asked."""
SHOWN_PX, SHOWN_BYTES = 768, 110_000
MASK_PX = 320
GREY = 150
NOTHING_YET = ("complete", "extend", "generate")
"""Tasks that draw where nothing is, so that the picture before is grey there."""


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """One edit of the gallery: the file it goes to and what the editor is asked. options: box, extend and the like."""

    file: str
    title: str
    task: str
    image: ImageLike
    caption: str = ""
    prompt: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An exhibit that is done. facts: what the page tells of it. kept: it was there already. problem: why there is no
    picture, or None."""

    exhibit: Exhibit
    path: Path
    facts: Mapping[str, Any]
    kept: bool = False
    problem: str | None = None


def exhibits(image: ImageLike | None = None, caption: str = "", prompt: str = "") -> tuple[Exhibit, ...]:
    """The ten kinds of edit and the generation, of the bundled samples or of one picture.

    Args:
        image: a picture of one's own. caption: what is in it that the edits are about; it needs one.
        prompt: what replaces that, or is added.
    Raises:
        MasklessError: an image without a caption, or a caption without an image.
    """
    if image is None:
        if caption or prompt:
            raise MasklessError("the samples have captions of their own; give --image FILE with --caption and --prompt")
        folder = Path(str(resources.files("maskless"))) / "assets" / "samples"
        desert, meadow, room = (folder / f"{name}.png" for name in ("desert", "meadow", "room"))
        return _plan(desert, meadow, room, thing="a red car", other="a blue cake", newcomer="a yellow star")
    if not caption.strip():
        raise MasklessError("the edits of a picture need to know what is in it: give --caption “a red car”")
    source = load_image(image)
    return _plan(source, source, source, thing=caption, other=caption, newcomer=prompt or "a yellow star")


def _plan(
    first: ImageLike, second: ImageLike, third: ImageLike, *, thing: str, other: str, newcomer: str
) -> tuple[Exhibit, ...]:
    """The exhibits. thing: in the first picture and the second; other: in the third."""
    _, height, width = load_image(third).rgb.shape
    centre = [width // 3, height // 3, width - width // 3, height - height // 3]
    return (
        Exhibit(
            file="01_complete_center.png",
            title="Complete the centre",
            task="complete",
            image=third,
            options={"box": centre},
        ),
        Exhibit(file="02_add_object.png", title="Add an object", task="add", image=second, prompt=newcomer),
        Exhibit(file="03_remove_object.png", title="Remove an object", task="remove", image=third, caption=other),
        Exhibit(
            file="04_replace_object.png",
            title="Replace an object",
            task="replace",
            image=first,
            caption=thing,
            prompt="a blue house" if newcomer == "a yellow star" else newcomer,
        ),
        Exhibit(
            file="05_extend_image.png", title="Extend the canvas", task="extend", image=second, options={"extend": 0.25}
        ),
        Exhibit(
            file="06_repair_image.png", title="Repair scratches", task="repair", image=scratched(load_image(first))
        ),
        Exhibit(
            file="07_style_transfer.png",
            title="Change the style",
            task="style",
            image=second,
            caption=thing,
            prompt=f"{thing}, pencil sketch",
        ),
        Exhibit(
            file="08_change_background.png",
            title="Change the background",
            task="background",
            image=second,
            caption=thing,
            prompt="empty snow",
        ),
        Exhibit(
            file="09_add_texture.png",
            title="Add a texture",
            task="texture",
            image=first,
            caption=thing,
            prompt=_striped(thing),
        ),
        Exhibit(
            file="10_creative_edit.png",
            title="Several things at once",
            task="creative",
            image=second,
            prompt=f"{newcomer} and a blue house",
        ),
        Exhibit(
            file="generated_image.png",
            title="A picture from words alone",
            task="generate",
            image=second,
            prompt=f"{thing} in the snow",
        ),
    )


def _striped(thing: str) -> str:
    """The thing with stripes: “a red car” becomes “a striped red car”."""
    article, _, rest = thing.strip().partition(" ")
    return f"a striped {rest}" if article.lower() in ("a", "an", "the") and rest else f"a striped {thing.strip()}"


def make_gallery(editor: Editor, planned: Sequence[Exhibit], folder: str | Path) -> Iterator[Shown]:
    """Do what is not there yet, one exhibit after the other, and write the page when the last is done.

    A picture that the same models made of the same request with the same options is kept. An edit that is not possible
    (nothing to be found, say) leaves no picture; the others go on.

    Raises:
        MasklessError: the folder cannot be written.
    """
    folder = Path(folder)
    require_writable(folder)
    done: list[Shown] = []
    sections: list[str] = []
    for exhibit in planned:
        request = editor.request(
            exhibit.image, caption=exhibit.caption, prompt=exhibit.prompt, task=exhibit.task, **exhibit.options
        )
        done.append(_shown(editor, exhibit, request, folder / exhibit.file))
        sections.append(_section(done[-1], request))
        yield done[-1]
    write_bytes(folder / PAGE_NAME, _page(sections, done).encode())


def _shown(editor: Editor, exhibit: Exhibit, request: EditRequest, path: Path) -> Shown:
    """The exhibit from its file, made first where the file is not that of this request."""
    asked = _fingerprint(editor, request)
    there = _read_facts(path)
    if there.get("asked") == asked:
        return Shown(exhibit=exhibit, path=path, facts=there, kept=True)
    try:
        result = editor.edit(request)
    except MasklessError as error:
        path.unlink(missing_ok=True)
        return Shown(exhibit=exhibit, path=path, facts={}, problem=str(error))
    told = _facts_of(result) | {"asked": asked}
    settings = settings_text(result, result.order[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    result.best.save(path, text={**settings, KEYWORD: json.dumps(told, allow_nan=False)})
    return Shown(exhibit=exhibit, path=path, facts=told)


def _facts_of(result: EditResult) -> dict[str, Any]:
    """What the page tells: the region, the losses of the best, and what it cost."""
    best = result.order[0]
    losses = {name: float(getattr(result.losses, name)[best]) for name in LOSS_NAMES[:-1]}
    mask = result.best.mask
    return {
        "prompt": result.request.prompt,
        "box_xyxy": list(result.best.box_xyxy),
        "mask": None if mask is None else _packed(mask.numpy()),
        "score": _finite(float(result.scores[best])),
        "losses": {name: _finite(value) for name, value in losses.items()},
        "candidates": len(result.candidates),
        "inpaintings": result.cost.inpaintings,
        "seconds": round(sum(result.cost.seconds.values()), 2),
    }


def _fingerprint(editor: Editor, request: EditRequest) -> str:
    """Of everything that decides the picture: the request, the options, the models' files and the version."""
    digest = hashlib.sha256()
    digest.update(np.ascontiguousarray(request.image.numpy()).tobytes())
    if request.mask is not None:
        digest.update(request.mask.numpy().tobytes())
    words = [request.task, request.caption, request.prompt, request.seed, list(request.margins_px)]
    models = [[part, source, _weights(source)] for part, source in sorted(editor.models.names.items())]
    known = [words, editor.config.to_dict(), models, library_versions()["maskless"]]
    digest.update(json.dumps(known, sort_keys=True).encode())
    return digest.hexdigest()


def _weights(source: str) -> list[list[Any]]:
    """Name, size and time of change of a folder's weights; of a hub id, nothing."""
    files = sorted(Path(source).rglob("*.safetensors"))
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _read_facts(path: Path) -> dict[str, Any]:
    """What a picture of an earlier gallery says of itself; nothing where there is none, or it is damaged."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.load()
            found = json.loads(picture.info.get(KEYWORD, "{}"))
    except (OSError, SyntaxError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _page(sections: Sequence[str], done: Sequence[Shown]) -> str:
    seconds = sum(shown.facts.get("seconds", 0.0) for shown in done)
    made = sum(shown.problem is None for shown in done)
    head = (
        "<header><h1>What Maskless does</h1>"
        f'<p class="faint">{made} edits, {seconds:.0f} seconds in all. Move the line in a picture to compare before '
        "and after. Outside the outlined region every pixel is the original’s.</p></header>"
    )
    foot = (
        '<footer class="faint">Made by Maskless. This page is one file: it holds its pictures and asks nothing of the '
        "network. The pictures lie beside it, with their settings inside.</footer>"
    )
    return page("Gallery · Maskless", "\n".join([head, *sections, foot]))


def _section(shown: Shown, request: EditRequest) -> str:
    exhibit = shown.exhibit
    title = f"<h2>{text(exhibit.title)}</h2>"
    words = {"caption": exhibit.caption, "prompt": exhibit.prompt or shown.facts.get("prompt", "")}
    told: dict[str, object] = {name: f"“{value}”" for name, value in words.items() if value}
    if shown.problem is not None:
        return f"<section>{title}{facts(told)}<p>Not possible: {text(shown.problem)}</p></section>"
    found = shown.facts
    x0, y0, x1, y1 = found["box_xyxy"]
    told["region"] = f"{x1 - x0} × {y1 - y0} at ({x0}, {y0})"
    told["score"] = f"{_number(found['score'])}, best of {found['candidates']}"
    told |= {f"{name} loss": _number(value) for name, value in found["losses"].items()}
    told["inpaintings"] = found["inpaintings"]
    told["time"] = f"{found['seconds']:.1f} s"
    told["file"] = exhibit.file
    height, width = request.size_yx
    size_px = (width, height)
    everything = exhibit.task in ("style", "generate")
    region = "" if everything else _outline(found, size_px)
    pictures = [
        picture_bytes(thumbnail(pixels, longest_px=SHOWN_PX), longest_px=SHOWN_PX, most_bytes=SHOWN_BYTES)
        for pixels in (_before(request), load_image(shown.path).pixels)
    ]
    label = exhibit.prompt or exhibit.title
    # Beside a region, so that all of what is new is seen at once; in the middle of what is nearly the whole picture.
    at = max(3, round(100 * x0 / width) - 4) if x1 - x0 < 0.8 * width else 50
    slider = before_after(pictures[0], pictures[1], label, size_px=size_px, region=region, at_percent=at)
    return f'<section>{title}<div class="wide">{slider}<div>{facts(told)}</div></div></section>'


def _before(request: EditRequest) -> np.ndarray:
    """[H, W, 3]: the picture as it came, grey where there was nothing."""
    source = request.source
    assert source is not None
    pixels = source.pixels.copy()
    if request.task in NOTHING_YET:
        nothing = torch.ones(request.size_yx, dtype=torch.bool) if request.mask is None else request.mask
        pixels[nothing.numpy()] = GREY * (257 if pixels.dtype == np.uint16 else 1)
    return pixels


def _outline(found: Mapping[str, Any], size_px: tuple[int, int]) -> str:
    """The region to lay over the picture: its mask, or its box where it has none."""
    from PIL import Image

    if found["mask"] is None:
        x0, y0, x1, y1 = found["box_xyxy"]
        return box_outline([(x0, y0, x1, y1)], size_px)
    with Image.open(io.BytesIO(base64.b64decode(found["mask"]))) as packed:
        return mask_outline(np.asarray(packed.convert("L")) > 127)


def _packed(mask: np.ndarray) -> str:
    """A mask as a small PNG in text."""
    from PIL import Image

    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    picture.thumbnail((MASK_PX, MASK_PX), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    picture.convert("1", dither=Image.Dither.NONE).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")
