"""`python -m benchmarks.client`: the load client. A job as JSON on each line of stdin, what it saw on stdout."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from dataclasses import asdict, replace
from itertools import cycle
from typing import cast

import httptools
import orjson
import uvloop

from benchmarks.load import Job, Latency, Measured
from benchmarks.processes import cpu_s
from benchmarks.stats import percentile
from benchmarks.stub import TICK

MARK = TICK.encode()
DONE = b"data: [DONE]"
ANSWERED_WITHIN_S = 60
NONE = Latency(0.0, 0.0, 0.0, 0.0, 0)
EMPTY = Measured(1.0, 0, 0, NONE, NONE, NONE, {})


class Connection(asyncio.Protocol):
    """Sends, checks, and asks its run for the next request."""

    _run: Run

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._sent_ns = self._first_ns = 0
        self._fresh = self._busy = self._complete = self._stays = False
        self._parts: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._busy:
            self._run.fail(f"the connection was closed before the answer's end{f': {error}' if error else ''}")

    @property
    def is_open(self) -> bool:
        """Neither end has closed it."""
        return self._transport is not None

    def ask_for(self, run: Run) -> None:
        """Work for a run from now on."""
        self._run = run
        self._send()

    def _send(self) -> None:
        if self._transport is None:
            self._run.fail("the connection was closed between two requests")
            return
        request, self._fresh = self._run.next_request()
        if request is None:
            self._busy = False
            self._run.idle()
            return
        self._busy, self._complete = True, False
        self._first_ns = 0
        self._parts.clear()
        self._sent_ns = time.perf_counter_ns()
        self._transport.write(request)

    def close(self) -> None:
        """Done, whether an answer was complete or not."""
        self._busy = False
        if self._transport:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._run.fail(f"no HTTP: {error}")
            return
        if self._complete and self._checked():
            self._send()

    def on_body(self, body: bytes) -> None:
        if not self._first_ns:
            self._first_ns = time.perf_counter_ns()
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self._complete = True
        self._stays = self._parser.should_keep_alive()  # the parser knows it only now

    def _checked(self) -> bool:
        ended_ns = time.perf_counter_ns()
        body, job, status = b"".join(self._parts), self._run.job, self._parser.get_status_code()
        if status != 200:
            return self._run.fail(f"status {status}: {body[:200]!r}")
        if job.chunks and (body.count(MARK) != job.chunks or DONE not in body[-50:]):
            return self._run.fail(f"{body.count(MARK)} of {job.chunks} chunks; the end is {body[-80:]!r}")
        if not job.chunks and self._run.expected not in body:
            return self._run.fail(f"not the answer: {body[:200]!r}")
        if not self._stays:
            return self._run.fail("the connection is not kept alive")
        self._run.answered(ended_ns - self._sent_ns, self._first_ns - self._sent_ns, self._fresh)
        return True


class Run:
    """A closed loop over connections, from its first request until every answer is complete."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.expected = job.expect.encode()
        self.failure = ""
        self._known = cycle([self._encode(text) for text in job.texts])
        self._fresh = iter(job.fresh)
        self._begun = self._working = 0
        self._stopping = False
        self._all_idle = asyncio.Event()
        self._times: dict[str, list[int]] = {"latency": [], "first_byte": [], "fresh": []}

    async def go(self, connections: list[Connection]) -> Measured:
        """Until the job's time or requests are used up. A wrong answer ends it at once."""
        self._working = len(connections)
        before, began = self._clocks()
        for connection in connections:
            connection.ask_for(self)
        if not self.job.requests:
            await self._wait(self.job.window_s)
            self._stopping = True
        await self._wait(ANSWERED_WITHIN_S * max(1, self.job.requests // 1000))
        if not self._all_idle.is_set():
            self.fail(f"an answer took more than {ANSWERED_WITHIN_S} s")
        after, ended = self._clocks()
        used = {name: after[name] - before[name] for name in before}
        times = {name: _latency(sorted(values)) for name, values in self._times.items()}
        answered = times["first_byte"].count
        return Measured(
            ended - began, answered, answered * self.job.chunks, **times, cpu_s=used, failure=self.failure
        )

    def next_request(self) -> tuple[bytes | None, bool]:
        """The bytes to send, None at the end, and whether their text is a fresh one."""
        if self._stopping or (self.job.requests and self._begun == self.job.requests):
            return None, False
        self._begun += 1
        if self.job.fresh_every and self._begun % self.job.fresh_every == 0:
            text = next(self._fresh, None)
            if text is None:
                self.fail("there are no more fresh texts")
                return None, False
            return self._encode(text), True
        return next(self._known), False

    def answered(self, took_ns: int, first_ns: int, fresh: bool) -> None:
        """One right answer."""
        self._times["fresh" if fresh else "latency"].append(took_ns)
        self._times["first_byte"].append(first_ns)

    def fail(self, why: str) -> bool:
        """Remember the first thing that was wrong, and stop; false, for whoever asked whether it was right."""
        self.failure = self.failure or why
        self._stopping = True
        self._all_idle.set()
        return False

    def idle(self) -> None:
        """A connection has nothing more to do."""
        self._working -= 1
        if not self._working:
            self._all_idle.set()

    async def _wait(self, seconds: float) -> None:
        """Or less, when everything is done, or something was wrong."""
        try:
            async with asyncio.timeout(seconds):
                await self._all_idle.wait()
        except TimeoutError:
            return

    def _clocks(self) -> tuple[dict[str, float], float]:
        used = {name: cpu_s(pids) for name, pids in self.job.watch.items()}
        return used | {"client": time.process_time()}, time.perf_counter()

    def _encode(self, text: str) -> bytes:
        body = orjson.dumps(self.job.body(text))
        lines = [
            f"POST {self.job.path} HTTP/1.1", f"host: 127.0.0.1:{self.job.port}", "content-type: application/json",
            "accept: application/json", "accept-encoding: identity", "user-agent: load/1",
            f"authorization: Bearer {self.job.key}", f"content-length: {len(body)}",
            *self.job.headers,
        ]  # fmt: skip
        return "\r\n".join([*lines, "", ""]).encode() + body


async def measure(job: Job) -> Measured:
    """Connect, warm up with whole answers to known texts, run the job, disconnect."""
    warm_up, run = Run(replace(job, chunks=0, requests=0, fresh_every=0, window_s=job.warm_s)), Run(job)
    connections = [Connection() for _ in range(job.connections)]
    try:
        await _connect(connections, job.port)
        if job.warm_s:
            warmed = await warm_up.go(connections)
            if warmed.failure:
                return warmed
            # A first answer can take so long that a server closes the connections which wait for it.
            await _connect([connection for connection in connections if not connection.is_open], job.port)
        return await run.go(connections)
    except OSError as error:
        return replace(EMPTY, failure=f"port {job.port}: {error.strerror or error}")
    finally:
        for connection in connections:
            connection.close()


async def _connect(connections: list[Connection], port: int) -> None:
    loop = asyncio.get_running_loop()
    for connection in connections:
        await loop.create_connection(lambda it=connection: it, "127.0.0.1", port)  # type: ignore[misc]


def _latency(ordered_ns: list[int]) -> Latency:
    p50, p95, p99 = (percentile(ordered_ns, percent) / 1e6 for percent in (50, 95, 99))
    return Latency(p50, p95, p99, max(ordered_ns, default=0) / 1e6, len(ordered_ns))


def main() -> int:
    """Until stdin ends."""
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin.buffer:
            measured = runner.run(measure(Job(**orjson.loads(line))))
            sys.stdout.buffer.write(orjson.dumps(asdict(measured)) + b"\n")
            sys.stdout.buffer.flush()
            gc.collect()
    return 0


if __name__ == "__main__":
    sys.exit(main())
