"""Whatever is thrown at the router: a well-formed answer, no fault of its own, and nobody gets another's words."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import itertools
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from adapters import load
from router.endpoints import ENDPOINTS
from tests.conftest import LABELS, wait_ready, write_stack
from tests.servers import FakeEngine, serving

ROOT = Path(__file__).parent.parent
set_hypothesis_home_dir(ROOT / ".run" / "hypothesis")

FAULTS = ("Traceback", "fault of the router", "Exception in ASGI", "exception was never retrieved")
KEYS = {"k-all": None, "k-law": ["legal"], "k-none": []}
BEARER = b"Bearer k-all"


def examples(count: int) -> settings:
    """The same examples in every run, and as many as a busy machine can do."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


# --- the router, as a process -----------------------------------------------------------------------------------


class Target:
    """`python -m router` over a fake engine, with all switched on that it has; `log` is what it complains of."""

    def __init__(self, port: int, engine: FakeEngine, log: Path) -> None:
        self.port, self.engine, self.log = port, engine, log

    def send(self, *pieces: bytes, wait_s: float = 10.0) -> tuple[bytes, bool]:
        """What comes back until the connection ends or `wait_s` pass without a byte, and whether it ended.

        Each piece is a packet of its own.
        """
        got = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for number, piece in enumerate(pieces):
                    time.sleep(0.002 * bool(number))
                    connection.sendall(piece)
            connection.settimeout(wait_s)
            try:
                while data := connection.recv(2**16):
                    got += data
            except TimeoutError:
                return got, False
            except ConnectionResetError:
                pass
        return got, True

    def ask(self, path: str, body: bytes, *headers: tuple[bytes, bytes]) -> Answer:
        """One POST on a connection of its own, and its one answer."""
        given = [(b"Authorization", BEARER), *headers, (b"Content-Length", b"%d" % len(body))]
        lines = [b"POST %s HTTP/1.1" % path.encode(), b"Host: x", b"Connection: close"]
        lines += [name + b": " + value for name, value in given]
        got, ended = self.send(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        assert ended
        (answer,) = answers(got)
        return answer

    def assert_well(self) -> None:
        """It answers, and has met nothing that it did not expect."""
        with contextlib.closing(socket.create_connection(("127.0.0.1", self.port), timeout=10)) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        log = self.log.read_text(errors="replace")
        assert not any(fault in log for fault in FAULTS), log[-5000:]


@dataclass
class Answer:
    """A complete answer; `headers` by lower-case name."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, which must be JSON."""
        assert self.headers["content-type"].startswith("application/json")
        return json.loads(self.body)


def answers(data: bytes, ended: bool = True) -> list[Answer]:
    """All answers in these bytes, by another parser than the router's. One that is cut off is an error only where
    the router itself has ended the connection."""
    found: list[Answer] = []
    while data:
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        parser.send(h11.EndOfMessage())
        parser.receive_data(data)
        answer = _one(parser)
        if answer is None:
            assert not ended, f"an answer is cut off: {data!r}"
            return found
        found.append(answer)
        data = parser.trailing_data[0]
    return found


def _one(parser: h11.Connection) -> Answer | None:
    answer, body = None, b""
    while (event := parser.next_event()) is not h11.NEED_DATA:
        match event:
            case h11.Response():
                names = [name.decode() for name, _ in event.headers]
                assert len(set(names)) == len(names), f"a header came twice: {names}"
                values = [value.decode("latin-1") for _, value in event.headers]
                answer = Answer(event.status_code, dict(zip(names, values, strict=True)), b"")
            case h11.Data():
                body += event.data
            case h11.EndOfMessage():
                assert answer
                answer.body = body
                return answer
    return None


def assert_fine(answer: Answer, path: str = "") -> None:
    """Not the router's fault, and an error in the shape that the route's clients read."""
    assert answer.status < 500, answer.body
    if answer.status >= 400:
        data = answer.json()
        error = data["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert error["type"]
        assert all(value is None or isinstance(value, str) for value in error.values())
        no_http = error["code"] in ("invalid_http", "header_too_large")
        anthropic = path.startswith("/v1/messages") and not no_http
        assert data.get("type") == ("error" if anthropic else None)
    elif path in ENDPOINTS:
        assert answer.headers["x-lora-select-adapter"] in ("base", *LABELS)
        assert answer.headers["x-lora-select-reason"]


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("target")
    keys = {key: {"sha256": digest(key), "adapters": names} for key, names in KEYS.items()}
    keys["k-counted"] = {"sha256": digest("k-counted"), "tokens_per_minute": 10**9, "requests_per_minute": 10**9}  # type: ignore[dict-item]
    engine, log = FakeEngine(["base", *LABELS]), folder / "router.log"
    with serving(engine) as engine_url:
        file = write_stack(
            folder,
            engine_url,
            {"medical": {"tags": {"audience": ["patient", "student"]}}},
            keys=keys,
            admin_key=digest("k-admin"),
            decision_log="decisions.db",
            log_prompts=True,
            response_cache_mb=1,
            max_body_mb=0.25,
            max_header_kb=16,
            receive_timeout_s=1,
        )
        command = [sys.executable, "-m", "router", "--config", str(file)]
        with log.open("wb") as out, subprocess.Popen(command, cwd=ROOT, stderr=out) as process:
            try:
                stack = load(file)
                deadline = time.monotonic() + 30
                while not listening(stack.router.port):
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                wait_ready(stack.router_url)
                yield Target(stack.router.port, engine, log)
            finally:
                process.terminate()


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- arbitrary JSON ---------------------------------------------------------------------------------------------

ROUTES = (*ENDPOINTS, "/route", "/feedback")
HELLO = [{"role": "user", "content": "Hello, my landlord!"}]
VALID: dict[str, Any] = {
    "model": "auto",
    "messages": HELLO,
    "prompt": "Hello",
    "input": "Hello",
    "tokens": [1],
    "text": "Hello",
    "max_tokens": 4,
    "metadata": {"audience": "patient"},
    "temperature": 0,
}
"""A body that every route but /feedback takes."""

FEEDBACK: dict[str, Any] = {"request_id": "a", "adapter": "legal", "rating": "up", "comment": "b"}

text = st.text(st.characters(), max_size=20)
"""Lone surrogates too."""

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**31, 2**63, 2**64, -(2**63) - 1, 10**40, -0.0, 1e308, 5e-324])
    | st.floats()
    | text
    | st.sampled_from(["auto", "legal", "base", "user", "text", "audience", "patient", "\0", "\ud800", "x" * 3000])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            text | st.sampled_from(["type", "text", "role", "content", "audience"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "input_text", "image_url", "tool_result", "output_text"]) | values},
    optional={"text": text | values, "image_url": values, "content": values, "source": values},
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "developer", "tool"]) | values},
    optional={
        "content": text | st.lists(parts | values, max_size=3) | values,
        "tool_calls": values,
        "tool_call_id": values,
        "type": values,
        "output": values,
    },
)
FIELDS = {
    "model": st.sampled_from(["auto", "legal", "base", "lag", "AUTO", "", "auto\0"]),
    "messages": st.lists(messages | values, max_size=5),
    "prompt": st.lists(text | st.integers(), max_size=3) | text,
    "input": st.lists(messages | text, max_size=3) | text,
    "metadata": st.dictionaries(st.sampled_from(["audience", "x"]), values, max_size=2),
    "stream": st.booleans(),
    "stream_options": st.dictionaries(st.sampled_from(["include_usage", "continuous_usage_stats"]), values),
    "temperature": st.sampled_from([0, 0.0, -0.0, 1]),
    "system": st.lists(parts, max_size=2) | text,
    "instructions": text,
    "tools": st.lists(values, max_size=2),
    "request_id": text,
    "rating": text,
    "comment": text,
}
deep = st.builds(
    lambda depth, left, right: left * depth + "1" + right * depth,
    st.sampled_from([2, 100, 253, 254, 255, 256, 500, 990, 1000, 1022, 1023, 1024, 1025, 5000]),
    *(st.just(one) for one in ('[{"a":', "}]")),
) | st.sampled_from([f"{'[' * depth}{']' * depth}" for depth in (250, 255, 400, 980, 1000, 1020, 1024, 20_000)])


