"""Tags narrow the candidates: which adapters carry what a request asks for (issue 3). Pure."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from adapters import Adapter
from router.errors import BadRequest

HEADER = b"x-lora-select-tags"

Wanted = Mapping[str, str]


class Tags:
    """What the stack's adapters are tagged with."""

    def __init__(self, adapters: Mapping[str, Adapter]) -> None:
        self._adapters = adapters
        self.known: dict[str, list[str]] = {}
        for adapter in adapters.values():
            for tag, values in adapter.tags.items():
                self.known[tag] = sorted({*self.known.get(tag, []), *values})

    def wanted(self, metadata: Any, header: bytes | None) -> dict[str, str]:
        """What a request asks for; its header wins over its `metadata`.

        In `metadata`, which is the client's own, only the stack's tags are read. Raises BadRequest for a value
        that no adapter carries, and for a tag in the header that no adapter has.
        """
        wanted = dict[str, str]()
        if isinstance(metadata, dict):
            wanted = {
                tag: self._checked(tag, metadata[tag], f"metadata.{tag}") for tag in self.known if tag in metadata
            }
        if header:
            wanted |= [self._pair(pair) for pair in header.decode("latin-1").split(",") if pair.strip()]
        return wanted

    def narrow(self, names: Iterable[str], wanted: Wanted) -> tuple[str, ...]:
        """Those that carry every tag that is asked for; an adapter without the tag is left out."""
        for tag, value in wanted.items():
            names = [name for name in names if value in self._adapters[name].tags.get(tag, ())]
        return tuple(names)

    def _pair(self, pair: str) -> tuple[str, str]:
        tag, _, value = pair.partition("=")
        tag, value = tag.strip(), value.strip()
        if tag not in self.known:
            there = ", ".join(self.known) or "none: no adapter of this stack is tagged"
            raise BadRequest(f'unknown tag "{tag}"; there are {there}', param=HEADER.decode(), code="unknown_tag")
        return tag, self._checked(tag, value, HEADER.decode())

    def _checked(self, tag: str, value: object, param: str) -> str:
        if value not in self.known[tag]:
            there = ", ".join(self.known[tag])
            shown = value if isinstance(value, str) else reprlib.repr(value)  # it may be nested without end
            raise BadRequest(
                f'unknown value "{shown}" of the tag "{tag}"; there are {there}', param=param, code="unknown_tag"
            )
        return str(value)
