"""What keeps LAG's library right while everything around it changes (issue 5, point 4): on real vLLM, on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from serve.life.answers import Answer, ask
from serve.life.api import EngineError
from tests import conftest
from tests.lag_offline import ENV
from tests.stack import DEMO
from tests.vllm_engine import ATTENTION, Engine, engine, make_adapter

SLOTS, LIBRARY = 2, 4
ARGS = {
    "max-lora-rank": 16,
    "max-cpu-loras": 3,
    "enable-prompt-tokens-details": True,
}
PROBE = "The contract, the patient and the account were all discussed at the meeting, and in the end"
LONG = PROBE * 9
"""More than one block of the prefix cache, 128 tokens on a CPU."""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """With LIBRARY slots behind SLOTS ordinary ones, and host memory for three more adapters."""
    with engine(tmp_path_factory.mktemp("engine"), SLOTS, ARGS, library=LIBRARY) as started:
        yield started.wait()


@pytest.fixture
def members(up: Engine, tmp_path: Path) -> Iterator[list[str]]:
    """Three adapters that are loaded, and could be told apart by anybody."""
    names = [f"member-{seed}" for seed in range(3)]
    with up.serving({name: make_adapter(tmp_path / name, seed, size=0.3) for seed, name in enumerate(names)}):
        yield names


@pytest.fixture
def lag(up: Engine, members: list[str]) -> Iterator[str]:
    """A virtual adapter that chooses from them."""
    choose_from(up, "lag@1", members)
    up.publish("lag", "lag@1")
    yield "lag"
    up.withdraw("lag")
    for adapter in [one["adapter"] for one in up.adapters()["adapters"] if "library" in one]:
        up.unload(adapter)


def choose_from(up: Engine, adapter: str, members: list[str], k: int = 2, score: str = "norm") -> None:
    library = {"libraries": [members], "k": k, "score": score}
    up.call("PUT", f"/lora_select/adapters/{adapter}", {"library": library})


def answered(up: Engine, model: str, prompt: str = PROBE) -> Answer:
    return ask(up, model, [prompt])[0]


def slots(up: Engine) -> dict[str, Any]:
    return {one["adapter"]: one["slot"] for one in up.adapters()["adapters"]}


def test_others_never_evict_a_member(up: Engine, lag: str, members: list[str], tmp_path: Path) -> None:
    """Six foreign adapters on two slots, and host memory for three. Were the members wherever there is room, most
    would be gone by then; an answer of others than they is nats away."""
    before, held = answered(up, lag), slots(up)
    assert sorted(held[name] for name in members) == [2, 3, 4]
    foreign = {f"foreign-{seed}": make_adapter(tmp_path / str(seed), seed, size=0.3) for seed in range(10, 16)}
    with up.serving(foreign):
        for name in foreign:
            answered(up, name)
            answered(up, lag)
        assert answered(up, lag).gap(before) < 1e-3
        assert {name: slots(up)[name] for name in members} == {name: held[name] for name in members}
        assert {slots(up)[name] for name in foreign} <= {None, 0, 1}
        choose_from(up, "lag@foreign", [members[0], "foreign-10"])
        up.publish("other", "lag@foreign")
        assert answered(up, "other").gap(before) > 1
        up.withdraw("other")
        up.unload("lag@foreign")
    assert answered(up, lag).gap(before) < 1e-3


def test_a_pinned_adapter_stays_and_takes_no_slot_of_the_others(
    up: Engine, members: list[str], tmp_path: Path
) -> None:
    """vLLM schedules SLOTS adapters at once whoever is pinned, so as many others need a slot in one step."""
    pinned, *others = members
    before = {name: answered(up, name) for name in members}
    up.call("POST", f"/lora_select/adapters/{pinned}/pin")
    slot = slots(up)[pinned]
    assert slot in range(SLOTS, SLOTS + LIBRARY)
    with ThreadPoolExecutor(len(members)) as pool:
        for _ in range(3):
            for name, said in zip(members, pool.map(lambda name: answered(up, name), members), strict=True):
                assert said.gap(before[name]) < 1e-3
    choose_from(up, "lag@3", members)
    assert slots(up)[pinned] == slot
    up.unload("lag@3")
    library = range(SLOTS, SLOTS + LIBRARY)
    assert [slots(up)[name] in library for name in members] == [True, *(False for _ in others)]
    foreign = {f"foreign-{seed}": make_adapter(tmp_path / str(seed), seed) for seed in range(LIBRARY)}
    with up.serving(foreign):
        for name in list(foreign)[1:]:
            up.call("POST", f"/lora_select/adapters/{name}/pin")
        with pytest.raises(EngineError, match="none of the 4 library slots is free"):
            up.call("POST", "/lora_select/adapters/foreign-0/pin")
    assert up.adapters()["library_free"] == LIBRARY - 1
    up.retire(pinned)
    assert up.adapters()["library_free"] == LIBRARY
    up.serve(pinned, str(tmp_path / pinned))


def test_a_member_answers_for_itself_as_well(up: Engine, members: list[str]) -> None:
    before = [answered(up, name) for name in members]
    choose_from(up, "lag@2", members)
    assert max(answered(up, name).gap(one) for name, one in zip(members, before, strict=True)) < 1e-3
    up.unload("lag@2")
    assert up.adapters()["library_free"] == LIBRARY
    assert max(answered(up, name).gap(one) for name, one in zip(members, before, strict=True)) < 1e-3


def test_another_library_shares_no_cache_block(up: Engine, lag: str, members: list[str], tmp_path: Path) -> None:
    """The same name with one member exchanged: what the prefix cache holds of the old library is nats off."""
    ask(up, lag, [LONG], cached=True)
    old = ask(up, lag, [LONG], cached=True)[0]
    with up.serving({"newcomer": make_adapter(tmp_path / "newcomer", 9, size=0.3)}):
        choose_from(up, "lag@2", [*members[:2], "newcomer"])
        up.publish(lag, "lag@2")
        up.unload("lag@1")
        first = ask(up, lag, [LONG], cached=True)[0]
        again = ask(up, lag, [LONG], cached=True)[0]
        anew = ask(up, lag, [LONG])[0]  # with the prompt's own log-probabilities, which no cache has
        assert old.gap(anew) > 0.1
        assert max(first.gap(anew), again.gap(anew)) < 1e-3
        up.withdraw(lag)
        up.unload("lag@2")
        choose_from(up, "lag@1", members)
        up.publish(lag, "lag@1")


def test_a_cached_prefix_pays_for_lag_as_for_an_adapter(up: Engine, lag: str, members: list[str]) -> None:
    for model in (lag, members[0]):
        body = {"model": model, "prompt": f"{model} {LONG}", "max_tokens": 1}
        usages = [up.call("POST", "/v1/completions", body)["usage"] for _ in range(2)]
        cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]
        assert cached[0] == 0
        assert cached[1] == usages[1]["prompt_tokens"] // 128 * 128 > 0


def test_a_member_cannot_be_unloaded(up: Engine, lag: str, members: list[str]) -> None:
    up.withdraw(members[0])
    with pytest.raises(EngineError, match="is in the library of lag@1"):
        up.unload(members[0])
    assert answered(up, lag)
    up.publish(members[0], members[0])


def test_a_member_whose_files_are_gone_fails_the_request_and_not_the_engine(
    up: Engine, lag: str, members: list[str], tmp_path: Path
) -> None:
    (tmp_path / members[1]).rename(tmp_path / "away")
    with pytest.raises(EngineError, match=rf"its member {members[1]} is gone") as refused:
        answered(up, lag)
    assert refused.value.status == 400
    assert answered(up, members[0])
    (tmp_path / "away").rename(tmp_path / members[1])
    assert answered(up, lag)


@pytest.mark.parametrize(
    ("library", "status", "says"),
    [
        ({"libraries": [["member-0"]]}, 400, "a library of 1"),
        ({"libraries": [["member-0", "member-0"]], "k": 1}, 400, "twice"),
        ({"libraries": [["member-0", "member-1"]], "k": 3}, 400, "k is 3, of a library of 2"),
        ({"libraries": [["member-0", "member-1"]], "k": 2, "score": "best"}, 400, "valid are norm and projection"),
        ({"libraries": [["member-0", "nobody"]], "k": 2}, 404, "nobody is not loaded"),
        ({"libraries": []}, 400, "0 libraries"),
        ({"libraries": [["member-0", "member-1"]], "top": 2}, 400, "unexpected keyword argument 'top'"),
        ({"libraries": [["member-0", "lag@1"]], "k": 2}, 400, "lag@1 is virtual itself"),
    ],
)
def test_a_library_that_cannot_be_is_refused(
    up: Engine, lag: str, library: dict[str, Any], status: int, says: str
) -> None:
    answered_, said, _ = conftest.ask("PUT", f"{up.url}/lora_select/adapters/wrong", {"library": library})
    assert (answered_, says in said["error"]["message"]) == (status, True), said
    assert lag in up.served()


def test_a_library_without_room_is_refused_and_nothing_is_lost(
    up: Engine, lag: str, members: list[str], tmp_path: Path
) -> None:
    before = answered(up, lag)
    more = {f"more-{seed}": make_adapter(tmp_path / str(seed), seed) for seed in (20, 21)}
    with up.serving(more):
        with pytest.raises(EngineError, match=r"need 2 library slots, and 1 of 4 are free"):
            choose_from(up, "lag@wide", [*more])
        assert up.adapters()["library_free"] == 1
        choose_from(up, "lag@fits", [members[0], "more-20"])
        up.unload("lag@fits")
    assert up.adapters()["library_free"] == 1
    assert answered(up, lag).gap(before) < 1e-3


def test_counts_by_request_and_by_layer(up: Engine, lag: str, members: list[str]) -> None:
    def total() -> int:
        layers = up.call("GET", "/lora_select/layers")["layers"]
        return sum(sum(layer["tokens"].values()) for layer in layers)

    before = total()
    body = {"model": lag, "prompt": [PROBE, "Once upon a time"], "max_tokens": 6, "ignore_eos": True}
    body |= {"n": 2, "temperature": 1, "skip_special_tokens": False}  # an end that is ignored is a token, too
    said = up.call("POST", "/v1/completions", body | {"return_token_ids": True})
    told = up.call("GET", f"/lora_select/requests/{said['id']}?layers=true")["choices"]
    assert len(told) == len(said["choices"]) == 4
    computed = 0
    for choice, its in zip(sorted(said["choices"], key=lambda one: one["index"]), told, strict=True):
        assert sum(its["adapters"].values()) == pytest.approx(1)
        assert set(its["adapters"]) == set(members)
        assert "".join(token["text"] for token in its["tokens"]) == choice["text"]
        assert all(token["adapter"] in members and 1 / 3 <= token["share"] <= 1 for token in its["tokens"])
        assert len(its["prompt"]) == len(choice["prompt_token_ids"])
        computed += len(its["prompt"]) + len(its["tokens"]) - 1  # nobody computes the last one
        told_by_layer_as_by_token(its)
    # q, k, v and o of four layers; the MLP is not adapted.
    assert total() - before == computed * 4 * len(ATTENTION)


def told_by_layer_as_by_token(choice: dict[str, Any]) -> None:
    """The sums over an answer's layers, and over its tokens, are what is told without them."""
    assert [one["layer"] for one in choice["layers"]] == [f"model.layers.{number}" for number in range(4)]
    for token in choice["tokens"]:
        assert [sum(layer.values()) for layer in token["layers"]] == pytest.approx([1] * 4, abs=1e-3)
        votes = sum((Counter(layer) for layer in token["layers"]), Counter[str]())
        assert votes.most_common(1)[0][1] / 4 == pytest.approx(token["share"], abs=1e-3)
        assert votes[token["adapter"]] / 4 == pytest.approx(token["share"], abs=1e-3)
    for number, one in enumerate(choice["layers"]):
        votes = sum((Counter(token["layers"][number]) for token in choice["tokens"]), Counter[str]())
        mean = {name: votes[name] / len(choice["tokens"]) for name in votes}
        assert one["adapters"] == pytest.approx(mean, abs=1e-3)


