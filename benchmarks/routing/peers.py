"""Section `peers`: other routers that choose by content, and one that only forwards, on the same questions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.load import Job
from benchmarks.overhead.peers import NotInstalled, Place, version_of, vllm_router
from benchmarks.overhead.router import KEY, LABELS
from benchmarks.overhead.targets import Target, wait_for_answer
from benchmarks.overhead.uncached import token_counter
from benchmarks.processes import BenchmarkError, Command, tree
from benchmarks.routing import auto_router
from benchmarks.routing.accuracy import described
from benchmarks.routing.questions import BASE, Judged, Question, Questions, examples
from benchmarks.routing.stand import EMBEDDING, Stand, say, url
from benchmarks.routing.stand import chosen as chosen_by_router
from benchmarks.stats import Spread, percentile, rotated
from benchmarks.talk import Talker
from benchmarks.texts import single_token_words
from record.origin import ROOT
from router.classify.encoder import minilm_weights

FROM_LABELS, FITTED, FROM_EXAMPLES = "labels", "labels, fitted", "examples"
AUTO = "auto-"
"""How LiteLLM's auto-routers are named; a comma would make it take a name for two."""

WITHIN_S = 600
"""For anything that a peer does before it is measured: LiteLLM starts in half a minute where nothing else runs."""

BATCH = 32
"""Texts in a line for semantic-router's process, which judges them one after the other all the same."""

Cost = tuple[float, float]
"""Milliseconds (p50) and milliseconds of CPU time of a decision."""


@dataclass(frozen=True)
class Subject:
    """Something that is asked: which model for a text (None: it does not choose), and what a decision costs."""

    name: str
    version: str
    chosen: Callable[[Sequence[str]], list[str]] | None
    cost: Callable[[Sequence[str]], Cost]


def section(stand: Stand, sets: Sequence[Questions], most: int | None, environments: Path) -> dict[str, Any]:
    """Accuracy of each, then what a decision costs in interleaved rounds. Raises BenchmarkError."""
    skipped: dict[str, str] = {}
    subjects = list(_ours(stand))
    for name, make in PEERS.items() if stand.plan.with_peers else ():
        try:
            subjects += make(stand, environments)
        except NotInstalled as error:
            skipped[name] = f"not installed: {error}"
        except BenchmarkError as error:
            skipped[name] = f"installed, but {error}"
        say(f"{name}: {skipped.get(name, 'ready')}")
    right = {one.name: _accuracy(one, sets, most) for one in subjects if one.chosen}
    return {
        "sets": described(sets),
        "examples": {model: len(own) for model, own in examples().items()},
        "subjects": {one.name: one.version for one in subjects},
        "skipped": skipped,
        "accuracy": right,
        "cost": _costs(stand, subjects),
    }


def _accuracy(subject: Subject, sets: Sequence[Questions], most: int | None) -> dict[str, Any]:
    assert subject.chosen
    found = {}
    for questions in sets:
        rows: tuple[Question, ...] = questions.at_most(most)
        say(f"peers: {subject.name}, {len(rows)} rows of {questions.name}")
        found[questions.name] = asdict(Judged.of(rows, subject.chosen([row.text for row in rows])))
    return found


def _costs(stand: Stand, subjects: Sequence[Subject]) -> dict[str, Any]:
    plan, vocabulary = stand.plan, single_token_words(token_counter())
    found: dict[str, list[Cost]] = {one.name: [] for one in subjects}
    for turn in range(plan.rounds):
        say(f"peers: round {turn + 1} of {plan.rounds}")
        for one in rotated(subjects, turn):
            texts = stand.fresh.texts(plan.peer_texts, plan.peer_tokens, vocabulary)
            found[one.name].append(one.cost(texts))
    return {
        name: {
            "p50_ms": asdict(Spread.of([ms for ms, _ in rounds])),
            "cpu_ms": asdict(Spread.of([cpu for _, cpu in rounds])),
        }
        for name, rounds in found.items()
    }


def _ours(stand: Stand) -> list[Subject]:
    """The stub alone, and the router with its default classifier."""
    ((_, target),) = stand.targets((EMBEDDING,)).values()
    alone = Target("direct", stand.stub_port, BASE, (), "the stub itself")
    return [
        Subject(alone.name, alone.version, None, _over_http(stand, alone)),
        Subject(
            "router", target.version, lambda texts: [chosen_by_router(target, one) for one in texts],
            _over_http(stand, target),
        ),
    ]  # fmt: skip


