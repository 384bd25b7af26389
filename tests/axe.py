"""What axe-core finds wrong with a page for people who use a keyboard, a screen reader or a pale screen."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from playwright.sync_api import Page

RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
RUN = """async tags => (await axe.run(document, {
  runOnly: tags, resultTypes: ["violations"], preload: false,
})).violations"""


def violations(page: Page) -> list[str]:
    """One line for each thing that is wrong with what the page shows now: rule, element, what to do."""
    page.evaluate(_axe())  # Playwright's own evaluation: the page's security policy has no say in it
    found: list[dict[str, Any]] = page.evaluate(RUN, list(RULES))
    return [_line(rule, node) for rule in found for node in rule["nodes"]]


@cache
def _axe() -> str:
    return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


def _line(rule: dict[str, Any], node: dict[str, Any]) -> str:
    where = " ".join(str(step) for step in node["target"])
    told = " ".join(str(node.get("failureSummary", "")).split())
    return f"{rule['id']}: {where}: {told} ({node['html'][:200]})"
