"""Options as fields of dataclasses, with the metadata from which command-line flags and checks are derived."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, field, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from maskless.data.errors import MasklessError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


OptionValue = str | int | float | bool | None
"""The possible values of an option."""


def option(
    default: Any,
    *,
    group: str,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] | None = None,
    random: bool = False,
) -> Any:
    """A dataclass field with the metadata of an option: its help text, its group, and an inclusive range or choices.

    random: the command line takes the word random in place of a number, and chooses one.
    """
    limits = {"minimum": minimum, "maximum": maximum, "choices": choices}
    return field(default=default, metadata={"group": group, "help": help, "random": random, **limits})


def check_all(options: DataclassInstance) -> None:
    """Check every field of a frozen dataclass, and convert integers to floats where a float is expected.

    Raises:
        MasklessError: a value of the wrong type, out of range or not among the choices.
    """
    for entry in fields(options):
        object.__setattr__(options, entry.name, checked_value(entry, getattr(options, entry.name)))


def checked_value(option: Field[Any], value: Any) -> Any:
    """A value for one option, in the type of its field.

    Raises:
        MasklessError: a value of the wrong type, out of range or not among the choices.
    """
    kind = option.type.__name__ if isinstance(option.type, type) else str(option.type)
    return _checked(option.name, value, kind, option.metadata)


def _checked(name: str, value: Any, kind: str, metadata: Mapping[str, Any]) -> Any:
    """The value in the type of its field; raises a MasklessError with the field's name and the expected values.

    kind: the type of the field as source text, such as "float | None".
    """
    if value is None and "None" in kind:
        return None
    base = kind.split(" ")[0]
    if base == "bool":
        valid = isinstance(value, bool)
    elif base == "int":
        valid = isinstance(value, int) and not isinstance(value, bool)
    elif base == "float":
        valid = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        value = float(value) if valid else value
    else:
        valid = isinstance(value, str)
    if not valid:
        raise MasklessError(f"{name} must be {_in_words(base)}, got {value!r}")
    if metadata.get("choices") and value not in metadata["choices"]:
        raise MasklessError(f"{name} must be one of {', '.join(metadata['choices'])}, got {value!r}")
    low, high = metadata.get("minimum"), metadata.get("maximum")
    if (low is not None and value < low) or (high is not None and value > high):
        lowest, highest, given = map(plain_number, (low, high, value))
        raise MasklessError(f"{name} must be from {lowest} to {highest}, got {given}")
    return value


def require_unicode(name: str, text: str) -> None:
    """Check that a text can be written to files and given to models.

    Raises:
        MasklessError: it holds bytes of an argument that are not UTF-8, which Python keeps as lone surrogates.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MasklessError(f"{name} must be text in UTF-8, got {text!r}") from error


def plain_number(value: float) -> str:
    """A finite number in decimal digits, without an exponent: 1000000, 0.00000001."""
    return str(value) if isinstance(value, int) else f"{Decimal(repr(value)).normalize():f}"


def _in_words(base: str) -> str:
    """A Python type for an error message."""
    return {"int": "a whole number", "float": "a finite number", "bool": "true or false"}.get(base, "a string")
