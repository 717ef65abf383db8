"""`ndml trace` against HTTP servers that answer as trace stores do, our own door among them, and against what is none."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ndml.cli.app import run
from ndml.errors import Code
from ndml.runtime import semconv
from ndml.runtime.spans import Span
from ndml.runtime.trace_json import to_otlp_json
from ndml.testing import TraceDoor, TraceSink, free_ports

TRACE, ROOT, CHILD = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
OTHER = "4bf92f3577b34da6a3ce929d0e0e4736"
BEGAN = 1_763_800_000_000_000_000


def made(span_id: str, parent: str, service: str, name: str, start_ms: float, ms: float, **more: Any) -> Span:
    start = BEGAN + int(start_ms * 1e6)
    attributes = more.pop("attributes", {semconv.RPC_GRPC_STATUS_CODE: 0})
    return Span(
        service, f"{service}-1", name, "server", TRACE, span_id, parent, start, start + int(ms * 1e6), "UNSET", "", attributes, (), **more
    )


SPANS = [
    made(ROOT, "", "ndml-gateway", "ndml.v1.MemoryService/SearchMemories", 0, 12.5),
    made(CHILD, ROOT, "ndml-memory-node", "search_memory", 2, 8.25, attributes={semconv.RPC_GRPC_STATUS_CODE: 14, semconv.MEMORY_HITS: 3}),
]


def jaeger_old() -> dict[str, Any]:
    """As Jaeger's UI gets it: microseconds, tags, references; ids without zeros in front."""

    def tags(values: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"key": key, "type": "int64" if isinstance(value, int) else "string", "value": value} for key, value in values.items()]

    reference = {"refType": "CHILD_OF", "traceID": TRACE.lstrip("0"), "spanID": ROOT}
    followed = {"refType": "FOLLOWS_FROM", "traceID": OTHER, "spanID": "00000000000000aa"}
    rows = [
        {
            "spanID": span.span_id.lstrip("0"),
            "operationName": span.name,
            "startTime": span.start_ns // 1000,
            "duration": int(span.duration_ms * 1000),
        }
        | {"traceID": TRACE.lstrip("0"), "processID": f"p{i}", "tags": tags({"span.kind": "server", **span.attributes})}
        | {"references": [reference, followed] if span.parent_id else []}
        for i, span in enumerate(SPANS)
    ]
    processes = {
        f"p{i}": {"serviceName": span.service, "tags": tags({semconv.SERVICE_INSTANCE_ID: span.instance})} for i, span in enumerate(SPANS)
    }
    return {"data": [{"traceID": TRACE, "spans": rows, "processes": processes}], "total": 0, "errors": None}


def tempo() -> dict[str, Any]:
    """As Tempo writes it: OTLP under another key, ids in base64, enumerations by name."""
    document = to_otlp_json(SPANS)
    for group in document["resourceSpans"]:
        for span in group["scopeSpans"][0]["spans"]:
            for key in ("traceId", "spanId", "parentSpanId"):
                span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
            span["kind"], span["status"] = "SPAN_KIND_SERVER", {"code": "STATUS_CODE_UNSET"}
    return {"batches": document["resourceSpans"]}


V3, OLD = f"/api/v3/traces/{TRACE}", f"/api/traces/{TRACE}"
Answers = dict[str, tuple[int, str, str]]


def as_json(status: int, body: Any) -> tuple[int, str, str]:
    return status, "application/json", json.dumps(body)


STORES: dict[str, Answers] = {
    "jaeger, newer": {V3: as_json(200, {"result": to_otlp_json(SPANS)})},
    "jaeger, newer, in pieces": {
        V3: (200, "application/json", "\n".join(json.dumps({"result": to_otlp_json([span])}) for span in SPANS) + "\n"),
    },
    "jaeger, older": {OLD: as_json(200, jaeger_old())},
    "jaeger, older, whose page answers any path": {V3: (200, "text/html", "<!doctype html><html></html>"), OLD: as_json(200, jaeger_old())},
    "tempo": {OLD: as_json(200, tempo())},
}


