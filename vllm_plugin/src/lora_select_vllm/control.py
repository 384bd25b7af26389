"""Adapters that are really loaded, listed, pinned and unloaded: routes below /lora_select of vLLM's API server.

Stock vLLM unloads a name and keeps slot and memory (vllm#54839), and keeps stale cache blocks of an adapter that
is loaded again under its path (vllm#42125). Here an *adapter* is one version of some weights, under a name of its
own (NAME@VERSION: `legal@1f2e3d4c`), and a *name* (`legal`) is what clients ask for and points to one adapter. To
update is to load a second adapter and move the name: requests under way keep the adapter that they began with.

| route | does |
|---|---|
| GET /lora_select/adapters | adapters with slot, host memory, pin and requests under way; names; what is free |
| PUT /lora_select/adapters/ADAPTER {"path"} | load; 400 with vLLM's reason where it refuses |
| DELETE /lora_select/adapters/ADAPTER | unload: slot and host memory; 409 while it is named, or answering |
| POST /lora_select/adapters/ADAPTER/pin | keep it in its slot |
| PUT /lora_select/names/NAME {"adapter"} | let clients ask for it |
| DELETE /lora_select/names/NAME | no longer |
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from argparse import Namespace
from collections import Counter
from typing import Any

from fastapi import APIRouter, Body, FastAPI, HTTPException
from starlette.datastructures import State
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.engine.protocol import ModelList
from vllm.lora.request import LoRARequest

from lora_select_vllm.residency import METHOD


class Control:
    """The endpoint plugin (vllm/plugins/endpoint_plugins/interface.py)."""

    name = "lora_select_control"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._adapters: Adapters | None = None

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes."""
        router = APIRouter(prefix="/lora_select")
        router.add_api_route("/adapters", self._list, methods=["GET"])
        router.add_api_route("/adapters/{adapter}", self._load, methods=["PUT"])
        router.add_api_route("/adapters/{adapter}", self._unload, methods=["DELETE"])
        router.add_api_route("/adapters/{adapter}/pin", self._pin, methods=["POST"])
        router.add_api_route("/names/{name}", self._publish, methods=["PUT"])
        router.add_api_route("/names/{name}", self._withdraw, methods=["DELETE"])
        app.include_router(router)

    async def init_state(self, engine_client: EngineClient | None, state: State, args: Namespace) -> None:
        """Take the engine, where it serves adapters and only this machine can reach it."""
        if engine_client is None or not args.enable_lora or not is_loopback(args.host):
            return
        state.openai_serving_models.__class__ = NamedModels
        self._adapters = Adapters(engine_client, state.openai_serving_models)

    @property
    def _ready(self) -> Adapters:
        if self._adapters is None:
            raise HTTPException(403, "only with --enable-lora, and with --host on this machine's loopback")
        return self._adapters

    async def _list(self) -> dict[str, Any]:
        return await self._ready.listed()

    async def _load(self, adapter: str, path: str = Body(embed=True)) -> dict[str, Any]:
        await self._ready.load(adapter, path)
        return await self._list()

    async def _unload(self, adapter: str) -> dict[str, Any]:
        await self._ready.unload(adapter)
        return await self._list()

    async def _pin(self, adapter: str) -> dict[str, Any]:
        await self._ready.pin(adapter)
        return await self._list()

    async def _publish(self, name: str, adapter: str = Body(embed=True)) -> dict[str, Any]:
        self._ready.publish(name, adapter)
        return await self._list()

    async def _withdraw(self, name: str) -> dict[str, Any]:
        self._ready.withdraw(name)
        return await self._list()


def is_loopback(host: str | None) -> bool:
    """Whether only this machine can connect to a server that listens there; vLLM takes None for every address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "0.0.0.0").is_loopback
    except ValueError:
        return False


def said(error: Exception) -> str:
    """What a worker raised, in one line, without what vLLM's executors wrap around it."""
    text = str(error).strip() or repr(error)
    wrapped = re.search(r"Worker failed with error ['\"](.*?)['\"], please check the stack trace", text, re.DOTALL)
    return " ".join((wrapped[1] if wrapped else text).split())


class NamedModels(OpenAIServingModels):
    """vLLM's table of names, where a name and the adapter behind it are two things."""

    def model_name(self, lora_request: LoRARequest | None = None) -> str:
        """What an answer says that its model is: the name that was asked for, not the version behind it."""
        name = super().model_name(lora_request)
        return name.rpartition("@")[0] or name

    async def show_available_models(self) -> ModelList:
        """The names, not what they point to."""
        listed = await super().show_available_models()
        names = iter(self.lora_requests)
        for card in listed.data[len(self.base_model_paths) :]:
            card.id = next(names)
        return listed


