"""Adapters in a worker: slots of their own for the library, and virtual adapters that choose from it.

Slots 0 … max_loras - 1 are vLLM's, for whoever is asked for. The library's come behind them; nobody is evicted
from there, and nobody else gets in. An adapter that joins a library moves there, and leaves when no virtual one
has it any more; one that is pinned stays until it is unloaded. Virtual adapters need no slot: the numbers behind
the last slot stand for them in vLLM's mapping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
from vllm.lora.model_manager import LRUCacheLoRAModelManager

from lora_select_vllm.banks import Banks
from lora_select_vllm.settings import Settings
from lora_select_vllm.spec import Member, Spec
from lora_select_vllm.tables import LATE, MOST_VIRTUAL

TAKEN = -1

PINNED = 0
"""Stands among a member's readers for the wish that it stay; vLLM's ids begin with 1."""


class LibraryModelManager(LRUCacheLoRAModelManager):
    """vLLM's manager of slots, with a library."""

    def __init__(self, *args: Any, vllm_config: VllmConfig, **kwargs: Any) -> None:
        self.settings = Settings.of(vllm_config)
        self.settings.refuse_what_cannot_be(vllm_config)
        self.virtual: dict[int, Spec | None] = {}  # None: it is gone, and a request of it came too late
        self._readers: dict[int, set[int]] = {}  # of each member: the virtual adapters that have it, or PINNED
        self._names: dict[int, str] = {}  # of those that are, or were, in a library, until they leave its slots
        super().__init__(*args, vllm_config=vllm_config, **kwargs)
        self.lora_index_to_id += [None] * MOST_VIRTUAL
        self._on_cpu = torch.device(self.device).type == "cpu"
        # On the CPU they also know which projections an adapter leaves alone.
        modules = self.modules if self.settings.library_slots or self._on_cpu else {}
        self.banks = Banks(modules, self.packed_modules, self.library.start)
        if self.settings.library_slots:
            self.wrapper.take_library(self.settings.library_slots, len(self.banks.layers))

    @property
    def lora_slots(self) -> int:
        """All of them."""
        return int(self.lora_config.max_loras) + self.settings.library_slots

    @property
    def capacity(self) -> int:
        """Adapters in host memory."""
        return int(super().capacity) + self.settings.library_slots

    @property
    def ordinary(self) -> range:
        """The slots of whoever is asked for."""
        return range(self.lora_config.max_loras)

    @property
    def library(self) -> range:
        """The members' slots."""
        return range(self.lora_config.max_loras, self.lora_slots)

    @property
    def wrapper(self) -> Any:
        """Of the language model."""
        return next(iter(self.punica_wrapper_mapping.values()))

    def is_member(self, lora_id: int) -> bool:
        """Whether a virtual adapter has it."""
        return bool(self._readers.get(lora_id, set()) - {PINNED})

    def stays(self, lora_id: int) -> bool:
        """Whether it is a member, or pinned: one of the library's slots is its own."""
        return lora_id in self._readers

    def activate_adapter(self, lora_id: int) -> bool:
        """Into a slot, if it has none: a member into one of the library's, or else where the oldest one is."""
        if lora_id in self.virtual:
            return False
        if lora_id in self._active_adapters:
            self._active_adapters.touch(lora_id)
            return False
        slots = self.library if self.stays(lora_id) else self.ordinary
        if slots == self.ordinary:
            self._make_room()
        with self._only(slots):
            # The LRU manager's own would evict from any slot.
            super(LRUCacheLoRAModelManager, self).activate_adapter(lora_id)
        if slots == self.library:
            adapter = self._registered_adapters.cache[lora_id]
            self.banks.fill(self._place(lora_id), partial(self._get_lora_layer_weights, adapter))
        if self._on_cpu:
            self.banks.look(self._slot(lora_id))
        return True

    def pin_adapter(self, lora_id: int) -> bool:
        """Keep it, in one of the library's slots: vLLM schedules as many adapters at once as it has slots, and one
        that nobody may evict from those would leave it one short, which ends the engine.

        Raises ValueError where it is not loaded, or no slot is free.
        """
        if lora_id not in self._registered_adapters:
            raise ValueError(f"adapter {lora_id} is not loaded")
        if not self.stays(lora_id) and len(self._readers) == len(self.library):
            raise ValueError(f"none of the {len(self.library)} library slots is free (library_slots)")
        self._readers.setdefault(lora_id, set()).add(PINNED)
        if self._slot(lora_id) not in self.library:
            self.deactivate_adapter(lora_id)
        self.activate_adapter(lora_id)
        self._registered_adapters.pin(lora_id)
        return True

    def remove_adapter(self, adapter_id: int) -> bool:
        """It is not pinned any more, either."""
        if self.stays(adapter_id) and not self.is_member(adapter_id):
            self._leave(adapter_id)
        return bool(super().remove_adapter(adapter_id))

    def add_virtual(self, lora_id: int, spec: Spec, load: Callable[[Member], None]) -> None:
        """Reserve slots for its members, `load` those that are not there, and let it choose.

        Raises ValueError, with nothing changed, where it cannot be.
        """
        self._refuse(spec)
        index = self.lora_index_to_id.index(None, self.lora_slots)
        for member in spec.members:
            self._readers.setdefault(member.id, set()).add(lora_id)
        try:
            for member in spec.members:
                self._take_in(member, load, half=spec.observe)
                self._names[member.id] = member.name
        except Exception:
            self._release(lora_id, spec)
            raise
        places = [[self._place(member.id) for member in library] for library in spec.libraries]
        self.wrapper.tables.put(index - self.lora_slots, places, spec.k, spec.score == "projection", spec.observe)
        self.lora_index_to_id[index] = lora_id
        self.virtual[lora_id] = spec

    def add_late(self, lora_id: int) -> None:
        """For requests that a virtual adapter of the past gets in this step: they are the base's."""
        self.lora_index_to_id[self.lora_index_to_id.index(None, self.lora_slots)] = lora_id
        self.virtual[lora_id] = None

    def remove_virtual(self, lora_id: int) -> None:
        """Its members that no other one has are ordinary adapters again."""
        index = self.lora_index_to_id.index(lora_id)
        self.wrapper.tables.clear(index - self.lora_slots)
        self.lora_index_to_id[index] = None
        if spec := self.virtual.pop(lora_id):
            self._release(lora_id, spec)

    def names(self) -> tuple[str, ...]:
        """The member in each library slot, "" where there is none."""
        known = {member.id: member.name for spec in self.virtual.values() if spec for member in spec.members}
        return tuple(
            known.get(one or 0, "") for one in self.lora_index_to_id[self.library.start : self.lora_slots]
        )

    def remove_all_adapters(self) -> None:
        """As vLLM does after trial runs, and when the base's weights are replaced."""
        for lora_id in tuple(self.virtual):
            self.remove_virtual(lora_id)
        for lora_id in tuple(self._readers):
            self._leave(lora_id)
        super().remove_all_adapters()
        self.lora_index_to_id += [None] * MOST_VIRTUAL

    def _refuse(self, spec: Spec) -> None:
        if not self.settings.library_slots:
            raise ValueError(
                "this engine has no library: start it with --additional-config "
                '{"lora_select": {"library_slots": N}}, N the number of adapters to choose from'
            )
        new = [member for member in spec.members if not self.stays(member.id)]
        free = len(self.library) - len(self._readers)
        if len(new) > free:
            raise ValueError(
                f"{', '.join(member.name for member in new)} need {len(new)} library slots, and {free} of "
                f"{len(self.library)} are free (library_slots)"
            )
        if self.lora_index_to_id[self.lora_slots :].count(None) <= LATE:
            raise ValueError(f"there are {MOST_VIRTUAL - LATE} virtual adapters already, and no more are possible")

    def _take_in(self, member: Member, load: Callable[[Member], None], half: bool) -> None:
        """Into host memory and a library slot, both for as long as it is a member. `half`: what is not routed of
        it may be left out."""
        if member.id not in self._registered_adapters:
            load(member)
        elif self._slot(member.id) not in self.library:
            self.deactivate_adapter(member.id)
        if not half:
            self._refuse_half(member)
        self.activate_adapter(member.id)
        self._registered_adapters.pin(member.id)

    def _refuse_half(self, member: Member) -> None:
        adapted = self._registered_adapters.cache[member.id].loras
        for name, module in self.modules.items():
            if name in adapted and not isinstance(module, BaseLinearLayerWithLoRA):
                kind = type(module).__name__.removesuffix("WithLoRA")
                raise ValueError(f"{member.name} adapts {name} ({kind}), which LAG does not route")

    def _release(self, lora_id: int, spec: Spec) -> None:
        for member in spec.members:
            readers = self._readers.get(member.id, set())
            readers.discard(lora_id)
            if not readers and member.id in self._readers:
                self._leave(member.id)

    def _leave(self, lora_id: int) -> None:
        """Out of the library's slots; what was counted of it there is kept under its name."""
        del self._readers[lora_id]
        name = self._names.pop(lora_id, "")
        if (slot := self._slot(lora_id)) in self.library:
            self.banks.clear(slot - self.library.start, name)
            self.deactivate_adapter(lora_id)
        self._registered_adapters.pinned_items.discard(lora_id)

    def _make_room(self) -> None:
        """Evict the adapter of vLLM's own slots that was asked for longest ago, if none is free."""
        if None in self.lora_index_to_id[: self.ordinary.stop]:
            return
        self.deactivate_adapter(
            next(one for one in self._active_adapters.order if self._slot(one) in self.ordinary)
        )

    @contextmanager
    def _only(self, slots: range) -> Iterator[None]:
        """vLLM takes the first slot that is free: others are made to look taken."""
        hidden = [at for at, one in enumerate(self.lora_index_to_id) if one is None and at not in slots]
        for at in hidden:
            self.lora_index_to_id[at] = TAKEN
        try:
            yield
        finally:
            for at in hidden:
                self.lora_index_to_id[at] = None

    def _slot(self, lora_id: int) -> int:
        return self.lora_index_to_id.index(lora_id) if lora_id in self.lora_index_to_id else TAKEN

    def _place(self, lora_id: int) -> int:
        return self._slot(lora_id) - self.library.start
