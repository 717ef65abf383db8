"""ndml trace: one request across all services, from the store that keeps the traces."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from typing import Annotated

import typer

from ndml.cli.output import Output
from ndml.cli.session import Session
from ndml.runtime.spans import Span, outcome, render, tree
from ndml.runtime.trace_json import NotTraces, spans_of

DEFAULT_STORE = "http://127.0.0.1:7790"
_PATHS = ("/api/v3/traces/{}", "/api/traces/{}")
"""Jaeger's query API in its newer form, which `make run` speaks too; its older form, and Tempo's."""
_MOST_BYTES = 64 << 20
"""Of an answer: a trace of some hundred thousand spans, far more than a person reads."""
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class TraceTrouble(Exception):
    """No trace: `code` names the kind as errors of the suite do, `exit_code` is the command's."""

    def __init__(self, code: str, exit_code: int, message: str, fix: str) -> None:
        super().__init__(message)
        self.code, self.exit_code, self.message, self.fix = code, exit_code, message, fix


def register(app: typer.Typer) -> None:
    app.command("trace")(trace)


def trace(
    context: typer.Context,
    trace_id: Annotated[str, typer.Argument(help="Trace id, 32 hexadecimal digits, or a whole traceparent.", show_default=False)],
    store: Annotated[
        str,
        typer.Option("--store", envvar="NDML_TRACE_STORE", help="Jaeger's or Tempo's query address; make run is one."),
    ] = DEFAULT_STORE,
) -> None:
    """Show a request as a tree: where it went, when, how long it took there, and how it ended."""
    session: Session = context.obj
    try:
        spans = fetch(trace_id, store, session.timeout_s)
    except TraceTrouble as trouble:
        _tell(session.output, trouble)
        raise typer.Exit(trouble.exit_code) from None
    roots = tree(spans)
    rows = [{**_plain(span), "outcome": outcome(span)} for span in spans]
    session.output.result({"trace_id": spans[0].trace_id, "spans": rows})
    session.output.piece("\n".join([_summary(spans), *render(roots, offsets=True)]) + "\n")


def fetch(trace_id: str, store: str, timeout_s: float) -> list[Span]:
    """The spans of a trace by start time, each once. Raises TraceTrouble."""
    wanted = _checked_id(trace_id)
    base = store.rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise TraceTrouble("INVALID_ARGUMENT", 2, f"--store is {store!r}", "give the store's address with http:// or https://")
    odd = ""
    for path in _PATHS:
        answer = _get(base + path.format(wanted), base, timeout_s)
        if answer is None:
            continue
        try:
            spans = {span.span_id: span for span in spans_of(answer) if span.trace_id == wanted}
        except NotTraces as error:
            odd = str(error)
            continue
        if spans:
            return sorted(spans.values(), key=lambda span: span.start_ns)
    if odd:
        fix = "give the address of Jaeger's query service (port 16686), of Tempo (3200), or of make run (7790)"
        raise TraceTrouble("FAILED_PRECONDITION", 1, f"{base} answers, but not as a trace store does: {odd}", fix)
    raise TraceTrouble(
        "NOT_FOUND",
        3,
        f"{base} has no trace {wanted}",
        "spans come some seconds after the call; else it was not sampled (telemetry.sample_ratio), has aged out, or is in another store",
    )


def _checked_id(text: str) -> str:
    given = text.strip().lower()
    if match := _TRACEPARENT.fullmatch(given):
        given = match[1]
    if not _TRACE_ID.fullmatch(given) or not int(given, 16):
        fix = "a trace id has 32 hexadecimal digits, not all zero: it stands in errors, in log lines and in exemplars"
        raise TraceTrouble("INVALID_ARGUMENT", 2, f"{text!r} is no trace id", fix)
    return given


def _get(url: str, base: str, timeout_s: float) -> str | None:
    """The body; None where the store says that there is nothing. Raises TraceTrouble."""
    request = urllib.request.Request(url, headers={"accept": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            body = response.read(_MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        if error.code in (400, 404):  # an unknown path of an older store, or an unknown trace
            return None
        fix = "look at the store's log; a store behind a login needs an address without one, for example a port-forward"
        raise TraceTrouble("UNAVAILABLE", 4, f"{base} answered {error.code} {error.reason}", fix) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        fix = "start make run, which keeps traces, or give --store or NDML_TRACE_STORE"
        raise TraceTrouble("UNAVAILABLE", 4, f"no trace store answers at {base}: {reason}", fix) from None
    if len(body) > _MOST_BYTES:
        raise TraceTrouble("RESOURCE_EXHAUSTED", 1, f"more than {_MOST_BYTES >> 20} MiB of spans", "look at it in the store's own page")
    return str(body.decode("utf-8", "replace"))


def _tell(output: Output, trouble: TraceTrouble) -> None:
    output.problem(trouble.code, trouble.message, trouble.fix)


def _summary(spans: list[Span]) -> str:
    took_ms = (max(span.end_ns for span in spans) - min(span.start_ns for span in spans)) / 1e6
    services = len({span.service for span in spans})
    return f"trace {spans[0].trace_id}: {len(spans)} spans of {services} services, {took_ms:.2f} ms"


def _plain(span: Span) -> dict[str, object]:
    names = ("service", "instance", "name", "kind", "span_id", "parent_id", "start_ns", "end_ns", "status", "message", "attributes")
    return {name: getattr(span, name) for name in names} | {"links": list(span.links)}
