"""Who asks, and how much: API keys, and their budgets of requests and tokens per minute."""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.errors import StorageError

from adapters import ADMIN, ConfigError, Router
from router.asgi import Request
from router.errors import EngineUnavailable, Forbidden, TooManyRequests, Unauthorized

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool

    from router.life import Life, Occupancy

PREFIX = "ls-"
KEY_BYTES = 32
QUIET_S = 60.0
MINUTE_S = 60
BYTES_A_TOKEN = 4
"""Of English; no tokenizer runs here."""

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
        return tuple(names if self.adapters is None else [name for name in names if name in self.adapters])


ANYONE = Client("")
"""Who asks where the stack has no keys."""


class Keys:
    """The stack's keys by their digests: the keys themselves are nowhere."""

    def __init__(self, router: Router) -> None:
        self._open = not router.keys
        self._admin = bytes.fromhex(router.admin_key) if router.admin_key else None
        self._clients = {
            bytes.fromhex(key.sha256): Client(
                name,
                None if key.adapters is None else frozenset(key.adapters),
                _budget(name, "requests", key.requests_per_minute),
                _budget(name, "tokens", key.tokens_per_minute),
            )
            for name, key in router.keys.items()
        }
        if self._admin:
            self._clients[self._admin] = Client(ADMIN, admin=True)

    def client(self, request: Request) -> Client:
        """Who asks. Raises Unauthorized."""
        given = _given(request)
        if given and (client := self._clients.get(hashlib.sha256(given).digest())):
            return client
        if self._open:
            return ANYONE
        raise Unauthorized(
            "the API key is not known here" if given else "an API key is needed: Authorization: Bearer …"
        )

    def admin(self, request: Request) -> None:
        """Raises Unauthorized or Forbidden unless the admin key is given."""
        if not self._admin:
            raise Forbidden(
                "this needs an admin key, and the stack has none (router.admin_key)", code="no_admin_key"
            )
        given = _given(request)
        if not given:
            raise Unauthorized("the admin key is needed: Authorization: Bearer …")
        if hashlib.sha256(given).digest() != self._admin:
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
    """limits' memory without its sweep for expired keys, a task at every request: here are two a client."""

    STORAGE_SCHEME = ["async+counters"]  # noqa: RUF012  # as the library has it

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """The count of the window that is open, or of a new one."""
        now = time.time()
        if self.expirations.get(key, 0.0) <= now:
            self.storage[key], self.expirations[key] = 0, now + expiry
        count = self.storage[key] = self.storage[key] + amount
        return count


class Limits:
    """What a process takes on at once, and what a key may take a minute, here or in a Redis that routers share.

    A minute begins with its first request. The tokens of a prompt are estimated before the engine is asked, and
    put right, with those of the answer, when it has ended. Who has any left may ask.
    """

    def __init__(self, router: Router, occupancy: Occupancy) -> None:
        """Raises ConfigError for a storage that has no such address."""
        storage = router.limits_storage
        self._occupancy, self._most = occupancy, router.max_in_flight
        self._pool = None if storage.startswith("memory") else _pool(storage)
        self._store: Storage = Counters() if self._pool is None else _redis(storage, self._pool)
        self._complained = 0.0

    async def admit(self, client: Client) -> None:
        """Count a request that the occupancy has counted already. Raises EngineUnavailable or TooManyRequests."""
        if self._occupancy.draining:
            raise EngineUnavailable("this router is shutting down; another, or this one later, will answer")
        if self._occupancy.in_flight > self._most:
            raise TooManyRequests(f"{self._most} requests are being answered already (router.max_in_flight)", 1)
        if client.requests:
            await self._spend(client.requests, 1)

    async def charge(self, life: Life, size: int) -> None:
        """Take what a body of so many bytes may hold from its key's tokens. Raises TooManyRequests."""
        if life.client.tokens:
            life.charged = size // BYTES_A_TOKEN
            await self._spend(life.client.tokens, life.charged)

    async def settle(self, life: Life) -> None:
        """Put the charge of a request that has ended right, in the minute in which it ends."""
        if life.client.tokens and (more := life.tokens - life.charged):
            try:
                await self._store.incr(life.client.tokens.counter, MINUTE_S, more)
            except StorageError as error:
                self._complain(error)

    async def close(self) -> None:
        """Close what is open towards Redis."""
        if self._pool:
            await self._pool.disconnect()

    async def _spend(self, budget: Budget, amount: int) -> None:
        try:
            if await self._store.incr(budget.counter, MINUTE_S, amount) - amount < budget.amount:
                return
            until = await self._store.get_expiry(budget.counter)
        except StorageError as error:
            self._complain(error)
            return
        raise budget.spent(until)

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
    """Raises ConfigError, without a word of the URL, which may hold a password."""
    from redis.asyncio import ConnectionPool  # most stacks need none

    try:
        return ConnectionPool.from_url(url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S)
    except ValueError:
        raise ConfigError(
            "router.limits_storage: no URL of a Redis, such as redis://:PASSWORD@HOST:6379/0 "
            "(in a password / is written %2F, # %23 and @ %40)"
        ) from None
