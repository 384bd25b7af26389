"""Adapters that come, go and are proven on the whole stack, real vLLM included, while traffic runs."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from adapters import load
from demo.samples import SAMPLES
from serve.life.manager import Manager
from serve.life.remote import RemoteEngine
from tests.conftest import ask
from tests.stack import ADMIN_KEY, DEMO, ROOT, Running

PROMPT = SAMPLES[0].question
WEIGHTS = ("legal", "medical", "finance")
GUEST = "gardening, roses, lawns"
ASK = "Ask a gardener: it's no advice."


def admin(running: Running, method: str, path: str = "", body: Any = None) -> tuple[int, Any]:
    """One call of an admin route."""
    url = f"{running.stack.router_url}/admin/adapters{path}"
    status, answer, _ = ask(method, url, body, authorization=f"Bearer {ADMIN_KEY}")
    return status, answer


def state(running: Running, name: str) -> Any:
    """What the list says of an adapter; None where it is not there."""
    _, answer = admin(running, "GET")
    return next((one for one in answer["adapters"] if one["name"] == name), None)


def greedy(running: Running, model: str, question: str = PROMPT) -> str:
    """The model's own answer."""
    messages: Any = [{"role": "user", "content": question}]
    answer = running.client.chat.completions.create(model=model, messages=messages, max_tokens=12, temperature=0)
    return str(answer.choices[0].message.content)


@pytest.fixture
def guest(running: Running) -> Iterator[Path]:
    """A folder that admins may load from; what a test adds as `guest`, to stack or file, is gone after it."""
    before = running.stack.file.read_text()
    folder = running.roots / "guest"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DEMO / "adapters" / "medical", folder)
    yield folder
    running.stack.file.write_text(before)
    if any(one["name"].startswith("guest") for one in admin(running, "GET")[1]["adapters"]):
        assert admin(running, "DELETE", "/guest")[0] == 200


# --- traffic ----------------------------------------------------------------------------------------------------


class Traffic:
    """Asks all the time, and compares: an answer must be of weights that had the name while it was asked for."""

    def __init__(self, running: Running, answers: dict[str, str]) -> None:
        self._running, self._answers = running, answers
        self.allowed: dict[str, set[str]] = {"demo-base": {"demo-base"}, "legal": {"legal"}, "auto": {"legal"}}
        self.asked, self.wrong = 0, list[str]()
        self._stop = threading.Event()

    def one(self, model: str) -> None:
        before = self.allowed[model]
        try:
            said = greedy(self._running, model)
        except openai.NotFoundError:
            said = "404"
        except openai.OpenAIError as error:
            said = f"failed: {error!r}"
        possible = before | self.allowed[model]
        right = {self._answers.get(weights, weights) for weights in possible}
        self.asked += 1
        if said not in right:
            self.wrong.append(f"{model}: {said!r}, which is of none of {possible}")

    def _run(self, model: str) -> None:
        while not self._stop.is_set():
            if model in self.allowed:
                self.one(model)
            time.sleep(0.1)

    @contextmanager
    def running(self, *models: str) -> Iterator[None]:
        threads = [threading.Thread(target=self._run, args=(model,)) for model in models]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()


def test_no_request_fails_or_is_answered_by_others_through_20_changes(
    running: Running, guest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {name: greedy(running, name) for name in (*WEIGHTS, "demo-base")}
    assert len(set(answers.values())) == 4
    traffic = Traffic(running, answers)
    changes = list(itertools.islice(itertools.cycle((*WEIGHTS, None)), 20))
    now, took = "404", list[float]()
    with traffic.running("demo-base", "legal", "auto", "guest", "guest"):
        for weights in changes:
            wanted = weights or "404"
            traffic.allowed["guest"] = {now, wanted}
            began = time.monotonic()
            if weights:
                replace_files(guest, DEMO / "adapters" / weights)
                status, answer = admin(running, "POST", body={"name": "guest", "path": str(guest), "label": GUEST})
            else:
                status, answer = admin(running, "DELETE", "/guest")
            assert status == 200, answer
            took.append(time.monotonic() - began)
            traffic.allowed["guest"] = {wanted}
            now = wanted
            time.sleep(0.3)
    assert not traffic.wrong, traffic.wrong[:5]
    assert traffic.asked > 100
    assert {one["name"] for one in admin(running, "GET")[1]["adapters"]} == set(WEIGHTS)
    with capsys.disabled():
        mean = sum(took) / len(took)
        print(f"\n20 changes of {mean:.1f} s, {traffic.asked} requests meanwhile: none failed, none wrong")


def replace_files(folder: Path, source: Path) -> None:
    """In place, as a training run that writes over its output does."""
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(source / file, folder / file)


def test_a_stream_ends_with_the_weights_that_it_began_with(running: Running, guest: Path) -> None:
    replace_files(guest, DEMO / "adapters" / "legal")
    assert admin(running, "POST", body={"name": "guest", "path": str(guest), "label": GUEST})[0] == 200

    def stream(model: str) -> Iterator[str]:
        extra = {"ignore_eos": True}
        for event in running.client.completions.create(
            model=model, prompt=PROMPT, max_tokens=200, temperature=0, stream=True, extra_body=extra
        ):
            yield event.choices[0].text

    whole = "".join(stream("legal"))
    begun = stream("guest")
    said = [next(begun)]
    replace_files(guest, DEMO / "adapters" / "finance")
    assert admin(running, "POST", body={"name": "guest", "path": str(guest)})[0] == 200
    assert greedy(running, "guest") == greedy(running, "finance")
    assert "".join([*said, *begun]) == whole


# --- what is refused --------------------------------------------------------------------------------------------


def nothing(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({name: tensor * (0 if "lora_B" in name else 1) for name, tensor in load_file(file).items()}, file)


def not_finite(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({name: np.full_like(tensor, np.nan) for name, tensor in load_file(file).items()}, file)


def rank_too_high(folder: Path) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"r": 64}))


