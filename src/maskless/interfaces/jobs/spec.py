"""What a client asks for: an edit as plain values, read from a form, from JSON or from the arguments of a tool."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError, require
from maskless.data.instructions import read_texts
from maskless.data.options import OptionValue
from maskless.data.tasks import FACTS

if TYPE_CHECKING:
    from maskless.data.picture import SourceImage
    from maskless.data.types import EditRequest

MAX_LETTERS = 2000
"""The longest text that a client may send."""
SERVED_MAXIMA: dict[str, float] = {
    "budget": 64, "iterations": 200, "epochs": 20, "updates": 2000, "anchors": 64, "views": 16, "steps": 200,
    "batch_size": 16,
}  # fmt: skip
"""Options whose maximum is lower for clients of a server than for its owner, because they decide how long an edit takes
and how much memory it needs."""
TEXTS = ("instruction", "task", "caption", "prompt", "extend", "negative_prompt")
OPTIONS = {option.name: option for option in fields(EditConfig) if option.name != "seed"}


@dataclass(frozen=True, kw_only=True)
class EditSpec:
    """An edit that a client requests, without its picture.

    box: x0, y0, x1, y1 in pixels, half-open; None searches for the region, unless there is a mask. extend: as the
    option --extend of `maskless edit`. seed: None takes the server's. options: fields of EditConfig by name.
    """

    task: str = "replace"
    caption: str = ""
    prompt: str = ""
    box: tuple[int, int, int, int] | None = None
    extend: str | None = None
    seed: int | None = None
    options: Mapping[str, OptionValue] = field(default_factory=dict)

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> EditSpec:
        """The edit that these values describe: `instruction`, the fields above and any field of EditConfig.

        Values may be text, as forms send them. Fields that are None or empty count as left out.

        Raises:
            MasklessError: an unknown name, or a value of the wrong type or out of range; the message names the field.
        """
        given = {name: value for name, value in given.items() if value is not None and value != ""}
        known = {"instruction", "task", "caption", "prompt", "box", "extend", "seed", *OPTIONS}
        for name in given:
            require(name in known, f"unknown field {str(name)[:40]!r}; the fields are {', '.join(sorted(known))}")
        for name in TEXTS:
            _check_text(name, given.get(name, ""))
        options = {name: _value(name, given[name]) for name in OPTIONS if name in given}
        for name, most in SERVED_MAXIMA.items():
            value = options.get(name)
            if isinstance(value, (int, float)) and value > most:
                raise MasklessError(f"{name} must be at most {most:g} on this server, got {value:g}")
        seed = _value("seed", given["seed"]) if "seed" in given else None
        EditConfig(**{**options, **({} if seed is None else {"seed": seed})})  # type: ignore[arg-type]
        texts = read_texts(
            given.get("instruction"),
            task=given.get("task"),
            caption=given.get("caption", ""),
            prompt=given.get("prompt"),
            extend=given.get("extend"),
        )
        require(texts.task in FACTS, f"task must be one of {', '.join(FACTS)}, got {texts.task!r}")
        return cls(
            task=texts.task,
            caption=texts.caption,
            prompt=texts.prompt,
            box=_box(given["box"]) if "box" in given else None,
            extend=texts.extend or None,
            seed=seed if isinstance(seed, int) else None,
            options=options,
        )

    def request(self, image: SourceImage, mask: Path | None = None) -> EditRequest:
        """The checked request. image: the loaded picture. mask: a file that `checked_upload` has checked.

        Raises:
            MasklessError: what was given does not make an edit; the message names no file of the server.
        """
        from maskless.engine.requests import make_request

        return make_request(
            image,
            caption=self.caption,
            prompt=self.prompt,
            task=self.task,
            mask=None if mask is None else loaded(mask),
            box=self.box,
            extend=self.extend,
            seed=self.seed,
        )

    def command(self, *, mask: bool = False) -> str:
        """The shell command that makes the same edit of a file named image.png, with a mask named mask.png."""
        words = ["maskless", "edit", "image.png", "--task", self.task]
        named: dict[str, Any] = {"caption": self.caption, "prompt": self.prompt, "extend": self.extend}
        named |= {"box": None if self.box is None else ",".join(map(str, self.box)), "seed": self.seed}
        named |= {"mask": "mask.png" if mask else None, **self.options}
        for name, value in named.items():
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            elif value not in (None, ""):
                words += [f"--{flag}", str(value)]
        return shlex.join(words)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `EditSpec.from_dict` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EditSpec:
        """The inverse of `to_dict`."""
        box = values.get("box")
        return cls(**{**values, "box": None if box is None else tuple(box)})


def loaded(file: Path) -> SourceImage:
    """A client's picture; it carries the name of its file, but not the folder of the server that it is in.

    Raises:
        MasklessError: the file is damaged; the message does not name the folder either.
    """
    from maskless.data.picture import load_image

    try:
        return replace(load_image(file), path=Path(file.name))
    except MasklessError as error:
        raise MasklessError(str(error).replace(str(file), f"the {file.stem}")) from None


def _check_text(name: str, value: object) -> None:
    require(isinstance(value, str), f"{name} must be a string, got {type(value).__name__}")
    assert isinstance(value, str)
    require(len(value) <= MAX_LETTERS, f"{name} must have at most {MAX_LETTERS} letters, got {len(value)}")
    require(value.isprintable() or not any(_unprintable(letter) for letter in value), f"{name} must be plain text")


def _unprintable(letter: str) -> bool:
    """Whether a character is a control character other than a space, or half of a surrogate pair."""
    return (ord(letter) < 32 and letter not in "\t\n\r") or 0xD800 <= ord(letter) <= 0xDFFF


def _value(name: str, value: Any) -> OptionValue:
    """The value of an option; text becomes the type of the option."""
    kind = "int" if name == "seed" else str(OPTIONS[name].type).partition(" ")[0]
    if not isinstance(value, str) or kind == "str":
        return value
    word = value.strip()
    try:
        if kind == "bool":
            return {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}[word.lower()]
        return int(word) if kind == "int" else float(word)
    except (KeyError, ValueError):
        expected = {"bool": "true or false", "int": "a whole number"}.get(kind, "a number")
        raise MasklessError(f"{name} must be {expected}, got {value[:40]!r}") from None


def _box(value: Any) -> tuple[int, int, int, int]:
    parts = value.strip("[]() ").split(",") if isinstance(value, str) else value
    try:
        corners = tuple(int(part) for part in parts)
    except (TypeError, ValueError, OverflowError):
        corners = ()
    require(len(corners) == 4, f"box must be x0, y0, x1, y1 in whole pixels, got {str(value)[:60]!r}")
    require(all(abs(corner) < 10**6 for corner in corners), "box must lie inside the picture")
    return corners[0], corners[1], corners[2], corners[3]
