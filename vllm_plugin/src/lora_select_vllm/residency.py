"""Where a worker keeps each adapter: the answer to `collective_rpc("lora_select_residency")`."""

from __future__ import annotations

from typing import Any

METHOD = "lora_select_residency"


def install() -> None:
    """Give every worker the method."""
    from vllm.v1.worker.worker_base import WorkerBase

    setattr(WorkerBase, METHOD, _residency)


def _residency(worker: Any) -> dict[str, Any]:
    """`slots`: each slot's adapter id or None. `host`: ids whose weights are in host memory. `pinned`: ids."""
    manager = worker.model_runner.lora_manager._adapter_manager
    return {
        "slots": list(manager.lora_index_to_id),
        "host": sorted(manager.list_adapters()),
        "host_capacity": manager.capacity,
        "pinned": sorted(manager._registered_adapters.pinned_items),
    }
