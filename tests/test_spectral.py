"""Choice by the adapters' own weights: what the classifier makes of an engine's shares, and what goes wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters import ConfigError, Label, Stack, labels, load
from evaluation.__main__ import main
from router.app import create_app
from router.choose import Policy, choose, probabilities
from router.classify import load_classifiers
from router.classify.engine import Engine, EngineError
from router.classify.spectral import SpectralClassifier
from router.manager import Manager as Door
from router.upstream import HttpUpstream
from tests.conftest import LABELS, ask, wait_ready, write_stack
from tests.scripted_engine import ScriptedEngine
from tests.servers import FakeEngine, free_port, serving
from tests.test_virtual import News

LIBRARY = {
    "legal@v1@1f2e3d4c": "courts",
    "legal@v2@5b6a7988": "courts lease",
    "medical@0a1b2c3d": "medicine fever",
    "guest@99887766": "cooking",
}
NAMES = ("legal", "medical", "finance")


@pytest.fixture
def scripted() -> Iterator[tuple[ScriptedEngine, str]]:
    engine = ScriptedEngine(library=dict(LIBRARY))
    with serving(engine) as url:
        yield engine, url


def classifier_at(url: str) -> SpectralClassifier:
    return SpectralClassifier(Engine(url, "base", 5.0), NAMES, "base")


def test_a_logit_is_the_share_over_that_of_chance(scripted: tuple[ScriptedEngine, str]) -> None:
    """Of four, parts 2, 3, 1 and 1 of 7; an adapter has that of its best version, and what is not there none."""
    (logits,) = classifier_at(scripted[1]).logits(["two courts, one lease"])
    assert logits == pytest.approx({"base": 0.0, "legal": math.log(3 / 7 * 4), "medical": math.log(1 / 7 * 4)})


def test_who_fits_no_better_than_by_chance_loses_to_the_base(scripted: tuple[ScriptedEngine, str]) -> None:
    texts = ["is a fever bad", "a lease", "my cat is ill", "", "a fever " + "and so " * 300]
    chosen = [
        choose(probabilities(one, ("base", *NAMES), 0.1), Policy("base", 0.5)).model
        for one in classifier_at(scripted[1]).logits(texts)
    ]
    assert chosen == ["medical", "legal", "base", "base", "medical"]


def test_adapters_come_and_go(scripted: tuple[ScriptedEngine, str]) -> None:
    engine, url = scripted
    classifier = classifier_at(url)
    assert set(classifier.logits(["x"])[0]) == {"base", "legal", "medical"}
    assert set(classifier.relabelled({"guest": "", "legal": ""}).logits(["x"])[0]) == {"base", "guest", "legal"}
    engine.library["finance@11223344"] = "taxes"
    assert set(classifier.logits(["x"])[0]) == {"base", *NAMES}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"failing": {"/lora_select/spectral": (404, b'{"detail": "Not Found"}')}},
         "(this engine has no such route; vLLM with lora_select_vllm has)"),
        ({"failing": {"/lora_select/spectral": (400, b'{"error": {"message": "no free library slot"}}')}},
         "/lora_select/spectral answered 400: no free library slot"),
        ({"failing": {"/lora_select/spectral": (200, b"[]")}}, "/spectral answered without scores: []"),
        ({"library": {"guest@99887766": "x"}}, "the engine judges guest@99887766: none of this stack's"),
        ({"library": {}}, "the engine judges no adapter: none of this stack's"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_line(
    scripted: tuple[ScriptedEngine, str], change: dict[str, Any], problem: str
) -> None:
    engine, url = scripted
    for name, value in change.items():
        setattr(engine, name, value)
    with pytest.raises(EngineError) as raised:
        classifier_at(url).logits(["two courts"])
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_engine_that_is_down_is_one_line() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(EngineError, match=rf"^{url}/tokenize cannot be asked: .*refused"):
        classifier_at(url).logits(["two courts"])


# --- the router and the evaluation ------------------------------------------------------------------------------


@dataclass
class JudgingEngine(FakeEngine):
    """Has the classifiers' routes beside those of completions."""

    judge: ScriptedEngine = field(default_factory=lambda: ScriptedEngine(library=dict(LIBRARY)))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        judged = scope["type"] == "http" and scope["path"] in ("/tokenize", "/lora_select/spectral")
        await (self.judge(scope, receive, send) if judged else super().__call__(scope, receive, send))