@pytest.fixture
def serve() -> Iterator[Callable[[Answers], str]]:
    """Starts a server of these answers, 404 for the rest; gives its address."""
    running: list[ThreadingHTTPServer] = []

    def start(answers: Answers) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, kind, body = answers.get(self.path, as_json(404, {"errors": [{"code": 404, "msg": "trace not found"}]}))
                self.send_response(status)
                self.send_header("content-type", kind)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.delenv("NDML_TRACE_STORE", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(["trace", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.mark.parametrize("kind", STORES)
def test_a_trace_is_a_tree_whatever_the_store(kind: str, serve: Any, command: Any) -> None:
    code, out, err = command(TRACE, "--store", serve(STORES[kind]))
    assert (code, err) == (0, "")
    head, root, child = out.splitlines()
    assert head == f"trace {TRACE}: 2 spans of 2 services, 12.50 ms"
    assert (
        root.split()[:2] == ["ndml-gateway", "ndml.v1.MemoryService/SearchMemories"]
        and "+0.00 ms" in root
        and root.endswith("12.50 ms  OK")
    )
    assert child.startswith("  ndml-memory-node") and "+2.00 ms" in child and "8.25 ms  UNAVAILABLE  memory.hits=3" in child
    assert child.endswith(f"for={OTHER}") == kind.startswith("jaeger, older")


def test_a_traceparent_from_a_log_will_do_and_the_store_may_stand_in_the_environment(
    serve: Any, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDML_TRACE_STORE", serve(STORES["tempo"]) + "/")
    code, out, _ = command(f"00-{TRACE.upper()}-{ROOT}-01")
    assert code == 0 and "search_memory" in out


def test_a_program_gets_json(serve: Any, command: Any) -> None:
    code, out, _ = command(TRACE, "--store", serve(STORES["jaeger, newer"]), "-o", "json")
    shown = json.loads(out)
    assert code == 0 and shown["trace_id"] == TRACE
    assert [(span["service"], span["outcome"], span["parent_id"]) for span in shown["spans"]] == [
        ("ndml-gateway", "OK", ""),
        ("ndml-memory-node", Code.UNAVAILABLE.name, ROOT),
    ]


def refused(done: tuple[int, str, str], code: int, *said: str) -> None:
    assert done[0] == code and done[1] == ""
    assert len(done[2].splitlines()) == 1 and done[2].startswith("ndml: ") and " | fix: " in done[2], done[2]
    assert all(part in done[2] for part in said), done[2]


@pytest.mark.parametrize("text", ["", "abc", TRACE + "0", "0" * 32, "g" * 32, "../../etc/passwd"])
def test_a_bad_id_is_refused_before_anybody_is_asked(text: str, command: Any) -> None:
    refused(command(text, "--store", "http://127.0.0.1:9"), 2, "INVALID_ARGUMENT", repr(text), "32 hexadecimal digits")


def test_a_store_that_nobody_serves(command: Any) -> None:
    port = free_ports(1)[0]
    refused(command(TRACE, "--store", f"http://127.0.0.1:{port}"), 4, "UNAVAILABLE", f"127.0.0.1:{port}", "make run")


def test_a_trace_that_the_store_has_not(serve: Any, command: Any) -> None:
    refused(command(OTHER, "--store", serve(STORES["tempo"])), 3, "NOT_FOUND", OTHER, "sample_ratio")


def test_a_store_that_fails(serve: Any, command: Any) -> None:
    refused(command(TRACE, "--store", serve({V3: as_json(503, {})})), 4, "UNAVAILABLE", "503")


@pytest.mark.parametrize(
    "body",
    [
        "<html>",
        "[1]",
        '{"a": 1}',
        '{"resourceSpans": [{"scopeSpans": [{"spans": [{}]}]}]}',
        '{"data": [{"spans": [{"traceID": "x y"}]}]}',
        "{",
    ],
)
def test_what_is_no_trace_store(body: str, serve: Any, command: Any) -> None:
    answer = (200, "application/json", body)
    refused(command(TRACE, "--store", serve({V3: answer, OLD: answer})), 1, "FAILED_PRECONDITION", "not as a trace store", "16686")


@pytest.mark.parametrize("store", ["127.0.0.1:16686", "ftp://x", "file:///etc/passwd"])
def test_an_address_without_http(store: str, command: Any) -> None:
    refused(command(TRACE, "--store", store), 2, "INVALID_ARGUMENT", "http://")


def test_a_program_gets_errors_as_json(command: Any) -> None:
    code, _, err = command("abc", "-o", "json")
    assert code == 2 and json.loads(err)["error"]["code"] == "INVALID_ARGUMENT"


def test_a_sink_shows_what_it_holds_through_its_door(command: Any) -> None:
    with TraceSink(capacity=10) as sink, TraceDoor(sink) as door:
        for span in SPANS:
            sink.keep(span)
        code, out, _ = command(TRACE, "--store", door.url)
        assert code == 0 and "search_memory" in out
        refused(command(OTHER, "--store", door.url), 3, "NOT_FOUND")
        with pytest.raises(OSError, match=r"[Aa]ddress"):
            TraceDoor(sink, int(door.url.rpartition(":")[2])).start()