def written(value: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    """As JSON text, or what Python takes for it: NaN, and surrogates that are raw or escaped."""
    return st.builds(json.dumps, value, ensure_ascii=st.booleans())


pairs = st.sampled_from(sorted(FIELDS)).flatmap(
    lambda name: st.tuples(st.just(name), written(FIELDS[name]) | written(values) | deep)
) | st.tuples(text, written(values))


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """A route and a body: what is valid there, with fields added and overwritten, and names that come twice."""
    path = draw(st.sampled_from(ROUTES))
    valid = FEEDBACK if path == "/feedback" else VALID
    kept = draw(st.sets(st.sampled_from(sorted(valid)))) if draw(st.booleans()) else set(valid)
    fields = [(name, json.dumps(valid[name])) for name in sorted(kept)]
    fields += draw(st.lists(pairs, max_size=4))
    shown = ",".join(f"{json.dumps(name)}:{value}" for name, value in fields)
    return path, f"{{{shown}}}".encode("utf-8", "surrogatepass")


@examples(250)
@given(bodies())
def test_any_json_gets_a_proper_answer(target: Target, asked: tuple[str, bytes]) -> None:
    path, body = asked
    assert_fine(target.ask(path, body), path)


@examples(80)
@given(st.sampled_from(ROUTES), written(values) | deep)
def test_a_body_that_is_no_object_is_a_400(target: Target, path: str, body: str) -> None:
    answer = target.ask(path, body.encode("utf-8", "surrogatepass"))
    assert_fine(answer, path)
    assert answer.status in (400, 404) or body.startswith("{")


@pytest.mark.parametrize("depth", [300, 600, 1000])
@pytest.mark.parametrize("where", ["x", "metadata", "tools", "messages", "stream_options"])
def test_what_is_nested_too_deep_is_the_clients_fault(target: Target, where: str, depth: int) -> None:
    """Whoever meets it first: a tag's error message, the response cache's key, the body for the engine."""
    nested = "[" * depth + "]" * depth
    value = f'{{"audience": {nested}}}' if where == "metadata" else nested
    body = json.dumps(VALID | {"stream": True})[:-1] + f', "{where}": {value}}}'
    answer = target.ask("/v1/chat/completions", body.encode())
    assert_fine(answer)
    assert answer.status == 400


def test_after_all_that_json_the_router_is_well(target: Target) -> None:
    target.assert_well()


# --- arbitrary bytes --------------------------------------------------------------------------------------------

SENT = json.dumps(VALID).encode()
spoilt = st.builds(
    lambda at, cut, new: SENT[:at] + new + SENT[at + cut :],
    st.integers(0, len(SENT)),
    st.integers(0, 3),
    st.binary(max_size=3),
)
WRAPPED = [
    b"",
    gzip.compress(SENT),
    b"\x1f\x8b",
    b"\xef\xbb\xbf" + SENT,
    SENT.decode().encode("utf-16"),
    SENT.decode().encode("utf-32"),
    SENT + b"\0",
    SENT * 2,
    SENT + b"\n\n\n",
    b" " * 300_000,
    b"[" * 200_000,
    b'{"a":' * 40_000,
    b'"' + b"\\u0000" * 30_000 + b'"',
    b"1" * 200_000,
    b'{"model": "auto", "messages": [], "x": ' + b"9" * 100_000 + b"}",
    b'{"model": "' + b"m" * 200_000 + b'", "messages": [], "prompt": "", "input": ""}',
]


@examples(150)
@given(st.sampled_from(ROUTES), st.binary(max_size=60) | spoilt | st.sampled_from(WRAPPED))
def test_any_bytes_get_a_proper_answer(target: Target, path: str, body: bytes) -> None:
    assert_fine(target.ask(path, body), path)


def test_after_all_those_bytes_the_router_is_well(target: Target) -> None:
    target.assert_well()


# --- arbitrary headers ------------------------------------------------------------------------------------------

NAMES = [
    b"x-lora-select-tags", b"x-request-id", b"Authorization", b"x-api-key", b"Content-Type", b"traceparent",
    b"tracestate", b"Accept", b"Accept-Encoding", b"User-Agent", b"anthropic-version", b"Content-Encoding",
    b"Cookie", b"Connection", b"Keep-Alive", b"Upgrade", b"TE", b"Trailer", b"Expect", b"Host", b"Origin",
    b"Range", b"X-Forwarded-For", b"HTTP2-Settings", b"Proxy-Authorization", b"x-lora-select-adapter",
]  # fmt: skip
VALUES = [
    b"", b" ", b"audience=patient", b"audience=patient,audience=student", b"audience", b"=", b",,=,",
    b"colour=red", b"a" * 200, b"Bearer ", b"Bearer k-law", b"bearer k-all ", b"Basic azpi", b"k-none", b"k-admin",
    b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"00-1", b"gzip", b"identity;q=0", b"text/plain",
    b"application/json; charset=utf-16", b"close", b"keep-alive", b"Upgrade, HTTP2-Settings", b"h2c", b"websocket",
    b"100-continue", b"200-ok", b"bytes=0-1", b"\xff\xfe", "ünï".encode(), "ünï".encode("latin-1"), b"a\tb",
]  # fmt: skip
legal_values = st.sampled_from(VALUES) | st.binary(max_size=20).map(
    lambda raw: re.sub(rb"[\0-\x1f\x7f]", b"?", raw)
)
any_headers = st.lists(
    st.tuples(
        st.sampled_from(NAMES) | st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True),
        legal_values | st.binary(max_size=12),
    ).filter(lambda pair: pair[0].lower() not in (b"content-length", b"transfer-encoding")),
    max_size=6,
)


