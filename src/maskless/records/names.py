"""File names made from captions and prompts: readable, safe on every system, and different for different texts. Also
nouns with their number, as every report prints them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import lru_cache

from maskless.data.tasks import FACTS

MAX_BYTES = 64
PLAIN_MARKS = " -_,+()'."
"""Spaces and punctuation that are kept."""
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def safe_name(text: str, *, empty: str = "unnamed", dashes: bool = False) -> str:
    """A name of at most MAX_BYTES bytes in UTF-8, without separators, leading or trailing dots, or reserved words.

    Letters and digits of every script are kept. Symbols and emoji become their Unicode names ("deciduous tree"), and
    anything else becomes a dash. If this changes the text, eight digits of its hash are appended, so that two texts
    which would get the same name get different ones.

    empty: the name of a text of which nothing is left. dashes: write spaces as dashes.
    """
    plain = unicodedata.normalize("NFC", text)
    name = "".join(_spelled(letter) for letter in plain)
    name = re.sub(r"-{2,}", "-", re.sub(r"\s+", " ", name)).strip(" .-")
    # A dash in the text itself could be confused with one that stands for a space.
    unchanged = bool(name) and name == text and not RESERVED.fullmatch(name) and not (dashes and "-" in text)
    if not unchanged or len(name.encode()) > MAX_BYTES:
        suffix = "-" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        name = _truncated(name or empty, MAX_BYTES - len(suffix)) + suffix
    return name.replace(" ", "-") if dashes else name


def text_for_names(task: str, words: str) -> str:
    """A caption or prompt for the names of files, or the name of the task in place of an empty one.

    A replacement keeps the empty text: its caption may be missing, which its folder's name says ("no caption").
    """
    unnamed = not words.strip() and not FACTS[task].replaces_caption
    return task if unnamed else words


def picture_folder_name(task: str, caption: str, image_id: str) -> str:
    """The name of a picture's folder, among the outputs and among the checkpoints: {image_id}_{caption}."""
    number = safe_name(image_id, empty="image")
    return f"{number}_{safe_name(text_for_names(task, caption), empty='no caption')}"


@lru_cache(maxsize=4096)
def _spelled(letter: str) -> str:
    """One character as it appears in a name: itself, its Unicode name between spaces, a space, a dash or nothing."""
    category = unicodedata.category(letter)  # L letters, N numbers, M marks, S symbols, Z spaces, C control characters
    if letter in PLAIN_MARKS or category[0] in "LNM" and letter not in ("\ufe0e", "\ufe0f"):
        return letter
    if category[0] == "S" and not letter.isascii():
        return f" {unicodedata.name(letter, 'symbol').lower()} "
    if category[0] == "Z" or letter in "\t\n\r":
        return " "
    return "" if category[0] in "CM" else "-"


def _truncated(name: str, limit: int) -> str:
    """The name cut to at most `limit` bytes of UTF-8, between two characters."""
    return name.encode("utf-8", "ignore")[:limit].decode("utf-8", "ignore").rstrip(" .-")


def counted(count: int, noun: str) -> str:
    """A number with its noun in the singular or the plural: 1 iteration, 2 iterations."""
    return f"{count} {noun if count == 1 else f'{noun}s'}"
