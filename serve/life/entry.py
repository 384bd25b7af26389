"""An adapter as it is now: its state, its reason, and the weights that answer under its name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from adapters import Adapter
from serve.life.prove import Proof


class State(StrEnum):
    """Of an adapter, as `python -m serve list` and `GET /admin/adapters` say it."""

    CONFIGURED = "configured"
    LOADING = "loading"
    SERVING = "serving"
    BROKEN = "broken"
    DRAINING = "draining"


@dataclass(frozen=True)
class Entry:
    """One adapter, or one of its weighted versions. `adapter` is what adapters.yaml or a request says of it;
    `version`, the first digits of its files' SHA-256, is what answers ("": nothing does); `unrouted` is what
    of it LAG leaves out; `size_bytes` that of its files."""

    name: str
    adapter: Adapter
    state: State = State.CONFIGURED
    reason: str = ""
    version: str = ""
    rank: int | None = None
    proof: Proof | None = None
    unrouted: str = ""
    size_bytes: int | None = None

    @property
    def routable(self) -> bool:
        """May have traffic: an adapter that is being updated answers with the version before."""
        return bool(self.version) and self.state is not State.DRAINING
