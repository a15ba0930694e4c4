"""Objects that are not drawn right, made from rendered ones: what the critic learns to tell from right drawings.

Each function of LUMPS spoils a specimen in one way so much that a person would not call it a right drawing; `mild`
spoils a picture so little that it still is one. Lengths are relative to the object's longer side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter

from maskless.storybook.critic import CROP
from maskless.storybook.world.edits import choose_other
from maskless.storybook.world.graph import KINDS, SceneGraph
from maskless.storybook.world.scenes import draw
from maskless.storybook.world.shapes import SHAPES, Part

LEAST_CHANGE = 0.045
"""The least mean change of a spoilt object's pixels, of 1; below it, the object may still look right."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Specimen:
    """One object of a scene, seen in a window.

    size: side of the drawn scene in pixels. window: (x0, y0, x1, y1) in its pixels. mask: [48, 48] in [0, 1], where the
    object is seen. length: its longer side in pixels of the crop.
    """

    graph: SceneGraph
    index: int
    size: int
    window: tuple[float, float, float, float]
    mask: np.ndarray
    length: float

    def crop(self, picture: Image.Image) -> np.ndarray:
        """What the window shows of a picture of the scene: [48, 48, 3] in [0, 1]."""
        small = picture.resize((CROP, CROP), Image.Resampling.BICUBIC, box=self.window)
        return np.asarray(small, dtype=np.float32) / 255

    @cached_property
    def right(self) -> np.ndarray:
        """The object as the renderer draws it."""
        return self.crop(draw(self.graph, self.size).image)

    @cached_property
    def behind(self) -> np.ndarray:
        """What is behind the object."""
        return self.drawn([])

    def drawn(self, polygons: Sequence[Part]) -> np.ndarray:
        """Other polygons in its place."""
        return self.crop(draw(self.graph, self.size, parts={self.index: polygons}).image)

    def of_another_kind(self, rng: np.random.Generator) -> np.ndarray:
        """An object of a random other kind in its place."""
        kind = choose_other(KINDS, self.graph.objects[self.index].kind, rng)
        return self.crop(draw(self.graph.replace_object(self.index, kind=kind), self.size).image)

    @property
    def polygons(self) -> tuple[Part, ...]:
        return SHAPES[self.graph.objects[self.index].kind].parts


Lump = Callable[[Specimen, np.random.Generator], np.ndarray]


def blurred(specimen: Specimen, rng: np.random.Generator) -> np.ndarray:
    """Blurred, alone or with its surroundings."""
    picture = specimen.right
    soft = blur(picture, specimen.length * rng.uniform(0.055, 0.11))
    return soft if rng.random() < 0.5 else mixed(picture, soft, _around(specimen))


def coarse(specimen: Specimen, rng: np.random.Generator) -> np.ndarray:
    """Enlarged from a drawing in which it is five to nine pixels long."""
    side = max(3, round(CROP * rng.uniform(5, 9) / specimen.length))
    small = _image(specimen.right).resize((side, side), Image.Resampling.BOX)
    way = Image.Resampling.BICUBIC if rng.random() < 0.5 else Image.Resampling.BILINEAR
    return _array(small.resize((CROP, CROP), way))


def rounded(specimen: Specimen, rng: np.random.Generator) -> np.ndarray:
    """Without its fine parts, but with sharp edges: medians, least or largest values of wide squares."""
    width = 2 * max(2, round(specimen.length * rng.uniform(0.08, 0.13))) + 1
    filters = (ImageFilter.MedianFilter, ImageFilter.MinFilter, ImageFilter.MaxFilter)
    chosen = filters[int(rng.choice(3, p=[0.6, 0.2, 0.2]))]
    return _array(_image(specimen.right).filter(chosen(width)))


