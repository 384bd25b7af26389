"""semantic-router in an environment of its own, which has nothing of ours: a line of JSON in, one out.

First the weights and the routes of every variant, then {"variant", "texts"}: who was chosen, the milliseconds and
the CPU seconds that it took. Their documentation's local router: HuggingFaceEncoder, IndexedRouter, in memory.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any


def main() -> int:
    """Until stdin ends."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    said, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    library: Any = importlib.import_module("semantic_router")
    encoders: Any = importlib.import_module("semantic_router.encoders")
    setup = json.loads(sys.stdin.readline())
    encoder = encoders.HuggingFaceEncoder(name=setup["weights"])
    routers = {name: _router(library, encoder, **variant) for name, variant in setup["variants"].items()}
    print(json.dumps({"ready": list(routers)}), file=said, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(_decided(routers[asked["variant"]], asked["texts"])), file=said, flush=True)
    return 0


def _router(library: Any, encoder: Any, routes: dict[str, list[str]], fit: dict[str, list[str]]) -> Any:
    """`fit`: questions to calibrate it with, by route; those of no route are to be refused."""
    router = library.IndexedRouter(
        encoder=encoder, routes=[library.Route(name=name, utterances=own) for name, own in routes.items()]
    )
    if fit:
        asked = [(text, name if name in routes else None) for name, own in fit.items() for text in own]
        router.fit([text for text, _ in asked], [name for _, name in asked])
        router.confidence_threshold = 0.5
    return router


def _decided(router: Any, texts: list[str]) -> dict[str, Any]:
    chosen, took, began_cpu = [], [], time.process_time()
    for text in texts:
        began = time.perf_counter()
        chosen.append(router(text).name)
        took.append((time.perf_counter() - began) * 1000)
    return {"chosen": chosen, "ms": took, "cpu_s": time.process_time() - began_cpu}


if __name__ == "__main__":
    sys.exit(main())
