"""The page."""

from __future__ import annotations

from typing import Any


def add_page(app: Any, jobs: Any, limits: Any) -> None:
    """Nothing yet."""