def melted(specimen: Specimen, rng: np.random.Generator) -> np.ndarray:
    """Bent by a smooth random field, mostly in both directions, else downwards alone."""
    strength = specimen.length * rng.uniform(0.07, 0.14)
    picture = warped(specimen.right, strength, specimen.length * rng.uniform(0.09, 0.2), rng)
    if rng.random() < 0.3:
        drips = _smooth((1, CROP), specimen.length * 0.06, rng) * strength * 1.5
        picture = _moved(picture, np.repeat(np.abs(drips), CROP, axis=0), np.zeros((CROP, CROP)))
    return picture


def half_drawn(specimen: Specimen, rng: np.random.Generator) -> np.ndarray:
    """A part of it is missing, a third to all, behind a line or within a random outline."""
    field = _slope(rng) if rng.random() < 0.5 else _smooth((CROP, CROP), specimen.length * 0.15, rng)
    share = 1.0 if rng.random() < 0.1 else rng.uniform(0.35, 0.75)
    limit = np.quantile(field[specimen.mask > 0.5], share) if (specimen.mask > 0.5).any() else 0.0
    gone = blur((field <= limit).astype(np.float32), rng.uniform(0.3, 2.5))
    return mixed(specimen.right, specimen.behind, gone)


def hazy(specimen: Specimen, rng: np.random.Generator) -> np.ndarray:
    """See-through, in a haze of its own colours, or both."""
    picture, choice = specimen.right, rng.random()
    out = picture
    if choice < 0.65:
        out = mixed(picture, blur(specimen.behind, 1.0), specimen.mask * rng.uniform(0.45, 0.75))
    if choice > 0.35:
        spread = specimen.length * rng.uniform(0.08, 0.16)
        weight = blur(specimen.mask, spread)
        glow = blur(picture * specimen.mask[..., None], spread) / np.maximum(weight, 1e-3)[..., None]
        out = mixed(out, glow, np.clip(weight * 2, 0, 1) * (1 - specimen.mask) * rng.uniform(0.6, 0.95))
    return out


def smeared(specimen: Specimen, rng: np.random.Generator) -> np.ndarray:
    """Its colours drawn out in one direction, across its outline."""
    length, angle = specimen.length * rng.uniform(0.3, 0.6), rng.uniform(0, np.pi)
    steps = np.linspace(-0.5, 0.5, 13) * length
    rows, columns = np.mgrid[:CROP, :CROP]
    picture = specimen.right
    copies = [_moved(picture, 0 * rows + s * np.sin(angle), 0 * columns + s * np.cos(angle)) for s in steps]
    return np.mean(copies, axis=0)


def mixture(specimen: Specimen, rng: np.random.Generator) -> np.ndarray:
    """Two kinds in one: side by side, in patches, or shining through each other."""
    own, other, choice = specimen.right, specimen.of_another_kind(rng), rng.random()
    if choice < 0.3:
        return mixed(own, other, np.full((CROP, CROP), rng.uniform(0.38, 0.62)))
    field = _slope(rng) if choice < 0.65 else _smooth((CROP, CROP), specimen.length * 0.15, rng)
    where = field < np.median(field[specimen.mask > 0.5]) if (specimen.mask > 0.5).any() else field < 0
    return mixed(own, other, blur(where.astype(np.float32), rng.uniform(0.3, 2.5)))


def scattered(specimen: Specimen, rng: np.random.Generator) -> np.ndarray:
    """Its polygons displaced, turned and resized."""
    return specimen.drawn(jittered(specimen.polygons, rng.uniform(0.12, 0.25), rng))


def shapeless(specimen: Specimen, rng: np.random.Generator) -> np.ndarray:
    """A blob of its colours in its place."""
    rows, columns = np.mgrid[:CROP, :CROP]
    weight = np.maximum(specimen.mask, 1e-6)
    cy, cx = (float((axis * weight).sum() / weight.sum()) for axis in (rows, columns))
    distance = np.hypot((rows - cy) / rng.uniform(0.7, 1.4), columns - cx) / specimen.length
    outline = distance + 0.12 * _smooth((CROP, CROP), specimen.length * 0.12, rng) < rng.uniform(0.3, 0.45)
    spread = specimen.length * rng.uniform(0.06, 0.14)
    mean = (specimen.right * weight[..., None]).sum(axis=(0, 1)) / weight.sum()
    colours = blur(mixed(np.broadcast_to(mean, specimen.right.shape), specimen.right, specimen.mask), spread)
    colours = warped(colours, specimen.length * 0.12, specimen.length * 0.12, rng)
    return mixed(specimen.behind, colours, blur(outline.astype(np.float32), rng.uniform(0.3, 1.5)))


