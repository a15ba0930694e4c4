"""File names from captions and prompts: readable, safe on every system, and different for different texts."""

from __future__ import annotations

import hashlib
import re
import unicodedata

MAX_BYTES = 64
PLAIN_MARKS = " -_,+()'."
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def safe_name(text: str, *, empty: str = "unnamed", dashes: bool = False) -> str:
    """A name of at most MAX_BYTES bytes in UTF-8, without separators, leading or trailing dots, or reserved words.

    Letters and digits of every script stay; symbols and emoji become their Unicode names ("deciduous tree"); anything
    else becomes a dash. Where that changes the text, eight digits of its hash are appended, so that two texts whose
    names would be the same get different ones.

    empty: what a text with nothing left is called. dashes: write spaces as dashes, as file names of prompts are.
    """
    plain = unicodedata.normalize("NFC", text)
    name = "".join(_spelled(letter) for letter in plain)
    name = re.sub(r"-{2,}", "-", re.sub(r"\s+", " ", name)).strip(" .-")
    faithful = bool(name) and name == text and not RESERVED.fullmatch(name) and not (dashes and "-" in text)
    if not faithful or len(name.encode()) > MAX_BYTES:
        mark = "-" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        name = _cut(name or empty, MAX_BYTES - len(mark)) + mark
    return name.replace(" ", "-") if dashes else name


def _spelled(letter: str) -> str:
    category = unicodedata.category(letter)
    if letter in PLAIN_MARKS or category[0] in "LNM" and letter not in ("\ufe0e", "\ufe0f"):
        return letter
    if category[0] == "S" and not letter.isascii():
        return f" {unicodedata.name(letter, 'symbol').lower()} "
    if category[0] == "Z" or letter in "\t\n\r":
        return " "
    return "" if category[0] in "CM" else "-"


def _cut(name: str, limit: int) -> str:
    """At most `limit` bytes, never through a letter."""
    return name.encode("utf-8", "ignore")[:limit].decode("utf-8", "ignore").rstrip(" .-")