@examples(150)
@given(st.sampled_from(ROUTES), any_headers, st.booleans())
def test_any_headers_get_a_proper_answer(
    target: Target, path: str, headers: list[tuple[bytes, bytes]], with_key: bool
) -> None:
    lines = [b"POST %s HTTP/1.1" % path.encode(), b"Host: x", b"Connection: close"]
    key = [(b"x-api-key", b"k-all"), (b"Authorization", BEARER)] if with_key else []
    lines += [name + b": " + value for name, value in (*key, *headers, (b"Content-Length", b"%d" % len(SENT)))]
    got, ended = target.send(b"\r\n".join(lines) + b"\r\n\r\n" + SENT)
    assert ended
    (answer,) = answers(got)
    assert_fine(answer, path)
    if answer.status != 400:
        assert re.fullmatch(r"[\w.:/+=-]{1,128}", answer.headers["x-request-id"])


def test_after_all_those_headers_the_router_is_well(target: Target) -> None:
    target.assert_well()


# --- arbitrary bytes on the connection --------------------------------------------------------------------------

NAMED = b'{"model": "legal", "messages": []}'
STREAMED = b'{"model": "legal", "messages": [], "stream": true}'


def post(body: bytes, *lines: bytes, path: bytes = b"/v1/chat/completions") -> bytes:
    """A whole request; `lines` stand for the length where they are given."""
    framing = lines or (b"Content-Length: %d" % len(body),)
    head = (b"POST %s HTTP/1.1" % path, b"Host: x", b"Authorization: " + BEARER, *framing)
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