def test_an_answer_is_told_although_the_library_grows_meanwhile(
    up: Engine, lag: str, members: list[str], tmp_path: Path
) -> None:
    body = {"model": lag, "prompt": PROBE, "max_tokens": 300, "ignore_eos": True, "temperature": 0}
    with up.serving({"newcomer": make_adapter(tmp_path / "newcomer", 9, size=0.3)}), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(up.call, "POST", "/v1/completions", body)
        while not next(one["requests"] for one in up.adapters()["adapters"] if one["adapter"] == "lag@1"):
            pass
        choose_from(up, "lag@2", [*members, "newcomer"])
        assert not asked.done()
        said = asked.result()
        (told,) = up.call("GET", f"/lora_select/requests/{said['id']}")["choices"]
        up.unload("lag@2")
    assert len(told["tokens"]) == 300
    assert "layers" not in told | told["tokens"][0]
    assert all(token["adapter"] in members for token in told["tokens"])


def test_layers_count_by_adapter_and_not_by_slot(up: Engine, members: list[str], tmp_path: Path) -> None:
    def counted() -> dict[str, int]:
        first = up.call("GET", "/lora_select/layers")["layers"][0]["tokens"]
        return {name: first.get(name, 0) for name in (*members[:2], "newcomer")}

    before = counted()
    choose_from(up, "lag@old", members[:2])
    up.publish("lag", "lag@old")
    answered(up, "lag")
    middle = counted()
    assert sum(middle.values()) > sum(before.values())
    up.withdraw("lag")
    up.unload("lag@old")
    with up.serving({"newcomer": make_adapter(tmp_path / "newcomer", 9, size=0.3)}):
        choose_from(up, "lag@new", ["newcomer", members[0]])
        assert counted() == middle
        up.call("POST", "/lora_select/spectral", {"text": PROBE, "adapters": ["newcomer", members[0]]})
        assert counted() == middle  # what is only scored is used by nobody
        up.unload("lag@new")


