"""What can be seen of the router: metrics, the decision log and what people say of it, traces."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from adapters import ConfigError, load
from router.app import create_app
from router.decisions import DecisionLog
from router.life import Life, Occupancy
from router.metrics import GAUGE_S, Metrics
from router.upstream import HttpUpstream
from tests.conftest import GENERAL, LEGAL, Wire, chat, wired, write_stack
from tests.servers import free_port, serving
from tests.test_process import running

ROOT = Path(__file__).parent.parent
ADMIN = "k-admin"
AS_ADMIN = {"authorization": f"Bearer {ADMIN}"}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    digest = hashlib.sha256(ADMIN.encode()).hexdigest()
    folder = tmp_path_factory.mktemp("watched")
    with wired(folder, decision_log="run/decisions.db", admin_key=digest, response_cache_mb=1) as one:
        yield one


# --- metrics ----------------------------------------------------------------------------------------------------


def scraped(wire: Wire) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    request = urllib.request.Request(f"{wire.url}/metrics", headers=AS_ADMIN)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["content-type"].startswith("text/plain")
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


class Change:
    """How much each sample has grown since."""

    def __init__(self, wire: Wire) -> None:
        self._wire, self._before = wire, scraped(wire)

    def __call__(self, name: str, **labels: str) -> float:
        key = (f"lora_select_{name}", frozenset(labels.items()))
        return scraped(self._wire).get(key, 0.0) - self._before.get(key, 0.0)


def test_metrics_are_the_adapters_own(watched: Wire) -> None:
    grown = Change(watched)
    for _ in range(2):
        watched.post(body=chat(LEGAL))
    watched.post(body=chat(LEGAL, model="medical", stream=True))
    watched.post(body=chat(LEGAL, test="fail"))
    path = "/v1/chat/completions"
    assert grown("requests_total", adapter="legal", endpoint=path, status="200") == 2
    assert grown("requests_total", adapter="medical", endpoint=path, status="200") == 1
    assert grown("requests_total", adapter="base", endpoint=path, status="200") == 1
    assert grown("prompt_tokens_total", adapter="legal") == 14
    assert grown("completion_tokens_total", adapter="legal") == 10
    assert grown("completion_tokens_total", adapter="medical") == 5, "a stream's tokens are counted unasked"
    assert grown("decisions_total", adapter="legal", reason="classified") == 2
    assert grown("decisions_total", adapter="base", reason="fallback") == 1
    assert grown("decisions_total", adapter="medical", reason="named") == 1
    assert grown("first_byte_seconds_count", adapter="legal") == 2
    assert grown("duration_seconds_count", adapter="medical") == 1
    assert grown("score_count", adapter="legal") == 2
    assert grown("decision_cache_total", result="miss") == 1
    assert grown("decision_cache_total", result="hit") == 2
    assert grown("classify_seconds_count") == 1
    assert grown("in_flight") == 0


def test_errors_are_counted_by_what_they_are(watched: Wire) -> None:
    grown = Change(watched)
    watched.post(body=b"{nonsense")
    watched.post(body=chat(LEGAL, model="nobody"))
    watched.post(body=chat(LEGAL, test="teapot"))
    sdk = openai.OpenAI(base_url=f"{watched.url}/v1", api_key="none", max_retries=0)
    broken = sdk.chat.completions.create(**chat(LEGAL), stream=True, extra_body={"test": "break"})
    with pytest.raises(openai.APIError):
        list(broken)
    assert grown("errors_total", adapter="", code="invalid_json") == 1
    assert grown("errors_total", adapter="", code="model_not_found") == 1
    assert grown("errors_total", adapter="legal", code="418") == 1
    assert grown("errors_total", adapter="legal", code="engine_unavailable") == 1
    assert grown("in_flight") == 0


def test_a_client_that_went_away_is_counted_so(watched: Wire) -> None:
    grown = Change(watched)
    sdk = openai.OpenAI(base_url=f"{watched.url}/v1", api_key="none", max_retries=0)
    stream = sdk.chat.completions.create(**chat(LEGAL), stream=True, extra_body={"test": "stall"})
    next(iter(stream))
    stream.close()
    deadline = time.monotonic() + 5
    while not grown("errors_total", adapter="legal", code="client_gone") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert grown("requests_total", adapter="legal", endpoint="/v1/chat/completions", status="499") == 1


def test_response_cache_hits_are_counted(watched: Wire) -> None:
    grown = Change(watched)
    for _ in range(3):
        watched.post(body=chat(LEGAL, temperature=0))
    assert grown("response_cache_total", result="hit") == 2
    assert grown("response_cache_total", result="miss") == 1


def test_another_worker_is_told_of_requests_that_have_only_begun(tmp_path: Path) -> None:
    with running(tmp_path, workers=2) as router:
        sdk = openai.OpenAI(base_url=f"{router.url}/v1", api_key="none", max_retries=0)
        ask = sdk.chat.completions.create
        streams = [ask(**chat(LEGAL), stream=True, extra_body={"test": "stall"}) for _ in range(8)]
        time.sleep(2 * GAUGE_S)
        said = set()
        for _ in range(20):  # some by the one, some by the other
            with urllib.request.urlopen(f"{router.url}/metrics", timeout=10) as answer:
                families = text_string_to_metric_families(answer.read().decode())
                said |= {
                    s.value for family in families for s in family.samples if s.name == "lora_select_in_flight"
                }
        for stream in streams:
            stream.close()
    assert said == {8.0}


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    names = {family.name for family in text_string_to_metric_families(Metrics(Occupancy()).page().decode())}
    text = (ROOT / "docs" / "grafana.json").read_text(encoding="utf-8")
    dashboard = json.loads(text)
    asked = {
        word.split("(")[-1].split("{")[0].split("[")[0]
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
        for word in target["expr"].replace(")", " ").replace("(", " ").split()
        if "lora_select_" in word
    }
    assert len(asked) >= 8
    for name in asked:
        assert (
            name.removesuffix("_bucket").removesuffix("_total").removesuffix("_count").removesuffix("_sum")
            in names
        )


# --- the decision log -------------------------------------------------------------------------------------------


def logged(watched: Wire, request_id: str) -> dict[str, Any]:
    status, body, _ = watched.get(f"/admin/decisions?request_id={request_id}", **AS_ADMIN)
    assert status == 200
    (row,) = body["decisions"]
    return dict(row)


def test_a_decision_can_be_looked_up(watched: Wire) -> None:
    _, _, headers = watched.post(body=chat(LEGAL), x_request_id="look-me-up")
    assert headers["x-request-id"] == "look-me-up"
    row = logged(watched, "look-me-up")
    assert (row["model"], row["reason"], row["status"], row["key"]) == ("legal", "classified", 200, "")
    assert row["score"] == pytest.approx(row["scores"]["legal"])
    assert f"{row['score']:.4f}" == headers["x-lora-select-score"]
    assert (row["prompt_tokens"], row["completion_tokens"]) == (7, 5)
    assert 0 < row["first_byte_ms"] <= row["latency_ms"]
    assert abs(row["time"] - time.time()) < 60


def test_prompts_are_not_kept_unless_asked_for(watched: Wire, tmp_path: Path) -> None:
    watched.post(body=chat(LEGAL), x_request_id="private")
    row = logged(watched, "private")
    assert (row["text"], row["text_sha256"]) == (None, hashlib.sha256(LEGAL.encode()).hexdigest())
    kept = b"".join(file.read_bytes() for file in watched.stack.below("run").iterdir())
    assert b"landlord" not in kept
    with wired(tmp_path, decision_log="open.db", log_prompts=True) as open_book:
        open_book.post(body=chat(LEGAL))
    with sqlite3.connect(tmp_path / "open.db") as database:
        assert database.execute("select text from decisions").fetchall() == [(LEGAL,)]
    database.close()


def test_the_newest_decisions_come_first_and_can_be_limited(watched: Wire) -> None:
    for number in range(3):
        watched.post(body=chat(GENERAL), x_request_id=f"row-{number}")
    rows = watched.get("/admin/decisions?limit=2", **AS_ADMIN)[1]["decisions"]
    assert [row["request_id"] for row in rows] == ["row-2", "row-1"]
    for limit in ("0", "x", "100000", "-1"):
        assert watched.get(f"/admin/decisions?limit={limit}", **AS_ADMIN)[0] == 400


def test_feedback_says_what_would_have_been_right(watched: Wire) -> None:
    watched.post(body=chat(LEGAL), x_request_id="wrong-one")
    said = {"request_id": "wrong-one", "adapter": "finance", "rating": "down", "comment": "it is about money"}
    assert watched.post("/feedback", said)[:2] == (200, {"stored": True})
    assert watched.post("/feedback", {"request_id": "wrong-one", "rating": "up"})[0] == 200
    first, second = logged(watched, "wrong-one")["feedback"]
    assert (first["adapter"], first["rating"], first["comment"]) == ("finance", "down", "it is about money")
    assert (second["adapter"], second["rating"]) == (None, "up")


def test_decisions_of_which_somebody_spoke_can_be_asked_for(watched: Wire) -> None:
    for number in range(3):
        watched.post(body=chat(LEGAL), x_request_id=f"spoken-{number}")
    for number in (0, 2):
        watched.post("/feedback", {"request_id": f"spoken-{number}", "rating": "down"})

    def found(query: str) -> list[str]:
        return [row["request_id"] for row in watched.get(f"/admin/decisions?{query}", **AS_ADMIN)[1]["decisions"]]

    assert found("feedback=1&limit=2") == ["spoken-2", "spoken-0"]
    assert found("feedback=1&request_id=spoken-1") == []
    assert found("feedback=1&request_id=spoken-0") == ["spoken-0"]
    status, body, _ = watched.get("/admin/decisions?feedback=yes", **AS_ADMIN)
    assert (status, body["error"]["param"]) == (400, "feedback")


def test_feedback_is_for_a_keys_own_requests_and_the_admins(tmp_path: Path) -> None:
    keys = {name: {"sha256": hashlib.sha256(name.encode()).hexdigest()} for name in ("one", "two", ADMIN)}
    admin = keys.pop(ADMIN)["sha256"]
    with wired(tmp_path, keys=keys, admin_key=admin, decision_log="decisions.db") as router:
        assert router.post(body=chat(LEGAL), x_request_id="ones-own", x_api_key="one")[0] == 200
        said = {"request_id": "ones-own", "rating": "up"}
        assert [router.post("/feedback", said, x_api_key=key)[0] for key in ("two", "one", ADMIN)] == [
            404,
            200,
            200,
        ]


def test_who_was_not_admitted_does_not_fill_the_log(tmp_path: Path) -> None:
    keys = {"one": {"sha256": hashlib.sha256(b"one").hexdigest(), "requests_per_minute": 2}}
    with wired(tmp_path, keys=keys, decision_log="decisions.db") as router:
        assert router.post(body=chat(LEGAL))[0] == 401
        bodies = (chat(LEGAL), b"{nonsense", chat(LEGAL))
        assert [router.post(body=body, x_api_key="one")[0] for body in bodies] == [200, 400, 429]
    assert rows_of(tmp_path / "decisions.db", "status") == [200, 400]


def rows_of(file: Path, column: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(file)) as database:
        return [row[0] for row in database.execute(f"select {column} from decisions order by rowid")]


def test_old_decisions_and_what_was_said_of_them_are_deleted(tmp_path: Path) -> None:
    file, now = tmp_path / "decisions.db", time.time()
    DecisionLog(file).close()
    ages = {f"old-{number}": 3 * 86_400 for number in range(2500)} | {"new": 3600}
    with contextlib.closing(sqlite3.connect(file)) as database:
        for name, age in ages.items():
            row = (now - age, name, "", "/", *[None] * 8, 1.0, None, None, 200, *[None] * 4)
            database.execute(f"insert into decisions values ({', '.join('?' * 20)})", row)
            database.execute("insert into feedback values (?, ?, '', null, 'up', null)", (now - age, name))
        database.commit()
    DecisionLog(file).close()
    assert len(rows_of(file, "request_id")) == 2501, "without a limit, all stay"
    log = DecisionLog(file, days=2)
    deadline = time.monotonic() + 5
    while len(rows_of(file, "request_id")) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    log.close()
    assert rows_of(file, "request_id") == ["new"]
    with contextlib.closing(sqlite3.connect(file)) as database:
        assert database.execute("select request_id from feedback").fetchall() == [("new",)]


def test_who_is_told_that_it_is_stored_finds_it_stored(tmp_path: Path) -> None:
    """And whoever does not wait for it takes nobody else's along."""
    file, now, seen = tmp_path / "decisions.db", time.time(), list[Any]()
    log = DecisionLog(file)
    life = Life("/", "1", admitted=True)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("begin immediate")  # the writer waits
        log.ended([life])
        first = log.recent(1)
        while not first.running():
            time.sleep(0.01)
        left, stored = log.recent(1), log.add_feedback((now, "1", "", None, "up", None), of_any=False)
        assert left.cancel()
        stored.add_done_callback(lambda _: seen.append(feedback_in(file)))
        other.execute("commit")
        assert stored.result(5) is True
    log.close()
    assert seen == [1]
    assert rows_of(file, "request_id") == ["1"]