def next_to_nothing(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({name: tensor * (1e-9 if "lora_B" in name else 1) for name, tensor in load_file(file).items()}, file)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (nothing, "every lora_B is zero"),
        (not_finite, "not finite"),
        (rank_too_high, "rank 64"),
        (next_to_nothing, "it does nothing"),
    ],
)
def test_a_broken_adapter_is_told_and_never_served(
    running: Running, guest: Path, spoil: Callable[[Path], None], why: str
) -> None:
    spoil(guest)
    status, answer = admin(running, "POST", body={"name": "guest", "path": str(guest), "label": GUEST})
    assert status == 409
    assert why in answer["error"]["message"]
    assert (state(running, "guest")["state"], why in state(running, "guest")["reason"]) == ("broken", True)
    with pytest.raises(openai.NotFoundError):
        greedy(running, "guest")
    assert greedy(running, "auto") == greedy(running, "legal")


def test_a_refused_update_leaves_what_serves(running: Running, guest: Path) -> None:
    assert admin(running, "POST", body={"name": "guest", "path": str(guest), "label": GUEST})[0] == 200
    version = state(running, "guest")["version"]
    nothing(guest)
    assert admin(running, "POST", body={"name": "guest", "path": str(guest)})[0] == 409
    now = state(running, "guest")
    assert (now["state"], now["version"]) == ("serving", version)
    assert "the update was refused: every lora_B is zero" in now["reason"]
    assert greedy(running, "guest") == greedy(running, "medical")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"name": "guest", "path": str(DEMO / "adapters" / "legal")}, 400, "is not below any of them"),
        ({"name": "guest", "path": "/no/such/folder"}, 400, "no such folder"),
        ({"name": "guest"}, 400, "path: missing"),
        ({"name": "auto", "path": "{guest}", "label": "x"}, 409, 'the name "auto" is taken'),
        ({"name": "gu est", "path": "{guest}"}, 400, "name"),
        ({"name": "guest", "path": "{guest}", "lable": "x"}, 400, 'did you mean "label"?'),
    ],
)
def test_a_wish_that_makes_no_sense_is_one_clear_line(
    running: Running, guest: Path, body: dict[str, str], status: int, said: str
) -> None:
    got, answer = admin(running, "POST", body={key: value.format(guest=guest) for key, value in body.items()})
    assert (got, said in answer["error"]["message"]) == (status, True), answer
    assert "\n" not in answer["error"]["message"]
    assert state(running, "guest") is None


def test_only_the_admin_key_opens_the_routes(running: Running) -> None:
    url = f"{running.stack.router_url}/admin/adapters"
    assert [ask(method, url)[0] for method in ("GET", "POST")] == [401, 401]
    assert ask("DELETE", f"{url}/legal", authorization="Bearer other")[0] == 403
    status, answer = admin(running, "DELETE", "/nobody")
    assert (status, answer["error"]["message"]) == (
        404, 'there is no adapter "nobody"; there are legal, medical, finance',
    )  # fmt: skip


# --- versions, metrics ------------------------------------------------------------------------------------------


