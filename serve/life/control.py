"""The manager's door: HTTP on a unix socket, for whoever has `adapters.Manage` and for the router.

| route | answers |
|---|---|
| GET /adapters | `Manager.listed()` |
| GET /changes?after=GENERATION&router=WHO | `Manager.changes()`, when there are any |
| POST /adapters {"name", "path", "label"?, …} | the adapter, once it serves; 409 with the reason where it cannot |
| POST /adapters/NAME/test | the adapter, with what its self-test found just now |
| DELETE /adapters/NAME | when it is unloaded |
| POST /reload | the lines of what was done |

Of an adapter that is known already, the keys that a POST does not give stay as they are. Who may open the socket
may do everything: it belongs to the user who started the stack (mode 0600). The router, which lets others in,
sends `x-lora-select-restricted`: then a path must lie below `engine.roots`.
"""

from __future__ import annotations

import json
import os
import socketserver
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from adapters import RESTRICTED, ConfigError, ControlError, named_adapter, split
from serve.life.api import EngineError
from serve.life.loader import Refused, Unknown
from serve.life.manager import Manager

LARGEST = 1 << 20
"""Bytes of a request's body."""


class Control(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Serves until closed."""

    daemon_threads = True

    def __init__(self, socket_file: Path, manager: Manager) -> None:
        """Raises OSError when the socket cannot be made."""
        with suppress(FileNotFoundError):
            socket_file.unlink()  # of a supervisor that was killed: the run folder's lock says that none is alive
        socket_file.parent.mkdir(parents=True, exist_ok=True)
        before = os.umask(0o177)
        try:
            super().__init__(str(socket_file), _Handler)
        finally:
            os.umask(before)
        self.file, self.manager = socket_file, manager
        threading.Thread(target=self.serve_forever, args=(0.1,), name="control", daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more."""
        self.shutdown()
        self.server_close()
        with suppress(FileNotFoundError):
            self.file.unlink()


class _Handler(BaseHTTPRequestHandler):
    server: Control
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(self._got)

    def do_POST(self) -> None:
        self._answer(self._posted)

    def do_DELETE(self) -> None:
        self._answer(self._deleted)

    def address_string(self) -> str:
        return "manager.sock"

    def log_message(self, *_: Any) -> None:
        """Nothing: what changes is told by the manager."""

    def _got(self) -> Any:
        place = urlsplit(self.path)
        if place.path == "/adapters":
            return self.server.manager.listed()
        if place.path != "/changes":
            return _unknown(self.path)
        query = parse_qs(place.query)
        return self.server.manager.changes(int(query["after"][0]), query["router"][0])

    def _posted(self) -> Any:
        body, manager = self._body(), self.server.manager
        match self.path.split("/")[1:]:
            case ["adapters"]:
                return self._added(body)
            case ["adapters", name, "test"]:
                _waited(manager.test(unquote(name)))
                return {"adapters": self._parts(unquote(name))}
            case ["reload"]:
                return {"done": _waited(manager.reload())}
        return _unknown(self.path)

    def _added(self, body: dict[str, Any]) -> Any:
        manager = self.server.manager
        name, adapter = named_adapter(manager.known(body.get("name")) | body)
        if RESTRICTED in self.headers:
            asked = manager.stack.model_copy(update={"adapters": {name: adapter}})
            for part in (adapter, *asked.parts.values()):
                manager.stack.allowed(part.path)
        _waited(manager.add(name, adapter))
        file = str(manager.stack.file.resolve())
        return {"file": file, "adapter": {"name": name} | manager.known(name), "adapters": self._parts(name)}

    def _parts(self, name: str) -> list[dict[str, Any]]:
        """The adapter, or its versions, as the list has them."""
        listed = self.server.manager.listed()["adapters"]
        return [one for one in listed if split(one["name"])[0] == name]

    def _deleted(self) -> Any:
        prefix, _, name = self.path.rpartition("/")
        if prefix != "/adapters":
            return _unknown(self.path)
        _waited(self.server.manager.remove(unquote(name)))
        return {"removed": unquote(name)}

    def _body(self) -> dict[str, Any]:
        length = int(self.headers.get("content-length") or 0)
        if length > LARGEST:
            raise ControlError(413, f"at most {LARGEST} bytes")
        try:
            body = json.loads(self.rfile.read(length) or b"{}")
        except ValueError:
            raise ControlError(400, "the body is not JSON") from None
        if not isinstance(body, dict):
            raise ControlError(400, "the body must be a JSON object")
        return body

    def _answer(self, work: Callable[[], Any]) -> None:
        status: int = 200
        try:
            said = work()
        except ControlError as error:
            status, said = error.status, {"error": str(error)}
        except Unknown as error:
            status, said = 404, {"error": str(error)}
        except (Refused, EngineError) as error:
            status, said = 409, {"error": str(error)}
        except (ConfigError, KeyError, ValueError) as error:
            status, said = 400, {"error": str(error)}
        except OSError as error:
            status, said = 507, {"error": f"the adapter's files cannot be copied: {error}"}
        except Exception as error:  # a hub's own errors, for one
            status, said = 500, {"error": f"{type(error).__name__}: {error}"}
        data = json.dumps(said).encode()
        with suppress(OSError):  # whoever asked may have gone
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)


def _unknown(path: str) -> Any:
    raise ControlError(404, f"there is no {path} here")


def _waited(future: Future[Any]) -> Any:
    """A load, a self-test and a drain take their time; whoever asked goes when they like, and the job is done."""
    return future.result()
