"""A wire between a browser and the page that remembers all that the page said."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Recorder:
    """`heard` is what the page has sent so far, headers and all; `url` is where the browser asks."""

    url: str
    to: tuple[str, int]
    heard: bytearray = field(default_factory=bytearray)

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                browser, _ = listener.accept()
                page = socket.create_connection(self.to)
                threading.Thread(target=self._carry, args=(browser, page, None), daemon=True).start()
                threading.Thread(target=self._carry, args=(page, browser, self.heard), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket, heard: bytearray | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if heard is not None:
                    heard += data
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextlib.contextmanager
def recorded(url: str) -> Iterator[Recorder]:
    """In front of the page at `url`."""
    place = urlsplit(url)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        recorder = Recorder(f"http://127.0.0.1:{port}", (str(place.hostname), int(place.port or 80)))
        threading.Thread(target=recorder._serve, args=(listener,), daemon=True).start()
        yield recorder