def test_a_request_that_comes_too_late_gets_the_base(tmp_path: Path) -> None:
    """It had its model before that was removed; neither does it end the engine, nor bring the library back."""
    paths = [make_adapter(tmp_path / str(seed), seed, size=0.3) for seed in range(2)]
    ran = subprocess.run(
        [sys.executable, "-c", LATE, str(DEMO / "base"), *paths],
        env=os.environ | ENV,
        check=False,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["lag"] != told["base"] == told["late"]
    assert told["again"] == told["lag"]
    assert told["library"] == [None, None]


LATE = """
import json, sys
from lora_select_vllm.spec import virtual_path
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

llm = LLM(sys.argv[1], dtype="float32", enable_lora=True, max_lora_rank=8, max_model_len=64, enforce_eager=True,
          additional_config={"lora_select": {"library_slots": 2}})
lag = LoRARequest("lag", 9, virtual_path([[("a", 1, sys.argv[2]), ("b", 2, sys.argv[3])]], k=2))

def said(adapter=None):
    asked = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    return list(llm.generate("The contract", asked, lora_request=adapter, use_tqdm=False)[0].outputs[0].token_ids)

told = {"base": said(), "lag": said(lag)}
llm.llm_engine.remove_lora(9)
told["late"] = said(lag)
told["base"] = said()
told["library"] = llm.collective_rpc("lora_select_residency")[0]["library"]
llm.llm_engine.add_lora(lag)
told["again"] = said(lag)
print(json.dumps(told))
"""


def test_of_others_than_lag_there_is_nothing_to_tell(up: Engine, members: list[str]) -> None:
    said = up.call("POST", "/v1/completions", {"model": members[0], "prompt": PROBE, "max_tokens": 1})
    with pytest.raises(EngineError, match="no answer of a virtual adapter"):
        up.call("GET", f"/lora_select/requests/{said['id']}")


def test_spectral_finds_whose_direction_a_prompt_has(up: Engine, members: list[str]) -> None:
    said = up.call("POST", "/lora_select/spectral", {"text": PROBE})
    for kind in ("votes", "scores"):
        assert set(said[kind]) == set(members)
        assert sum(said[kind].values()) == pytest.approx(1)
    again = up.call("POST", "/lora_select/spectral", {"text": PROBE})
    assert again["scores"] == pytest.approx(said["scores"], abs=1e-6)  # nothing of it came from the cache
    two = up.call("POST", "/lora_select/spectral", {"text": PROBE, "adapters": members[:2]})
    assert set(two["scores"]) == set(members[:2])
    with pytest.raises(EngineError, match="give either"):
        up.call("POST", "/lora_select/spectral", {})
