"""What is loaded, by adapter, and what clients may ask for, by name."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from fastapi import HTTPException
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.lora.request import LoRARequest

from lora_select_vllm.residency import RESIDENCY
from lora_select_vllm.spec import Member, Spec, parse

OBSERVER = "spectral"
"""Of this name are virtual adapters that score for spectral routing, and that nobody can ask for."""


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

    async def show_available_models(self) -> Any:
        """The names, not what they point to; a ModelList, which has another module in every second vLLM."""
        listed = await super().show_available_models()
        names = iter(self.lora_requests)
        for card in listed.data[len(self.base_model_paths) :]:
            card.id = next(names)
        return listed


class Adapters:
    """Everything in the engine; `models.lora_requests` holds the names."""

    def __init__(self, engine: EngineClient, models: OpenAIServingModels) -> None:
        self._engine, self._models = engine, models
        self._loaded: dict[str, LoRARequest] = dict(models.lora_requests)
        self._changing = asyncio.Lock()
        self._asking: Counter[str] = Counter()  # by observer

    async def listed(self) -> dict[str, Any]:
        """Everything that is loaded, with where its weights are."""
        at = await self._residency()
        under_way = self._under_way()
        places = at["slots"] + at["library"]
        adapters = []
        for name, request in self._loaded.items():
            number, spec = request.lora_int_id, parse(request.lora_path)
            own = {
                "adapter": name,
                "id": number,
                "path": request.lora_path,
                "slot": places.index(number) if number in places else None,
                "host": number in at["host"],
                "pinned": number in at["pinned"],
                "requests": under_way[number],
            }
            adapters.append(own if spec is None else own | {"library": _told(spec)})
        return {
            "adapters": adapters,
            "names": {name: request.lora_name for name, request in self._models.lora_requests.items()},
            "slots": len(at["slots"]),
            "slots_free": at["slots"].count(None),
            "library_slots": len(at["library"]),
            "library_free": at["library"].count(None),
            "host_capacity": at["host_capacity"],
            "host_free": at["host_capacity"] - len(at["host"]),
        }

    async def load(self, adapter: str, path: str) -> None:
        """Load it into a slot. Raises HTTPException: 409 for a known one, 400 where vLLM refuses the files."""
        async with self._changing:
            await self._load(adapter, path)

    async def load_virtual(self, adapter: str, library: dict[str, Any]) -> LoRARequest:
        """Let it choose from adapters that are loaded: their slots are reserved from then on.

        Raises HTTPException: 404 for one that is not, 400 where it cannot be, 409 for a known name.
        """
        async with self._changing:
            try:
                named = library.pop("libraries", ())
                members = tuple(tuple(self._member(name) for name in names) for names in named)
                spec = Spec(members, **library)
            except (TypeError, KeyError, ValueError, AttributeError) as error:
                raise HTTPException(400, f"{adapter}: no library: {error}") from None
            return await self._load(adapter, spec.path)

    async def unload(self, adapter: str) -> None:
        """Free its slot and its host memory. Raises HTTPException: 404, or 409 while anybody uses it."""
        async with self._changing:
            request = self._known(adapter)
            if names := [name for name, known in self._models.lora_requests.items() if known is request]:
                raise HTTPException(409, f"{adapter} is what {', '.join(names)} points to")
            if under_way := self._under_way()[request.lora_int_id]:
                raise HTTPException(409, f"{adapter} is answering {under_way} requests")
            await self._drop_observers(of=adapter)  # one is made again for those that are left
            if readers := self._readers(adapter):
                raise HTTPException(409, f"{adapter} is in the library of {', '.join(readers)}")
            await self._drop(adapter)

    async def pin(self, adapter: str) -> None:
        """Keep it in one of the library's slots until it is unloaded. Raises HTTPException: 404, 400 for a virtual
        one, or 409 where none of those slots is free."""
        async with self._changing:
            request = self._known(adapter)
            if parse(request.lora_path) is not None:
                raise HTTPException(400, f"{adapter} is virtual, and needs no slot")
            at = await self._residency()
            if request.lora_int_id not in at["library"] and None not in at["library"]:
                raise HTTPException(409, f"none of the {len(at['library'])} library slots is free (library_slots)")
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

    @asynccontextmanager
    async def observing(self, names: Sequence[str] | None) -> AsyncIterator[LoRARequest]:
        """The virtual adapter that scores these, or all that clients may ask for. Raises HTTPException.

        It stays for the next one who asks about the same.
        """
        async with self._changing:
            observer = await self._observer(names)
            self._asking[observer.lora_name] += 1
        try:
            yield observer
        finally:
            self._asking[observer.lora_name] -= 1

    async def _observer(self, names: Sequence[str] | None) -> LoRARequest:
        members = tuple(self._member(name) for name in sorted(set(names or self._named())))
        try:
            path = Spec((members,), k=len(members), observe=True).path
        except ValueError as error:
            raise HTTPException(400, f"{OBSERVER}: {error}") from None
        if known := next((one for one in self._observers() if one.lora_path == path), None):
            return known
        name = f"{OBSERVER}@{uuid4().hex[:8]}"
        try:
            # Beside the one before, whose members then keep their slots.
            new = await self._load(name, path)
        except HTTPException:
            await self._drop_observers()
            return await self._load(name, path)
        await self._drop_observers(but=new)
        return new

    def _named(self) -> list[str]:
        """Adapters that clients may ask for; in its self-test, one has the name that it is loaded under."""
        return [
            request.lora_name
            for name, request in self._models.lora_requests.items()
            if parse(request.lora_path) is None and not (name == request.lora_name and "@" in name)
        ]

    def _observers(self) -> list[LoRARequest]:
        return [one for name, one in self._loaded.items() if name.startswith(f"{OBSERVER}@")]

    async def _drop_observers(self, of: str = "", but: LoRARequest | None = None) -> None:
        """Those that nobody asks: of an adapter, or of any."""
        for one in self._observers():
            if (
                one is not but
                and not self._asking[one.lora_name]
                and (not of or one.lora_name in self._readers(of))
            ):
                await self._drop(one.lora_name)

    async def _load(self, adapter: str, path: str) -> LoRARequest:
        if adapter in self._loaded or self._models.is_base_model(adapter):
            raise HTTPException(409, f"{adapter} is loaded already")
        request = LoRARequest(adapter, self._models.lora_id_counter.inc(1), path)
        try:
            await self._engine.add_lora(request)
        except Exception as error:  # whatever the worker raised, as one line
            raise HTTPException(400, said(error)) from None
        self._loaded[adapter] = request
        return request

    async def _drop(self, adapter: str) -> None:
        try:
            await self._engine.remove_lora(self._loaded[adapter].lora_int_id)
        except Exception as error:  # whatever the worker raised, as one line
            raise HTTPException(409, f"{adapter} was not unloaded: {said(error)}") from None
        del self._loaded[adapter]

    async def _residency(self) -> dict[str, Any]:
        # Tensor-parallel workers hold the same adapters, each its part.
        return dict((await self._engine.collective_rpc(RESIDENCY))[0])

    def _member(self, name: str) -> Member:
        request = self._known(name)
        if parse(request.lora_path) is not None:
            raise HTTPException(400, f"{name} is virtual itself, and cannot be in a library")
        return Member(name, request.lora_int_id, request.lora_path)

    def _readers(self, adapter: str) -> list[str]:
        """Virtual adapters that choose from it."""
        found = []
        for name, request in self._loaded.items():
            spec = parse(request.lora_path)
            if spec and adapter in (member.name for member in spec.members):
                found.append(name)
        return found

    def _known(self, adapter: str) -> LoRARequest:
        try:
            return self._loaded[adapter]
        except KeyError:
            raise HTTPException(404, f"{adapter} is not loaded; loaded: {', '.join(self._loaded)}") from None

    def _under_way(self) -> Counter[int]:
        """Requests that each adapter, by id, is answering."""
        states = self._engine.output_processor.request_states.values()
        return Counter(state.lora_request.lora_int_id for state in states if state.lora_request)


def _told(spec: Spec) -> dict[str, Any]:
    names = [[member.name for member in library] for library in spec.libraries]
    return {"k": spec.k, "score": spec.score, "libraries": names}