def shuffled(specimen: Specimen, rng: np.random.Generator) -> np.ndarray:
    """Squares of its drawing exchanged with one another."""
    width = int(rng.choice([6, 8, 12]))
    picture, count = specimen.right, CROP // width
    tiles = picture.reshape(count, width, count, width, 3).swapaxes(1, 2).reshape(-1, width, width, 3).copy()
    own = specimen.mask.reshape(count, width, count, width).mean(axis=(1, 3)).ravel() > 0.2
    tiles[own] = tiles[own][rng.permutation(int(own.sum()))]
    return tiles.reshape(count, count, width, width, 3).swapaxes(1, 2).reshape(CROP, CROP, 3)


def silhouette(specimen: Specimen, rng: np.random.Generator) -> np.ndarray:
    """Its outline filled with its own colour, without any part inside."""
    shades = rng.random() < 0.5
    keeps = ("shade", "light") if shades else ()
    return specimen.drawn([replace(p, paint=p.paint if p.paint in keeps else "body") for p in specimen.polygons])


def smudged(specimen: Specimen, rng: np.random.Generator) -> np.ndarray:
    """Bent, rounded and blurred a little each, in some places more than in others, as by a painter of little skill."""
    return smudge(specimen.right, specimen.length, rng)


LUMPS: dict[str, Lump] = {
    lump.__name__: lump
    for lump in (
        blurred, coarse, rounded, melted, half_drawn, hazy, smeared, mixture, scattered, shapeless, shuffled,
        silhouette, smudged,
    )
}  # fmt: skip
WITHOUT_KIND = frozenset({"mixture", "shapeless", "shuffled", "half_drawn"})
"""Lumps whose kind cannot be told."""
WITHOUT_PARTS = frozenset({"blurred", "coarse", "smeared", "shapeless", "shuffled", "silhouette"})
"""Lumps that have none of the object's parts; of the others it is not said which of them remain."""


SMUDGED = 0.35
"""Share of the lumps that are smudged, as a diffusion model's are; the others are each as frequent as the next."""


def random_lump(rng: np.random.Generator) -> str:
    """A random name of LUMPS."""
    return "smudged" if rng.random() < SMUDGED else str(rng.choice(list(LUMPS)))


def change(specimen: Specimen, picture: np.ndarray) -> float:
    """The mean change [0, 1] of the pixels in and around an object, from its right drawing."""
    near = blur(specimen.mask, 1.0) > 0.2
    return float(np.abs(picture - specimen.right).max(axis=2)[near].mean()) if near.any() else 0.0


def mild(picture: np.ndarray, length: float, rng: np.random.Generator) -> np.ndarray:
    """Small defects that a right drawing may have: blur, less resolution, bends, JPEG, noise, a colour cast."""
    choice = rng.random()
    if choice < 0.2:
        picture = blur(picture, length * rng.uniform(0.004, 0.016))
    elif choice < 0.35:
        side = round(CROP * rng.uniform(20, 34) / length)
        if side < CROP:
            picture = _array(_image(picture).resize((side, side), Image.Resampling.BOX).resize((CROP, CROP), 3))
    elif choice < 0.5:
        picture = warped(picture, length * rng.uniform(0.005, 0.018), length * 0.15, rng)
    if rng.random() < 0.2:
        held = BytesIO()
        _image(picture).save(held, "JPEG", quality=int(rng.integers(55, 95)))
        picture = _array(Image.open(held))
    if rng.random() < 0.5:
        picture = picture + rng.uniform(-0.03, 0.03, 3) + rng.normal(0, rng.uniform(0, 0.02), picture.shape)
    return np.clip(picture, 0, 1).astype(np.float32)


