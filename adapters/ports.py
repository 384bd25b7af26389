"""Can somebody listen there?"""

from __future__ import annotations

import errno
import socket

from adapters.schema import Stack


def check_port(stack: Stack, key: str, host: str, port: int) -> None:
    """Raises ConfigError when nobody could listen there now."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        advice = "end what uses it, or set another port" if error.errno == errno.EADDRINUSE else "set another host"
        raise stack.error(key, f"{port} on {host}: {error.strerror}; {advice}") from None