CHUNKED = b"Transfer-Encoding: chunked"
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
FRAGMENTS = [
    GET,
    post(NAMED),
    post(STREAMED),
    post(NAMED, b"Expect: 100-continue", b"Content-Length: %d" % len(NAMED)),
    post(chunked(NAMED[:9], NAMED[9:], b""), CHUNKED),
    post(chunked(NAMED), CHUNKED),
    post(chunked(NAMED, b"").replace(b"\r\n\r\n", b"\r\nX-Trailer: 1\r\n\r\n"), CHUNKED),
    post(b"zz\r\n" + NAMED, CHUNKED),
    post(b"-5\r\n" + NAMED, CHUNKED),
    post(b"ffffffffffffffffff\r\n", CHUNKED),
    post(chunked(NAMED, b""), CHUNKED, b"Content-Length: 5"),
    post(NAMED, b"Content-Length: -1"),
    post(NAMED, b"Content-Length: 10", b"Content-Length: 11"),
    post(NAMED, b"Content-Length: 10, 11"),
    post(NAMED, b"Content-Length: 99999999999999999999"),
    post(NAMED, b"Content-Length: 0"),
    post(NAMED, b"Content-Length: 3"),
    post(NAMED, b"Content-Length: 5000"),
    post(NAMED, b"X: y"),
    post(NAMED, b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: %d" % len(NAMED)),
    b"GET /v1/models/%ff%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /admin/decisions?limit=" + b"9" * 5000 + b" HTTP/1.1\r\nAuthorization: Bearer k-admin\r\n\r\n",
    b"GET /admin/decisions?limit=%D9%A3&request_id=%ff HTTP/1.1\r\nAuthorization: Bearer k-admin\r\n\r\n",
    b"GET * HTTP/1.1\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\n\r\n",
    b"CONNECT x:443 HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET http://elsewhere/health HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET /health\r\n\r\n",
    b"GET /h\xc3\xa9 HTTP/1.1\r\n\r\n",
    b"GET /health HTTP/1.1\nHost: x\n\n",
    b"GET /health HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
    b"GET /health HTTP/1.1\r\n: nameless\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /health HTTP/1.1\r\nA: " + b"a" * 20_000,
    b"\r\n",
    b"0\r\n\r\n",
    b"Content-Length: 3\r\n",
    b"\0",
]


@examples(70)
@given(
    st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=20), max_size=4),
    st.integers(0, 200),
    st.none() | st.integers(0, 300),
)
def test_any_bytes_on_a_connection_get_proper_answers(
    target: Target, fragments: list[bytes], missing: int, split: int | None
) -> None:
    """Pipelined, cut short, in two packets, or no HTTP at all."""
    sent = b"".join(fragments)
    sent = sent[: len(sent) - missing] or GET
    pieces = [sent] if split is None else [sent[:split], sent[split:]]
    got, ended = target.send(*pieces, wait_s=0.08)
    for answer in answers(got, ended):
        assert_fine(answer)


