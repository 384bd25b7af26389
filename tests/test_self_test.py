"""The self-test finds what it is for, and adapters live as vllm_plugin says: on real vLLM, on a CPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import openai
import pytest

from serve.life.answers import Answer, ask
from serve.life.api import EngineError
from serve.life.prove import PROBES, prove
from serve.life.reference import NoReference, peft
from tests.stack import DEMO
from tests.vllm_engine import ATTENTION, BASE, LAYERS, SHAPES, Engine, engine, make_adapter

SLOTS, HOST = 3, 12
ARGS = {"max-lora-rank": 64, "max-cpu-loras": HOST}
EVERY = tuple(SHAPES)
STREAM_TOKENS = 150


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Engine]]:
    """Both at once: to start, an engine needs one core for half a minute."""
    folders = map(tmp_path_factory.mktemp, ("own", "stock"))
    with engine(next(folders), SLOTS, ARGS) as own, engine(next(folders), SLOTS, ARGS, plugins="") as stock:
        yield own, stock


@pytest.fixture(scope="module")
def own(engines: tuple[Engine, Engine]) -> Engine:
    """As LoRA-Select starts it."""
    return engines[0].wait()


@pytest.fixture(scope="module")
def stock(engines: tuple[Engine, Engine]) -> Engine:
    """Without vllm_plugin: base requests are not repaired, adapters come and go through vLLM's own routes."""
    return engines[1].wait()


def test_gap_counts_the_place_where_two_answers_part() -> None:
    asked = ((7, 8, 1), (-3.0,))
    one = Answer(*asked, ({1: -0.5, 2: -2.0},))
    assert one.gap(Answer((7, 8, 3), (-3.0,), ({3: -0.1, 1: -3.0},))) == 2.5  # 3 is here at most as likely as 2
    assert one.gap(Answer((7, 8, 2), (-3.0,), ({2: -0.4999, 1: -0.5},))) == pytest.approx(1.5001)
    tie = Answer((7, 8, 2), (-3.0,), ({2: -0.7, 1: -0.7001},))
    assert tie.gap(Answer(*asked, ({1: -0.7, 2: -0.7001},))) == pytest.approx(1e-4)


def test_a_good_adapter_passes(own: Engine) -> None:
    paths = {name: str(DEMO / "adapters" / name) for name in ("legal", "medical", "finance")}
    with own.serving(paths):
        proof = prove(own, BASE, "legal", ["medical", "finance"], exact=True)
    assert proof.problem == ""
    assert proof.differs > 1
    assert max(proof.mixed, proof.base_mixed, proof.cached) < 1e-3


@pytest.mark.parametrize(
    "made", [{"size": 1e-12}, {"layers": [LAYERS]}], ids=["tiny", "of a layer that is not there"]
)
def test_an_adapter_that_does_nothing_is_found(own: Engine, tmp_path: Path, made: dict[str, Any]) -> None:
    with own.serving({"idle": make_adapter(tmp_path, 1, **made)}):
        assert prove(own, BASE, "idle", [], exact=True).problem.startswith("it does nothing")


def test_the_cache_of_other_weights_is_found(stock: Engine, tmp_path: Path) -> None:
    """vllm#42125. Comes before the test that fills the last slot: from there on, everything here is polluted."""
    for seed, problem in (1, ""), (2, "prefix cache"):
        stock.stock("load", "law", make_adapter(tmp_path, seed))
        proof = prove(stock, BASE, "law", [], exact=True)
        assert problem in proof.problem
        assert (proof.cached > 0.1) == bool(problem)
        stock.stock("unload", "law")


def test_a_polluted_base_is_found(stock: Engine) -> None:
    """vllm#48421: as many adapters as slots."""
    for name in ("legal", "medical", "finance"):
        stock.stock("load", name, str(DEMO / "adapters" / name))
    proof = prove(stock, BASE, "finance", ["legal", "medical"], exact=True)
    assert "the base's own answers" in proof.problem
    assert proof.base_mixed > 1


def test_transformers_and_peft_say_the_same(own: Engine) -> None:
    paths = {name: str(DEMO / "adapters" / name) for name in ("legal", "medical")}
    with own.serving(paths):
        texts = [answer.tokens for name in paths for answer in ask(own, name, PROBES)]
        legal = dict(zip(texts, peft(str(DEMO / "base"), paths["legal"], texts), strict=True))
        right, wrong = (
            prove(own, BASE, name, [], exact=True, reference=lambda asked: [legal[tuple(each)] for each in asked])
            for name in paths
        )
    assert right.problem == ""
    assert right.reference is not None
    assert right.reference < 1e-3
    assert wrong.problem.endswith("nats (at most 0.001) from those of transformers and PEFT")
    assert wrong.reference is not None
    assert wrong.reference > 1


