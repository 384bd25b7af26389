"""Tokens coloured by the adapter that gave each, shares as bars and by layer, as HTML. Pure; everything that comes
from outside is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ui.client.attribution import Explained, Shares, Token
from ui.parts.bars import bars
from ui.parts.html import hue, percent, text

MOST_PROMPT = 600
"""Tokens of a prompt that are shown, its last ones."""

MOST_ADAPTERS = 8
"""Rows of the picture of all layers."""

MARKED = 8
"""Layers have their number written where there are few, or else every so many."""

PICK = "Pick a token to see which adapter each layer used for it. The arrow keys move, Enter picks."
NO_LAYERS = "This token's layers were not told: of a long answer, only the first tokens' are."
UNKNOWN = "not known: it came from the prefix cache, or nothing adapts it"
INVISIBLE = {"\n": "line break", "\t": "tab", " ": "space", "": "part of a character"}


def coloured(explained: Explained) -> str:
    """The answer, each token a button; the prompt, folded; the shares of the adapters."""
    tokens = "".join(_button(token, at) for at, token in enumerate(explained.tokens))
    prompt = "".join(_mark(token) for token in explained.prompt[-MOST_PROMPT:])
    cut = len(explained.prompt) - MOST_PROMPT
    more = f'<p class="ls-note">The last {MOST_PROMPT} of {len(explained.prompt)} tokens.</p>' if cut > 0 else ""
    return (
        f'<div class="ls-tokens" role="group" aria-label="Tokens of the answer">{tokens}</div>'
        f'<details class="ls-prompt"><summary>The prompt, {len(explained.prompt)} tokens</summary>{more}'
        f'<p class="ls-tokens">{prompt}</p></details>'
    )


def legend(explained: Explained) -> str:
    """How much of prompt and answer each adapter took, and of the answer in every layer."""
    shares = bars(explained.adapters, label="Share of each adapter in prompt and answer")
    return (
        f'<section class="ls-shares"><h2>Adapters, over prompt and answer</h2>{shares}</section>'
        f"{_layers(explained.layers) if explained.layers else ''}"
    )


def by_layer(explained: Explained, at: int) -> str:
    """Of one token of the answer, which adapters each layer used; how to pick one where there is no such token."""
    if not 0 <= at < len(explained.tokens):
        return f'<p class="ls-note">{text(PICK)}</p>'
    token, names = explained.tokens[at], [name for name, _ in explained.layers]
    rows = "".join(_stack(number(name), layer) for name, layer in zip(names, token.layers, strict=False))
    layers = f'<ol class="ls-stacks">{rows}</ol>' if rows else f'<p class="ls-note">{text(NO_LAYERS)}</p>'
    return (
        f'<section class="ls-picked"><h2>Token {at + 1} of {len(explained.tokens)}: '
        f'<q class="ls-quote">{text(shown(token.text))}</q></h2>{_who(token)}{layers}</section>'
    )


def shown(raw: str) -> str:
    """A token's text; a word for one that nobody would see."""
    return raw if raw.strip() else " ".join(INVISIBLE.get(one, "space") for one in raw) or INVISIBLE[""]


def number(layer: str) -> str:
    """The 3 of "model.layers.3"; the name itself where it has none."""
    last = layer.rpartition(".")[2]
    return last if last.isdecimal() else layer


def _button(token: Token, at: int) -> str:
    """Only the first can be reached with Tab: arrow keys go on from there."""
    said, tab = f"{shown(token.text)}: {_told(token)}", -1 if at else 0
    return (
        f'<span class="ls-token{_known(token)}" role="button" tabindex="{tab}" aria-pressed="false" '
        f'data-at="{at}" {_colour(token)} aria-label="{text(said)}" title="{text(_told(token))}">'
        f"{_visible(token.text)}</span>"
    )


def _mark(token: Token) -> str:
    title = text(_told(token))
    return f'<span class="ls-token{_known(token)}" {_colour(token)} title="{title}">{_visible(token.text)}</span>'


