"""A trace sink's HTTP door: what it holds, in the form in which Jaeger's query API answers. For `ndml trace` without a Jaeger."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from ndml.runtime.trace_json import to_otlp_json
from ndml.testing.otlp import TraceSink

_PATH = re.compile(r"/api/v3/traces/([0-9a-f]{32})")
_IDLE_S = 10.0
"""A caller that says nothing for so long is cut off: each holds a thread."""


class TraceDoor:
    """GET /api/v3/traces/{trace id} on host:port; port 0 takes any. start() and stop(), or a context manager.

    Raises OSError at the start where the port is taken.
    """

    def __init__(self, sink: TraceSink, port: int = 0, host: str = "127.0.0.1") -> None:
        self._sink, self._host, self._port = sink, host, port
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Of the store, as `ndml trace --store` takes it; "" before start()."""
        return "" if self._server is None else f"http://{self._host}:{self._server.server_port}"

    def start(self) -> TraceDoor:
        sink = self._sink

        class Handler(_Handler):
            traces = sink

        self._server = ThreadingHTTPServer((self._host, self._port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="trace-door", daemon=True).start()
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> TraceDoor:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


class _Handler(BaseHTTPRequestHandler):
    traces: TraceSink
    timeout = _IDLE_S

    def do_GET(self) -> None:
        match = _PATH.fullmatch(self.path.partition("?")[0])
        if match is None:
            self._answer(404, {"error": {"httpCode": 404, "message": f"no such path; there is {_PATH.pattern}"}})
        elif spans := self.traces.spans(match[1]):
            self._answer(200, {"result": to_otlp_json(spans)})
        else:
            self._answer(404, {"error": {"httpCode": 404, "message": "trace not found"}})

    def _answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: whoever keeps this open has a terminal of its own."""