class Adapters:
    """What is loaded, by adapter; `models.lora_requests` holds the names."""

    def __init__(self, engine: EngineClient, models: OpenAIServingModels) -> None:
        self._engine, self._models = engine, models
        self._loaded: dict[str, LoRARequest] = dict(models.lora_requests)
        self._changing = asyncio.Lock()

    async def listed(self) -> dict[str, Any]:
        """Everything that is loaded, with where its weights are."""
        # Tensor-parallel workers hold the same adapters, each its part.
        at = (await self._engine.collective_rpc(METHOD))[0]
        under_way = self._under_way()
        names = {name: request.lora_name for name, request in self._models.lora_requests.items()}
        adapters = [
            {
                "adapter": name,
                "id": request.lora_int_id,
                "path": request.lora_path,
                "slot": at["slots"].index(request.lora_int_id) if request.lora_int_id in at["slots"] else None,
                "host": request.lora_int_id in at["host"],
                "pinned": request.lora_int_id in at["pinned"],
                "requests": under_way[request.lora_int_id],
            }
            for name, request in self._loaded.items()
        ]
        return {
            "adapters": adapters,
            "names": names,
            "slots": len(at["slots"]),
            "slots_free": at["slots"].count(None),
            "host_capacity": at["host_capacity"],
            "host_free": at["host_capacity"] - len(at["host"]),
        }

    async def load(self, adapter: str, path: str) -> None:
        """Load it into a slot. Raises HTTPException: 409 for a known one, 400 where vLLM refuses the files."""
        async with self._changing:
            if adapter in self._loaded or self._models.is_base_model(adapter):
                raise HTTPException(409, f"{adapter} is loaded already")
            number = self._models.lora_id_counter.inc(1)
            request = LoRARequest(lora_name=adapter, lora_int_id=number, lora_path=path)
            try:
                await self._engine.add_lora(request)
            except Exception as error:  # whatever the worker raised, as one line
                raise HTTPException(400, said(error)) from None
            self._loaded[adapter] = request

    async def unload(self, adapter: str) -> None:
        """Free its slot and its host memory. Raises HTTPException: 404, or 409 while anybody uses it."""
        async with self._changing:
            request = self._known(adapter)
            if names := [name for name, known in self._models.lora_requests.items() if known is request]:
                raise HTTPException(409, f"{adapter} is what {', '.join(names)} points to")
            if under_way := self._under_way()[request.lora_int_id]:
                raise HTTPException(409, f"{adapter} is answering {under_way} requests")
            del self._loaded[adapter]
            await self._engine.remove_lora(request.lora_int_id)

    async def pin(self, adapter: str) -> None:
        """Keep it in its slot. Raises HTTPException: 404, or 409 where no slot would be left for the others."""
        async with self._changing:
            request = self._known(adapter)
            at = (await self._engine.collective_rpc(METHOD))[0]
            if len({*at["pinned"], request.lora_int_id}) >= len(at["slots"]):
                raise HTTPException(409, f"{len(at['pinned'])} of {len(at['slots'])} slots are pinned already")
            await self._engine.add_lora(request)  # it may have been evicted from host memory
            await self._engine.pin_lora(request.lora_int_id)

    def publish(self, name: str, adapter: str) -> None:
        """From the next request on, `name` is answered by `adapter`. Raises HTTPException."""
        request = self._known(adapter)
        if self._models.is_base_model(name):
            raise HTTPException(409, f"{name} is the base")
        self._models.lora_requests[name] = request

    def withdraw(self, name: str) -> None:
        """From the next request on, `name` is unknown. Raises HTTPException."""
        if self._models.lora_requests.pop(name, None) is None:
            raise HTTPException(404, f"there is no {name}; there are {', '.join(self._models.lora_requests)}")

    def _known(self, adapter: str) -> LoRARequest:
        try:
            return self._loaded[adapter]
        except KeyError:
            raise HTTPException(404, f"{adapter} is not loaded; loaded: {', '.join(self._loaded)}") from None

    def _under_way(self) -> Counter[int]:
        """Requests that each adapter, by id, is answering."""
        states = self._engine.output_processor.request_states.values()
        return Counter(state.lora_request.lora_int_id for state in states if state.lora_request)