def test_a_reference_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(NoReference, match=r"cannot compute it: .*adapter_config\.json"):
        peft(str(DEMO / "base"), str(tmp_path), [[1, 2]])


def test_twelve_adapters_take_turns_in_three_slots(own: Engine, tmp_path: Path) -> None:
    kinds = (4, ATTENTION[:1]), (16, EVERY[4:]), (64, EVERY), (8, ATTENTION)
    made = [make_adapter(tmp_path / str(n), n, *kinds[n % len(kinds)]) for n in range(HOST + 4)]
    twelve = {f"a{n}@1": path for n, path in enumerate(made[:HOST])}
    further = {f"b{n}@1": path for n, path in enumerate(made[HOST:])}
    models = (BASE, *twelve)

    def at_once() -> dict[str, list[Answer]]:
        with ThreadPoolExecutor(len(models)) as pool:
            return dict(zip(models, pool.map(lambda model: ask(own, model, PROBES[:2]), models), strict=True))

    with own.serving(twelve):
        alone = {model: ask(own, model, PROBES[:2]) for model in models}
        assert min(furthest(alone[one], alone[other]) for one, other in combinations(models, 2)) > 0.1
        assert own.adapters()["host_free"] == 0
        together = at_once()
        assert max(furthest(alone[model], together[model]) for model in models) < 1e-3
        with own.serving(further):  # more than host memory holds: vLLM reads those that it has dropped again
            assert sum(not each["host"] for each in own.adapters()["adapters"]) == len(further)
            together = at_once()
            assert max(furthest(alone[model], together[model]) for model in models) < 1e-3


def test_unload_frees_slot_and_memory(own: Engine, stock: Engine, tmp_path: Path) -> None:
    """Seen with six adapters of 5.8 MB: 34.7 MB while they are loaded, 0.04 MB after their unload, through vLLM's
    own route 34.7 MB. The weights have the engine's dtype, so they stay mapped from their files; copies in another
    dtype would lie in a heap that has tens of MB free since the start, and show nothing."""
    big = {f"big{n}": make_adapter(tmp_path / str(n), n, 64, EVERY) for n in range(6)}
    size = (tmp_path / "0" / "adapter_model.safetensors").stat().st_size
    before, start = own.adapters(), own.memory()
    with own.serving(big):
        assert own.memory() - start > 0.9 * len(big) * size
        assert (own.adapters()["slots_free"], own.adapters()["host_free"]) == (0, HOST - len(big))
    assert own.adapters() == before
    for name, path in big.items():
        own.serve(name, path)
        own.retire(name)
    assert own.memory() - start < size

    print("XX", size, own.memory() - start)
    start = stock.memory()
    for name, path in big.items():
        stock.stock("load", name, path)
        stock.stock("unload", name)
        print("XX", stock.memory() - start)
    assert stock.memory() - start > 0.9 * len(big) * size  # vllm#54839


def test_a_stream_keeps_its_version_when_the_name_moves(own: Engine, tmp_path: Path) -> None:
    own.load("law@1", make_adapter(tmp_path / "1", 1))
    own.publish("law", "law@1")
    old, whole = ask(own, "law", PROBES), streamed(own, "law", threading.Event())
    begun = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(streamed, own, "law", begun)
        assert begun.wait(30)
        own.load("law@2", make_adapter(tmp_path / "2", 2))
        own.publish("law", "law@2")
        new = ask(own, "law", PROBES)
        with pytest.raises(EngineError, match="law@1 is answering 1 requests") as refused:
            own.unload("law@1")
        assert refused.value.status == 409
        assert not stream.done()
        assert stream.result(60) == whole
    own.unload("law@1")
    assert furthest(new, old) > 0.1
    own.publish("law@2", "law@2")
    assert furthest(new, ask(own, "law@2", PROBES)) < 1e-3
    own.withdraw("law")
    own.retire("law@2")


def furthest(some: list[Answer], others: list[Answer]) -> float:
    return max(one.gap(other) for one, other in zip(some, others, strict=True))


def listed(engine: Engine, adapter: str) -> dict[str, Any]:
    return next(each for each in engine.adapters()["adapters"] if each["adapter"] == adapter)


def streamed(engine: Engine, model: str, begun: threading.Event) -> str:
    """A long answer; `begun` is set at its first piece."""
    client = openai.OpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0)
    with (
        client,
        client.completions.create(
            model=model, prompt=PROBES[0], max_tokens=STREAM_TOKENS, stream=True, extra_body={"ignore_eos": True}
        ) as events,
    ):
        pieces: list[str] = []
        for event in events:
            begun.set()
            pieces += [choice.text for choice in event.choices]
    return "".join(pieces)