def _over_http(stand: Stand, target: Target) -> Callable[[Sequence[str]], Cost]:
    """Whole chats, one after the other, each with a text that nobody has seen."""

    def cost(texts: Sequence[str]) -> Cost:
        measured = stand.client.run(
            Job(
                target.port, target.model, key=KEY, requests=len(texts), texts=(), fresh=tuple(texts),
                fresh_every=1, watch={"target": target.pids},
            )
        )  # fmt: skip
        if measured.failure:
            raise BenchmarkError(f"{target.name}: {measured.failure}")
        return measured.fresh.p50, measured.cpu_s["target"] * 1000 / measured.requests

    return cost


def _litellm(stand: Stand, environments: Path) -> list[Subject]:
    """The proxy with two auto-routers, and MiniLM behind it."""
    embeddings_port, port = stand.ports.take(), stand.ports.take()
    autos = {f"{AUTO}{name}": variant["routes"] for name, variant in variants().items() if name != FITTED}
    command, version = auto_router.command(
        environments, stand.folder, port, url(stand.stub_port), url(embeddings_port), autos
    )
    serve = (sys.executable, "-m", "benchmarks.routing.embeddings", "--port", str(embeddings_port))
    vectors = stand.fleet.start("embeddings", Command(serve, {"OMP_NUM_THREADS": "1"}, ROOT))
    process = stand.fleet.start("litellm", command)
    wait_for_answer(stand.fleet, "litellm", process, port, BASE, WITHIN_S)
    found = []
    for variant in autos:
        wait_for_answer(
            stand.fleet, "litellm", process, port, variant, WITHIN_S
        )  # the first embeds all utterances
        target = Target(variant, port, variant, (*tree(process.pid), *tree(vectors.pid)), version)

        def chosen(texts: Sequence[str], variant: str = variant) -> list[str]:
            return [auto_router.chosen(port, variant, one) for one in texts]

        found.append(Subject(f"litellm, {variant.removeprefix(AUTO)}", version, chosen, _over_http(stand, target)))
    return found


def _semantic_router(stand: Stand, environments: Path) -> list[Subject]:
    """In its process, without HTTP: it is a library."""
    folder = environments / "semantic-router" / "bin"
    version = version_of(folder, "semantic-router")
    script = (str(folder / "python"), "-P", str(Path(__file__).with_name("aurelio.py")))
    talker = Talker(stand.fleet, "semantic-router", Command(script, {"OMP_NUM_THREADS": "1"}, stand.folder))
    told = variants()
    talker.say({"weights": str(minilm_weights()), "variants": told}, WITHIN_S)

    def asked(variant: str, texts: Sequence[str]) -> dict[str, Any]:
        return dict(talker.say({"variant": variant, "texts": list(texts)}, WITHIN_S))

    found = []
    for variant in told:

        def chosen(texts: Sequence[str], variant: str = variant) -> list[str]:
            parts = (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))
            return [name or BASE for part in parts for name in asked(variant, part)["chosen"]]

        def cost(texts: Sequence[str], variant: str = variant) -> Cost:
            answer = asked(variant, texts)
            return percentile(sorted(answer["ms"]), 50), answer["cpu_s"] * 1000 / len(texts)

        found.append(Subject(f"semantic-router, {variant}", version, chosen, cost))
    return found


def _vllm_router(stand: Stand, environments: Path) -> list[Subject]:
    """It forwards what it is told to: no choice, no accuracy."""
    port = stand.ports.take()
    peer = vllm_router(Place(port, stand.ports.take(), stand.stub_port, stand.folder, environments))
    process = stand.fleet.start("vllm-router", peer.command)
    wait_for_answer(stand.fleet, "vllm-router", process, port, BASE)
    target = Target("vllm-router", port, BASE, tuple(tree(process.pid)), peer.version)
    return [Subject(target.name, target.version, None, _over_http(stand, target))]


PEERS: Mapping[str, Callable[[Stand, Path], list[Subject]]] = {
    "litellm": _litellm,
    "semantic-router": _semantic_router,
    "vllm-router": _vllm_router,
}
"""By the names of their environments. Each raises NotInstalled."""


def variants() -> dict[str, dict[str, Any]]:
    """What the peers are told: the phrases of the same labels; those, and examples to calibrate with; or examples
    of every adapter and of the base."""
    phrases = {name: [part.strip() for part in label.split(",")] for name, label in LABELS.items()}
    return {
        FROM_LABELS: {"routes": phrases, "fit": {}},
        FITTED: {"routes": phrases, "fit": examples()},
        FROM_EXAMPLES: {"routes": examples(), "fit": {}},
    }
