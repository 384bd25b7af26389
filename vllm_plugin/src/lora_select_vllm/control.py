"""Adapters that are really loaded, listed, pinned and unloaded, and what LAG did: routes below /lora_select of
vLLM's API server.

Stock vLLM unloads a name and keeps slot and memory (vllm#54839), and keeps stale cache blocks of an adapter that
is loaded again under its path (vllm#42125). Here an *adapter* is one version of some weights, under a name of its
own (NAME@VERSION: `legal@1f2e3d4c`), and a *name* (`legal`) is what clients ask for and points to one adapter. To
update is to load a second adapter and move the name: requests under way keep the adapter that they began with. A
*virtual* adapter has no weights, and chooses from those of its library.

| route | does |
|---|---|
| GET /lora_select/adapters | adapters with slot, host memory, pin and requests under way; names; what is free |
| PUT /lora_select/adapters/ADAPTER {"path"} | load; 400 with vLLM's reason where it refuses |
| PUT /lora_select/adapters/ADAPTER {"library": {"libraries": [[ADAPTER, …], …], "k", "score"}} | a virtual one |
| DELETE /lora_select/adapters/ADAPTER | unload: slot and host memory; 409 while anybody uses it |
| POST /lora_select/adapters/ADAPTER/pin | keep it in a slot, one of the library's |
| PUT /lora_select/names/NAME {"adapter"} | let clients ask for it |
| DELETE /lora_select/names/NAME | no longer |
| GET /lora_select/requests/ID | which adapters the answer ID of a virtual one used, token by token |
| GET /lora_select/requests/ID?layers=true | the same, with every layer's |
| GET /lora_select/layers | tokens per adapter in every projection, since the start |
| POST /lora_select/spectral {"text" or "prompt_token_ids", "adapters"} | whose weights a prompt moves most |
"""

from __future__ import annotations

import ipaddress
from argparse import Namespace
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, HTTPException
from starlette.datastructures import State
from vllm.engine.protocol import EngineClient

from lora_select_vllm.loaded import Adapters, NamedModels
from lora_select_vllm.usage import Usage

FIELD = Body(embed=True)


class Control:
    """The endpoint plugin (vllm/plugins/endpoint_plugins/interface.py)."""

    name = "lora_select_control"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._adapters: Adapters | None = None
        self._usage: Usage | None = None

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes."""
        router = APIRouter(prefix="/lora_select")
        router.add_api_route("/adapters", self._list, methods=["GET"])
        router.add_api_route("/adapters/{adapter}", self._load, methods=["PUT"])
        router.add_api_route("/adapters/{adapter}", self._unload, methods=["DELETE"])
        router.add_api_route("/adapters/{adapter}/pin", self._pin, methods=["POST"])
        router.add_api_route("/names/{name}", self._publish, methods=["PUT"])
        router.add_api_route("/names/{name}", self._withdraw, methods=["DELETE"])
        router.add_api_route("/requests/{request:path}", self._request, methods=["GET"])
        router.add_api_route("/layers", self._layers, methods=["GET"])
        router.add_api_route("/spectral", self._spectral, methods=["POST"])
        app.include_router(router)

    async def init_state(self, engine_client: EngineClient | None, state: State, args: Namespace) -> None:
        """Take the engine, where it serves adapters and only this machine can reach it."""
        if engine_client is None or not args.enable_lora or not is_loopback(args.host):
            return
        state.openai_serving_models.__class__ = NamedModels
        self._adapters = Adapters(engine_client, state.openai_serving_models)
        self._usage = Usage(engine_client, self._adapters)

    @property
    def _ready(self) -> Adapters:
        if self._adapters is None:
            raise HTTPException(403, "only with --enable-lora, and with --host on this machine's loopback")
        return self._adapters

    @property
    def _seen(self) -> Usage:
        assert self._ready
        assert self._usage
        return self._usage

    async def _list(self) -> dict[str, Any]:
        return await self._ready.listed()

    async def _load(
        self,
        adapter: str,
        path: Annotated[str | None, FIELD] = None,
        library: Annotated[dict[str, Any] | None, FIELD] = None,
    ) -> dict[str, Any]:
        if (path is None) == (library is None):
            raise HTTPException(400, 'give either "path", of its files, or "library", of a virtual adapter')
        if path is not None:
            await self._ready.load(adapter, path)
        else:
            await self._ready.load_virtual(adapter, library or {})
        return await self._list()

    async def _unload(self, adapter: str) -> dict[str, Any]:
        await self._ready.unload(adapter)
        return await self._list()

    async def _pin(self, adapter: str) -> dict[str, Any]:
        await self._ready.pin(adapter)
        return await self._list()

    async def _publish(self, name: str, adapter: Annotated[str, FIELD]) -> dict[str, Any]:
        self._ready.publish(name, adapter)
        return await self._list()

    async def _withdraw(self, name: str) -> dict[str, Any]:
        self._ready.withdraw(name)
        return await self._list()

    async def _request(self, request: str, layers: bool = False) -> dict[str, Any]:
        return await self._seen.of(request, layers)

    async def _layers(self) -> dict[str, Any]:
        return await self._seen.layers()

    async def _spectral(
        self,
        text: Annotated[str | None, FIELD] = None,
        prompt_token_ids: Annotated[list[int] | None, FIELD] = None,
        adapters: Annotated[list[str] | None, FIELD] = None,
    ) -> dict[str, Any]:
        return await self._seen.spectral(text, prompt_token_ids, adapters)


def is_loopback(host: str | None) -> bool:
    """Whether only this machine can connect to a server that listens there; vLLM takes None for every address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "0.0.0.0").is_loopback
    except ValueError:
        return False
