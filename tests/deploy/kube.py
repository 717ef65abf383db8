"""A small Kubernetes API server over real HTTP: EndpointSlices with versions, watches, bookmarks and every way in which they end."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

PREFIX = "/apis/discovery.k8s.io/v1/namespaces/"


def endpoint(host: str, *, ready: bool | None = True, serving: bool | None = None, zone: str = "", pod: str = "") -> dict[str, Any]:
    conditions = {key: value for key, value in (("ready", ready), ("serving", serving)) if value is not None}
    made: dict[str, Any] = {"addresses": [host], "conditions": conditions}
    if zone:
        made["zone"] = zone
    if pod:
        made["targetRef"] = {"kind": "Pod", "name": pod}
    return made


def piece(service: str, name: str, port: int, *endpoints: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An EndpointSlice."""
    labels = {"kubernetes.io/service-name": service}
    return {
        "metadata": {"name": name, "namespace": "ns", "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "grpc", "port": port}],
        "endpoints": list(endpoints),
        **more,
    }


class KubeServer(ThreadingHTTPServer):
    """`denied`: statuses by verb ("list", "watch", "get"). `oldest`: a watch from before this version is answered 410.

    Use `put` and `remove` to change slices; `say` to send any event; `cut` to break the watches that are open.
    """

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.slices: dict[str, dict[str, Any]] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.version = 100
        self.oldest = 0
        self.denied: dict[str, int] = {}
        self.asked: list[str] = []
        self.tokens: list[str] = []
        self.watchers = 0
        self.generation = 0
        self.events: list[tuple[int, str, dict[str, Any]]] = []
        self.changed = threading.Condition()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def kubeconfig(self, path: Path, **user: Any) -> Path:
        """A file that leads here."""
        config = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "ns"}}],
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": user or {"token": "secret"}}],
        }
        path.write_text(json.dumps(config))
        return path

    def put(self, item: dict[str, Any]) -> None:
        name = item["metadata"]["name"]
        with self.changed:
            kind = "MODIFIED" if name in self.slices else "ADDED"
            self.slices[name] = self._stamp(item)
            self._event(kind, self.slices[name])

    def remove(self, name: str) -> None:
        with self.changed:
            self._event("DELETED", self._stamp(self.slices.pop(name)))

    def bookmark(self) -> None:
        with self.changed:
            self.version += 1
            self._event("BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}})

    def say(self, kind: str, item: dict[str, Any]) -> None:
        with self.changed:
            self._event(kind, item)

    def cut(self) -> None:
        """Break every watch, in the middle of its stream."""
        with self.changed:
            self.generation += 1
            self.changed.notify_all()

    def stop(self) -> None:
        self.cut()
        self.shutdown()
        self.server_close()

    def _stamp(self, item: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        return {**item, "metadata": {**item["metadata"], "resourceVersion": str(self.version)}}

    def _event(self, kind: str, item: dict[str, Any]) -> None:
        self.events.append((self.version, kind, item))
        self.changed.notify_all()


class _Handler(BaseHTTPRequestHandler):
    server: KubeServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.server.tokens.append(self.headers.get("Authorization", ""))
        verb = "get" if url.path.startswith("/api/v1/nodes/") else "watch" if "watch" in query else "list"
        self.server.asked.append(verb)
        if status := self.server.denied.get(verb):
            self._status(status, f"user cannot {verb} this")
        elif verb == "get":
            node = self.server.nodes.get(url.path.rsplit("/", 1)[1])
            self._answer(200, node) if node else self._status(404, "no such node")
        elif not url.path.startswith(PREFIX):
            self._status(404, "no such path")
        elif verb == "watch":
            self._watch(query)
        else:
            with self.server.changed:
                items = [item for item in self.server.slices.values() if _selected(item, query)]
                self._answer(200, {"metadata": {"resourceVersion": str(self.server.version)}, "items": items})

    def _watch(self, query: dict[str, str]) -> None:
        server, since = self.server, int(query["resourceVersion"])
        if since < server.oldest:
            self._status(410, "too old resource version")
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with server.changed:
            generation, sent = server.generation, 0
            server.watchers += 1
        try:
            while True:
                with server.changed:
                    while server.generation == generation and len(server.events) <= sent:
                        server.changed.wait(60)
                    if server.generation != generation:
                        break
                    news, sent = server.events[sent:], len(server.events)
                for version, kind, item in news:
                    if version > since and (kind in ("BOOKMARK", "ERROR") or _selected(item, query)):
                        self._chunk(json.dumps({"type": kind, "object": item}).encode() + b"\n")
        except OSError:
            return
        finally:
            self.close_connection = True
            with server.changed:
                server.watchers -= 1

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _status(self, code: int, message: str) -> None:
        self._answer(code, {"kind": "Status", "code": code, "message": message})

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def _selected(item: dict[str, Any], query: dict[str, str]) -> bool:
    key, _, value = query.get("labelSelector", "").partition("=")
    return not key or item.get("metadata", {}).get("labels", {}).get(key) == value
