"""Why: what the router would decide about a text, with all that it went by."""

from __future__ import annotations

from ui.shared import Page


def create(page: Page) -> None:
    """Not built yet."""
