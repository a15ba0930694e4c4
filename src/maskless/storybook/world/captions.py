"""Captions by a small grammar: what a scene, an object or an empty place can be called.

Words are the field's plain ones; every function takes a NumPy generator and says the same thing in different ways.
"""

from __future__ import annotations

import numpy as np

from maskless.storybook.world.scenes import SceneGraph, SceneObject

PLACES: dict[str, tuple[str, str]] = {
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
CHANGE_TRIES = 20  # captions of an edit, until one names it
PLURALS = {"fish": "fish", "cactus": "cacti", "butterfly": "butterflies"}


def plural(kind: str) -> str:
    return PLURALS.get(kind, kind + "s")


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def size_word(thing: SceneObject) -> str:
    """ "big", "small", or nothing for what is between."""
    return "big" if thing.size >= 0.42 else "small" if thing.size <= 0.2 else ""


def describe_object(thing: SceneObject, rng: np.random.Generator, article: bool = True) -> str:
    """ "a red car", "red car", "a car that is red", "a big red striped car", …"""
    told = rng.random() >= 0.15  # drawn for a plain thing too, so that a texture changes no other word
    texture = thing.texture if told and thing.texture != "plain" else ""
    size = size_word(thing) if rng.random() < 0.3 else ""
    if rng.random() < 0.12:
        looks = " and ".join(w for w in (thing.colour, texture) if w)
        words = " ".join(w for w in (size, thing.kind) if w) + f" that is {looks}"
    else:
        words = " ".join(w for w in (size, thing.colour, texture, thing.kind) if w)
    if not article or rng.random() < 0.15:
        return words
    return f"the {words}" if rng.random() < 0.08 else f"{_article(words)} {words}"


def describe_empty(background: str, rng: np.random.Generator) -> str:
    """ "empty meadow", "a meadow with nothing on it", …"""
    name, where = PLACES[background]
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
    """Everything in the scene, its place and, unless it is a flat drawing, mostly its style."""
    if not graph.objects:
        text = describe_empty(graph.background, rng)
    else:
        text = _join(_groups(graph.objects, rng), rng)
        if rng.random() < 0.8:
            text += f" {PLACES[graph.background][1]}"
    if rng.random() < (0.1 if graph.style == "flat" else 0.8):
        text = with_style(text, graph.style, rng)
    return text


def describe_change(before: SceneGraph, after: SceneGraph, seed: int) -> tuple[str, str]:
    """One caption's words for the scene before and after an edit: of the words by `seed` and the seeds that follow, the
    first that name what changed, with all else alike. Not every caption names the place, the style or a texture.

    The two are the same where no caption would name it, as for one of two equal things that gets a texture.
    """
    for words in range(seed, seed + CHANGE_TRIES):
        was, said = (describe_scene(graph, np.random.default_rng(words)) for graph in (before, after))
        if was != said:
            break
    return was, said


def with_style(text: str, style: str, rng: np.random.Generator) -> str:
    """ "…, pencil sketch" or "a pencil sketch of …"."""
    word = _pick(rng, STYLE_WORDS[style])
    return f"{text}, {word}" if rng.random() < 0.7 else f"{_article(word)} {word} of {text}"


def _groups(objects: tuple[SceneObject, ...], rng: np.random.Generator) -> list[str]:
    """One phrase for each run of equal things: "two red cars", "a blue house"."""
    alike: dict[tuple[str, str], list[SceneObject]] = {}
    by_kind = rng.random() < 0.3
    for thing in objects:
        alike.setdefault((thing.kind, "" if by_kind else thing.colour), []).append(thing)
    phrases = []
    for (kind, colour), things in alike.items():
        if len(things) == 1:
            phrases.append(describe_object(things[0], rng))
        else:
            phrases.append(" ".join(w for w in (NUMBERS[len(things)], colour, plural(kind)) if w))
    return [phrases[i] for i in rng.permutation(len(phrases))]


def _join(phrases: list[str], rng: np.random.Generator) -> str:
    if len(phrases) == 1:
        return phrases[0]
    return ", ".join(phrases[:-1]) + (" and " if rng.random() < 0.85 else ", ") + phrases[-1]
