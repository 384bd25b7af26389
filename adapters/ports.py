"""Can somebody listen there?"""

from __future__ import annotations

import errno
import socket

from adapters.schema import Stack

ADVICE = {
    errno.EADDRINUSE: "end what uses it, or set another port",
    errno.EACCES: "set another port: those below 1024 are for root",
}


def check_port(stack: Stack, key: str, host: str, port: int) -> None:
    """Raises ConfigError when nobody could listen there now."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:  # the latter for a name that can be no host's
        problem = getattr(error, "strerror", None) or error
        advice = ADVICE.get(getattr(error, "errno", None) or 0, "set another host")
        raise stack.error(key, f"{port} on {host}: {problem}; {advice}") from None
