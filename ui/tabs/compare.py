"""Compare: one prompt to every model at once, side by side."""

from __future__ import annotations

from ui.shared import Page


def create(page: Page) -> None:
    """Not built yet."""
