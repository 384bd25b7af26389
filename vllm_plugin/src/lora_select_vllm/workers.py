"""Where the plugin enters a worker: at vLLM's own seams, with subclasses; harmless when done again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from lora_select_vllm.library import LibraryModelManager
from lora_select_vllm.loading import LibraryWorkerManager
from lora_select_vllm.trace import Rows
from lora_select_vllm.waiting import napping


def install() -> None:
    """Library slots, virtual adapters, who was chosen; on the CPU grouped rows, and no spinning."""
    from vllm.platforms import current_platform
    from vllm.v1.worker import lora_model_runner_mixin as mixin

    mixin.LRUCacheWorkerLoRAManager = LibraryWorkerManager  # type: ignore[misc]
    if current_platform.is_cpu():
        from vllm.distributed.device_communicators import shm_broadcast

        _set_wrapper(current_platform, "lora_select_vllm.cpu.GroupedPunica")
        _replace(shm_broadcast.SpinCondition, "wait", napping)
    elif current_platform.is_cuda():
        _set_wrapper(current_platform, "lora_select_vllm.gpu.RoutedPunicaGPU")
    _replace(mixin.LoRAModelRunnerMixin, "set_active_loras", _traced)
    _replace(mixin.LoRAModelRunnerMixin, "load_lora_model", _second_runner_traced)
    _replace(mixin.LoRAModelRunnerMixin, "_set_active_loras", _batch_traced)


def _set_wrapper(platform: Any, name: str) -> None:
    type(platform).get_punica_wrapper = classmethod(lambda _: name)


def _replace(owner: Any, name: str, by: Callable[[Any], Any]) -> None:
    stock = getattr(owner, name)
    if not getattr(stock, "replaced", False):
        ours = by(stock)
        ours.replaced = True
        setattr(owner, name, ours)


def _traced(stock: Any) -> Any:
    def set_active_loras(
        runner: Any, input_batch: Any, num_scheduled_tokens: Any, *args: Any, **kwargs: Any
    ) -> Any:
        done = stock(runner, input_batch, num_scheduled_tokens, *args, **kwargs)
        requests, adapters = input_batch.req_ids[: input_batch.num_reqs], input_batch.request_lora_mapping
        _begin(runner, requests, adapters, input_batch.num_computed_tokens_cpu, num_scheduled_tokens)
        return done

    return set_active_loras


def _second_runner_traced(stock: Any) -> Any:
    """vLLM's second model runner, CUDA's own, makes its batch elsewhere; who uses it imports it."""

    def load_lora_model(runner: Any, *args: Any, **kwargs: Any) -> Any:
        if hasattr(runner, "prepare_inputs"):
            _replace(type(runner), "prepare_inputs", _batch_kept)
        return stock(runner, *args, **kwargs)

    return load_lora_model


def _batch_kept(stock: Any) -> Any:
    def prepare_inputs(runner: Any, *args: Any, **kwargs: Any) -> Any:
        runner.lora_select_batch = stock(runner, *args, **kwargs)
        return runner.lora_select_batch

    return prepare_inputs


def _batch_traced(stock: Any) -> Any:
    """Once the batch's adapters are in: a virtual one may come with its first request."""

    def _set_active_loras(runner: Any, *args: Any, **kwargs: Any) -> Any:
        done = stock(runner, *args, **kwargs)
        batch = runner.__dict__.pop("lora_select_batch", None)
        if batch is not None:
            adapters = runner.lora_state.lora_ids[batch.idx_mapping_np]
            _begin(runner, batch.req_ids, adapters, batch.num_computed_tokens_np, batch.num_scheduled_tokens)
        return done

    return _set_active_loras


def _begin(runner: Any, requests: Sequence[str], adapters: Any, computed: Any, scheduled: Any) -> None:
    manager = runner.lora_manager._adapter_manager
    if manager.settings.library_slots:
        rows = _rows(manager, requests, adapters, computed, scheduled)
        manager.wrapper.trace.begin(rows, manager.wrapper.tables.width, manager.device)


def _rows(
    manager: LibraryModelManager, requests: Sequence[str], adapters: Any, computed: Any, scheduled: Any
) -> list[Rows]:
    if not manager.virtual:
        return []
    names = manager.names()
    # Their arrays may be longer than the batch.
    batch = zip(requests, adapters, computed, scheduled, accumulate(scheduled, initial=0), strict=False)
    return [
        Rows(request, int(position), int(count), names, int(row))
        for request, adapter, position, count, row in batch
        if int(adapter) in manager.virtual
    ]
