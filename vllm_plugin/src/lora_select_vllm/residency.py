"""What a worker knows: where each adapter is, and which of them LAG chose. Answers to `collective_rpc`."""

from __future__ import annotations

from typing import Any

RESIDENCY, USED, LAYERS = "lora_select_residency", "lora_select_used", "lora_select_layers"


def install() -> None:
    """Give every worker the methods."""
    from vllm.v1.worker.worker_base import WorkerBase

    for name, method in ((RESIDENCY, _residency), (USED, _used), (LAYERS, _layers)):
        setattr(WorkerBase, name, method)


def _residency(worker: Any) -> dict[str, Any]:
    """`slots`: each ordinary slot's adapter id or None, `library`: each library slot's. `host`: ids whose weights
    are in host memory. `pinned`: ids."""
    manager = worker.model_runner.lora_manager._adapter_manager
    held = manager.lora_index_to_id
    return {
        "slots": [held[at] for at in manager.ordinary],
        "library": [held[at] for at in manager.library],
        "host": sorted(manager.list_adapters()),
        "host_capacity": manager.capacity,
        "pinned": sorted(manager._registered_adapters.pinned_items),
    }


def _used(worker: Any, requests: dict[str, int | None]) -> dict[str, Any]:
    """`requests`: for each, by vLLM's own id, what `Trace.of` has, by layer from the given position on. `layers`:
    the names of the model's."""
    manager = worker.model_runner.lora_manager._adapter_manager
    trace = manager.wrapper.trace
    return {
        "requests": [trace.of(request, first) for request, first in requests.items()],
        "layers": list(manager.banks.layers),
    }


def _layers(worker: Any) -> dict[str, Any]:
    """`names`: the members now. `layers`: per projection, tokens per adapter since the start, by name."""
    manager = worker.model_runner.lora_manager._adapter_manager
    names = manager.names()
    return {"names": [name for name in names if name], "layers": manager.banks.counted(names)}
