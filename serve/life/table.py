"""Every adapter's entry: changed by the manager and by drains that end, read by whoever asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from adapters import split
from serve.life.board import Board
from serve.life.entry import Entry


class Table:
    """Each change is one for the routers, too. What is read is a copy."""

    def __init__(self, board: Board, entries: Iterable[Entry]) -> None:
        self._board = board
        self._entries = {entry.name: entry for entry in entries}

    def get(self, name: str) -> Entry | None:
        """Of one engine name."""
        return self._entries.get(name)

    def all(self) -> tuple[Entry, ...]:
        """In the order in which they came."""
        return tuple(self._entries.values())

    def of(self, adapter: str) -> list[Entry]:
        """Its one entry, or those of its versions."""
        return [entry for entry in self.all() if split(entry.name)[0] == adapter]

    def beside(self, name: str) -> list[str]:
        """The other ones that may have traffic."""
        return [entry.name for entry in self.all() if entry.name != name and entry.routable]

    def set(self, *entries: Entry) -> None:
        """New ones, or other states of known ones."""
        with self._board.changing():
            self._entries |= {entry.name: entry for entry in entries}

    def start_over(self, adapters: Iterable[str]) -> None:
        """As an engine that has just started has them; what was draining is gone with the one before."""
        with self._board.changing():
            kept = [entry for entry in self.all() if split(entry.name)[0] in adapters]
            self._entries = {entry.name: Entry(entry.name, entry.adapter) for entry in kept}

    def drop(self, entries: Sequence[Entry]) -> list[str]:
        """Those that are still as they were: others of the same name may have come. Returns their names."""
        with self._board.changing():
            gone = [entry.name for entry in entries if self._entries.get(entry.name) is entry]
            for name in gone:
                del self._entries[name]
        return gone
