"""Text as HTML, and the small things that every tab shows."""

from __future__ import annotations

import hashlib
from html import escape


def notice(sentence: str, *, error: bool) -> str:
    """A sentence from the page itself, told apart from what a model said."""
    kind, role = ("ls-error", "alert") if error else ("ls-note", "note")
    return f'<p class="{kind}" role="{role}">{text(sentence)}</p>'


def percent(share: float) -> str:
    """0.934 as "93 %"; what is neither none nor all is never shown as 0 or 100."""
    if 0 < share < 0.005:
        return "<1 %"
    if 0.995 <= share < 1:
        return ">99 %"
    return f"{share:.0%}".replace("%", " %")


def hue(name: str) -> int:
    """The same colour for the same name, everywhere."""
    return int.from_bytes(hashlib.blake2b(name.encode()).digest()) % 360


def text(raw: str) -> str:
    """Escaped, for elements and attributes of Gradio's HTML component."""
    # Gradio's HTML component also reads {{...}} and ${...} as templates; as entities they stay text.
    return escape(raw).replace("{", "&#123;").replace("$", "&#36;").replace("`", "&#96;")
