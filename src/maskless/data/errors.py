"""The only exception and the only warning that callers have to know.

They are separate from the types, so reading options needs no torch.
"""


class MasklessError(ValueError):
    """Invalid input. The message is one line that says what was expected and what was given."""


class MasklessWarning(UserWarning):
    """Something that the user should know about an edit that continues. The message is one line, which the command line
    prints on stderr."""


def require(condition: bool, message: str) -> None:
    """Raise a MasklessError with this message unless the condition is true."""
    if not condition:
        raise MasklessError(message)


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or the name of its type if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