INNER = post(b'{"model": "legal", "messages": [], "smuggled": true}')


@pytest.mark.parametrize(
    "framing",
    [
        (CHUNKED, b"Content-Length: 5"),
        (b"Content-Length: 5", CHUNKED),
        (b"Content-Length: 5", b"Content-Length: 5"),
        (b"Content-Length: 5", b"Content-Length: 50"),
        (b"Content-Length: 5, 5",),
        (b"Content-Length: +5",),
        (b"Content-Length: 0x5",),
        (b"Content-Length: 5 5",),
        (b"Content-Length: -5",),
        (b"Transfer-Encoding : chunked",),
        (b"Transfer-Encoding: xchunked",),
        (b"Transfer-Encoding: chunked, identity",),
        (b"Transfer-Encoding: identity, chunked, x",),
        (b"Transfer-Encoding: \x0bchunked",),
        (b"X: y\r\n Transfer-Encoding: chunked",),
        (b"X: y\nTransfer-Encoding: chunked",),
        (b"X: y\rTransfer-Encoding: chunked",),
    ],
)
def test_a_request_in_another_ones_body_is_not_carried_out(target: Target, framing: tuple[bytes, ...]) -> None:
    """Where a request's length can be read in two ways it is refused, and its connection ended."""
    got, ended = target.send(post(b"0\r\n\r\n" + INNER, *framing))
    (answer,) = answers(got, ended)
    assert ended
    assert (answer.status, answer.json()["error"]["code"]) == (400, "invalid_http")
    assert not any("smuggled" in seen for seen in target.engine.seen)


def test_pipelined_requests_are_answered_in_their_order(target: Target) -> None:
    names = ["legal", "medical", "base", "legal"]
    sent = b"".join(
        post(json.dumps({"model": name, "messages": [], "stream": name == "legal"}).encode()) for name in names
    )
    got, _ = target.send(sent, wait_s=1)
    assert [answer.headers["x-lora-select-adapter"] for answer in answers(got)] == names


@pytest.mark.parametrize("body", [STREAMED, b'{"model": "legal", "messages": [], "test": "slow"}'])
def test_what_comes_behind_a_request_does_not_spoil_its_answer(target: Target, body: bytes) -> None:
    """Garbage while an answer is under way: the answer is completed, the connection then ended."""
    got, ended = target.send(post(body) + b"\0garbage\r\n\r\n", wait_s=3)
    (answer,) = answers(got, ended)
    assert ended
    assert answer.status == 200
    assert answer.headers["x-lora-select-adapter"] == "legal"


def test_a_line_end_too_many_does_not_cut_an_answer_short(target: Target) -> None:
    """Old clients send one behind a body; the clock of the next head must not run out on this answer."""
    body = b'{"model": "legal", "messages": [], "stream": true, "echo": "long", "words": 150}'
    with socket.create_connection(("127.0.0.1", target.port), timeout=10) as connection:
        connection.sendall(post(body))
        time.sleep(0.1)
        connection.sendall(b"\r\n")
        got, deadline = b"", time.monotonic() + 20
        while b"data: [DONE]" not in got and time.monotonic() < deadline:
            piece = connection.recv(2**16)
            assert piece, "the connection was ended in the middle of an answer"
            got += piece
    assert got.count(b'"content":"long "') == 150


def test_a_client_that_pipelines_and_goes_away_cancels_the_engines_request(target: Target) -> None:
    target.engine.cancelled.clear()
    stalled = b'{"model": "legal", "messages": [], "stream": true, "test": "stall"}'
    with socket.create_connection(("127.0.0.1", target.port), timeout=10) as connection:
        connection.sendall(post(stalled) + post(NAMED))
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    assert target.engine.cancelled.wait(5)


