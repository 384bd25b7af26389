"""A hub of data sets: the few routes that `datasets` asks for, on a real port."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef" * 2 + "01234567"


@contextmanager
def hub(name: str, files: Mapping[str, bytes]) -> Iterator[str]:
    """The address of a hub that has one data set, of these files."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path.startswith(f"/api/datasets/{name}/revision/"):
                siblings = [{"rfilename": file} for file in files]
                self._send(200, json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode())
            elif path.startswith(f"/api/datasets/{name}/tree/"):
                listed = [{"type": "file", "path": file, "size": len(files[file]), "oid": file} for file in files]
                self._send(200, json.dumps(listed).encode())
            elif path.startswith(f"/datasets/{name}/resolve/"):
                _, _, file = path.removeprefix(f"/datasets/{name}/resolve/").partition("/")
                found = file in files
                self._send(200 if found else 404, files.get(file, b""), "" if found else "EntryNotFound", file)
            else:
                self._send(404, b"", "RepoNotFound")

        do_HEAD = do_GET

        def _send(self, status: int, body: bytes, error: str = "", etag: str = "") -> None:
            self.send_response(status)
            headers = {"Content-Type": "application/json", "X-Repo-Commit": COMMIT, "Content-Length": len(body)}
            for key, value in {**headers, "X-Error-Code": error, "ETag": etag and f'"{etag}"'}.items():
                if value != "":
                    self.send_header(key, str(value))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
