"""Adapters as cards: state, numbers, self-test, and buttons that the card's script tells the page of. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ui.client.adapter import Adapter, Proof
from ui.client.metrics import Sample, quantile
from ui.parts.chart import UNKNOWN
from ui.parts.html import hue, notice, text
from ui.parts.words import count, seconds, size

STATES = ("configured", "loading", "serving", "broken", "draining")
NONE = "There are no adapters. The form below adds one."
SCRIPT = """
let focused = null;
element.addEventListener("click", event => {
  const button = event.target.closest("button[data-do]");
  if (!button) return;
  const {do: act, name} = button.dataset;
  trigger(act === "update" ? "edit" : "click", {act, name});
});
element.addEventListener("focusin", event => { focused = event.target.id; });
element.addEventListener("focusout", event => { if (event.relatedTarget) focused = null; });
watch("value", () => {
  if (!focused || document.activeElement !== document.body) return;
  document.getElementById(focused)?.focus({preventScroll: true});
});
"""
"""Cards are drawn anew when something changes; whoever was on a button is on it afterwards."""


def cards(adapters: Sequence[Adapter], virtual: Sequence[Adapter], seen: Sample, removing: str) -> str:
    """All of them. `removing`: the model whose removal waits for a second word ("": none)."""
    if not adapters:
        return notice(NONE, error=False)
    own = "".join(_card(one, seen, _buttons(one, removing)) for one in adapters)
    mixed = "".join(_card(one, seen, "", weights=False) for one in virtual)
    more = f'<h2 class="ls-cards-of">Virtual models</h2><div class="ls-cards">{mixed}</div>' if mixed else ""
    return f'<div class="ls-cards">{own}</div>{more}'


def _card(one: Adapter, seen: Sample, buttons: str, weights: bool = True) -> str:
    """`weights`: whether it has some of its own, which are somewhere and have a size; a virtual model has none."""
    label = str(one.keys.get("label") or "")
    named = text(one.name)
    state = one.state if one.state in STATES else ""
    return (
        f'<article class="ls-card" style="--hue:{hue(one.model)}" aria-label="{named}">'
        f'<header><h2 title="{named}">{named}</h2>'
        f'<span class="ls-state ls-state-{state}">{text(one.state)}</span></header>'
        + (f'<p class="ls-card-label" title="{text(label)}">{text(label)}</p>' if label else "")
        + (f'<p class="{_kind(one)}">{text(one.reason)}</p>' if one.reason else "")
        + _numbers(one, seen, weights)
        + (proof(one.proof) if one.proof else "")
        + buttons
        + "</article>"
    )


def _kind(one: Adapter) -> str:
    failed = one.state == "broken" or (one.proof and one.proof.problem)
    return "ls-error" if failed else "ls-card-note"


def _numbers(one: Adapter, seen: Sample, weights: bool) -> str:
    """What of it is counted by model: of weighted versions, what all of them did together."""
    first = quantile(seen.first_byte.get(one.model, {}), 0.5)
    own = (
        ("Where", _where(one)),
        ("Rank", UNKNOWN if one.rank is None else str(one.rank)),
        ("Size", UNKNOWN if one.size_bytes is None else size(one.size_bytes)),
    )
    told = (
        ("Version", one.version or UNKNOWN),
        *(own if weights else ()),
        ("Under way", UNKNOWN if one.under_way is None else count(one.under_way)),
        ("Requests", count(seen.requests.get(one.model, 0.0))),
        ("Errors", count(seen.failed(one.model))),
        ("First byte", UNKNOWN if first is None else seconds(first)),
    )
    cells = "".join(f"<div><dt>{name}</dt><dd>{text(value)}</dd></div>" for name, value in told)
    return f"<dl>{cells}</dl>"


def _where(one: Adapter) -> str:
    if one.slot is not None:
        return f"slot {one.slot}"
    return "host memory" if one.host else "disk" if one.version else UNKNOWN


def proof(one: Proof) -> str:
    """A self-test in one sentence: passed or not, and by which numbers."""
    word = "failed" if one.problem else "passed"
    return f'<p class="ls-proof"><b>Self-test {word}</b>: {text(numbers(one))}</p>'


def numbers(one: Proof) -> str:
    """What a self-test measured, in nats."""
    words = {
        "differs": "its answers are {} nats from the base's",
        "mixed": "they move by {} in a mixed batch",
        "cached": "by {} with the prefix cache",
        "base_mixed": "the base's move by {} beside it",
        "reference": "they are {} from PEFT's",
    }
    return ", ".join(told.format(f"{one.nats[name]:.2g}") for name, told in words.items() if name in one.nats)


def _buttons(one: Adapter, removing: str) -> str:
    if one.model == removing:
        ask = f"Remove {one.model}? Its last answer ends, then it is unloaded."
        return f'<p class="ls-ask">{text(ask)}</p>' + _row(
            one, (("remove", "Remove"), ("keep", "Keep")), "ls-danger"
        )
    test = (("test", "Self-test"),) if one.version else ()
    return _row(one, (*test, ("update", "Update"), ("ask", "Remove")))


def _row(one: Adapter, acts: Sequence[tuple[str, str]], first: str = "") -> str:
    drawn = "".join(
        f'<button type="button" class="{first if not place else ""}" id="ls-{act}-{text(one.name)}" '
        f'data-do="{act}" data-name="{text(one.model)}" aria-label="{words} {text(one.name)}">{words}</button>'
        for place, (act, words) in enumerate(acts)
    )
    return f"<footer>{drawn}</footer>"
