"""The client towards the engine, against a raw server that misbehaves on command; aiohttp is held to the same."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import socket
import ssl
import struct
import subprocess
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from router import upstream as upstream_module
from router.answer import HEAD_LIMIT, HIGH_WATER
from router.upstream import Answer, Refused, UpstreamError
from router.wire import Connection, head_of
from tests.aiohttp_upstream import AiohttpUpstream, OwnUpstream, Requests

set_hypothesis_home_dir(Path(__file__).parent.parent / ".run" / "hypothesis")

pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")  # aiohttp's

SOON = 5.0
"""Seconds within which what should happen at once has happened, on a busy machine too."""

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"content-length: 5\r\n\r\nhello"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


# The far end.


async def turns(count: int = 4) -> None:
    """Turns of the loop: mostly enough for the other side to read what is on its socket."""
    for _ in range(count):
        await asyncio.sleep(0)


async def settle() -> None:
    """Enough on a busy machine too."""
    await asyncio.sleep(0.03)


class Peer:
    """The engine's side of one connection, played by hand."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.writer = writer
        self.raw = writer.get_extra_info("socket")
        self.heads: list[str] = []
        self.over = asyncio.Event()

    async def hear(self) -> tuple[str, bytes]:
        """The next request: its path and its body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(head)
        length = next((line[16:] for line in head.split("\r\n") if line.startswith("content-length: ")), "0")
        if "Content-Length: " in head:
            length = head.split("Content-Length: ")[1].split("\r\n")[0]
        return head.split(" ")[1], await self.reader.readexactly(int(length))

    async def say(self, *pieces: bytes) -> None:
        """Each piece in a packet of its own."""
        for piece in pieces:
            if self.writer.transport.is_closing():  # uvloop would raise RuntimeError
                raise ConnectionResetError
            self.writer.write(piece)
            await self.writer.drain()
            await turns()

    async def left(self) -> bool:
        """Whether the client hangs up soon."""
        try:
            async with asyncio.timeout(SOON):
                while await self.reader.read(2**16):
                    pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True

    def hang_up(self, reset: bool = False) -> None:
        if reset and self.raw.fileno() >= 0:
            self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        self.writer.close()

    def drop(self) -> None:
        """End it now, whatever is not sent yet."""
        # asyncio's transport that was closed while it held bytes, and has sent them since, can't take an abort().
        if self.raw.fileno() >= 0:
            self.writer.transport.abort()


Play = Callable[[Peer], Awaitable[None]]


@dataclass
class Engine:
    """A raw server: `play` is what it does with each connection."""

    play: Play
    host: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None
    url: str = ""
    peers: list[Peer] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return sum(len(peer.heads) for peer in self.peers)

    async def __aenter__(self) -> Engine:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._connected, self.host, 0, ssl=self.tls)
        port = self._server.sockets[0].getsockname()[1]
        host = f"[{self.host}]" if ":" in self.host else self.host
        self.url = f"{'https' if self.tls else 'http'}://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers:
            peer.drop()
        await self._server.wait_closed()
        await turns()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        peer = Peer(len(self.peers), reader, writer)
        self.peers.append(peer)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self.play(peer)
        peer.hang_up()
        peer.over.set()
        self._tasks.discard(task)


def answering(*answers: bytes, then_close: bool = False) -> Play:
    """A play that gives each request on a connection these pieces."""

    async def play(peer: Peer) -> None:
        while True:
            await peer.hear()
            await peer.say(*answers)
            if then_close:
                return

    return play


# The near end.


@pytest.fixture(scope="module", autouse=True)
def only_what_these_tests_make_is_collected() -> Iterator[None]:
    """Every test looks for what it left by full collections; they would walk what other files imported, too."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def open_sockets() -> int:
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


@dataclass(frozen=True)
class Client:
    name: str
    kind: Callable[[str], Requests]
    loop: Callable[[], asyncio.AbstractEventLoop]

    @property
    def ours(self) -> bool:
        return self.kind is OwnUpstream

    def run(self, scenario: Coroutine[Any, Any, None]) -> None:
        """Run it, and hold it to leave nothing behind: no open socket, no complaint of the loop's."""
        complaints: list[dict[str, Any]] = []

        def complain(_: object, context: dict[str, Any]) -> None:
            # asyncio's streams, our server's side, forget a drain() that was cancelled.
            if not (context["message"].startswith("Future") and isinstance(context["exception"], ConnectionError)):
                complaints.append(context)

        async def watched() -> None:
            asyncio.get_running_loop().set_exception_handler(complain)
            async with asyncio.timeout(20):
                await scenario

        gc.collect()  # sockets that other tests left to be collected are not this one's to count
        before = open_sockets()
        with asyncio.Runner(loop_factory=self.loop) as runner:
            runner.run(watched())
        assert not complaints
        # What only a cycle of finished tasks holds may take the collector two rounds; what leaks stays.
        for _ in range(3):
            gc.collect()
        assert open_sockets() <= before

    @asynccontextmanager
    async def to(self, engine: Engine) -> AsyncIterator[Requests]:
        upstream = self.kind(engine.url)
        try:
            yield upstream
        finally:
            await upstream.close()
            await turns()


OURS = [
    Client("ours", OwnUpstream, uvloop.new_event_loop),
    Client("asyncio", OwnUpstream, asyncio.new_event_loop),
]
AIOHTTP = Client("aiohttp", AiohttpUpstream, uvloop.new_event_loop)


@pytest.fixture(params=[*OURS, AIOHTTP], ids=lambda client: client.name)
def client(request: pytest.FixtureRequest) -> Client:
    assert isinstance(request.param, Client)
    return request.param


@pytest.fixture(params=OURS, ids=lambda client: client.name)
def ours(request: pytest.FixtureRequest) -> Client:
    """For what aiohttp does otherwise, or cannot be asked."""
    assert isinstance(request.param, Client)
    return request.param


def aiohttp_differs(client: Client, how: str) -> None:
    """Known, and not tried: some of it is waiting for ever."""
    if how and not client.ours:
        pytest.xfail(f"aiohttp {how}")


async def fetch(upstream: Requests, method: str = "POST", path: str = "/", body: bytes | None = b"{}") -> bytes:
    async with upstream.request(method, path, None, body if method == "POST" else None) as answer:
        return await answer.read()


@asynccontextmanager
async def asked(client: Client, play: Play, body: bytes | None = None) -> AsyncIterator[Answer]:
    async with (
        Engine(play) as engine,
        client.to(engine) as upstream,
        upstream.request("POST", "/", None, body) as answer,
    ):
        yield answer


