"""Captions from a small grammar: the descriptions of a scene, of an object and of an empty background.

Every function takes a NumPy generator, by which it chooses among several wordings of the same meaning.
"""

from __future__ import annotations

import numpy as np

from maskless.storybook.world.graph import SceneGraph, SceneObject

# The name of each background, and the phrase that says where the objects before it are.
BACKGROUND_WORDS: dict[str, tuple[str, str]] = {
    "meadow": ("meadow", "in a meadow"),
    "beach": ("beach", "on the beach"),
    "snow": ("snow", "in the snow"),
    "desert": ("desert", "in the desert"),
    "night": ("night", "at night"),
    "sea": ("sea", "at sea"),
    "forest": ("forest", "in a forest"),
    "city": ("city", "in the city"),
    "room": ("room", "in a room"),
}
STYLE_WORDS: dict[str, tuple[str, ...]] = {
    "flat": ("flat drawing", "drawing"),
    "pencil": ("pencil sketch", "pencil drawing"),
    "watercolour": ("watercolour", "watercolour painting"),
    "pixel": ("pixel art", "pixel art picture"),
}
NUMBERS = ("no", "one", "two", "three", "four", "five")
CHANGE_TRIES = 20  # wordings that are tried until one names what an edit changes
PLURALS = {"fish": "fish", "cactus": "cacti", "butterfly": "butterflies"}


def plural(kind: str) -> str:
    """The plural of a kind: "cars", "fish", …"""
    return PLURALS.get(kind, kind + "s")


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def size_word(item: SceneObject) -> str:
    """ "big", "small", or "" for an object between the two."""
    return "big" if item.size >= 0.42 else "small" if item.size <= 0.2 else ""


def describe_object(item: SceneObject, rng: np.random.Generator, article: bool = True) -> str:
    """ "a red car", "red car", "a car that is red", "a big red striped car", …"""
    # This number is drawn for a plain object too, so that a texture changes no other word of the caption.
    names_texture = rng.random() >= 0.15
    texture = item.texture if names_texture and item.texture != "plain" else ""
    size = size_word(item) if rng.random() < 0.3 else ""
    if rng.random() < 0.12:
        looks = " and ".join(w for w in (item.colour, texture) if w)
        words = " ".join(w for w in (size, item.kind) if w) + f" that is {looks}"
    else:
        words = " ".join(w for w in (size, item.colour, texture, item.kind) if w)
    if not article or rng.random() < 0.15:
        return words
    return f"the {words}" if rng.random() < 0.08 else f"{_article(words)} {words}"


def describe_empty(background: str, rng: np.random.Generator) -> str:
    """ "empty meadow", "a meadow with nothing on it", …"""
    name, where = BACKGROUND_WORDS[background]
    return _pick(
        rng,
        (
            f"empty {name}",
            f"empty {name}",
            f"an empty {name}" if name[0] not in "aeiou" else f"empty {name}",
            f"a {name} with nothing on it",
            f"nothing {where}",
            f"{name} only",
        ),
    )


def describe_scene(graph: SceneGraph, rng: np.random.Generator) -> str:
    """All objects, mostly the background and, unless the scene is a flat drawing, mostly the style."""
    if not graph.objects:
        text = describe_empty(graph.background, rng)
    else:
        text = _join(_groups(graph.objects, rng), rng)
        if rng.random() < 0.8:
            text += f" {BACKGROUND_WORDS[graph.background][1]}"
    if rng.random() < (0.1 if graph.style == "flat" else 0.8):
        text = with_style(text, graph.style, rng)
    return text


def describe_change(before: SceneGraph, after: SceneGraph, seed: int) -> tuple[str, str]:
    """Captions of the scene before and after an edit, in the same wording but for what changed.

    Not every wording names the background, the style or a texture. So the wordings of `seed` and of the seeds that
    follow are tried until one names the change. The two captions are equal where none does, as when one of two equal
    objects gets a texture.
    """
    for wording in range(seed, seed + CHANGE_TRIES):
        caption_before, caption_after = (
            describe_scene(graph, np.random.default_rng(wording)) for graph in (before, after)
        )
        if caption_before != caption_after:
            break
    return caption_before, caption_after


def with_style(text: str, style: str, rng: np.random.Generator) -> str:
    """ "…, pencil sketch" or "a pencil sketch of …"."""
    word = _pick(rng, STYLE_WORDS[style])
    return f"{text}, {word}" if rng.random() < 0.7 else f"{_article(word)} {word} of {text}"


def _groups(objects: tuple[SceneObject, ...], rng: np.random.Generator) -> list[str]:
    """One phrase for each group of equal objects, in random order: "two red cars", "a blue house"."""
    groups: dict[tuple[str, str], list[SceneObject]] = {}
    by_kind = rng.random() < 0.3
    for item in objects:
        groups.setdefault((item.kind, "" if by_kind else item.colour), []).append(item)
    phrases = []
    for (kind, colour), equal in groups.items():
        if len(equal) == 1:
            phrases.append(describe_object(equal[0], rng))
        else:
            phrases.append(" ".join(w for w in (NUMBERS[len(equal)], colour, plural(kind)) if w))
    return [phrases[i] for i in rng.permutation(len(phrases))]


def _join(phrases: list[str], rng: np.random.Generator) -> str:
    """ "a, b and c" or "a, b, c"."""
    if len(phrases) == 1:
        return phrases[0]
    return ", ".join(phrases[:-1]) + (" and " if rng.random() < 0.85 else ", ") + phrases[-1]
