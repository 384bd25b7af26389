"""Adapters: their states in the engine; add, update, remove, test."""

from __future__ import annotations

from ui.shared import Page


def create(page: Page) -> None:
    """Not built yet."""
