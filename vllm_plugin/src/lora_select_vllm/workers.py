"""Where the plugin enters a worker: at vLLM's own seams, with subclasses; harmless when done again."""

from __future__ import annotations

from typing import Any

from lora_select_vllm.library import LibraryModelManager, LibraryWorkerManager
from lora_select_vllm.trace import Rows


def install() -> None:
    """Library slots, virtual adapters, grouped rows on the CPU, and who was chosen."""
    from vllm.platforms import current_platform
    from vllm.v1.worker import lora_model_runner_mixin as mixin

    mixin.LRUCacheWorkerLoRAManager = LibraryWorkerManager  # type: ignore[misc]
    if current_platform.is_cpu():
        _set_wrapper(current_platform, "lora_select_vllm.cpu.GroupedPunica")
    stock = mixin.LoRAModelRunnerMixin.set_active_loras
    if not getattr(stock, "traced", False):
        mixin.LoRAModelRunnerMixin.set_active_loras = _traced(stock)  # type: ignore[method-assign]


def _set_wrapper(platform: Any, name: str) -> None:
    type(platform).get_punica_wrapper = classmethod(lambda _: name)


def _traced(stock: Any) -> Any:
    def set_active_loras(
        runner: Any, input_batch: Any, num_scheduled_tokens: Any, *args: Any, **kwargs: Any
    ) -> Any:
        done = stock(runner, input_batch, num_scheduled_tokens, *args, **kwargs)
        manager = runner.lora_manager._adapter_manager
        if manager.settings.library_slots:
            manager.wrapper.trace.begin(
                _rows(manager, input_batch, num_scheduled_tokens), manager.wrapper.tables.width, manager.device
            )
        return done

    set_active_loras.traced = True  # type: ignore[attr-defined]
    return set_active_loras


def _rows(manager: LibraryModelManager, batch: Any, scheduled: Any) -> list[Rows]:
    if not manager.virtual:
        return []
    names = manager.names()
    return [
        Rows(request, int(batch.num_computed_tokens_cpu[at]), int(scheduled[at]), names)
        for at, request in enumerate(batch.req_ids[: batch.num_reqs])
        if int(batch.request_lora_mapping[at]) in manager.virtual
    ]
