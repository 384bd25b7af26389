"""What `--additional-config {"lora_select": {…}}` says to the plugin."""

from __future__ import annotations

from dataclasses import dataclass

from vllm.config import VllmConfig

KEY = "lora_select"


@dataclass(frozen=True)
class Settings:
    """`library_slots`: slots behind `max_loras` for adapters that LAG chooses from; 0: there is no LAG."""

    library_slots: int = 0

    @classmethod
    def of(cls, config: VllmConfig) -> Settings:
        """Raises ValueError for what it does not know."""
        told = config.additional_config
        told = told.get(KEY, {}) if isinstance(told, dict) else {}
        slots = told.get("library_slots", 0)
        if set(told) - {"library_slots"} or not isinstance(slots, int) or slots < 0:
            raise ValueError(f'--additional-config {KEY}: {told}; valid here: {{"library_slots": N}}')
        return cls(slots)

    def refuse_what_cannot_be(self, config: VllmConfig) -> None:
        """Raises ValueError where LAG cannot work as the engine is configured."""
        if not self.library_slots:
            return
        assert config.lora_config is not None
        if config.lora_config.fully_sharded_loras:
            raise ValueError("LAG scores whole ranks: it cannot work with --fully-sharded-loras")
        if config.speculative_config is not None:
            raise ValueError("LAG counts one token a step: it cannot work with speculative decoding")
        if config.parallel_config.pipeline_parallel_size > 1:
            raise ValueError("LAG cannot work with --pipeline-parallel-size above 1")
        if config.parallel_config.data_parallel_size > 1:
            raise ValueError("LAG cannot work with --data-parallel-size above 1: start engines side by side")
