"""An engine that fails on command: `faulty_engine.py FOLDER PORT`, a script on the standard library only.

It answers what the supervisor asks of vLLM, and has a grandchild in its group, as vLLM has its engine core. Every
start adds a line "PID CORE-PID" to FOLDER/starts. Files in FOLDER are faults: `stuck` (no completion ever ends, no
counter moves), `busy` (none ends, counters move), `greedy` (out of memory at start), `slow` (not ready yet).
`shared` makes it use shared memory and a semaphore, as multiprocessing does; their names come into that file.
"""

from __future__ import annotations

import http.server
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

FOLDER = Path(sys.argv[1])


class Handler(http.server.BaseHTTPRequestHandler):
    """Counts one token for every completion."""

    tokens = 0

    def do_GET(self) -> None:
        if fault("busy"):
            Handler.tokens += 1
        self._answer(f"vllm:generation_tokens_total{{engine=0}} {Handler.tokens}\n".encode())

    def do_POST(self) -> None:
        while fault("busy") or fault("stuck"):
            time.sleep(0.05)
        Handler.tokens += 1
        self._answer(json.dumps({"choices": [{"text": "x"}]}).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, body: bytes) -> None:
        self.send_response(503 if self.path == "/health" and fault("slow") else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def fault(name: str) -> bool:
    return (FOLDER / name).exists()


def main() -> None:
    core = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with (FOLDER / "starts").open("a") as starts:
        starts.write(f"{os.getpid()} {core.pid}\n")
    if fault("greedy"):
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        bytearray(1 << 32)
    if fault("shared"):
        memory = SharedMemory(create=True, size=64)
        kept = multiprocessing.get_context("spawn").Semaphore()
        (FOLDER / "shared").write_text(f"{memory.name} {kept._semlock.name}")  # type: ignore[attr-defined]
    print("listening soon", flush=True)
    with http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