def test_an_offer_of_http2_is_overlooked(target: Target) -> None:
    """Java's own client makes it with the first request of a connection, body and all."""
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAA")
    got, _ = target.send(post(NAMED, *offer, b"Content-Length: %d" % len(NAMED)) + post(NAMED), wait_s=1)
    assert [answer.status for answer in answers(got)] == [200, 200]


def test_after_all_those_connections_the_router_is_well(target: Target) -> None:
    target.assert_well()


# --- never a leak between requests ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wish:
    """One of many requests at once. `leave`: the client goes after so many bytes, with -1 before the first one."""

    path: str
    model: str
    key: str
    stream: bool
    test: str | None
    leave: int | None


wishes = st.builds(
    Wish,
    st.sampled_from(["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"]),
    st.sampled_from(["auto", "auto", "base", *LABELS, "nobody"]),
    st.sampled_from([*KEYS, "k-counted", "k-wrong"]),
    st.booleans(),
    st.sampled_from([None, None, None, "slow", "break", "fail", "drop", "event", "teapot"]),
    st.none() | st.integers(-1, 2000),
)
SUBJECTS = ["my landlord and the lease", "a rash and a fever", "bonds and interest rates", "the tallest tree"]
TOKEN = re.compile(r"tok-\d+-")
numbers = itertools.count()


async def fulfil(client: aiohttp.ClientSession, url: str, wish: Wish) -> None:
    """Ask with a token of one's own, which the engine repeats in every event: no other may be in the answer."""
    number = next(numbers)
    token = f"tok-{number}-"
    said = f"{SUBJECTS[number % len(SUBJECTS)]} {token}"
    content = {"messages": [{"role": "user", "content": said}], "prompt": said, "input": said}
    body = content | {"model": wish.model, "stream": wish.stream, "echo": token, "temperature": 0, "max_tokens": 9}
    body |= {"test": wish.test} if wish.test else {}
    headers = {"authorization": f"Bearer {wish.key}", "x-request-id": token}
    async with client.post(url + wish.path, json=body, headers=headers) as answer:
        assert answer.headers["x-request-id"] == token
        raw = b""
        with contextlib.suppress(aiohttp.ClientPayloadError):
            async for piece in answer.content.iter_any():
                raw += piece
                if wish.leave is not None and 0 <= wish.leave < len(raw):
                    answer.close()
                    break
    found = set(TOKEN.findall(raw.decode()))
    assert found <= {token}, f"{wish} got {found - {token}}"
    who = answer.headers.get("x-lora-select-adapter")
    if answer.status == 200:
        assert wish.key != "k-wrong"
        allowed = KEYS.get(wish.key)
        assert who == "base" or allowed is None or who in allowed
        assert wish.model in ("auto", who)
        models = set(re.findall(rb'"model":"([^"]*)"', raw))
        assert models <= {str(who).encode()}
        complete = wish.leave is None and wish.test not in ("break", "event")
        assert not complete or found == {token}
    elif wish.leave is None:
        assert answer.status in (400, 401, 403, 404, 418, 500, 503), raw
        assert answer.status < 500 or wish.test in ("fail", "drop", "break"), raw
        assert "error" in json.loads(raw)


async def again(client: aiohttp.ClientSession, url: str, wish: Wish) -> None:
    """As every client does where its kept connection has ended before a request was written: on a busy machine the
    client itself may wait for longer than the router does."""
    for _ in range(3):
        with contextlib.suppress(aiohttp.ClientOSError):
            await fulfil(client, url, wish)
            return
    await fulfil(client, url, wish)


async def patiently(client: aiohttp.ClientSession, url: str, wish: Wish) -> None:
    if wish.leave != -1:
        await again(client, url, wish)
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.005):
            await fulfil(client, url, wish)


@examples(25)
@given(st.lists(wishes, min_size=20, max_size=60))
def test_nobody_gets_what_is_anothers(target: Target, asked: list[Wish]) -> None:
    """Over connections that are used again and again, beside clients that leave and requests that fail."""

    async def together() -> None:
        # Sooner than the router's `receive_timeout_s` ends a connection that brings no request.
        connector = aiohttp.TCPConnector(limit=16, keepalive_timeout=0.4)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(30)) as client:
            await asyncio.gather(*(patiently(client, f"http://127.0.0.1:{target.port}", wish) for wish in asked))

    asyncio.run(together())


def test_after_all_those_clients_the_router_is_well(target: Target) -> None:
    target.assert_well()