def smudge(picture: np.ndarray, length: float, rng: np.random.Generator) -> np.ndarray:
    """A picture bent, rounded and blurred a little each, in some places more than in others."""
    bent = warped(picture, length * rng.uniform(0.02, 0.055), length * rng.uniform(0.06, 0.12), rng)
    round_ = _array(_image(bent).filter(ImageFilter.MedianFilter(int(rng.choice([3, 5])))))
    soft = blur(bent, length * rng.uniform(0.035, 0.075))
    bent = mixed(bent, round_, np.clip(0.6 + 0.7 * _smooth((CROP, CROP), length * 0.15, rng), 0, 1))
    return mixed(bent, soft, np.clip(0.55 + 0.7 * _smooth((CROP, CROP), length * 0.15, rng), 0, 1))


def jittered(polygons: Sequence[Part], strength: float, rng: np.random.Generator) -> list[Part]:
    """Polygons, each displaced and turned at random; those of one named part alike. strength: of the box's sides."""
    moves: dict[str, tuple[np.ndarray, float, float]] = {}
    out = []
    for number, part in enumerate(polygons):
        name = part.name or str(number)
        if name not in moves:
            moves[name] = (
                rng.normal(0, strength, 2),
                rng.normal(0, 2 * strength),
                float(np.exp(rng.normal(0, strength))),
            )
        shift, angle, scale = moves[name]
        centre, (c, s) = part.points.mean(axis=0), (np.cos(angle), np.sin(angle))
        points = (part.points - centre) @ np.array([[c, s], [-s, c]]) * scale + centre + shift
        out.append(replace(part, points=points))
    return out


def mixed(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Two pictures in one. share [H, W]: that of the second, in [0, 1]."""
    return first + (second - first) * share[..., None]


def warped(picture: np.ndarray, strength: float, scale: float, rng: np.random.Generator) -> np.ndarray:
    """A picture bent by a smooth random field: pixels of its root mean square, and of its smoothness."""
    down, across = (strength * 0.8 * _smooth(picture.shape[:2], scale, rng) for _ in range(2))
    return _moved(picture, down, across)


def blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur of values [H, W] or [H, W, 3] in [0, 1], of `sigma` pixels."""
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))
    return _array(image.filter(ImageFilter.GaussianBlur(float(sigma))))


def _around(specimen: Specimen) -> np.ndarray:
    return np.clip(blur(specimen.mask, specimen.length * 0.06) * 2.5, 0, 1)


def _slope(rng: np.random.Generator) -> np.ndarray:
    """A plane [48, 48] that rises in a random direction."""
    angle, (rows, columns) = rng.uniform(0, 2 * np.pi), np.mgrid[:CROP, :CROP]
    return np.sin(angle) * rows + np.cos(angle) * columns


def _smooth(shape: tuple[int, ...], scale: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth random values of mean 0 and standard deviation about 1; scale: the pixels along which they are alike."""
    coarse = tuple(max(2, round(side / max(2 * scale, 1)) + 1) if side > 1 else 1 for side in shape)
    values = Image.fromarray(rng.normal(0, 1, coarse).astype(np.float32))
    field = np.asarray(values.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))
    return field / max(float(field.std()), 1e-3)


def _moved(picture: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Each pixel shows what lies `down` and `across` from it, bilinear, the border repeated."""
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    y, x = np.clip(rows - down, 0, picture.shape[0] - 1.001), np.clip(columns - across, 0, picture.shape[1] - 1.001)
    top, left = y.astype(int), x.astype(int)
    b, a = (y - top)[..., None], (x - left)[..., None]
    upper = picture[top, left] * (1 - a) + picture[top, left + 1] * a
    lower = picture[top + 1, left] * (1 - a) + picture[top + 1, left + 1] * a
    return upper * (1 - b) + lower * b


def _image(picture: np.ndarray) -> Image.Image:
    return Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))


def _array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32) / 255
