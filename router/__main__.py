"""`python -m router [explain "text"] [--config adapters.yaml]`: serve the endpoint, or explain one decision."""

from __future__ import annotations

import argparse
import sys
import time

import uvicorn

from adapters import ConfigError, Stack, check_port, load
from router.app import create_app
from router.choose import Policy, choose, probabilities
from router.classify import load_classifier
from router.upstream import AiohttpUpstream

DRAIN_S = 3


def main() -> int:
    """Exit code 2: the stack cannot work as written. A signal drains open requests and ends the process."""
    parser = argparse.ArgumentParser(prog="python -m router", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["serve", "explain"], default="serve")
    parser.add_argument("text", nargs="?", help="for explain: the text to decide")
    parser.add_argument("--config", default="adapters.yaml", help="the stack (default: %(default)s)")
    parser.add_argument("--log-level", default="warning", choices=["debug", "info", "warning", "error"])
    arguments = parser.parse_args()
    if (arguments.command == "explain") != bool(arguments.text):
        parser.error('explain takes one text: python -m router explain "text"')
    try:
        stack = load(arguments.config)
        if arguments.text:
            explain(stack, arguments.text)
            return 0
        # Before the classifier, which can take a minute to load.
        check_port(stack, "router.port", stack.router.host, stack.router.port)
        app = create_app(stack, load_classifier(stack), AiohttpUpstream(stack.engine_url))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    uvicorn.run(
        app, host=stack.router.host, port=stack.router.port, loop="uvloop", http="httptools", access_log=False,
        log_level=arguments.log_level, timeout_graceful_shutdown=DRAIN_S, server_header=False,
    )  # fmt: skip
    return 0


def explain(stack: Stack, text: str) -> None:
    """Print one decision, every score and the time it took; all adapters count as served."""
    classifier = load_classifier(stack)
    classifier.logits(["warm-up"])
    began = time.perf_counter()
    (logits,) = classifier.logits([text])
    scores = probabilities(logits, logits)
    decision = choose(scores, Policy(stack.base.name, stack.router.threshold))
    took = (time.perf_counter() - began) * 1000
    print(f"{decision.model}  ({decision.reason}, threshold {stack.router.threshold:.2f}, {took:.1f} ms)")
    for name, score in scores.items():
        print(f"  {score:.3f}  {'█' * round(score * 30):30s}  {name}")


if __name__ == "__main__":
    sys.exit(main())
