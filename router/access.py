"""Who asks, and how much: API keys, and their budgets of requests and tokens per minute."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.errors import StorageError

from adapters import Router
from router.asgi import Request
from router.errors import Forbidden, TooManyRequests, Unauthorized

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool

    from router.life import Life

PREFIX = "ls-"
KEY_BYTES = 32
QUIET_S = 60.0
MINUTE_S = 60
REDIS_TIMEOUT_S = 0.5
"""A request waits no longer than this for its budget."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Budget:
    """So many requests, or tokens, of one key's per minute."""

    owner: str
    what: str
    amount: int

    @cached_property
    def counter(self) -> str:
        """Its name in the storage, the same for every router."""
        return f"lora-select/{self.owner}/{self.what}"

    def spent(self, until: float) -> TooManyRequests:
        """What a client is told whose minute ends at `until` (Unix seconds)."""
        message = f'the key "{self.owner}" has spent its {self.amount} {self.what} per minute'
        return TooManyRequests(message, int(until - time.time()) + 1)


@dataclass(frozen=True)
class Client:
    """Who a key belongs to, and what it may do; None is no limit."""

    name: str
    adapters: frozenset[str] | None = None
    requests: Budget | None = None
    tokens: Budget | None = None
    admin: bool = False

    def may_use(self, names: Iterable[str]) -> tuple[str, ...]:
        """Of these adapters, those that the key is good for."""
        return tuple(names if self.adapters is None else (name for name in names if name in self.adapters))


ANYONE = Client("")
"""Who asks where the stack has no keys."""


class Keys:
    """The stack's keys by their digests: the keys themselves are nowhere."""

    def __init__(self, router: Router) -> None:
        self._open = not router.keys
        self._admin = router.admin_key
        self._clients = {
            key.sha256: Client(
                name,
                None if key.adapters is None else frozenset(key.adapters),
                _budget(name, "requests", key.requests_per_minute),
                _budget(name, "tokens", key.tokens_per_minute),
            )
            for name, key in router.keys.items()
        }
        if self._admin:
            self._clients[self._admin] = Client("admin", admin=True)

    def client(self, request: Request) -> Client:
        """Who asks. Raises Unauthorized."""
        given = _given(request)
        if given and (client := self._clients.get(hashlib.sha256(given).hexdigest())):
            return client
        if self._open:
            return ANYONE
        raise Unauthorized(
            "the API key is not known here" if given else "an API key is needed: Authorization: Bearer …"
        )

    def admin(self, request: Request) -> None:
        """Raises Unauthorized or Forbidden unless the admin key is given."""
        if not self._admin:
            raise Forbidden("this needs an admin key, and the stack has none (router.admin_key)")
        given = _given(request)
        if not given:
            raise Unauthorized("the admin key is needed: Authorization: Bearer …")
        if hashlib.sha256(given).hexdigest() != self._admin:
            raise Forbidden("this needs the admin key")

    @property
    def has_admin(self) -> bool:
        """Whether the stack names an admin key."""
        return self._admin is not None


def make_key(name: str) -> str:
    """What `python -m router key NAME` prints: 256 random bits, shown once, and their SHA-256 for the stack.

    No slow hash is needed for a key that nobody chose.
    """
    key = PREFIX + secrets.token_urlsafe(KEY_BYTES)
    digest = hashlib.sha256(key.encode()).hexdigest()
    return "\n".join(
        (
            f"the key of {name}, shown only now:",
            f"  {key}",
            "in adapters.yaml, below router.keys (or its digest alone as router.admin_key):",
            f"  {name}: {{sha256: {digest}}}",
        )
    )


def _given(request: Request) -> bytes:
    """The key of a request: OpenAI's clients send it as a bearer token, Anthropic's as `x-api-key`."""
    scheme, _, token = (request.header(b"authorization") or b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else (request.header(b"x-api-key") or b"")


class Counters(MemoryStorage):
    """limits' memory without its sweep for expired keys, a task at every request: here are two keys a client."""

    STORAGE_SCHEME = ["async+counters"]  # noqa: RUF012  # as the library has it

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """The count of the window that is open, or of a new one."""
        now = time.time()
        if self.expirations.get(key, 0.0) <= now:
            self.storage[key], self.expirations[key] = 0, now + expiry
        self.storage[key] += amount
        return self.storage[key]


class Limits:
    """Budgets per minute, in this process or in a Redis that several routers share.

    A minute begins with its first request. Tokens are known only after the answer, so it is the answer that
    overdraws the budget, and the requests after it are refused until the minute is over.
    """

    def __init__(self, storage: str) -> None:
        self._pool = None if storage.startswith("memory") else _pool(storage)
        self._store: Storage = Counters() if self._pool is None else _redis(storage, self._pool)
        self._overdrawn: dict[str, float] = {}
        self._spending = set[asyncio.Task[None]]()
        self._complained = 0.0

    async def admit(self, client: Client) -> None:
        """Count one request. Raises TooManyRequests."""
        if client.tokens and (until := self._overdrawn.get(client.name, 0.0)) > time.time():
            raise client.tokens.spent(until)
        if client.requests and (until := await self._count(client.requests, 1)):
            raise client.requests.spent(until)

    def ended(self, lives: Sequence[Life]) -> None:
        """As an Observer: count what the answers took, prompts included."""
        took = Counter[Budget]()
        for life in lives:
            if life.client.tokens:
                took[life.client.tokens] += life.tokens
        if took:
            task = asyncio.get_running_loop().create_task(self._spend(took))
            self._spending.add(task)
            task.add_done_callback(self._spending.discard)

    async def close(self) -> None:
        """Close what is open towards Redis."""
        await asyncio.gather(*self._spending)
        if self._pool:
            await self._pool.disconnect()

    async def _spend(self, took: Mapping[Budget, int]) -> None:
        for budget, tokens in took.items():
            if tokens and (until := await self._count(budget, tokens)):
                self._overdrawn[budget.owner] = until

    async def _count(self, budget: Budget, amount: int) -> float:
        """When the minute ends, in Unix seconds, if this is more than it had left; 0 otherwise."""
        try:
            if await self._store.incr(budget.counter, MINUTE_S, amount) <= budget.amount:
                return 0.0
            return await self._store.get_expiry(budget.counter)
        except StorageError as error:
            self._complain(error)
            return 0.0

    def _complain(self, error: Exception) -> None:
        """A store that is down must not take the endpoint down with it: requests pass uncounted meanwhile."""
        if time.monotonic() - self._complained > QUIET_S:
            self._complained = time.monotonic()
            log.warning("limits are not counted, their storage does not answer: %s", error)


def _redis(url: str, pool: ConnectionPool) -> RedisStorage:
    kept: Any = {"implementation": "redispy", "connection_pool": pool}  # the library's types know no pool
    return RedisStorage(f"async+{url}", wrap_exceptions=True, **kept)


def _budget(owner: str, what: str, amount: int | None) -> Budget | None:
    return None if amount is None else Budget(owner, what, amount)


def _pool(url: str) -> ConnectionPool:
    from redis.asyncio import ConnectionPool  # most stacks need none

    return ConnectionPool.from_url(url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S)
