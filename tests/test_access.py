"""Keys, what they are good for, and their budgets, in memory and in a real Redis."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from adapters import ConfigError, Router
from router.access import Limits, make_key
from router.life import Life, Occupancy
from tests.conftest import GENERAL, LEGAL, Wire, chat, wired
from tests.servers import free_port


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


KEYS: dict[str, dict[str, Any]] = {
    "everything": {"sha256": digest("k-all")},
    "lawyers": {"sha256": digest("k-law"), "adapters": ["legal"]},
    "none": {"sha256": digest("k-none"), "adapters": []},
    "slow": {"sha256": digest("k-slow"), "requests_per_minute": 3},
    "thrifty": {"sha256": digest("k-thrift"), "tokens_per_minute": 20},
    "many": {"sha256": digest("k-many"), "tokens_per_minute": 60},
    "hasty": {"sha256": digest("k-hasty"), "tokens_per_minute": 100},
    "curious": {"sha256": digest("k-curious"), "requests_per_minute": 3},
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    with wired(tmp_path_factory.mktemp("guarded"), keys=KEYS, admin_key=digest("k-admin")) as one:
        yield one


@pytest.mark.parametrize("headers", [{}, bearer("wrong"), {"authorization": "Basic abc"}, {"x_api_key": "wrong"}])
def test_without_a_key_there_is_no_answer(guarded: Wire, headers: dict[str, str]) -> None:
    before = len(guarded.engine.seen)
    for path in ("/v1/chat/completions", "/route", "/feedback"):
        status, body, got = guarded.post(path, chat(LEGAL), **headers)
        assert (status, body["error"]["code"], body["error"]["type"]) == (
            401,
            "invalid_api_key",
            "authentication_error",
        )
        assert got["www-authenticate"] == "Bearer"
    assert guarded.get("/v1/models", **headers)[0] == 401
    assert len(guarded.engine.seen) == before
    assert guarded.get("/health")[0] == guarded.get("/ready")[0] == 200


def test_anthropics_header_carries_a_key_too(guarded: Wire) -> None:
    assert guarded.post(body=chat(LEGAL), x_api_key="k-all")[0] == 200


def test_a_key_never_reaches_the_engine(guarded: Wire) -> None:
    guarded.post(body=chat(LEGAL), x_api_key="k-all")
    assert not {"authorization", "x-api-key"} & set(guarded.engine.seen_headers[-1])


def test_a_limited_key_chooses_among_its_own(guarded: Wire) -> None:
    assert guarded.post(body=chat(LEGAL), **bearer("k-law"))[2]["x-lora-select-reason"] == "only-candidate"
    _, _, headers = guarded.post(body=chat("Which symptoms does a heart attack have?"), **bearer("k-law"))
    assert headers["x-lora-select-adapter"] == "base"
    _, _, headers = guarded.post(body=chat(LEGAL), **bearer("k-none"))
    assert (headers["x-lora-select-adapter"], headers["x-lora-select-reason"]) == ("base", "no-candidate")
    names = [model["id"] for model in guarded.get("/v1/models", **bearer("k-law"))[1]["data"]]
    assert names == ["auto", "base", "legal"]


def test_naming_an_adapter_that_the_key_is_not_good_for_is_403(guarded: Wire) -> None:
    status, body, _ = guarded.post(body=chat(LEGAL, model="medical"), **bearer("k-law"))
    assert (status, body["error"]["type"], body["error"]["param"]) == (403, "permission_error", "model")
    assert "auto, base, legal" in body["error"]["message"]
    assert guarded.post(body=chat(LEGAL, model="legal"), **bearer("k-law"))[0] == 200
    assert guarded.post(body=chat(LEGAL, model="nobody"), **bearer("k-law"))[0] == 404


def test_requests_per_minute(guarded: Wire) -> None:
    statuses = [guarded.post(body=chat(GENERAL), **bearer("k-slow"))[0] for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    status, body, headers = guarded.post(body=chat(GENERAL), **bearer("k-slow"))
    assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
    assert body["error"]["message"] == 'the key "slow" has spent its 3 requests per minute'
    assert 1 <= int(headers["retry-after"]) <= 61
    assert guarded.post(body=chat(GENERAL), **bearer("k-all"))[0] == 200, "a budget is its key's own"


def test_tokens_per_minute_count_streams_too(guarded: Wire) -> None:
    """12 tokens an answer, and 20 a minute: the second overdraws, the third is refused."""
    assert guarded.post(body=chat(GENERAL), **bearer("k-thrift"))[0] == 200
    assert guarded.post(body=chat(GENERAL, stream=True), **bearer("k-thrift"))[0] == 200
    status, body, headers = guarded.post(body=chat(GENERAL), **bearer("k-thrift"))
    assert (status, body["error"]["message"]) == (429, 'the key "thrifty" has spent its 20 tokens per minute')
    assert 1 <= int(headers["retry-after"]) <= 61


def test_tokens_are_taken_before_the_answer_and_put_right_after_it(guarded: Wire) -> None:
    """34 are estimated for each of these, and they take 12: two of five at once may ask, and two after them."""
    asked = chat(GENERAL, test="slow")
    with ThreadPoolExecutor(5) as pool:
        statuses = sorted(
            pool.map(lambda _: guarded.post(body=asked, **bearer("k-many"))[0], range(5)),
        )
    assert statuses == [200, 200, 429, 429, 429]
    assert [guarded.post(body=chat(GENERAL), **bearer("k-many"))[0] for _ in range(3)] == [200] * 3
    assert guarded.post(body=chat(GENERAL, test="status-400"), **bearer("k-many"))[0] == 429


def test_the_prompt_of_an_answer_that_is_left_is_counted(guarded: Wire) -> None:
    connection = http.client.HTTPConnection(guarded.url.removeprefix("http://"))
    body = json.dumps(chat(f"{GENERAL} " * 10, test="slow"))
    connection.request("POST", "/v1/chat/completions", body, bearer("k-hasty"))
    time.sleep(0.15)
    connection.close()
    time.sleep(0.15)
    assert guarded.post(body=chat(GENERAL), **bearer("k-hasty"))[0] == 429


def test_the_prompt_of_a_stream_that_tells_no_usage_is_counted(tmp_path: Path) -> None:
    with wired(tmp_path, keys=KEYS, stream_usage=False) as silent:
        asked = chat(f"{GENERAL} " * 10, stream=True)
        assert [silent.post(body=asked, **bearer("k-hasty"))[0] for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    ("known", "tokens"),
    [
        ({"status": 200, "prompt_tokens": 7, "completion_tokens": 5, "events": 9}, 12),
        ({"status": 200, "prompt_tokens": 7, "events": 9}, 16),
        ({"status": 200, "events": 9}, 109),
        ({"status": 499, "events": 9}, 109),
        ({"status": 499}, 100),
        ({"status": 504}, 100),
        ({"status": 200}, 0),  # from the response cache, or a count of tokens
        ({"status": 400}, 0),
        ({"status": 429}, 0),
        ({"status": 503}, 0),
    ],
)
def test_what_a_request_took(known: dict[str, Any], tokens: int) -> None:
    assert Life("/v1/chat/completions", "1", charged=100, **known).tokens == tokens


def test_a_dry_run_is_a_request_too(guarded: Wire) -> None:
    asked = [guarded.post("/route", {"text": LEGAL}, **bearer("k-curious"))[0] for _ in range(4)]
    assert asked == [200, 200, 200, 429]
    said = {"request_id": "x", "rating": "up"}
    assert guarded.post("/feedback", said, **bearer("k-curious"))[0] == 429


def test_the_admin_key_opens_what_others_do_not(guarded: Wire) -> None:
    assert guarded.get("/metrics")[0] == 401
    assert guarded.get("/metrics", **bearer("k-all"))[0] == 403
    assert guarded.get("/metrics", **bearer("k-admin"))[0] == 200
    assert guarded.get("/admin/decisions", **bearer("k-all"))[0] == 403
    assert guarded.post(body=chat(LEGAL), **bearer("k-admin"))[0] == 200


def test_without_an_admin_key_the_admin_routes_are_closed(wire: Wire) -> None:
    status, body, _ = wire.get("/admin/decisions")
    assert (status, body["error"]["code"]) == (403, "no_admin_key")
    assert "router.admin_key" in body["error"]["message"]
    assert wire.get("/metrics")[0] == 200


def test_a_made_key_is_what_the_stack_keeps_the_digest_of() -> None:
    shown = make_key("team-a").splitlines()
    key, entry = shown[1].strip(), shown[3].strip()
    assert entry == f"team-a: {{sha256: {digest(key)}}}"
    assert key != make_key("team-a").splitlines()[1].strip()
    assert len(key) > 40


def test_more_requests_than_may_be_in_flight_are_told_to_wait(tmp_path: Path) -> None:
    with wired(tmp_path, max_in_flight=2) as busy:
        slow = [threading.Thread(target=busy.post, kwargs={"body": chat(LEGAL, test="slow")}) for _ in range(2)]
        for one in slow:
            one.start()
        time.sleep(0.15)
        status, body, headers = busy.post(body=chat(LEGAL))
        assert (status, headers["retry-after"]) == (429, "1")
        assert "router.max_in_flight" in body["error"]["message"]
        assert busy.post("/route", {"text": LEGAL})[0] == 429
        for one in slow:
            one.join()
        assert busy.post(body=chat(LEGAL))[0] == 200


# --- Redis ------------------------------------------------------------------------------------------------------


@pytest.fixture
def redis_port(tmp_path: Path) -> Iterator[int]:
    server = shutil.which("redis-server")
    if not server:
        pytest.skip("redis-server is not installed (apt install redis-server)")
    port = free_port()
    command = [server, "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            client, deadline = redis.Redis(port=port), time.monotonic() + 10
            while not _answers(client):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            client.close()
            yield port
        finally:
            process.terminate()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_two_routers_share_a_budget_in_redis(tmp_path: Path, redis_port: int) -> None:
    shared: dict[str, Any] = {"keys": KEYS, "limits_storage": f"redis://127.0.0.1:{redis_port}"}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with wired(tmp_path / "one", **shared) as one, wired(tmp_path / "two", **shared) as two:
        statuses = [router.post(body=chat(GENERAL), **bearer("k-slow"))[0] for router in (one, two, one, two)]
        assert statuses == [200, 200, 200, 429]


def test_tokens_that_one_router_counted_are_spent_at_the_other(tmp_path: Path, redis_port: int) -> None:
    shared: dict[str, Any] = {"keys": KEYS, "limits_storage": f"redis://127.0.0.1:{redis_port}"}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with wired(tmp_path / "one", **shared) as one, wired(tmp_path / "two", **shared) as two:
        assert [one.post(body=chat(GENERAL), **bearer("k-thrift"))[0] for _ in range(2)] == [200] * 2
        status, _, headers = two.post(body=chat(GENERAL), **bearer("k-thrift"))
        assert status == 429
        assert 1 <= int(headers["retry-after"]) <= 61


@pytest.mark.parametrize("url", ["redis://:s3cret/x@host:6379/0", "redis://host:port", "redis://h?db=s3cret"])
def test_what_is_no_redis_is_told_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"router\.limits_storage: no URL of a Redis") as caught:
        Limits(Router(limits_storage=url), Occupancy())
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_redis_that_is_down_takes_nobody_with_it(tmp_path: Path) -> None:
    with wired(tmp_path, keys=KEYS, limits_storage=f"redis://127.0.0.1:{free_port()}") as router:
        assert [router.post(body=chat(GENERAL), **bearer("k-slow"))[0] for _ in range(5)] == [200] * 5
        assert router.post(body=chat(GENERAL), **bearer("k-thrift"))[0] == 200
