"""The one exception a caller has to know. It lives apart from the types so that reading options needs no torch."""


class MasklessError(ValueError):
    """Bad input. The message is one line that says what was expected and what came."""


def require(good: bool, message: str) -> None:
    """Raise a MasklessError with this message unless `good`."""
    if not good:
        raise MasklessError(message)