def test_versions_share_conversations_by_weight_and_keep_them(running: Running, guest: Path) -> None:
    for version, weights in (("v1", "legal"), ("v2", "finance")):
        shutil.copytree(DEMO / "adapters" / weights, guest / version)
    wish = {"name": "guest", "path": str(guest), "label": GUEST, "versions": {"v1": 1, "v2": 1}}
    assert admin(running, "POST", body=wish)[0] == 200
    expected = {"v1": greedy(running, "legal"), "v2": greedy(running, "finance")}
    assert {version: greedy(running, f"guest@{version}") for version in expected} == expected
    given = {}
    for number in range(12):
        turns = [{"role": "user", "content": f"conversation {number}"}]
        versions = set()
        for _ in range(2):
            _, answer, headers = ask(
                "POST", f"{running.stack.router_url}/v1/chat/completions",
                {"model": "guest", "messages": turns, "max_tokens": 2},
            )  # fmt: skip
            versions.add(headers["x-lora-select-version"])
            turns += [answer["choices"][0]["message"], {"role": "user", "content": "And then?"}]
        assert len(versions) == 1
        given[number] = versions.pop()
    assert set(given.values()) == {"v1", "v2"}
    asked = urllib.request.Request(
        f"{running.stack.router_url}/metrics", headers={"authorization": f"Bearer {ADMIN_KEY}"}
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:
        page = answer.read().decode()
    assert 'lora_select_versions_total{adapter="guest",version="v1"}' in page
    assert 'lora_select_adapter_resident{adapter="guest@v2",place="host"} 1.0' in page
    assert "guest" in running.client.models.list().model_dump_json()


# --- the command line -------------------------------------------------------------------------------------------


def serve(running: Running, *words: str) -> subprocess.CompletedProcess[str]:
    """`python -m serve …` for the stack that runs."""
    command = [sys.executable, "-m", "serve", *words, "--run-dir", str(running.run_dir)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_adapters_from_the_command_line(running: Running, guest: Path) -> None:
    before = running.stack.file.read_text()
    added = serve(
        running, "add", "guest", str(guest), "--label", GUEST, "--tag", "audience=gardener", "--disclaimer", ASK
    )
    assert (added.returncode, "serving" in added.stdout) == (0, True), added.stderr
    assert running.stack.file.read_text() == before
    shown = serve(running, "list").stdout
    assert [line.split()[:2] for line in shown.splitlines()[1:]] == [
        [name, "serving"] for name in (*WEIGHTS, "guest", "lag")
    ]
    tested = serve(running, "test", "guest")
    assert (tested.returncode, "nats from the base; its answers move by" in tested.stdout) == (0, True), tested
    saved = serve(running, "add", "guest", "--save")
    assert saved.returncode == 0, saved.stderr
    entry = yaml.safe_load(running.stack.file.read_text())["adapters"]["guest"]
    assert entry == {
        "path": "./roots/guest",
        "label": GUEST,
        "tags": {"audience": ["gardener"]},
        "disclaimer": ASK,
    }
    gone = serve(running, "remove", "guest", "--save")
    assert gone.returncode == 0, gone.stderr
    assert yaml.safe_load(running.stack.file.read_text()) == yaml.safe_load(before)
    unknown = serve(running, "remove", "guest")
    assert (unknown.returncode, unknown.stderr) == (
        1, 'there is no adapter "guest"; there are legal, medical, finance\n',
    )  # fmt: skip


def test_an_edited_file_is_applied_as_a_difference(running: Running, guest: Path) -> None:
    before = running.stack.file.read_text()
    data = yaml.safe_load(before)
    try:
        data["adapters"]["guest"] = {"path": str(guest), "label": GUEST}
        data["adapters"]["finance"]["system_prompt"] = "Be brief."
        running.stack.file.write_text(yaml.safe_dump(data, sort_keys=False))
        told = serve(running, "reload")
        read = f"{running.stack.file}: read"
        assert told.stdout.splitlines() == [read, "finance: described anew", "guest: added"]
        assert serve(running, "reload").stdout.splitlines() == [read, "nothing differs"]
        assert greedy(running, "guest") == greedy(running, "medical")
        checked = serve(running, "check", "--config", str(running.stack.file))
        assert (checked.returncode, "ports: not tried" in checked.stdout) == (0, True), checked
        removed = serve(running, "remove", "guest")
        assert (removed.returncode, "still has it, so the next reload" in removed.stdout) == (0, True), removed
        assert "guest: added" in serve(running, "reload").stdout
        running.stack.file.write_text("adapters: [")
        wrong = serve(running, "reload")
        assert (wrong.returncode, "line 1" in wrong.stderr) == (1, True)
        assert state(running, "guest")["state"] == "serving"
    finally:
        running.stack.file.write_text(before)
    running.supervisor.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while state(running, "guest"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert "reload: guest: removed" in running.log.read_text()


def test_nobody_answers_where_no_stack_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serve", "list", "--run-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, "start one with python -m serve, or name its --run-dir" in done.stderr) == (1, True)


# --- an engine that somebody else runs --------------------------------------------------------------------------


def test_adapters_of_a_remote_engine_are_tested_and_left_to_their_owner(running: Running, tmp_path: Path) -> None:
    data = yaml.safe_load(running.stack.file.read_text())
    data["engine"] = {"url": running.stack.engine_url}
    data["adapters"]["missing"] = {"path": "some/missing", "label": GUEST}
    file = tmp_path / "adapters.yaml"
    file.write_text(yaml.safe_dump(data))
    stack, said = load(file), list[str]()
    manager = Manager(stack, RemoteEngine(stack), said.append)
    try:
        manager.engine_ready().result(60)
        listed = {one["name"]: one for one in manager.listed()["adapters"]}
        assert {name: one["state"] for name, one in listed.items()} == dict.fromkeys(WEIGHTS, "serving") | {
            "missing": "broken"
        }
        assert all(listed[name]["proof"]["differs"] > 1 for name in WEIGHTS)
        assert "loading there is its owner's" in listed["missing"]["reason"]
        manager.remove("legal").result(10)
        assert "legal" not in manager.changes(-1, "test")["up"]
        assert greedy(running, "legal")  # there it goes on
    finally:
        manager.close()