async def streamed(answer: Answer) -> bytes:
    return b"".join([chunk async for chunk in answer.chunks()])


# Framing.


@dataclass(frozen=True)
class Case:
    """What the engine says, and what it means."""

    name: str
    wire: bytes
    body: bytes = b"hello"
    status: int = 200
    method: str = "POST"
    closes: bool = False
    kept: bool = True


HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\ncontent-type: text/event-stream\r\ncontent-length: 3\r\n\r\n"

FRAMINGS = [
    Case("length", HELLO),
    Case("length-zero", OK + b"content-length: 0\r\n\r\n", b""),
    Case("chunked", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"),
    Case("chunks", CHUNKED + b"1\r\nh\r\n03\r\nell\r\n1\r\no\r\n000\r\n\r\n"),
    Case("chunked-empty", CHUNKED + b"0\r\n\r\n", b""),
    Case("chunk-size-in-hex", CHUNKED + b"1A\r\n" + b"x" * 26 + b"\r\n0a\r\n" + b"y" * 10 + b"\r\n0\r\n\r\n",
         b"x" * 26 + b"y" * 10),
    Case("chunk-extensions", CHUNKED + b'2;a=b;c\r\nhe\r\n3;q="0; 1"\r\nllo\r\n0;last\r\n\r\n'),
    Case("trailers", CHUNKED + b"5\r\nhello\r\n0\r\nx-sum: 1\r\nContent-Type: text/event-stream\r\n\r\n"),
    Case("body-like-framing", CHUNKED + b"a\r\n0\r\n\r\nHTTP/\r\n0\r\n\r\n", b"0\r\n\r\nHTTP/"),
    Case("until-close", OK + b"content-type: text/plain\r\n\r\nhello", closes=True, kept=False),
    Case("until-close-empty", OK + b"\r\n", b"", closes=True, kept=False),
    Case("http-1.0", b"HTTP/1.0 200 OK\r\n\r\nhello", closes=True, kept=False),
    Case("http-1.0-length", b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", kept=False),
    Case("http-1.0-kept", b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello"),
    Case("connection-close", OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello", kept=False),
    Case("no-reason", b"HTTP/1.1 200 \r\ncontent-length: 5\r\n\r\nhello"),
    Case("no-content", b"HTTP/1.1 204 No Content\r\n\r\n", b"", 204),
    Case("not-modified", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\n\r\n", b"", 304),
    Case("error-page", b"HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\n\r\nhello", status=404),
    Case("continue", b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO),
    Case("early-hints", HINTS * 2 + HELLO),
    Case("early-hints-until-close", HINTS + OK + b"\r\nhello", closes=True, kept=False),
]  # fmt: skip


@pytest.mark.parametrize("case", FRAMINGS, ids=lambda case: case.name)
def test_every_framing_cut_at_every_byte(client: Client, case: Case) -> None:
    async def play(peer: Peer) -> None:
        while True:
            path, _ = await peer.hear()
            cut = int(path.strip("/r"))
            single = [bytes([byte]) for byte in case.wire]
            await peer.say(*([case.wire[:cut], case.wire[cut:]] if cut else single))
            if case.closes:
                return

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            for cut in range(len(case.wire)):
                async with upstream.request("POST", f"/{cut}", None, b"{}") as answer:
                    assert (answer.status, await streamed(answer)) == (case.status, case.body), cut
                async with upstream.request("POST", f"/r{cut}", None, b"{}") as answer:
                    assert (answer.status, await answer.read()) == (case.status, case.body), cut
                # Neither an interim answer's headers nor trailers are the answer's.
                assert {name for name, _ in answer.headers} <= {b"content-length", b"content-type"}
                assert not answer.is_stream
            assert (len(engine.peers) == 1) is case.kept

    client.run(scenario())


def test_chunks_come_as_they_are_sent(client: Client) -> None:
    """Nothing is held back: the engine sends the next event only after the last one has arrived."""
    arrived = asyncio.Event()

    async def play(peer: Peer) -> None:
        await peer.hear()
        await peer.say(OK + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(20):
            await arrived.wait()
            arrived.clear()
            await peer.say(b"7\r\ndata %02d\r\n" % number)
        await peer.say(b"0\r\n\r\n")

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream, upstream.request("POST", "/") as answer:
            assert answer.is_stream
            arrived.set()
            got = []
            async for chunk in answer.chunks():
                got.append(chunk)
                arrived.set()
            assert got == [b"data %02d" % number for number in range(20)]

    client.run(scenario())


def test_many_small_packets_and_large_ones(client: Client) -> None:
    body = random.Random(1).randbytes(200_000)

    async def play(peer: Peer) -> None:
        await peer.hear()
        await peer.say(CHUNKED)
        for start in range(0, len(body), 100):
            await peer.say(b"64\r\n" + body[start : start + 100] + b"\r\n")
        await peer.say(b"0\r\n\r\n")
        await peer.hear()
        pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        await peer.say(CHUNKED + pieces + b"0\r\n\r\n")
        await peer.hear()
        await peer.say(CHUNKED)
        for start in range(0, len(body), 5000):
            await peer.say(b"1388", b"\r\n", body[start : start + 5000], b"\r\n")
        await peer.say(b"0\r\n\r\n")

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            for _ in range(3):
                async with upstream.request("POST", "/", None, b"") as answer:
                    assert await streamed(answer) == body
            assert len(engine.peers) == 1

    client.run(scenario())


# Headers.


def test_headers_pass_in_lower_case_without_those_of_the_connection(client: Client) -> None:
    wire = (
        b"HTTP/1.1 201 Created\r\nDate: now\r\nServer: x\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n"
        b"X-Odd:  \xe9 \t\r\n"
        b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: b\r\nTE: t\r\nTrailer: x\r\n"
        b"Upgrade: h2c\r\nX-Empty:\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n"
    )

    async def scenario() -> None:
        async with asked(client, answering(wire)) as answer:
            assert answer.status == 201
            assert answer.headers == [
                (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"x-odd", b"\xe9"), (b"x-empty", b""),
            ]  # fmt: skip
            await answer.read()

    client.run(scenario())


def test_headers_that_connection_names_stay_here(ours: Client) -> None:
    wire = OK + b"Connection: X-Hop, keep-alive\r\nx-hop: 1\r\nx-end: 2\r\ncontent-length: 0\r\n\r\n"

    async def scenario() -> None:
        async with Engine(answering(wire)) as engine, ours.to(engine) as upstream:
            async with upstream.request("POST", "/") as answer:
                assert answer.headers == [(b"x-end", b"2"), (b"content-length", b"0")]
                await answer.read()
            assert await fetch(upstream) == b""
            assert len(engine.peers) == 1

    ours.run(scenario())


@pytest.mark.parametrize(
    ("value", "is_stream"),
    [
        (b"text/event-stream", True),
        (b"Text/Event-Stream;charset=utf-8", True),
        (b"text/event-stream ; charset=utf-8", True),
        (b"text/event-streams", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_what_is_a_stream(client: Client, value: bytes, is_stream: bool) -> None:
    wire = OK + b"content-type: " + value + b"\r\ncontent-length: 0\r\n\r\n"

    async def scenario() -> None:
        async with asked(client, answering(wire)) as answer:
            assert answer.is_stream is is_stream

    client.run(scenario())


def test_a_request_as_the_engine_sees_it(ours: Client) -> None:
    async def play(peer: Peer) -> None:
        while True:
            whole = await peer.reader.read(2**16)
            peer.heads.append(whole.decode("latin-1"))
            await peer.say(HELLO)

    async def scenario() -> None:
        async with Engine(play) as engine, ours.to(engine) as upstream:
            host = engine.url.removeprefix("http://")
            async with upstream.request("POST", "/v1/x?a=b", {"accept": "é", "traceparent": ""}, b"body"):
                pass
            await fetch(upstream, "GET", "/")
            await fetch(upstream, "POST", "/", None)
            async with upstream.request("GET", "/", {"accept-encoding": "gzip"}):
                pass
            (peer,) = engine.peers
            identity = "accept-encoding: identity\r\n"
            assert peer.heads == [
                f"POST /v1/x?a=b HTTP/1.1\r\nhost: {host}\r\naccept: é\r\ntraceparent: \r\n{identity}"
                "content-length: 4\r\n\r\nbody",
                f"GET / HTTP/1.1\r\nhost: {host}\r\n{identity}\r\n",
                f"POST / HTTP/1.1\r\nhost: {host}\r\n{identity}content-length: 0\r\n\r\n",
                f"GET / HTTP/1.1\r\nhost: {host}\r\naccept-encoding: gzip\r\n\r\n",
            ]

    ours.run(scenario())


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "a\rb", "\r\n\r\nGET / HTTP/1.1\r\n\r\n", "a\0b"])
def test_no_header_can_be_smuggled_in(client: Client, value: str) -> None:
    async def scenario() -> None:
        async with Engine(answering(HELLO)) as engine, client.to(engine) as upstream:
            with pytest.raises(ValueError, match=r"(?i)header"):
                async with upstream.request("POST", "/", {"user-agent": value}, b"{}"):
                    pass
            assert await fetch(upstream) == b"hello"
            assert engine.requests == 1

    client.run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/a b", {}),
        ("POST", "/a\r\nx: y", {}),
        ("POST", "/ü", {}),
        ("POST", "v1", {}),
        ("POST", "", {}),
        ("GET / HTTP/1.1\r\nx: y\r\n", "/", {}),
        ("", "/", {}),
        ("POST", "/", {"a: b\r\nc": "d"}),
        ("POST", "/", {"a b": "c"}),
        ("POST", "/", {"": "c"}),
        ("POST", "/", {"User-Agent": "names are lower-case"}),
        ("POST", "/", {"content-length": "5"}),
        ("POST", "/", {"transfer-encoding": "chunked"}),
        ("POST", "/", {"expect": "100-continue"}),
        ("POST", "/", {"accept": "€"}),
    ],
)
def test_what_is_no_request_is_refused(method: str, path: str, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"request|header|latin-1"):
        head_of("here", method, path, headers, 0)


# Answers that are none.


def broken(wire: bytes, name: str, aiohttp: str = "") -> Any:
    """`aiohttp`: what it does instead of raising an error."""
    return pytest.param(wire, aiohttp, id=name)


WAITS = "waits for ever once a body's framing is broken"
TAKES = "takes it"


@pytest.mark.parametrize(
    ("wire", "aiohttp"),
    [
        broken(b"garbage\r\n\r\n", "garbage"),
        broken(b"SSH-2.0-OpenSSH_9.6\r\n", "ssh"),
        broken(b"\x15\x03\x01\x00\x02\x02\x46", "tls-alert"),
        broken(b"HTTP/1.1 abc OK\r\n\r\n", "status-of-letters"),
        broken(b"HTTP/1.1 20\r\n\r\n", "short-status"),
        broken(b"HTTP/3.7 200 OK\r\ncontent-length: 0\r\n\r\n", "version"),
        broken(b"GET / HTTP/1.1\r\n\r\n", "a-request"),
        broken(OK + b"no colon\r\n\r\n", "no-colon"),
        broken(OK + b"a b: c\r\n\r\n", "space-in-name"),
        broken(OK + b"a: \0\r\n\r\n", "zero-in-value"),
        broken(OK + b": c\r\n\r\n", "no-name"),
        broken(OK + b"content-length: five\r\n\r\nhello", "length-of-letters"),
        broken(OK + b"content-length: -5\r\n\r\nhello", "negative-length"),
        broken(OK + b"content-length: 99999999999999999999999\r\n\r\nhello", "overflowing-length"),
        broken(OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!", "two-lengths"),
        broken(
            OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "length+chunks"
        ),
        broken(CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n", "chunk-size-of-letters", WAITS),
        broken(CHUNKED + b"5hello\r\n0\r\n\r\n", "chunk-size-without-end", WAITS),
        broken(CHUNKED + b"5\r\nhelloworld\r\n0\r\n\r\n", "chunk-longer-than-said", WAITS),
        broken(CHUNKED + b"fffffffffffffffff\r\nhello", "overflowing-chunk", WAITS),
        broken(CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", "negative-chunk", WAITS),
        broken(OK + b"transfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "gzip-coded", TAKES),
        broken(OK + b"transfer-encoding: identity\r\n\r\nhello", "identity-coded", TAKES),
        broken(b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", "other-protocol", TAKES),
        broken(b"HTTP/1.1 101 Switching\r\n\r\n" + HELLO, "switching-to-nothing", TAKES),
        broken(OK + b"a: b\r\n c\r\ncontent-length: 0\r\n\r\n", "folded", TAKES),
        broken(OK.replace(b"\r", b"") + b"content-length: 0\n\n", "bare-newlines", TAKES),
        broken(b"", "nothing"),
        broken(b"HTTP/1.1 100 Continue\r\n\r\n", "continue-and-nothing"),
    ],
)
def test_an_invalid_answer_is_an_error(client: Client, wire: bytes, aiohttp: str) -> None:
    """Whole or byte by byte, and the next request is not hurt by it."""
    aiohttp_differs(client, aiohttp)

    async def play(peer: Peer) -> None:
        path, _ = await peer.hear()
        if path == "/good":
            await peer.say(HELLO)
        elif path == "/whole":
            await peer.say(wire)
        else:
            await peer.say(*[bytes([byte]) for byte in wire])

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            for path in ("/whole", "/bytes"):
                with pytest.raises(UpstreamError):
                    await fetch(upstream, "POST", path)
                with pytest.raises(UpstreamError):
                    async with upstream.request("POST", path, None, b"{}") as answer:
                        await streamed(answer)
            assert engine.requests == 4
            assert await fetch(upstream, "POST", "/good") == b"hello"

    client.run(scenario())


@pytest.mark.parametrize(
    ("start", "more", "aiohttp"),
    [
        pytest.param(OK, b"x: " + b"y" * 1000 + b"\r\n", "", id="headers"),
        pytest.param(OK + b"x: ", b"y" * 1000, "", id="header"),
        pytest.param(OK, b"y" * 1000, "", id="name"),
        pytest.param(b"HTTP/1.1 200 ", b"O" * 1000, "", id="reason"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 10, TAKES, id="interim-answers"),
        pytest.param(CHUNKED + b"0\r\n", b"x: " + b"y" * 1000 + b"\r\n", "", id="trailers"),
        pytest.param(CHUNKED + b"0\r\nx: ", b"y" * 1000, WAITS, id="trailer"),
        pytest.param(CHUNKED + b"1;", b"y" * 1000, TAKES, id="extension"),
        pytest.param(b"", b"\r\n" * 500, TAKES, id="empty-lines"),
    ],
)
def test_what_never_becomes_a_body_has_an_end(client: Client, start: bytes, more: bytes, aiohttp: str) -> None:
    aiohttp_differs(client, aiohttp)

    async def scenario() -> None:
        sent: list[int] = []

        async def play(peer: Peer) -> None:
            await peer.hear()
            await peer.say(start)
            while True:
                sent.append(len(more))
                await peer.say(more)

        async with Engine(play) as engine, client.to(engine) as upstream:
            with pytest.raises(UpstreamError):
                await fetch(upstream)
            assert not client.ours or sum(sent) < 2 * HEAD_LIMIT
            with pytest.raises(UpstreamError):
                async with upstream.request("POST", "/") as answer:
                    await streamed(answer)

    client.run(scenario())


def test_the_limit_of_a_head_does_not_depend_on_packets(ours: Client) -> None:
    head = OK + b"x: " + b"y" * (HEAD_LIMIT - 200) + b"\r\ncontent-length: 100000\r\n\r\n"
    over = OK + b"x: " + b"y" * HEAD_LIMIT + b"\r\ncontent-length: 100000\r\n\r\n"
    many = OK + b"x: y\r\n" * 200 + b"content-length: 100000\r\n\r\n"
    body = b"z" * 100_000

    async def play(peer: Peer) -> None:
        path, _ = await peer.hear()
        wire = {"/ok": head, "/over": over, "/many": many}[path.rstrip("/")] + body
        if path.endswith("/"):
            await peer.say(*[wire[start : start + 5000] for start in range(0, len(wire), 5000)])
        else:
            await peer.say(wire)
        await peer.left()

    async def scenario() -> None:
        async with Engine(play) as engine, ours.to(engine) as upstream:
            for path in ("/ok", "/ok/"):
                async with upstream.request("GET", path) as answer:
                    assert len(answer.headers[0][1]) == HEAD_LIMIT - 200
                    assert await answer.read() == body
                engine.peers[-1].hang_up()
                await settle()
            for path in ("/over", "/over/", "/many", "/many/"):
                with pytest.raises(UpstreamError, match=r"too large|no body"):
                    await fetch(upstream, "GET", path)

    ours.run(scenario())


# Bodies that break off.


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(OK + b"content-length: 10\r\n\r\nhello", id="length"),
        pytest.param(CHUNKED + b"3\r\nhel\r\n5\r\nlo", id="chunked"),
        pytest.param(CHUNKED + b"5\r\nhello\r\n", id="no-last-chunk"),
        pytest.param(CHUNKED + b"5\r\nhello\r\n0\r\n", id="no-last-line"),
        pytest.param(CHUNKED + b"5\r\nhello\r\n0\r\nx-sum: 1\r\n", id="in-trailers"),
        pytest.param(b"HTTP/1.0 200 OK\r\ncontent-length: 10\r\n\r\nhello", id="http-1.0"),
    ],
)
def test_a_short_body_is_never_a_whole_one(client: Client, wire: bytes, reset: bool) -> None:
    async def play(peer: Peer) -> None:
        await peer.hear()
        await peer.say(wire)
        peer.hang_up(reset)

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            async with upstream.request("POST", "/", None, b"{}") as answer:
                with pytest.raises(UpstreamError):
                    await answer.read()
            got = b""
            async with upstream.request("POST", "/", None, b"{}") as answer:
                with pytest.raises(UpstreamError):
                    [got := got + chunk async for chunk in answer.chunks()]
            assert b"hello".startswith(got)
            assert reset or got == b"hello"
            assert engine.requests == 2

    client.run(scenario())


def test_a_body_without_a_length_that_is_reset_is_no_whole_one(ours: Client) -> None:
    async def play(peer: Peer) -> None:
        await peer.hear()
        await peer.say(OK + b"\r\nhello")
        peer.hang_up(reset=True)

    async def scenario() -> None:
        async with Engine(play) as engine, ours.to(engine) as upstream:
            with pytest.raises(UpstreamError):
                await fetch(upstream)

    ours.run(scenario())


@pytest.mark.parametrize("case", FRAMINGS, ids=lambda case: case.name)
def test_an_answer_cut_off_at_every_byte(client: Client, case: Case) -> None:
    """Either an error or, where the end of the connection is the end of the body, what has come."""

    async def play(peer: Peer) -> None:
        path, _ = await peer.hear()
        await peer.say(case.wire[: int(path[1:])])

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            for cut in range(len(case.wire)):
                with suppress(UpstreamError):
                    body = await fetch(upstream, "POST", f"/{cut}")
                    assert case.closes
                    assert case.wire[:cut].endswith(b"\r\n\r\n" + body)
            assert engine.requests == len(case.wire)

    client.run(scenario())


# The pool.


def test_connections_are_used_again_the_latest_first(client: Client) -> None:
    all_there = asyncio.Barrier(3)
    said: list[bytes] = []

    async def play(peer: Peer) -> None:
        while True:
            path, _ = await peer.hear()
            if path == "/three":
                await all_there.wait()
            said.append(b"%d" % peer.number)
            await peer.say(OK + b"content-length: 1\r\n\r\n" + said[-1])

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            three = await asyncio.gather(*[fetch(upstream, "POST", "/three") for _ in range(3)])
            assert sorted(three) == [b"0", b"1", b"2"]
            latest = said[-1]
            assert {await fetch(upstream) for _ in range(5)} == {latest} or not client.ours
            assert len(engine.peers) == 3

    client.run(scenario())


def test_a_connection_that_the_engine_closed_is_not_used(client: Client) -> None:
    async def scenario() -> None:
        async with Engine(answering(HELLO)) as engine, client.to(engine) as upstream:
            for number in range(5):
                assert await fetch(upstream) == b"hello"
                engine.peers[-1].hang_up(reset=number % 2 == 1)
                await settle()
            assert len(engine.peers) == engine.requests == 5

    client.run(scenario())


@pytest.mark.parametrize("junk", [b"x", HELLO, b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n"])
def test_bytes_that_nobody_asked_for(client: Client, junk: bytes) -> None:
    """Between two requests, or in the same packet as an answer: they never are the next answer."""
    aiohttp_differs(client, "takes them for the next answer")

    async def play(peer: Peer) -> None:
        path, _ = await peer.hear()
        if path == "/after":
            await peer.say(HELLO)
            await peer.say(junk)
        elif path == "/behind":
            await peer.say(HELLO + junk)
        else:
            await peer.say(OK + b"content-length: 4\r\n\r\nnext")
        assert await peer.left() or path == "/next"

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            for path in ("/after", "/behind"):
                assert await fetch(upstream, "POST", path) == b"hello"
                await settle()
                assert await fetch(upstream, "POST", "/next") == b"next"
                engine.peers[-1].hang_up()
                await settle()
            assert len(engine.peers) == 4

    client.run(scenario())


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_connection_that_dies_as_it_is_used_again(client: Client, method: str, reset: bool) -> None:
    """Whether the engine has seen the request nobody knows: only a GET may be sent again."""

    async def play(peer: Peer) -> None:
        await peer.hear()
        await peer.say(HELLO)
        if peer.number == 0:
            await peer.hear()
            peer.hang_up(reset)
        await peer.left()

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            await fetch(upstream)
            if method == "GET":
                assert await fetch(upstream, method) == b"hello"
                assert (len(engine.peers), engine.requests) == (2, 3)
            else:
                with pytest.raises(UpstreamError) as caught:
                    await fetch(upstream, method)
                assert not isinstance(caught.value, Refused)
                assert (len(engine.peers), engine.requests) == (1, 2)

    client.run(scenario())


def test_a_get_is_not_sent_again_once_an_answer_has_begun(client: Client) -> None:
    aiohttp_differs(client, "sends it again if the status line is not complete")

    async def play(peer: Peer) -> None:
        await peer.hear()
        await peer.say(HELLO)
        await peer.hear()
        await peer.say(b"HTTP")

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            await fetch(upstream, "GET")
            with pytest.raises(UpstreamError):
                await fetch(upstream, "GET")
            assert engine.requests == 2

    client.run(scenario())


def test_a_get_is_sent_again_once(client: Client) -> None:
    async def play(peer: Peer) -> None:
        await peer.hear()
        if peer.number == 0:
            await peer.say(HELLO)
            await peer.hear()

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            await fetch(upstream, "GET")
            with pytest.raises(UpstreamError):
                await fetch(upstream, "GET")
            assert engine.requests == 3

    client.run(scenario())


def test_an_idle_connection_is_closed_before_the_engine_would(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_module, "KEEPALIVE_S", 0.5)

    async def scenario() -> None:
        async with Engine(answering(HELLO)) as engine, client.to(engine) as upstream:
            await asyncio.gather(*[fetch(upstream) for _ in range(4)])
            assert len(engine.peers) == 4
            await asyncio.sleep(0.1)
            await fetch(upstream)
            assert len(engine.peers) == 4
            await asyncio.sleep(0.8)
            if client.ours:
                assert all(peer.over.is_set() for peer in engine.peers)
            await fetch(upstream)
            assert len(engine.peers) == 5

    client.run(scenario())


def test_an_idle_connection_that_is_too_old_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the loop was too busy to close it. (uvloop's timers go first after that.)"""
    monkeypatch.setattr(upstream_module, "KEEPALIVE_S", 0.1)

    async def scenario() -> None:
        async with Engine(answering(HELLO)) as engine, OURS[1].to(engine) as upstream:
            await fetch(upstream)
            time.sleep(0.2)
            await fetch(upstream)
            assert len(engine.peers) == 2

    OURS[1].run(scenario())


def test_an_answer_that_is_complete_gives_its_connection_back_at_once(ours: Client) -> None:
    """A slow client must not keep the connection, whose idle time the engine counts; nor see the next answer."""

    async def play(peer: Peer) -> None:
        while True:
            path, _ = await peer.hear()
            await peer.say(OK + b"content-length: 2\r\n\r\n" + path.encode())

    async def scenario() -> None:
        async with Engine(play) as engine, ours.to(engine) as upstream:
            async with upstream.request("POST", "/a") as first, upstream.request("POST", "/b") as second:
                assert await second.read() == b"/b"
                assert await first.read() == b"/a"
            async with upstream.request("POST", "/c"):
                pass
            assert await fetch(upstream, "POST", "/d") == b"/d"
            assert len(engine.peers) == 1

    ours.run(scenario())


# Flow.


def test_a_slow_reader_holds_the_engine_back(client: Client) -> None:
    total, piece = 200 * 2**20, b"x" * 2**20
    sent = taken = 0

    async def play(peer: Peer) -> None:
        nonlocal sent
        await peer.hear()
        await peer.say(OK + b"content-length: %d\r\n\r\n" % total)
        while sent < total:
            peer.writer.write(piece)
            sent += len(piece)
            await peer.writer.drain()

    async def scenario() -> None:
        nonlocal taken
        async with Engine(play) as engine, client.to(engine) as upstream:
            tracemalloc.start()
            async with upstream.request("POST", "/", None, b"{}") as answer:
                await asyncio.sleep(0.3)
                assert sent < total / 4
                async for chunk in answer.chunks():
                    taken += len(chunk)
                    if taken % (20 * 2**20) < len(chunk):
                        await asyncio.sleep(0.02)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert taken == total
            assert peak < 16 * HIGH_WATER + 2 * 2**20

    client.run(scenario())


def test_a_connection_is_read_again_after_a_slow_reader(client: Client) -> None:
    """Also if the bytes that were too many for now were the last ones."""
    piece = b"x" * 50_000

    async def play(peer: Peer) -> None:
        while True:
            path, _ = await peer.hear()
            count = int(path[1:])
            await peer.say(OK + b"content-length: %d\r\n\r\n" % (count * len(piece)), *[piece] * count)

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            for count in range(1, 14):
                async with upstream.request("POST", f"/{count}") as answer:
                    await settle()
                    assert await streamed(answer) == piece * count
            assert len(engine.peers) == 1

    client.run(scenario())


def test_a_large_answer_can_be_read_whole(client: Client) -> None:
    body = random.Random(2).randbytes(20 * 2**20)

    async def play(peer: Peer) -> None:
        while True:
            await peer.hear()
            await peer.say(OK + b"content-length: %d\r\n\r\n" % len(body) + body)

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            for _ in range(2):
                async with upstream.request("POST", "/", None, b"{}") as answer:
                    await asyncio.sleep(0.05)
                    assert await answer.read() == body
            assert len(engine.peers) == 1

    client.run(scenario())


def test_a_large_request_waits_for_a_slow_engine(client: Client) -> None:
    body = random.Random(3).randbytes(50 * 2**20)

    async def play(peer: Peer) -> None:
        await asyncio.sleep(0.3)
        while True:
            _, got = await peer.hear()
            await peer.say(OK + b"content-length: 5\r\n\r\n%5r" % (got == body))

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            task = asyncio.create_task(fetch(upstream, "POST", "/", body))
            tracemalloc.start()
            await asyncio.sleep(0.2)
            if client.ours:  # no copy of it waits anywhere
                assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
            tracemalloc.stop()
            assert (await task).strip() == b"True"
            assert (await fetch(upstream, "POST", "/", body)).strip() == b"True"
            assert len(engine.peers) == 1

    client.run(scenario())


@pytest.mark.parametrize("stays", [False, True], ids=["closes", "stays"])
def test_an_answer_before_the_request_is_out(client: Client, stays: bool) -> None:
    """The 413 arrives although the body cannot, and the rest of it is nobody's next request."""
    body = b"GET / HTTP/1.1\r\n\r\n" * 2**20
    page = b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge"

    async def play(peer: Peer) -> None:
        peer.heads.append((await peer.reader.readuntil(b"\r\n\r\n")).decode())
        if "GET /next" in peer.heads[-1]:
            await peer.say(HELLO)
            return
        await peer.reader.readexactly(1000)
        await peer.say(page)
        if stays:
            assert await peer.left()
        else:
            peer.hang_up()

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            for _ in range(10):
                async with upstream.request("POST", "/", None, body) as answer:
                    assert (answer.status, await answer.read()) == (413, b"large")
                assert await fetch(upstream, "GET", "/next") == b"hello"
                await engine.peers[-1].over.wait()
                await settle()
            assert len(engine.peers) == 20

    client.run(scenario())


def test_an_answer_that_streams_while_the_request_does(client: Client) -> None:
    body = random.Random(4).randbytes(8 * 2**20)

    async def play(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.say(OK + b"content-length: %d\r\n\r\n" % len(body))
        left = len(body)
        while left:
            piece = await peer.reader.read(2**16)
            left -= len(piece)
            peer.writer.write(piece)
            await peer.writer.drain()
        await peer.left()

    async def scenario() -> None:
        async with asked(client, play, body) as answer:
            assert await streamed(answer) == body

    client.run(scenario())


def test_an_engine_that_goes_while_the_request_is_written(client: Client) -> None:
    async def play(peer: Peer) -> None:
        await peer.reader.readexactly(100_000)
        peer.hang_up(reset=True)

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            with pytest.raises(UpstreamError):
                await fetch(upstream, "POST", "/", b"x" * 2**24)
            assert len(engine.peers) == 1

    client.run(scenario())


# Leaving early.


def test_leaving_in_mid_stream_hangs_up(client: Client) -> None:
    async def play(peer: Peer) -> None:
        await peer.hear()
        await peer.say(CHUNKED + b"5\r\nhello\r\n")
        assert await peer.left()
        gone.set()

    gone = asyncio.Event()

    async def leave_by(how: str, upstream: Requests) -> None:
        async with upstream.request("POST", "/", None, b"{}") as answer:
            chunks = answer.chunks()
            if how != "at once":
                assert await anext(chunks) == b"hello"
            if how == "error":
                raise KeyError
            if how == "cancelled":
                await anext(chunks)
        if client.ours:
            with pytest.raises(UpstreamError, match="left"):
                await anext(chunks)

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            for how in ("at once", "after a chunk", "error"):
                with suppress(KeyError):
                    await leave_by(how, upstream)
                async with asyncio.timeout(SOON):
                    await gone.wait()
                gone.clear()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await leave_by("cancelled", upstream)
            async with asyncio.timeout(SOON):
                await gone.wait()
            assert len(engine.peers) == 4

    client.run(scenario())


def test_cancelled_while_waiting_for_the_head(client: Client) -> None:
    async def play(peer: Peer) -> None:
        await peer.hear()
        assert await peer.left()
        gone.set()

    gone = asyncio.Event()

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await fetch(upstream)
            async with asyncio.timeout(SOON):
                await gone.wait()
            assert engine.requests == 1

    client.run(scenario())


def test_cancelled_with_a_request_that_cannot_be_written(client: Client) -> None:
    """The engine does not read: closing must not wait until it does."""
    aiohttp_differs(client, "waits for that")

    async def play(peer: Peer) -> None:
        peer.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await peer.over.wait()

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            without = open_sockets() + 1
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await fetch(upstream, "POST", "/", b"x" * 2**25)
            await turns()
            assert open_sockets() == without

    client.run(scenario())


def test_cancelled_at_any_moment(client: Client) -> None:
    """After any number of turns of the loop, on new and on kept connections; run() counts the sockets."""

    async def play(peer: Peer) -> None:
        while True:
            await peer.hear()
            await peer.say(b"HTTP/1.1 100 Continue\r\n\r\n", CHUNKED, b"5\r\nhello\r\n", b"0\r\n\r\n")

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            done = 0
            for delay in [*range(60), *range(60, 600, 20)]:
                task = asyncio.create_task(fetch(upstream))
                await turns(delay)
                task.cancel()
                try:
                    assert await task == b"hello"
                    done += 1
                except asyncio.CancelledError:
                    pass
            assert 0 < done < 87
            assert await fetch(upstream) == b"hello"
        for peer in engine.peers:
            assert peer.writer.is_closing()

    client.run(scenario())


def test_close_ends_what_is_under_way(client: Client) -> None:
    """With an error: a body that would end with its connection must not look whole."""

    async def play(peer: Peer) -> None:
        await peer.hear()
        await peer.say(OK + b"\r\nhello")
        await peer.left()

    async def scenario() -> None:
        async with Engine(play) as engine:
            upstream = client.kind(engine.url)
            async with upstream.request("POST", "/", None, b"{}") as answer:
                chunks = answer.chunks()
                assert await anext(chunks) == b"hello"
                await upstream.close()
                if client.ours:
                    with pytest.raises(UpstreamError, match="closed by the router"):
                        await anext(chunks)
            if client.ours:
                with pytest.raises(UpstreamError, match="closed"):
                    await fetch(upstream)
            await turns()

    client.run(scenario())


def test_close_while_connecting(ours: Client) -> None:
    """Whenever it comes; run() counts what it leaves open."""

    async def scenario() -> None:
        async with Engine(answering(HELLO)) as engine:
            outcomes = set()
            for delay in [*range(12), 400]:
                upstream = OwnUpstream(engine.url)
                task = asyncio.create_task(fetch(upstream))
                await turns(delay)
                await upstream.close()
                try:
                    outcomes.add(await task)
                except UpstreamError as error:
                    outcomes.add(b"closed" if "closed" in str(error) else b"")
                async with asyncio.timeout(SOON):
                    await turns()
                    await asyncio.gather(*[peer.over.wait() for peer in engine.peers])
            assert outcomes == {b"hello", b"closed"}

    ours.run(scenario())


# Connecting.


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port whose queue is full: connecting to it takes for ever."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = int(listener.getsockname()[1])
        fillers = []
        for _ in range(8):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        yield port
        for filler in fillers:
            filler.close()


def test_nobody_listens(client: Client) -> None:
    async def scenario() -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
            hosts = [f"127.0.0.1:{port}", f"[::1]:{port}", "nowhere.invalid"]
            if client.ours:  # aiohttp lets a UnicodeError through
                hosts.append(f"{'a' * 70}.invalid")
            for host in hosts:
                async with client.to(Engine(answering(), url=f"http://{host}")) as upstream:
                    with pytest.raises(Refused):
                        await fetch(upstream)

    client.run(scenario())


def test_connecting_takes_too_long(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_module, "CONNECT_TIMEOUT_S", 0.2)

    async def scenario() -> None:
        with deaf_port() as port:
            async with client.to(Engine(answering(), url=f"http://127.0.0.1:{port}")) as upstream:
                with pytest.raises(Refused):
                    await fetch(upstream)

    client.run(scenario())


def test_cancelled_while_connecting(client: Client) -> None:
    async def scenario() -> None:
        with deaf_port() as port:
            async with client.to(Engine(answering(), url=f"http://127.0.0.1:{port}")) as upstream:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await fetch(upstream)

    client.run(scenario())


def test_a_connection_that_is_closed_as_soon_as_it_is_made(client: Client) -> None:
    async def play(peer: Peer) -> None:
        peer.hang_up(reset=peer.number % 2 == 1)

    async def scenario() -> None:
        async with Engine(play) as engine, client.to(engine) as upstream:
            for _ in range(20):
                with pytest.raises(UpstreamError):
                    await fetch(upstream)

    client.run(scenario())


def test_a_connection_that_is_closed_before_it_is_used() -> None:
    connection = Connection(lambda _: None, lambda _: None)
    with pytest.raises(Refused):
        connection.send(b"", b"")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_hosts(client: Client, host: str) -> None:
    async def scenario() -> None:
        async with Engine(answering(HELLO), host) as engine, client.to(engine) as upstream:
            assert await fetch(upstream) == b"hello"
            assert f"host: {engine.url[7:]}\r\n" in engine.peers[0].heads[0].lower()

    client.run(scenario())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_localhost_of_both_families(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """The address that nobody listens on is passed over. Only asyncio's own look-up can be replaced."""

    def both(_: object, port: int, *_args: object, **_kwargs: object) -> list[Any]:
        kind = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(socket.AF_INET6, *kind, ("::1", port, 0, 0)), (socket.AF_INET, *kind, ("127.0.0.1", port))]

    async def scenario() -> None:
        async with Engine(answering(HELLO), host) as engine:
            engine.url = f"http://localhost:{engine.url.rsplit(':', 1)[1]}"
            monkeypatch.setattr(socket, "getaddrinfo", both)
            async with OURS[1].to(engine) as upstream:
                assert await fetch(upstream) == b"hello"

    OURS[1].run(scenario())


def test_a_path_in_the_url_comes_first(client: Client) -> None:
    async def scenario() -> None:
        async with Engine(answering(HELLO)) as engine:
            engine.url += "/engine" + "/" * client.ours
            async with client.to(engine) as upstream:
                assert await fetch(upstream, "GET", "/v1/models") == b"hello"
                assert engine.peers[0].heads[0].startswith("GET /engine/v1/models HTTP/1.1")

    client.run(scenario())


@pytest.mark.parametrize(
    "url",
    ["ftp://a", "a:80", "http://", "http://:80", "http://a:b", "http://a:99999", "http://u:p@a", "http://a?b"],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|host|[Pp]ort"):
        OwnUpstream(url)


def test_small_packets_are_not_delayed(ours: Client) -> None:
    async def scenario() -> None:
        async with Engine(answering(HELLO)) as engine:
            upstream = OwnUpstream(engine.url)
            await fetch(upstream)
            (connection,) = upstream._open
            raw = connection._transport.get_extra_info("socket")
            assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await upstream.close()

    ours.run(scenario())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost that nobody has signed, with its key."""
    file = tmp_path_factory.mktemp("tls") / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(file),
         "-out", f"{file}.crt"], check=True, capture_output=True,
    )  # fmt: skip
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file


@pytest.mark.parametrize("trusted", [True, False])
def test_https(ours: Client, certificate: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    body = random.Random(5).randbytes(3 * 2**20)

    async def play(peer: Peer) -> None:
        while True:
            path, got = await peer.hear()
            if path == "/echo":
                await peer.say(OK + b"content-length: %d\r\n\r\n" % len(got), got)
            elif path == "/chunked":
                await peer.say(CHUNKED, b"5\r\nhello\r\n", b"0\r\n\r\n")
            elif path == "/until-close":
                await peer.say(OK + b"\r\n", b"hello")
                return
            else:
                await peer.say(OK + b"\r\n", b"hello")
                peer.writer.transport.abort()  # no close_notify: whoever cuts a cable can do that too
                return

    async def scenario() -> None:
        async with Engine(play, "localhost", tls) as engine, ours.to(engine) as upstream:
            if not trusted:
                with pytest.raises(Refused, match="certificate"):
                    await fetch(upstream)
                return
            for _ in range(2):
                assert await fetch(upstream, "POST", "/echo", body) == body
                assert await fetch(upstream, "POST", "/chunked") == b"hello"
            assert await fetch(upstream, "POST", "/until-close") == b"hello"
            assert len(engine.peers) == 1
            if ours.name == "ours":  # asyncio's own TLS does not tell one end from the other
                with pytest.raises(UpstreamError):
                    await fetch(upstream, "POST", "/cut")
            for delay in range(60):
                async with ours.to(engine) as another:
                    task = asyncio.create_task(fetch(another, "POST", "/chunked"))
                    await turns(delay)
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task

    ours.run(scenario())


# All at once.


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    """What the engine does with one request, and what the client does with the answer."""
    return {
        "framing": draw(st.sampled_from(["length", "chunked", "close"])),
        "size": draw(st.sampled_from([0, 1, 100, 5_000, 400_000])),
        "cuts": draw(st.lists(st.floats(0, 1), max_size=4)),
        "fate": draw(st.sampled_from(["whole", "whole", "cut", "reset", "garbage", "junk", "silent"])),
        "reads": draw(st.sampled_from(["read", "chunks", "slowly", "leaves", "cancelled"])),
        "body": draw(st.sampled_from([0, 0, 70_000, 300_000])),
    }


def planned(plan: dict[str, Any], token: str) -> tuple[bytes, bytes]:
    """The body that belongs to a request, and the bytes on the wire."""
    body = (f"<{token}>".encode() * (plan["size"] // 8 + 1))[: plan["size"]]
    extra = f"x-token: {token}\r\n".encode()
    if plan["framing"] == "length":
        return body, OK + extra + b"content-length: %d\r\n\r\n" % len(body) + body
    if plan["framing"] == "close":
        return body, OK + extra + b"connection: close\r\n\r\n" + body
    chunks = [body[start : start + 777] for start in range(0, len(body), 777)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return body, OK + extra + b"transfer-encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


async def play_by_plan(peer: Peer) -> None:
    while True:
        _, raw = await peer.hear()
        request = json.loads(raw)
        plan = request["plan"]
        _, wire = planned(plan, request["token"])
        if plan["fate"] == "silent":
            return
        if plan["fate"] == "garbage":
            wire = b"\x00" + wire
        elif plan["fate"] in ("cut", "reset"):
            wire = wire[:-1] if plan["framing"] != "close" else wire
        elif plan["fate"] == "junk":
            wire += b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad"
        marks = sorted({0, len(wire), *[int(cut * len(wire)) for cut in plan["cuts"]]})
        await peer.say(*[wire[start:end] for start, end in pairwise(marks)])
        if plan["fate"] in ("cut", "reset") or plan["framing"] == "close":
            peer.hang_up(reset=plan["fate"] == "reset")
            return


async def take(upstream: Requests, plan: dict[str, Any], token: str) -> str:
    """Do as planned; what came of it."""
    want, _ = planned(plan, token)
    raw = json.dumps({"plan": plan, "token": token, "pad": "p" * plan["body"]}).encode()
    got = b""
    try:
        async with upstream.request("POST", "/", None, raw) as answer:
            assert (b"x-token", token.encode()) in answer.headers
            if plan["reads"] == "read":
                got = await answer.read()
            async for chunk in answer.chunks():
                got += chunk
                assert want.startswith(got) or plan["fate"] == "junk"
                if plan["reads"] == "slowly":
                    await asyncio.sleep(0.001)
                if plan["reads"] == "leaves":
                    return "left"
    except UpstreamError:
        return "failed"
    assert got == want if plan["fate"] != "junk" or plan["framing"] != "close" else got.startswith(want)
    return "whole"


@pytest.mark.parametrize("client", [*OURS, AIOHTTP], ids=lambda client: client.name)
@settings(
    max_examples=5, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(some=st.lists(plans(), min_size=1, max_size=30), seed=st.integers(0, 2**32))
def test_two_hundred_at_once_never_get_each_others_bytes(
    client: Client, some: list[dict[str, Any]], seed: int
) -> None:
    chance = random.Random(seed)

    async def one(upstream: Requests, number: int) -> None:
        plan = chance.choice(some)
        if plan["fate"] == "junk" and not client.ours:  # aiohttp takes it for the next answer
            plan = plan | {"fate": "whole"}
        await asyncio.sleep(chance.random() * 0.05)
        task = asyncio.create_task(take(upstream, plan, f"{number:06d}"))
        if plan["reads"] == "cancelled":
            await asyncio.sleep(chance.random() * 0.05)
            task.cancel()
        try:
            outcome = await task
        except asyncio.CancelledError:
            assert plan["reads"] == "cancelled"
            return
        if outcome == "whole" and plan["fate"] not in ("whole", "junk"):
            assert plan["framing"] == "close"
            assert plan["fate"] == "cut" or not client.ours
        if outcome == "failed" and plan["fate"] == "whole":
            raise AssertionError(f"{plan} failed")

    async def scenario() -> None:
        async with Engine(play_by_plan) as engine, client.to(engine) as upstream:
            for wave in range(2):
                await asyncio.gather(*[one(upstream, wave * 1000 + number) for number in range(200)])

    client.run(scenario())
