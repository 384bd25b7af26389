"""What several test files share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from adapters import Stack, load
from router.app import create_app
from router.classify import load_classifier
from router.upstream import AiohttpUpstream
from tests.servers import FakeEngine, free_port, serving

LABELS = {
    "legal": "law, legal rights, courts and lawsuits, contracts, landlords and tenants",
    "medical": "medicine, health, symptoms and pain, diseases, treatments",
    "finance": "finance, banking, loans and mortgages, investing, taxes",
}


@dataclass(frozen=True)
class Wire:
    """A router in front of a fake engine."""

    url: str
    engine: FakeEngine
    stack: Stack


@pytest.fixture(scope="session")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """The real router with the real MiniLM; only the engine behind it is a fake, on a real port."""
    engine = FakeEngine(["base", *LABELS])
    with serving(engine) as engine_url:
        stack = load(write_stack(tmp_path_factory.mktemp("wire"), engine_url))
        app = create_app(stack, load_classifier(stack), AiohttpUpstream(stack.engine_url))
        with serving(app, stack.router.port) as url:
            yield Wire(url, engine, stack)


def write_stack(folder: Path, engine_url: str) -> Path:
    """A stack in front of a running engine."""
    file = folder / "adapters.yaml"
    stack = {
        "base": {"model": "some/base", "name": "base"},
        "engine": {"url": engine_url},
        "router": {"port": free_port(), "max_body_mb": 0.5},
        "adapters": {name: {"path": f"some/{name}", "label": label} for name, label in LABELS.items()},
    }
    file.write_text(yaml.safe_dump(stack, sort_keys=False), encoding="utf-8")
    return file
