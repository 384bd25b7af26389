"""Dashboard: requests, shares, latency and errors, live."""

from __future__ import annotations

from ui.shared import Page


def create(page: Page) -> None:
    """Not built yet."""
