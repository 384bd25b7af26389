"""A library whose adapters come, change and go on the whole stack, real vLLM included, while requests run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from demo.samples import SAMPLES
from tests.conftest import ask
from tests.stack import ADMIN_KEY, DEMO, ROOT, Running, started

PROMPT = SAMPLES[0].question
GUEST = "gardening, roses, lawns"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """With a library of all adapters."""
    with started(tmp_path_factory.mktemp("lag"), run="lag", lag={"library": "all"}) as up:
        yield up


def admin(stack: Running, method: str, path: str = "", body: Any = None) -> Any:
    """One call of an admin route, which succeeds."""
    url = f"{stack.stack.router_url}/admin/adapters{path}"
    status, answer, _ = ask(method, url, body, authorization=f"Bearer {ADMIN_KEY}")
    assert status == 200, answer
    return answer


def library(stack: Running) -> tuple[str, dict[str, str]]:
    """The state of `lag`, and the version of each member."""
    (one,) = admin(stack, "GET")["lag"]
    members = [member.rpartition("@") for each in one["libraries"] for member in each]
    return one["state"], {name: version for name, _, version in members}


def said(stack: Running, model: str) -> tuple[int, str]:
    """The engine's own answer to a short greedy completion."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    status, answer, _ = ask("POST", f"{stack.stack.engine_url}/v1/completions", body)
    return status, answer["choices"][0]["text"] if status == 200 else str(answer)


@contextmanager
def traffic(stack: Running, *models: str) -> Iterator[list[tuple[int, str]]]:
    """Requests all the time; yields the answers."""
    answers, stop = list[tuple[int, str]](), threading.Event()

    def run(model: str) -> None:
        while not stop.is_set():
            answers.append(said(stack, model))
            time.sleep(0.05)

    threads = [threading.Thread(target=run, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_library_follows_while_requests_run_and_none_fails(stack: Running) -> None:
    names = {"legal", "medical", "finance"}
    state, before = library(stack)
    assert (state, set(before)) == ("serving", names)
    first = said(stack, "lag")
    assert first[1] not in {said(stack, model)[1] for model in ("demo-base", "medical", "finance")}
    guest = stack.roots / "guest"
    shutil.copytree(DEMO / "adapters" / "medical", guest)
    wish = {"name": "guest", "path": str(guest), "label": GUEST}
    with traffic(stack, "lag", "lag", "legal", "demo-base") as answers:
        admin(stack, "POST", body=wish)
        state, added = library(stack)
        assert (state, set(added)) == ("serving", {*names, "guest"})
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(DEMO / "adapters" / "finance" / file, guest / file)
        admin(stack, "POST", body=wish)
        state, updated = library(stack)
        assert (state, updated["guest"] != added["guest"]) == ("serving", True)
        admin(stack, "DELETE", "/guest")
    assert library(stack) == ("serving", before)
    assert len(answers) > 20
    assert {status for status, _ in answers} == {200}, [answer for answer in answers if answer[0] != 200][:3]
    assert said(stack, "lag") == first
    _, held, _ = ask("GET", f"{stack.stack.engine_url}/lora_select/adapters")
    assert {one["adapter"].partition("@")[0] for one in held["adapters"]} == {*names, "lag"}
    assert (len(held["adapters"]), held["library_free"]) == (4, held["library_slots"] - 3)


def test_a_library_that_loses_too_many_is_broken_until_they_are_back(stack: Running) -> None:
    paths = {one["name"]: one for one in admin(stack, "GET")["adapters"]}
    for name in ("medical", "finance"):
        admin(stack, "DELETE", f"/{name}")
    assert library(stack)[0] == "broken"
    assert said(stack, "lag")[0] == 404
    assert said(stack, "legal")[0] == 200
    for name in ("medical", "finance"):
        folder = stack.roots / name
        shutil.copytree(paths[name]["path"], folder)
        admin(stack, "POST", body={"name": name, "path": str(folder), "label": paths[name]["label"]})
    assert library(stack)[0] == "serving"
    assert said(stack, "lag")[0] == 200


def test_the_router_tells_which_adapter_gave_each_token(stack: Running) -> None:
    """In the engine's own words, of a prompt that its cache does not have, and then has."""
    asked: dict[str, Any] = {"model": "lag", "prompt": PROMPT * 10, "max_tokens": 8, "temperature": 0}
    explain = {"x-lora-select-explain": "tokens"}
    ask_for = stack.client.completions.create
    first, again = (ask_for(**asked, extra_headers=explain) for _ in range(2))
    *_, last = ask_for(**asked, extra_headers=explain, stream=True)
    *_, closer = ask_for(**asked, extra_headers={"x-lora-select-explain": "layers"}, stream=True)
    (new,), (cached,), (streamed,), (layered,) = (
        one.lora_select["choices"] for one in (first, again, last, closer)
    )
    names = set(library(stack)[1])
    assert {token["adapter"] for token in new["prompt"]} <= names
    assert [token["adapter"] for token in cached["prompt"][:128]] == [None] * 128
    assert cached["prompt"][128:] == new["prompt"][128:]
    assert new["tokens"] == cached["tokens"] == streamed["tokens"]
    assert "".join(token["text"] for token in new["tokens"]).removesuffix("</s>") == first.choices[0].text
    assert set(new["adapters"]) == names
    layers = [token.pop("layers") for token in layered["tokens"]]
    assert layered["tokens"] == new["tokens"]
    assert {len(token) for token in layers} == {len(layered["layers"])} == {4}
    assert {name for token in layers for layer in token for name in layer} <= names


def test_the_command_line_lists_it(stack: Running) -> None:
    command = [sys.executable, "-m", "serve", "list", "--run-dir", str(stack.run_dir)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    assert shown.splitlines()[-1].split()[:2] == ["lag", "serving"]
    assert "lag: serving version" in stack.log.read_text()
    assert "library slots (additional-config)" in stack.log.read_text()
