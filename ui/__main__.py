"""`python -m ui [--config adapters.yaml] [--router URL] [--host H] [--port N]`: the page alone."""

from __future__ import annotations

import argparse
import signal
import sys

import adapters
from ui.lean import lean


def main() -> int:
    """Serve the page until SIGINT or SIGTERM. Exit code 2: it could not start."""
    flags = _flags()
    signal.pthread_sigmask(signal.SIG_BLOCK, stops := {signal.SIGINT, signal.SIGTERM})  # before any thread
    try:
        stack = adapters.load(flags.config or "adapters.yaml") if flags.config or not flags.router else None
    except adapters.ConfigError as error:
        print(f"ui: {error}", file=sys.stderr)
        return 2
    listen = stack.ui if stack else adapters.Ui()
    router = flags.router or (stack.router_url if stack else "")
    host, port = flags.host or listen.host, flags.port or listen.port
    with lean():
        from ui import app, page  # only now: Gradio takes seconds to import
    from ui.client.connect import connect

    try:
        page.start(app.create_app(connect(router)), host, port)
    except (OSError, OverflowError):
        print(f"ui: cannot listen on {host}:{port}; is it in use? --port takes another", file=sys.stderr)
        return 2
    print(f"ui: http://{host}:{port} over the router at {router}", flush=True)
    signal.sigwait(stops)
    return 0


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ui", description="The chat page over a router.")
    parser.add_argument("--config", help="the stack (default: adapters.yaml)")
    parser.add_argument("--router", metavar="URL", help="http://host:port; then no stack is needed")
    parser.add_argument("--host", help="where to listen (default: the stack's ui.host)")
    parser.add_argument("--port", type=int, help="where to listen (default: the stack's ui.port)")
    flags = parser.parse_args()
    if flags.router and not flags.router.startswith(("http://", "https://")):
        parser.error(f"--router: expected http://host:port, got {flags.router!r}")
    return flags


if __name__ == "__main__":
    sys.exit(main())
