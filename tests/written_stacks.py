"""Stacks as people write them, in any style: each line with the adapter that it belongs to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from adapters import Adapter

NAMES = ("legal", "7", "true", "a.b", "medical")
WORDS = (
    "law",
    "a, b",
    "a: b",
    "x #y",
    "# z",
    "it's",
    'a "q"',
    "- d",
    "{e}",
    "yes",
    "1.5",
    "é 😀",
    "two\nlines",
    " s ",
)
OPENING = "{"
"""The owner of the line where an adapter in braces would be added."""

Lines = Iterator[tuple[str, str]]

words = st.sampled_from(WORDS)
names = st.sampled_from(NAMES)
adapters = st.builds(
    Adapter,
    path=st.sampled_from(("a/b", "./x y", "~/é", "C:\\x")),
    label=st.none() | words.filter(lambda word: re.search(r"\w", word)),
    tags=st.dictionaries(names, st.lists(names, min_size=1, max_size=2), max_size=2),
    system_prompt=st.none() | words,
    sampling=st.fixed_dictionaries(
        {}, optional={"temperature": st.sampled_from((0, 1e-7, 0.2)), "stop": st.lists(words, max_size=2)}
    ),
    disclaimer=st.none() | words.filter(lambda word: re.search(r"\w", word)),
    allow_pickle=st.booleans(),
)


@dataclass(frozen=True)
class Written:
    """A stack's file; "" owns what is no adapter's. `ended`: the last line has a newline too."""

    lines: tuple[tuple[str, str], ...]
    newline: str
    ended: bool

    def text(self) -> str:
        """As it is in the file."""
        return self.newline.join(line for _, line in self.lines) + self.newline * self.ended

    def split(self, name: str) -> tuple[list[str], list[str], list[str]]:
        """The lines before an adapter's own, those, and the ones behind; its place where it has none yet."""
        owners = [owner for owner, _ in self.lines]
        texts = [line for _, line in self.lines]
        owner = name if name in owners else OPENING
        if owner in owners:
            first, last = owners.index(owner), len(owners) - owners[::-1].index(owner)
        else:
            first = last = max(index for index, owner in enumerate(owners) if owner) + 1
        return texts[:first], texts[first:last], texts[last:]


@st.composite
def files(draw: st.DrawFn) -> Written:
    """One to three adapters, all in braces or each in its own style."""
    braces, pad = draw(st.booleans()), " " * draw(st.sampled_from((2, 3, 4)))
    lines = [("", "base: {model: a/b,   name: base} # b"), ("", "")]
    lines.append((OPENING, "adapters: {") if braces else ("", "adapters:   # all"))
    for name in draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        lines += [("", line) for line in draw(st.sampled_from(((), ("",), ("# far",), (f"{pad}# far", ""))))]
        data = draw(adapters).model_dump(mode="json", exclude_defaults=True)
        lines += [(name, pad + line) for line in entry(draw, name, data, pad, braces)]
    end = draw(st.sampled_from(((), ("", "# end"), ("ui:", "  # x"))))
    lines += [("", line) for line in ("}",) * braces + end]
    return Written(tuple(lines), draw(st.sampled_from(("\n", "\r\n"))), draw(st.booleans()))


def entry(draw: st.DrawFn, name: str, data: dict[str, Any], pad: str, braces: bool) -> Iterator[str]:
    """An adapter's lines, its comments among them."""
    yield from ("# above",) * draw(st.sampled_from((0, 0, 2)))
    style = draw(st.sampled_from(("line", "braces") if braces else ("line", "braces", "block", "block")))
    comma = "," * braces
    if style == "line":
        yield f"{json.dumps(name)}: {quoted(data)}{comma}  # c {{"
    elif style == "braces":
        yield f"{json.dumps(name)}: {{ # c {{"
        yield from (f"{pad}{key}: {quoted(value)}, # c," for key, value in data.items())
        yield f"}}{comma} # c"
    else:
        yield f"{json.dumps(name)}:  # c"
        for key, value in data.items():
            yield from (pad + line for line in block(draw, key, value, pad))
    if not braces:
        yield from ("   # deeper",) * draw(st.sampled_from((0, 0, 2)))


def block(draw: st.DrawFn, key: str, value: Any, pad: str) -> Iterator[str]:
    """A key of an adapter in a block."""
    yield from ("# of it",) * draw(st.sampled_from((0, 0, 1)))
    if isinstance(value, dict) and draw(st.booleans()):
        yield f"{key}: # c"
        for inner, part in value.items():
            yield from (pad + line for line in block(draw, quoted(inner), part, pad))
    elif isinstance(value, list) and value and draw(st.booleans()):
        yield f"{key}: # c"
        yield from (f"- {quoted(each)} # c" for each in value)
    elif isinstance(value, str) and value.strip() == value and draw(st.booleans()):
        yield f"{key}: {draw(st.sampled_from(('|-', '>-')))} # c"
        yield from (pad + line for line in value.replace("\n", "\n\n").splitlines())
    elif draw(st.booleans()):
        yield f"{key}:"
        yield f" {quoted(value)} # c"
    else:
        yield f"{key}:   {quoted(value)}"


def quoted(value: Any) -> str:
    """JSON, which is YAML."""
    return json.dumps(value, ensure_ascii=False)
