"""LAG: which adapter gave each token of an answer."""

from __future__ import annotations

from ui.shared import Page


def create(page: Page) -> None:
    """Not built yet."""
