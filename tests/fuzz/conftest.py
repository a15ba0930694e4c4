"""The fuzz tests share the hand-made results of the tests of the records."""

from records.conftest import make_result  # noqa: F401