def feedback_in(file: Path) -> int:
    with contextlib.closing(sqlite3.connect(file)) as database:
        return int(database.execute("select count(*) from feedback").fetchone()[0])


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"rating": "up"}, 400, '"request_id" is missing'),
        ({"request_id": "nobody", "rating": "up"}, 404, 'no request "nobody"'),
        ({"request_id": "x", "rating": "meh"}, 400, '"rating" must be "up" or "down"'),
        ({"request_id": "x"}, 400, "say something"),
        ({"request_id": "x", "adaptor": "legal"}, 400, 'unknown field "adaptor"'),
        ({"request_id": 7, "rating": "up"}, 400, '"request_id" must be text'),
        ({"request_id": "x", "comment": "y" * 3000}, 400, '"comment" must be text of at most 2000'),
    ],
)
def test_feedback_that_cannot_be_stored(watched: Wire, body: Any, status: int, says: str) -> None:
    got, answer, _ = watched.post("/feedback", body)
    assert got == status
    assert says in answer["error"]["message"]


def test_without_a_log_there_is_nothing_to_say_it_to(wire: Wire) -> None:
    status, body, _ = wire.post("/feedback", {"request_id": "x", "rating": "up"})
    assert (status, body["error"]["code"]) == (404, "no_decision_log")


