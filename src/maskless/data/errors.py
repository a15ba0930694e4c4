"""The exceptions and the warning that callers have to know.

They are separate from the types, so reading options needs no torch.
"""

MAX_REASON, MAX_SHOWN = 400, 80
"""Letters of another library's message, and of a value from a file or a server, that are repeated at most."""


class MasklessError(ValueError):
    """Invalid input. The message is one line that says what was expected and what was given."""


class EditCancelled(Exception):
    """A callback of the caller stopped drawing between two denoising steps. A run can be continued after it."""


class MasklessWarning(UserWarning):
    """Something that the user should know about an edit that continues. The message is one line, which the command line
    prints on stderr."""


def require(condition: bool, message: str) -> None:
    """Raise a MasklessError with this message unless the condition is true."""
    if not condition:
        raise MasklessError(message)


def one_line(text: str) -> str:
    """A text of any origin as one line that is safe to show: control and escape sequences become spaces."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def shown(value: object) -> str:
    """A value of any origin as a short line that is safe to show."""
    text = one_line(value if isinstance(value, str) else repr(value))
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def first_line(error: BaseException) -> str:
    """The reason that an exception of a library gives, in one line; the name of its type if it gives none.

    It is the first line of the message, with the next one if the first only introduces it ("… detected:").
    """
    lines = [line for line in map(one_line, str(error).splitlines()) if line]
    if not lines:
        return type(error).__name__
    introduces = lines[0].endswith((":", ";", ",")) and len(lines) > 1
    reason = f"{lines[0]} {lines[1]}" if introduces else lines[0]
    return reason if len(reason) <= MAX_REASON else reason[: MAX_REASON - 1] + "…"
