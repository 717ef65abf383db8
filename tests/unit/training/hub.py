"""A model hub on a loopback port: the few endpoints by which huggingface_hub lists a model's files and fetches them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40


@dataclass
class Hub:
    """Serves the files of `folder` as the model `model`. fetched: what was got; breaks: of a file, how many more answers end half-way."""

    folder: Path
    model: str
    url: str = ""
    breaks: dict[str, int] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)


@contextmanager
def hub(folder: Path, model: str) -> Iterator[Hub]:
    made = Hub(folder, model)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": made}))
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    """One request: what there is, a file, or the hub's own way to say that there is none."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Not to standard error."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        api, files = f"/api/models/{self.hub.model}/", f"/{self.hub.model}/resolve/"
        if path in (f"{api}revision/main", f"{api}revision/{COMMIT}"):
            self._json({"id": self.hub.model, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self._names()]})
        elif path == f"{api}tree/{COMMIT}":
            listed = [{"type": "file", "path": name, "size": len(self._bytes(name)), "oid": self._etag(name)} for name in self._names()]
            self._json(listed)
        elif path.startswith(files) and path.removeprefix(files).partition("/")[2] in self._names():
            self._file(path.removeprefix(files).partition("/")[2], body)
        else:
            known = path.startswith((api, files))
            code = "EntryNotFound" if known and path.startswith(files) else "RevisionNotFound" if known else "RepoNotFound"
            self._json({"error": "not found"}, 404, {"X-Error-Code": code})

    def _names(self) -> list[str]:
        return sorted(path.name for path in self.hub.folder.iterdir())

    def _bytes(self, name: str) -> bytes:
        return (self.hub.folder / name).read_bytes()

    def _etag(self, name: str) -> str:
        return hashlib.sha1(self._bytes(name)).hexdigest()

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"} | (headers or {}), self.command == "GET")

    def _file(self, name: str, body: bool) -> None:
        data = self._bytes(name)
        headers = {"ETag": f'"{self._etag(name)}"', "X-Repo-Commit": COMMIT}
        left = self.hub.breaks.get(name, 0) if body else 0
        self._send(200, data, headers, body, len(data) // 2 if left else None)
        if body:
            self.hub.fetched.append(name)
            self.hub.breaks[name] = max(0, left - 1)

    def _send(self, status: int, data: bytes, headers: dict[str, str], body: bool, cut: int | None = None) -> None:
        """cut: of the promised bytes so many come, and the connection ends."""
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data[:cut])
        self.close_connection = self.close_connection or cut is not None
