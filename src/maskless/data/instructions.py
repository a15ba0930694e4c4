"""Parsing of plain English instructions ("replace the red car with a blue house") into a task, a caption and a prompt.

The grammar has one line for each form. Upper and lower case, "please" and a final full stop do not matter. A PICTURE is
"it", "this" or "the picture/image/photo/scene".

    replace A with B · change A to B · turn A into B        replace    caption A, prompt B
    make PICTURE a B · turn PICTURE into a B                 style      prompt B
    add B                                                   add        prompt B; several objects: creative
    remove A · delete A · erase A                           remove     caption A
    change the background to B · put A on B                  background prompt B, caption A
    make A striped/dotted/checkered/… · paint A B             texture    caption A, prompt: "a striped A"
    extend PICTURE to the left/right/top/bottom [by N %|px]  extend
    repair PICTURE · complete PICTURE                        repair, complete
    generate B · draw B                                     generate   prompt B
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from maskless.data.errors import MasklessError

FORMS = (
    "replace A with B",
    "add B",
    "remove A",
    "change the background to B",
    "make A striped",
    "make it a pencil sketch",
    "extend the picture to the left",
    "repair the picture",
    "complete the picture",
    "generate B",
)
PICTURE = (
    r"(?:it|this|everything|(?:the |this |my )?(?:whole |entire )?(?:picture|image|photo|photograph|scene|drawing))"
)
ARTICLE = re.compile(r"^(?:a|an|the|some|my|this|that|these|those)\s+", re.IGNORECASE)
SIDES = {
    "left": "left", "right": "right", "top": "top", "up": "top", "upwards": "top", "above": "top", "bottom": "bottom",
    "down": "bottom", "downwards": "bottom", "below": "bottom",
}  # fmt: skip
STYLE_WORDS = (
    "sketch", "drawing", "painting", "watercolour", "watercolor", "cartoon", "comic", "art", "style", "pencil", "photo",
    "engraving", "mosaic", "pastel", "oil", "pixel", "pixels", "anime", "illustration", "etching", "woodcut", "picture",
)  # fmt: skip
"""Words that name the style of a picture, not its content."""

ADJECTIVES = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "black", "grey", "gray", "golden",
    "striped", "dotted", "checkered", "big", "small", "old", "new",
)  # fmt: skip
"""Words after which "and" continues the description of the same object ("a black and white cat")."""


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """What an instruction asks for. extend: a value for `maskless edit --extend`, such as "left=0.25", or empty."""

    task: str
    caption: str = ""
    prompt: str = ""
    extend: str = ""


def parse_instruction(text: str) -> Instruction:
    """The task, caption and prompt that an instruction means.

    Raises:
        MasklessError: the text matches none of the forms; the message lists them.
    """
    plain = re.sub(r"\s+", " ", text).strip().rstrip(".!").strip()
    plain = re.sub(r"^(?:please|can you|could you)[, ]+", "", plain, flags=re.IGNORECASE)
    # The special forms come first: "remove the scratches" is a repair, "replace the background with B" a background.
    for parse in (_whole_picture, _background, _extend, _style, _replace, _texture, _one_verb):
        instruction = parse(plain)
        if instruction is not None:
            return instruction
    raise MasklessError(f"cannot understand the instruction {text!r}; the forms are: {'; '.join(FORMS)}")


def read_texts(
    instruction: str | None, *, task: str | None, caption: str, prompt: str | None, extend: str | None
) -> Instruction:
    """What an instruction and separate texts ask for together: each text that is given overrides the instruction's.

    instruction: None or empty means a replacement, unless `task` names something else.

    Raises:
        MasklessError: an instruction that cannot be read.
    """
    read = parse_instruction(instruction) if instruction else Instruction(task="replace")
    return Instruction(
        task=read.task if task is None else task,
        caption=caption or read.caption,
        prompt=read.prompt if prompt is None else prompt,
        extend=read.extend if extend is None else extend,
    )


def phrases(caption: str) -> tuple[str, ...]:
    """The objects that a text lists: three in "a red car, a cat and a tree", one in "a black and white cat", none in an
    empty text."""
    parts: list[str] = []
    for part in re.split(r"\s*[,;]\s*(?:and\s+)?|\s+and\s+", caption.strip(), flags=re.IGNORECASE):
        if parts and parts[-1].lower().split()[-1] in ADJECTIVES:
            parts[-1] += f" and {part}"
        elif part:
            parts.append(part)
    return tuple(parts)


def _match(pattern: str, text: str) -> re.Match[str] | None:
    return re.fullmatch(pattern.replace("PICTURE", PICTURE), text, re.IGNORECASE)


def _whole_picture(text: str) -> Instruction | None:
    if _match(r"(?:repair|fix|restore|mend) PICTURE", text) or _match(
        r"(?:repair|remove|fix|erase) (?:the |all )?(?:scratches|damage|holes)(?: .*)?", text
    ):
        return Instruction(task="repair")
    if _match(
        r"(?:complete|fill in|fill|finish) (?:PICTURE|the (?:hole|holes|centre|center|gap|gaps|missing \w+))", text
    ):
        return Instruction(task="complete")
    return None


def _background(text: str) -> Instruction | None:
    found = _match(
        r"(?:change|replace|turn|make|set) the background(?: of (?P<a>.+?))? (?:to|with|into|by|be) (?P<b>.+)", text
    )
    found = found or _match(r"(?:put|place) (?P<a>.+?) (?:on|in|at|into|onto) (?P<b>.+)", text)
    if found is None:
        return None
    # "empty", so that the model draws scenery alone, without further objects in it.
    scenery = _without_article(found["b"])
    prompt = scenery if scenery.startswith("empty ") else f"empty {scenery}"
    return Instruction(task="background", caption=found["a"] or "", prompt=prompt)


def _extend(text: str) -> Instruction | None:
    found = _match(
        r"(?:extend|expand|enlarge|widen|grow|uncrop|outpaint) PICTURE"
        r"(?: (?:to |on |at |towards )?(?:the )?(?P<side>\w+?)(?: side)?)?"
        r"(?: by (?P<by>\d+(?:\.\d+)?) ?(?P<unit>%|percent|per cent|px|pixels?))?",
        text,
    )
    if found is None:
        return None
    side = (found["side"] or "").lower()
    if side and side not in SIDES:
        return None
    amount = "0.25"
    if found["by"]:
        pixels = found["unit"].lower().startswith("p") and "per" not in found["unit"].lower()
        amount = str(round(float(found["by"]))) if pixels else f"{found['by']}%"
    return Instruction(task="extend", extend=f"{SIDES[side]}={amount}" if side else amount)


def _style(text: str) -> Instruction | None:
    found = _match(
        r"(?:make|turn|render|draw|paint|redraw|convert) PICTURE (?:into |as |to |look like |in )?(?P<b>.+)", text
    )
    if found is None or not (set(re.findall(r"\w+", found["b"].lower())) & set(STYLE_WORDS)):
        return None
    return Instruction(task="style", prompt=_without_article(found["b"]))


def _replace(text: str) -> Instruction | None:
    for pattern in (
        r"(?:replace|swap|exchange) (?P<a>.+?) (?:with|by|for) (?P<b>.+)",
        r"(?:change|turn|transform|convert|make) (?P<a>.+?) (?:into|to) (?P<b>.+)",
    ):
        found = _match(pattern, text)
        if found is not None and not _match("PICTURE", found["a"]):
            return Instruction(task="replace", caption=found["a"], prompt=found["b"])
    return None


def _texture(text: str) -> Instruction | None:
    found = _match(r"(?:make|paint) (?P<a>(?:the|a|an|my|this|that|all|every) .+) (?P<texture>\S+)", text)
    found = found or _match(r"give (?P<a>.+?) (?:a |an )?(?P<texture>\S+) (?:texture|pattern|look)", text)
    if found is None or _match("PICTURE", found["a"]):
        return None
    name, texture = _without_article(found["a"]), found["texture"]
    article = "an" if texture[0].lower() in "aeiou" else "a"
    return Instruction(task="texture", caption=found["a"], prompt=f"{article} {texture} {name}")


def _one_verb(text: str) -> Instruction | None:
    """The forms that are a verb and one phrase: add, remove and generate."""
    found = _match(r"(?:add|insert) (?P<b>.+?)(?: to PICTURE)?", text)
    if found is not None:
        several = len(phrases(found["b"])) > 1
        return Instruction(task="creative" if several else "add", prompt=found["b"])
    found = _match(r"(?:remove|delete|erase|take away|take out|get rid of) (?P<a>.+?)(?: from PICTURE)?", text)
    if found is not None:
        return Instruction(task="remove", caption=found["a"])
    found = _match(r"(?:generate|draw|create|imagine) (?P<b>.+)", text)
    return None if found is None else Instruction(task="generate", prompt=found["b"])


def _without_article(phrase: str) -> str:
    """The phrase without "a", "the" or a possessive at its start."""
    return ARTICLE.sub("", phrase)
