"""`python -m router [serve|explain|key] [--config adapters.yaml]`: serve, explain one decision, make a key."""

from __future__ import annotations

import argparse
import sys

from adapters import ConfigError, check_port, load
from router.access import make_key
from router.explain import explain
from router.worker import serve
from router.workers import Workers


def main() -> int:
    """Exit code 2: the stack cannot work as written; 0 after a signal, which drains open requests and ends the
    process; 130 for a Ctrl-C before it served."""
    arguments = _arguments()
    try:
        if arguments.command == "key":
            print(make_key(arguments.text))
            return 0
        stack = load(arguments.config)
        if arguments.command == "explain":
            explain(stack, arguments.text)
            return 0
        # Before the classifier, which can take a minute to load.
        check_port(stack, "router.port", stack.router.host, stack.router.port)
        if stack.router.workers == 1:
            serve(stack, arguments.log_level)
        else:
            shared = (stack, arguments.log_level, True)
            return Workers(stack.router.workers, serve, shared, stack.router.drain_s).run()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m router", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["serve", "explain", "key"], default="serve")
    parser.add_argument("text", nargs="?", help="for explain: the text to decide; for key: the name of its owner")
    parser.add_argument("--config", default="adapters.yaml", help="the stack (default: %(default)s)")
    parser.add_argument("--log-level", default="warning", choices=["debug", "info", "warning", "error"])
    arguments = parser.parse_args()
    if (arguments.command != "serve") != bool(arguments.text):
        parser.error('explain takes one text: python -m router explain "text"; key takes the name of its owner')
    return arguments


if __name__ == "__main__":
    sys.exit(main())
