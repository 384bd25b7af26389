"""On a CPU: vLLM's processes wait for each other asleep, rather than by yielding in a loop.

The engine core yields as long as a worker computes a step, and takes a core for that, of the few on which the API
server and the router run as well. A yielding loop also lets newer Linux schedulers keep others waiting: measured
on two cores with kernel 6.18, the router waited 320 ms of 340, and half of a burst of new texts was judged too
late.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SPIN_S = 0.001
"""After the last message: the next may be there at once."""

NAP_S = 0.00005
"""A step takes milliseconds."""


def napping(stock: Callable[..., None]) -> Callable[..., None]:
    """SpinCondition.wait of vLLM's shm_broadcast, which is called until there is a message."""

    def wait(condition: Any, timeout_ms: int | None = None) -> None:
        waited_s = time.monotonic() - condition.last_read
        if SPIN_S < waited_s <= condition.busy_loop_s:
            time.sleep(NAP_S)
        else:
            stock(condition, timeout_ms)

    return wait
