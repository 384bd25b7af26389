"""The router of this project (or of another checkout): its adapters.yaml and its command."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.processes import BenchmarkError, Command
from benchmarks.stub import MODELS

KEY = "sk-benchmark"
ADMIN_KEY = "sk-benchmark-admin"
PLENTY = 1_000_000_000
"""Limits are counted but never reached."""

ADAPTER = {
    "tags": {"audience": "everyone"},
    "sampling": {"top_p": 0.9},
    "system_prompt": "Say so when you are not sure.",
}
"""What each adapter has where everything is on. Every request asks for the tag; the rest is filled in."""

TAG_HEADER = "x-lora-select-tags: audience=everyone"

LABELS = {
    "legal": "law, legal rights, courts and lawsuits, contracts, crime and the police, employment and dismissal, "
    "landlords and tenants, divorce and custody, wills and inheritance, copyright and patents",
    "medical": "medicine, health, symptoms and pain, diseases, treatments and surgery, drugs and side effects, "
    "pregnancy and children's health, mental health, the body and its organs, first aid",
    "finance": "finance, banking and bank cards, loans and mortgages, investing in shares and funds, taxes, "
    "insurance, retirement savings, budgets and debt, company accounts, interest rates and markets",
}


def command(checkout: Path, config: Path, env: Mapping[str, str] | None = None) -> Command:
    """`python -m router`. Raises BenchmarkError when the checkout has none."""
    if not (checkout / "router" / "__main__.py").is_file():
        raise BenchmarkError(f"there is no router in {checkout}; name a checkout with --router")
    return Command((sys.executable, "-m", "router", "--config", str(config.resolve())), env or {}, checkout)


def write_config(
    folder: Path, port: int, engine_port: int, *, everything: bool = False, traced: bool = False
) -> Path:
    """An adapters.yaml in front of the stub; traces go to the stub too."""
    name = "traced" if traced else "everything" if everything else "plain"
    router: dict[str, Any] = {"port": port, "classifier": "embedding"}
    if everything:
        router |= _everything(folder / f"{name}.sqlite")
    if traced:
        router["otlp"] = f"http://127.0.0.1:{engine_port}"
    return write_stack(folder / f"{name}.yaml", engine_port, router, ADAPTER if everything else {})


def write_stack(file: Path, engine_port: int, router: Mapping[str, Any], adapter: Mapping[str, Any]) -> Path:
    """In front of the stub, with these settings of the router and of each adapter."""
    stack = {
        "base": {"model": "some/base", "name": MODELS[0]},
        "engine": {"url": f"http://127.0.0.1:{engine_port}"},
        "router": dict(router),
        "adapters": {name: {"path": f"some/{name}", "label": label, **adapter} for name, label in LABELS.items()},
    }
    file.write_text(yaml.safe_dump(stack, sort_keys=False), encoding="utf-8")
    return file


def _everything(log: Path) -> dict[str, Any]:
    """All that costs something per request, but traces, which are a target of their own, the text of the prompts
    in the decision log, and the answer cache, which would leave nothing to forward."""
    return {
        "keys": {
            "benchmark": {
                "sha256": _sha256(KEY),
                "adapters": list(LABELS),
                "requests_per_minute": PLENTY,
                "tokens_per_minute": PLENTY,
            }
        },
        "admin_key": _sha256(ADMIN_KEY),
        "limits_storage": "memory://",
        "decision_log": str(log),
        "stream_usage": True,
        "response_cache_mb": 0,
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