def _visible(raw: str) -> str:
    """With a sign before each line break, which alone would be nothing to click on."""
    return text(raw or "∅").replace("\n", '<span class="ls-sign" aria-hidden="true">↵</span>\n')


def _known(token: Token) -> str:
    return "" if token.adapter else " ls-unknown"


def _colour(token: Token) -> str:
    return f'style="--hue:{hue(token.adapter)};--share:{_share(token.share):.3f}"' if token.adapter else ""


def _told(token: Token) -> str:
    return f"{token.adapter}, {percent(_share(token.share))}" if token.adapter else UNKNOWN


def _who(token: Token) -> str:
    if not token.adapter:
        return f'<p class="ls-note">Its adapter is {text(UNKNOWN)}.</p>'
    return (
        f'<p class="ls-line"><span class="ls-pill" style="--hue:{hue(token.adapter)}">{text(token.adapter)}</span>'
        f'<span class="ls-score">{percent(_share(token.share))}</span><span>of all projections</span></p>'
    )


def _stack(name: str, layer: Shares) -> str:
    """One layer's adapters side by side."""
    ranked = _ranked(layer)
    parts = "".join(
        f'<span class="ls-part" style="--hue:{hue(adapter)};--share:{_share(share) * 100:.1f}%"></span>'
        for adapter, share in ranked
    )
    words = ", ".join(f"{adapter} {percent(_share(share))}" for adapter, share in ranked) or "no adapter"
    return (
        f'<li class="ls-stack"><span class="ls-layer">{text(name)}</span>'
        f'<span class="ls-parts" aria-hidden="true">{parts}</span>'
        f'<span class="ls-words" title="{text(words)}">{text(words)}</span></li>'
    )


def _layers(layers: Sequence[tuple[str, Shares]]) -> str:
    """A row for each adapter, a column for each layer, the darker the more of the answer."""
    total: dict[str, float] = {}
    for _, shares in layers:
        for adapter, share in shares.items():
            total[adapter] = total.get(adapter, 0.0) + share
    adapters = [adapter for adapter, _ in _ranked(total)]
    numbers = [number(name) for name, _ in layers]
    every = 1 if len(numbers) <= 2 * MARKED else MARKED
    head = "".join(
        f'<th scope="col" title="layer {text(one)}">{_only(text(one), at % every == 0)}</th>'
        for at, one in enumerate(numbers)
    )
    rows = "".join(
        _row(adapter, numbers, [shares.get(adapter, 0.0) for _, shares in layers])
        for adapter in adapters[:MOST_ADAPTERS]
    )
    rest = len(adapters) - MOST_ADAPTERS
    more = f'<p class="ls-more">and {rest} more</p>' if rest > 0 else ""
    return (
        '<section class="ls-shares"><h2>By layer, over the answer</h2><table class="ls-heat"><thead><tr>'
        f'<th scope="row">Layer</th>{head}</tr></thead><tbody>{rows}</tbody></table>{more}</section>'
    )


def _row(adapter: str, numbers: Iterable[str], shares: Iterable[float]) -> str:
    cells = "".join(
        f'<td style="--share:{_share(share):.3f}" title="layer {text(layer)}: {percent(_share(share))}">'
        f'<span class="ls-hidden">{percent(_share(share))}</span></td>'
        for layer, share in zip(numbers, shares, strict=True)
    )
    name = f'<th scope="row" title="{text(adapter)}">{text(adapter)}</th>'
    return f'<tr style="--hue:{hue(adapter)}">{name}{cells}</tr>'


def _only(seen: str, visible: bool) -> str:
    return seen if visible else f'<span class="ls-hidden">{seen}</span>'


def _ranked(shares: Shares) -> list[tuple[str, float]]:
    return sorted(shares.items(), key=lambda pair: -pair[1])


def _share(raw: float) -> float:
    return min(max(raw, 0.0), 1.0)
