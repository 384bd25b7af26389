"""One router process from a stack: classifiers, upstream, app, server."""

from __future__ import annotations

import gc
import os

from adapters import MANAGER, Stack
from router.app import create_app
from router.classify import load_classifiers
from router.manager import Manager
from router.server import run
from router.upstream import HttpUpstream


def serve(stack: Stack, log_level: str, shared: bool = False) -> None:
    """Until a signal. `shared`: one worker of several on the stack's port. Raises ConfigError."""
    # Before numpy is there. Its products are too small for more, and BLAS's threads wait by spinning: beside an
    # engine that has all cores they used up the router's share, and answers stood still for a third of a second.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    manager = os.environ.get(MANAGER)
    app = create_app(
        stack, load_classifiers(stack), HttpUpstream(stack.engine_url), Manager(manager) if manager else None
    )
    # What was loaded lives as long as the process: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    run(app, stack, log_level, shared)