def test_a_log_that_cannot_be_opened_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    stack = load(write_stack(tmp_path, "http://127.0.0.1:1", decision_log="file/decisions.db"))
    with pytest.raises(ConfigError, match=r"router\.decision_log: .*decisions\.db"):
        create_app(stack, {}, HttpUpstream(stack.engine_url))


def test_a_log_that_stops_being_writable_costs_rows_and_no_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with wired(tmp_path, decision_log="decisions.db") as router:
        router.post(body=chat(LEGAL))
        time.sleep(0.3)
        blocker = sqlite3.connect(tmp_path / "decisions.db", isolation_level=None)
        blocker.execute("drop table decisions")
        assert router.post(body=chat(LEGAL))[0] == 200
        deadline = time.monotonic() + 5
        while "decisions were not written" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
        blocker.close()
    assert "1 decisions were not written" in caplog.text


def test_what_waits_is_written_at_the_end(tmp_path: Path) -> None:
    with wired(tmp_path, decision_log="decisions.db") as router:
        for _ in range(30):
            router.post(body=chat(GENERAL))
    with sqlite3.connect(tmp_path / "decisions.db") as database:
        assert database.execute("select count(*) from decisions").fetchone() == (30,)
    database.close()


def test_two_writers_may_share_one_log(tmp_path: Path) -> None:
    logs = [DecisionLog(tmp_path / "decisions.db") for _ in range(2)]
    for turn in range(50):
        for name, log in enumerate(logs):
            log.ended([Life("/v1/completions", f"{name}-{turn}", admitted=True)])
    for log in logs:
        log.close()
    with sqlite3.connect(tmp_path / "decisions.db") as database:
        assert database.execute("select count(distinct request_id) from decisions").fetchone() == (100,)
    database.close()


