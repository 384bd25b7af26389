"""LiteLLM's proxy with its semantic auto-router, as its documentation sets it up, in front of the stub."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.load import CHAT
from benchmarks.overhead.peers import LITELLM_ENV, version_of
from benchmarks.overhead.router import KEY
from benchmarks.processes import BenchmarkError, Command
from benchmarks.routing.embeddings import NAME
from benchmarks.stub import MODELS

Routes = Mapping[str, Sequence[str]]
"""Model to utterances."""

CHOSEN = "x-litellm-model-name"
"""The header with the model that was asked, behind its provider's name."""

EMBEDDINGS = "embeddings"


def command(
    environments: Path, folder: Path, port: int, engine: str, embeddings: str, variants: Mapping[str, Routes]
) -> tuple[Command, str]:
    """One proxy with an auto-router for each variant, and its version. Raises NotInstalled."""
    bin_folder = environments / "litellm" / "bin"
    version = version_of(bin_folder, "litellm")
    chooser = version_of(bin_folder, "semantic-router")
    file = folder / "litellm-auto.yaml"
    file.write_text(yaml.safe_dump(config(engine, embeddings, variants), sort_keys=False), encoding="utf-8")
    argv = (
        str(bin_folder / "litellm"), "--config", str(file), "--host", "127.0.0.1", "--port", str(port),
        "--num_workers", "1",
    )  # fmt: skip
    # What semantic-router brings along would log every step of LiteLLM, too.
    env = {**LITELLM_ENV, "LOG_LEVEL": "ERROR"}
    return Command(argv, env, folder), f"{version}, semantic-router {chooser}"


def config(engine: str, embeddings: str, variants: Mapping[str, Routes]) -> dict[str, Any]:
    """`score_threshold` is left to its encoder, which asks for 0.3; with the 0.5 of the documentation's examples
    MiniLM's similarities would send most questions to the default."""
    served = {"api_base": f"{engine}/v1", "api_key": "none"}
    models: list[dict[str, Any]] = [_model(name, model=f"hosted_vllm/{name}", **served) for name in MODELS]
    models.append(_model(EMBEDDINGS, model=f"openai/{NAME}", api_base=f"{embeddings}/v1", api_key="none"))
    for variant, routes in variants.items():
        listed = [{"name": name, "description": name, "utterances": list(own)} for name, own in routes.items()]
        models.append(
            _model(
                variant, model=f"auto_router/{variant}", auto_router_config=json.dumps({"routes": listed}),
                auto_router_default_model=MODELS[0], auto_router_embedding_model=EMBEDDINGS,
            )
        )  # fmt: skip
    return {
        "model_list": models,
        "litellm_settings": {"set_verbose": False, "request_timeout": 600},
        "general_settings": {"master_key": KEY},
    }


def chosen(port: int, variant: str, text: str) -> str:
    """The model that an auto-router asked. Raises BenchmarkError."""
    body = {"model": variant, "messages": [{"role": "user", "content": text}]}
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", CHAT, json.dumps(body), headers)
        answer = connection.getresponse()
        said = answer.read()
        name = answer.headers.get(CHOSEN, "")
    finally:
        connection.close()
    if answer.status != 200 or not name:
        raise BenchmarkError(f"litellm: {answer.status}: {said[:200].decode(errors='replace')}")
    return name.rpartition("/")[2]


def _model(name: str, **parameters: str) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": parameters}