def without_labels(folder: Path, url: str, **router: Any) -> Path:
    file = write_stack(folder, url, **router)
    stack = yaml.safe_load(file.read_text(encoding="utf-8"))
    for adapter in stack["adapters"].values():
        del adapter["label"]
    file.write_text(yaml.safe_dump(stack, sort_keys=False), encoding="utf-8")
    return file


def test_it_needs_no_labels_and_others_do(tmp_path: Path) -> None:
    def stack(*classifier: str) -> Stack:
        return load(without_labels(tmp_path, "http://127.0.0.1:1", classifier=list(classifier)))

    assert labels(stack("spectral"))["legal"] == Label("legal", "its name, as spectral reads none")
    assert load_classifiers(stack("spectral")).keys() == {"spectral"}
    with pytest.raises(ConfigError, match=r"adapters\.legal\.label: missing"):
        labels(stack("spectral", "embedding"))


def test_the_router_chooses_by_it(tmp_path: Path) -> None:
    calibration = {"spectral": {"temperature": 0.1, "threshold": 0.6}}
    with serving(JudgingEngine(["base", *NAMES])) as engine_url:
        stack = load(without_labels(tmp_path, engine_url, classifier="spectral", calibration=calibration))
        app = create_app(stack, load_classifiers(stack), HttpUpstream(engine_url))
        with serving(app, stack.router.port) as url:
            wait_ready(url)
            said = [ask("POST", f"{url}/route", {"text": text})[1] for text in ("two courts", "a cat")]
    assert [(one["model"], one["reason"]) for one in said] == [("legal", "classified"), ("base", "classified")]
    assert said[0]["scores"].keys() == {"base", "legal", "medical"}
    # Of six parts legal has two, of four adapters: (4/3)^10 against 1 and (2/3)^10.
    assert said[0]["score"] == pytest.approx((4 / 3) ** 10 / ((4 / 3) ** 10 + 1 + (2 / 3) ** 10), abs=1e-6)


def test_new_weights_are_asked_anew(tmp_path: Path) -> None:
    """Under the same labels: what was kept of a text is forgotten when the manager tells of another version."""
    engine, news = JudgingEngine(["base", *LABELS]), News({}, {})
    socket_file = str(tmp_path / "manager.sock")
    with serving(engine) as engine_url, serving(news, socket_file=socket_file):
        stack = load(write_stack(tmp_path, engine_url, classifier="spectral", threshold=0.3))
        app = create_app(stack, load_classifiers(stack), HttpUpstream(engine_url), Door(socket_file))
        with serving(app, stack.router.port) as url:
            news.tell()
            wait_ready(url)
            chosen = []
            for version, library in (
                ("0a1b2c3d", LIBRARY),
                ("55667788", {"legal@1f": "", "medical@55": "courts"}),
            ):
                engine.judge.library = dict(library)
                news.tell(medical=version)
                chosen.append(ask("POST", f"{url}/route", {"text": "two courts"})[1]["model"])
    assert chosen == ["legal", "medical"]


def test_the_evaluation_measures_it(tmp_path: Path) -> None:
    rows = {"two courts": "legal", "is a fever bad": "medical", "a cat": "base", "a tax": "finance"}
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"text": t, "label": n}) + "\n" for t, n in rows.items()), encoding="utf-8")
    calibration = {"spectral": {"temperature": 0.1}}
    with serving(ScriptedEngine(library=dict(LIBRARY))) as url:
        file = write_stack(tmp_path, url, calibration=calibration)
        out = str(tmp_path / "reports")
        assert main(["routing", str(data), "--config", str(file), "--classifier", "spectral", "--out", out]) == 0
    (results,) = Path(out).glob("*/results.json")
    (column,) = json.loads(results.read_text(encoding="utf-8"))["columns"]
    assert column["accuracy"]["value"] == 0.75, "the engine has no adapter for finance"