def test_a_new_log_waits_for_who_is_making_it(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "decisions.db", check_same_thread=False)
    other.execute("begin exclusive")
    other.execute("create table something (one)")
    threading.Timer(0.3, other.commit).start()
    log = DecisionLog(tmp_path / "decisions.db")
    log.ended([Life("/v1/completions", "one", admitted=True)])
    log.close()
    assert other.execute("select count(*) from decisions").fetchone() == (1,)
    other.close()


# --- traces -----------------------------------------------------------------------------------------------------


class Collector:
    """An OTLP collector: a real server that keeps the spans it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.arrived = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Entry point of ASGI."""
        if scope["type"] == "lifespan":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        sent = ExportTraceServiceRequest.FromString(body)
        assert scope["path"] == "/v1/traces"
        self.spans += [span for r in sent.resource_spans for scoped in r.scope_spans for span in scoped.spans]
        self.arrived.set()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


def test_a_request_is_a_span_below_its_clients_and_above_its_engines(tmp_path: Path) -> None:
    collector = Collector()
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with serving(collector) as url:
        with wired(tmp_path, otlp=url) as router:
            router.post(body=chat(LEGAL), traceparent=f"00-{trace}-{parent}-01", x_request_id="traced")
            passed_on = router.engine.seen_headers[-1]["traceparent"]
        assert collector.arrived.wait(10)
    (span,) = collector.spans
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (trace, parent)
    assert passed_on == f"00-{trace}-{span.span_id.hex()}-01"
    said = {pair.key: pair.value for pair in span.attributes}
    assert said["gen_ai.request.model"].string_value == "legal"
    assert said["lora_select.reason"].string_value == "classified"
    assert said["http.request.id"].string_value == "traced"
    assert said["gen_ai.usage.output_tokens"].int_value == 5
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 10e9


def test_without_a_collector_the_clients_trace_goes_through(wire: Wire) -> None:
    wire.post(body=chat(LEGAL), traceparent="00-1-2-01")
    assert wire.engine.seen_headers[-1]["traceparent"] == "00-1-2-01"


def test_a_collector_that_is_down_costs_no_request(tmp_path: Path) -> None:
    with wired(tmp_path, otlp=f"http://127.0.0.1:{free_port()}") as router:
        assert router.post(body=chat(LEGAL))[0] == 200
        began = time.monotonic()
    assert time.monotonic() - began < 5, "the router waits for a collector that is not there"
