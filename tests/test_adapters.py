"""adapters.yaml: what is valid, and one clear line for what is not."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from adapters import Adapter, Base, ConfigError, Engine, Lag, Router, Stack, Ui, check_port, load

ROOT = Path(__file__).parent.parent
VALID: dict[str, Any] = {
    "base": {"model": "some/base", "name": "base"},
    "adapters": {"legal": {"path": "some/legal", "label": "law"}},
}
NAMES = ("legal", "medical", "finance")
THREE: dict[str, Any] = VALID | {"adapters": {name: {"path": f"some/{name}", "label": name} for name in NAMES}}
TAKEN = ("auto", "base", "legal")


def write(folder: Path, text: str) -> Path:
    file = folder / "adapters.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def changed(path: str, value: Any) -> str:
    stack: dict[str, Any] = {key: dict(part) for key, part in VALID.items()}
    *parents, last = path.split(".")
    part = stack
    for parent in parents:
        part[parent] = dict(part.get(parent, {}))
        part = part[parent]
    part[last] = value
    return yaml.safe_dump(stack, sort_keys=False)


def test_a_small_stack_gets_the_defaults(tmp_path: Path) -> None:
    stack = load(write(tmp_path, yaml.safe_dump(VALID)))
    assert (stack.engine.port, stack.router.port, stack.ui.port) == (8001, 8000, 7860)
    assert (stack.engine_url, stack.router_url) == ("http://127.0.0.1:8001", "http://127.0.0.1:8000")
    assert stack.base_ref().folder is None


def test_a_stack_is_frozen(tmp_path: Path) -> None:
    stack = load(write(tmp_path, yaml.safe_dump(VALID)))
    with pytest.raises(ValueError, match="frozen"):
        stack.router.threshold = 0.1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (changed("router.thresold", 0.5), 'router.thresold: unknown key; did you mean "threshold"?'),
        (changed("adapters.legal.lable", "x"), 'adapters.legal.lable: unknown key; did you mean "label"?'),
        (changed("adapters.legal", {"pth": "x"}), 'adapters.legal.pth: unknown key; did you mean "path"?'),
        (changed("zzz", 1), "zzz: unknown key; valid here: base, engine, router, ui, adapters"),
        (changed("file", "x"), "file: unknown key"),
        (changed("router.threshold", 1.5), "router.threshold: Input should be less than or equal to 1 (got 1.5)"),
        (
            changed("router.classifier", "magic"),
            "router.classifier.0: Input should be 'embedding', 'nli', 'scoring' or 'spectral'",
        ),
        (changed("router.classifier", ["nli", "nli"]), "router.classifier names one twice: nli, nli"),
        (changed("router.classifier", []), "router.classifier: Tuple should have at least 1 item"),
        (
            changed("router", {"classifier": ["embedding", "nli"], "model": "a/b"}),
            "router.model: with several classifiers, say whose: {embedding: a/b}",
        ),
        (changed("router.model", {"nlo": "a/b"}), 'router.model.nlo: unknown key; did you mean "nli"?'),
        (
            changed("router.calibration", {"nli": {"temprature": 2}}),
            'router.calibration.nli.temprature: unknown key; did you mean "temperature"?',
        ),
        (changed("router.calibration", {"nly": {}}), 'router.calibration.nly: unknown key; did you mean "nli"?'),
        (
            changed("router.keys", {"a": {"sha256": "plain"}}),
            "router.keys.a.sha256: no SHA-256, which is text of 64",
        ),
        (changed("router.keys", {"a": {}}), "router.keys.a.sha256: missing"),
        (
            changed("router.keys", {"a": {"sha256": "0" * 64, "adapters": ["lega"]}}),
            'router.keys.a.adapters: no adapter "lega"; there are legal',
        ),
        (changed("adapters.legal", "a/b"), "adapters.legal: expected a mapping with the keys path, versions"),
        (changed("router.limits_storage", "sqlite://x"), "router.limits_storage: must be memory://, redis://"),
        (changed("adapters.legal.sampling", {"temprature": 1}), 'unknown key; did you mean "temperature"?'),
        (
            changed("adapters.legal.sampling", {"temperature": "hot"}),
            "legal.sampling.temperature: Input should be",
        ),
        (
            changed("adapters.legal.sampling", {"temperature": float("inf")}),
            "sampling.temperature: Input should be",
        ),
        (
            changed("adapters.legal.sampling", {"max_tokens": float("nan")}),
            "legal.sampling.max_tokens: Input should",
        ),
        (changed("adapters.legal.sampling", {"stop": 7}), "adapters.legal.sampling.stop: Input should be"),
        (
            changed("adapters.legal.sampling", {"logit_bias": [1]}),
            "adapters.legal.sampling.logit_bias: Input should",
        ),
        (
            changed("router.keys", {"a": {"sha256": "0" * 64}, "b": {"sha256": "0" * 64}}),
            "router.keys.b: the same key as keys.a",
        ),
        (
            changed("router", {"keys": {"a": {"sha256": "0" * 64}}, "admin_key": "0" * 64}),
            "router.keys.a: the same key as admin_key",
        ),
        (changed("router.keys", {"admin": {"sha256": "0" * 64}}), 'router.keys.admin: the name "admin" is'),
        (changed("router.model", {"nli": "a/b"}), "router.model names nli, and router.classifier only embedding"),
        (
            "base: {model: a/b, name: x}\nrouter: {decision_log: 2024-13-45}",
            "line 2: month must be in 1..12; if it",
        ),
        ("router: {port: 0x_}", "line 1: invalid literal"),
        (
            changed("adapters.legal.tags", {"audience": []}),
            "adapters.legal.tags.audience: Value should have at least 1",
        ),
        (changed("adapters.legal.tags", {"a b": "c"}), "adapters.legal.tags.a b: String should match pattern"),
        (changed("engine.port", 99999), "engine.port: Input should be less than or equal to 65535"),
        (changed("ui.port", 8000), "router.port and ui.port are both 8000"),
        (changed("engine.url", "localhost:1"), "engine.url: String should match pattern"),
        *(
            (changed("engine.url", url), "engine.url: expected a server's address, such as http://127.0.0.1:8001")
            for url in ("http://gpu-box:80001", "http://box:abc", "http://:8000", "http://[::1", "http://box:0")
        ),
        (changed("adapters", {}), "adapters: "),
        (changed("adapters.auto", {"path": "a/b", "label": "x"}), 'the name "auto" is reserved'),
        (changed("adapters.base", {"path": "a/b", "label": "x"}), 'the base and an adapter are both named "base"'),
        (changed("adapters.a b", {"path": "a/b", "label": "x"}), "adapters.a b: String should match pattern"),
        (changed("adapters.legal.label", ""), "adapters.legal.label: String should match pattern"),
        ("adapters: {legal: {path: a/b, label: x}}", "base: missing"),
        ("base: {model: a/b, name: x}\nbase: 1", 'line 2: the key "base" stands twice'),
        ("base: [", "line 1: "),
        ("1: x", "line 1: a key must be a word"),
        ("? [a, b]\n: x", "line 1: a key must be a word"),
        ("base: \x01", "not YAML: "),
        (changed("engine.args", {"a": [[1]]}), "engine.args.a: "),
        (changed("adapters.legal.label", " , "), "adapters.legal.label: "),
        (changed("router.max_body_mb", float("inf")), "router.max_body_mb: "),
        ("- a\n- b", "expected a mapping with the keys base, engine, router, ui, adapters"),
        ("", "expected a mapping"),
    ],
)
def test_bad_stacks_are_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value).startswith(str(file))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


MISSING = "library: missing; give all or a list of adapters' names, or several of them as libraries"
NO_LIST = "expected all, or a list of adapters' names"


@pytest.mark.parametrize(
    ("lag", "says"),
    [
        ({"k": 2}, f"lag.lag.{MISSING}"),
        ({"mix": {}}, f"lag.mix.{MISSING}"),
        ({"library": "all", "libraries": {"x": "all"}}, "lag.lag.library: libraries is there as well; give one"),
        ({"library": "al"}, f"lag.lag.library: {NO_LIST} (got 'al')"),
        ({"mix": {"libraries": {"x": ["legal", 3]}}}, f"lag.mix.libraries.x: {NO_LIST} (got ['legal', 3])"),
        ({"library": ["legal"]}, "lag.lag.library: a library of 1; it takes two adapters or more"),
        ({"libraries": {"x": "all", "y": []}}, "lag.lag.libraries.y: a library of 0; it takes two"),
        ({"library": "all", "k": 4}, "lag.lag.k: 4, and lag.lag.library has 3; at most that many"),
        ({"library": "all", "k": 0}, "lag.lag.k: Input should be greater than or equal to 1 (got 0)"),
        ({"library": ["legal", "lega"]}, 'lag.lag.library: no adapter "lega"; there are legal, medical, finance'),
        ({"library": ["legal", "medical", "legal"]}, "lag.lag: legal is there twice"),
        ({"libraries": {"x": ["legal", "medical"], "y": "all"}}, "lag.lag: legal is there twice; an adapter is"),
        *(({name: {"library": "all"}}, f'lag.{name}: the name "{name}" is taken') for name in TAKEN),
        ({"a@b": {"library": "all"}}, "lag.a@b: String should match pattern"),
        ({"library": "all", "scor": "norm"}, 'lag.lag.scor: unknown key; did you mean "score"?'),
        ({"library": "all", "score": "nrm"}, "lag.lag.score: Input should be 'norm' or 'projection' (got 'nrm')"),
        (
            {"librry": "all"},
            "lag.librry: expected a mapping with the keys library, libraries, k, score (got 'all')",
        ),
        ("all", "lag: Input should be a valid dictionary (got 'all')"),
    ],
)
def test_bad_libraries_are_refused_in_one_line(tmp_path: Path, lag: Any, says: str) -> None:
    file = write(tmp_path, yaml.safe_dump(THREE | {"lag": lag}, sort_keys=False))
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}: {says}")
    assert "\n" not in str(caught.value)


def test_a_library_by_itself_is_the_model_lag_and_several_have_names(tmp_path: Path) -> None:
    lag = load(write(tmp_path, yaml.safe_dump(THREE | {"lag": {"library": "all", "k": 2}}))).lag
    assert {name: (one.k, one.members(NAMES)) for name, one in lag.items()} == {"lag": (2, {"library": NAMES})}
    several = {
        "near": {"library": ["legal", "medical"]},
        "far": {"libraries": {"task": "all"}, "score": "projection"},
    }
    lag = load(write(tmp_path, yaml.safe_dump(THREE | {"lag": several}))).lag
    assert lag["near"].members(NAMES) == {"library": ("legal", "medical")}
    assert lag["far"].members(NAMES) == {"task": NAMES}


@pytest.mark.parametrize(
    ("router", "says"),
    [
        ({"unsure": "mixed"}, 'router.unsure: no model "mixed" under lag; valid here: base, mix'),
        ({"unsure": "legal"}, 'router.unsure: no model "legal" under lag; valid here: base, mix'),
        (
            {"keys": {"a": {"sha256": "0" * 64, "adapters": ["mix", "max"]}}},
            'router.keys.a.adapters: no adapter "max"; there are legal, medical, finance, mix',
        ),
    ],
)
def test_the_router_names_models_of_lag_that_are_there(tmp_path: Path, router: Any, says: str) -> None:
    stack = THREE | {"lag": {"mix": {"library": "all"}}, "router": router}
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, yaml.safe_dump(stack, sort_keys=False)))
    assert says in str(caught.value)


@pytest.mark.parametrize(("unsure", "model"), [("mix", "mix"), ("base", None)])
def test_who_answers_for_an_unsure_auto(tmp_path: Path, unsure: str, model: str | None) -> None:
    stack = THREE | {"lag": {"mix": {"library": "all"}}, "router": {"unsure": unsure}}
    assert load(write(tmp_path, yaml.safe_dump(stack))).unsure == model


@pytest.mark.parametrize(
    "router",
    [
        {"keys": {"a": {"sha256": "ls-hunter2"}}},
        {"keys": {"a": "ls-hunter2"}},
        {"keys": ["ls-hunter2"]},
        {"admin_key": "ls-hunter2"},
        {"admin_key": ["ls-hunter2"]},
        {"limits_storage": "redis+cluster://:hunter2@host"},
    ],
)
def test_secrets_are_not_shown_again(tmp_path: Path, router: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, changed("router", router)))
    assert "hunter2" not in str(caught.value)
    assert "router." in str(caught.value)


def test_sampling_is_kept_as_json_has_it(tmp_path: Path) -> None:
    given = {"temperature": 0, "max_tokens": 5, "stop": "###", "logit_bias": {"50256": -100}, "seed": None}
    adapter = load(write(tmp_path, changed("adapters.legal.sampling", given))).adapters["legal"]
    assert adapter.defaults == {
        "temperature": 0,
        "max_tokens": 5,
        "stop": ["###"],
        "logit_bias": {"50256": -100},
    }


@pytest.mark.parametrize(
    ("host", "url"),
    [("::", "http://[::1]:8000"), ("fe80::1", "http://[fe80::1]:8000"), ("a.b", "http://a.b:8000")],
)
def test_an_ipv6_address_stands_in_brackets(tmp_path: Path, host: str, url: str) -> None:
    assert load(write(tmp_path, changed("router.host", host))).router_url == url


def test_a_home_that_is_nobodys_is_no_folder(tmp_path: Path) -> None:
    stack = load(write(tmp_path, changed("adapters.legal.path", "~nobody-of-that-name/x")))
    with pytest.raises(ConfigError, match=r"adapters\.legal\.path: no such folder"):
        stack.adapter_ref("legal")


def test_a_port_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = load(write(tmp_path, yaml.safe_dump(VALID)))
    with pytest.raises(ConfigError, match=r"router\.port: 8000 on a\.\.b: .*; set another host"):
        check_port(stack, "router.port", "a..b", 8000)

    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")  # root may listen everywhere

    monkeypatch.setattr("socket.socket.bind", refused, raising=False)
    with pytest.raises(ConfigError, match=r"80 on 127\.0\.0\.1: Permission denied; set another port"):
        check_port(stack, "router.port", "127.0.0.1", 80)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; give one with --config"):
        load(tmp_path / "nothing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "binary.yaml")


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "stack").mkdir()
    (tmp_path / "weights").mkdir()
    stack = load(write(tmp_path / "stack", changed("base.model", "../weights")))
    assert stack.base_ref().folder == tmp_path / "weights"
    missing = load(write(tmp_path / "stack", changed("adapters.legal.path", "../none")))
    with pytest.raises(
        ConfigError, match=r"adapters\.legal\.path: no such folder: .*none \(give a folder or a hub"
    ):
        missing.adapter_ref("legal")


@pytest.mark.parametrize(
    "path", ["adapters/legal--v2", "adapters/l\u00e9gal", "adapters/legal.", "a/b.git", "a/-b", "a" * 96 + "/b"]
)
def test_what_the_hub_could_not_have_is_a_missing_folder(tmp_path: Path, path: str) -> None:
    stack = load(write(tmp_path, changed("adapters.legal.path", path)))
    with pytest.raises(ConfigError, match=r"adapters\.legal\.path: no such folder"):
        stack.adapter_ref("legal")


@pytest.mark.parametrize("path", ["a/b", "some-one/some.thing_7B", "a/b@main", "a/b@refs/pr--1", "_a/b_"])
def test_what_the_hub_could_have(tmp_path: Path, path: str) -> None:
    stack = load(write(tmp_path, changed("adapters.legal.path", path)))
    assert str(stack.adapter_ref("legal")) == path


@pytest.mark.parametrize("file", ["adapters.yaml", "demo/adapters.yaml"])
def test_the_stacks_of_this_project_are_valid(file: str) -> None:
    assert list(load(ROOT / file).adapters) == ["legal", "medical", "finance"]


def test_the_reference_documents_every_key_and_its_default() -> None:
    text = (ROOT / "adapters.yaml").read_text(encoding="utf-8")
    given = yaml.safe_load(text)
    everything = yaml.safe_load(re.sub(r"^(\s*)# (?=[a-z_]+: \S+( +#|$))", r"\1", text, flags=re.MULTILINE))
    parts: dict[str, type[BaseModel]] = {"base": Base, "engine": Engine, "router": Router, "ui": Ui, "lag": Lag}
    assert set(everything) == {*parts, "adapters"} == set(Stack.model_fields) - {"file"}
    for section, part in parts.items():
        assert set(everything[section]) == set(part.model_fields), section
        for key, field in part.model_fields.items():
            if key not in (given[section] or {}):
                shown = everything[section][key]
                default = list(field.default) if isinstance(field.default, tuple) else field.default
                assert shown == default, f"{section}.{key}: the default shown in adapters.yaml is not the one"
    adapters = text[text.index("\nadapters:") :]
    assert set(re.findall(r"^  # (\w+)  +\S", adapters, re.MULTILINE)) == set(Adapter.model_fields)
    for key, field in Adapter.model_fields.items():
        if not field.is_required():
            default = field.default.model_dump(exclude_none=True) if key == "sampling" else field.default
            default = "null" if default is None else str(default).lower()
            entry = re.search(rf"  # {key} .*(\n  #    .*)*", adapters)
            assert entry
            assert f"default: {default}" in entry[0] or "(the default)" in entry[0], key
