"""Spans from and to what trace stores speak over HTTP: OTLP JSON (Jaeger's v3 query API, Tempo) and Jaeger's older JSON. Pure."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ndml.runtime import semconv
from ndml.runtime.spans import KINDS, STATUSES, Span

_BLANKS = re.compile(r"\s*")
_KIND_NUMBERS = {name: number for number, name in KINDS.items()}
_STATUS_NUMBERS = {name: number for number, name in STATUSES.items()}


class NotTraces(ValueError):
    """The document holds no spans in a form that is known here; the message says what was found."""


def documents(text: str) -> list[Any]:
    """The JSON documents in `text`, one after the other: a streaming gateway writes several. Raises NotTraces."""
    decoder, found, position = json.JSONDecoder(), [], _after_blanks(text, 0)
    try:
        while position < len(text):
            document, position = decoder.raw_decode(text, position)
            found.append(document)
            position = _after_blanks(text, position)
    except (ValueError, RecursionError):
        raise NotTraces(f"no JSON: it begins with {text.strip()[:40]!r}") from None
    return found


def _after_blanks(text: str, position: int) -> int:
    match = _BLANKS.match(text, position)
    return position if match is None else match.end()


def spans_of(text: str) -> list[Span]:
    """Every span in an answer of a trace store, whichever of the known forms it has. Raises NotTraces."""
    found: list[Span] = []
    for document in documents(text):
        if not isinstance(document, dict):
            raise NotTraces(f"JSON, but a {type(document).__name__} and not an object")
        try:
            found += _spans_of(document)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            if isinstance(error, NotTraces):
                raise
            raise NotTraces(f"spans in a form that is not known here ({type(error).__name__}: {error})") from None
    return found


def to_otlp_json(spans: Sequence[Span]) -> dict[str, Any]:
    """Spans as the OTLP JSON form `{"resourceSpans": […]}`."""
    by_resource: dict[tuple[str, str], list[Span]] = {}
    for span in spans:
        by_resource.setdefault((span.service, span.instance), []).append(span)
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _pairs({semconv.SERVICE_NAME: service, semconv.SERVICE_INSTANCE_ID: instance})},
                "scopeSpans": [{"spans": [_to_otlp(span) for span in theirs]}],
            }
            for (service, instance), theirs in by_resource.items()
        ]
    }


def _spans_of(document: dict[str, Any]) -> Iterable[Span]:
    for name in ("result", "trace"):  # Jaeger's v3 gateway, Tempo's v2
        if isinstance(document.get(name), dict):
            return _spans_of(document[name])
    for name in ("resourceSpans", "batches"):  # OTLP; Tempo's first API
        if isinstance(document.get(name), list):
            return [span for group in document[name] for span in _group(group)]
    if isinstance(document.get("data"), list):
        return [_from_jaeger(raw, trace.get("processes", {})) for trace in document["data"] for raw in trace["spans"]]
    raise NotTraces(f"JSON without spans: its keys are {', '.join(sorted(document)[:6]) or 'none'}")


def _group(group: dict[str, Any]) -> Iterable[Span]:
    resource = _attributes(group.get("resource", {}).get("attributes", ()))
    scopes = group.get("scopeSpans") or group.get("instrumentationLibrarySpans") or ()
    return [_from_otlp(raw, resource) for scope in scopes for raw in scope.get("spans", ())]


def _from_otlp(raw: dict[str, Any], resource: dict[str, Any]) -> Span:
    status = raw.get("status", {})
    return Span(
        service=str(resource.get(semconv.SERVICE_NAME, "")),
        instance=str(resource.get(semconv.SERVICE_INSTANCE_ID, "")),
        name=str(raw.get("name", "")),
        kind=KINDS.get(_number(raw.get("kind", 0), "SPAN_KIND_", _KIND_NUMBERS, str.lower), "unspecified"),
        trace_id=_id(raw["traceId"], 32),
        span_id=_id(raw["spanId"], 16),
        parent_id=_id(raw.get("parentSpanId", ""), 16),
        start_ns=int(raw["startTimeUnixNano"]),
        end_ns=int(raw["endTimeUnixNano"]),
        status=STATUSES.get(_number(status.get("code", 0), "STATUS_CODE_", _STATUS_NUMBERS, str.upper), "UNSET"),
        message=str(status.get("message", "")),
        attributes=_attributes(raw.get("attributes", ())),
        links=tuple(_id(link["traceId"], 32) for link in raw.get("links", ())),
    )


def _to_otlp(span: Span) -> dict[str, Any]:
    return {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "parentSpanId": span.parent_id,
        "name": span.name,
        "kind": _KIND_NUMBERS.get(span.kind, 0),
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _pairs(span.attributes),
        "links": [{"traceId": trace_id} for trace_id in span.links],
        "status": {"code": _STATUS_NUMBERS.get(span.status, 0), "message": span.message},
    }


def _from_jaeger(raw: dict[str, Any], processes: dict[str, Any]) -> Span:
    """Jaeger's older form: microseconds, tags, and references, of which CHILD_OF in the same trace is the parent."""
    process = processes.get(raw.get("processID", ""), {})
    tags = {tag["key"]: tag["value"] for tag in raw.get("tags") or ()}
    resource = {tag["key"]: tag["value"] for tag in process.get("tags") or ()}
    trace_id = _id(raw["traceID"], 32)
    references = [(each.get("refType"), _id(each["traceID"], 32), _id(each["spanID"], 16)) for each in raw.get("references") or ()]
    parents = [span_id for kind, of, span_id in references if kind == "CHILD_OF" and of == trace_id]
    start_ns = int(raw["startTime"]) * 1000
    status = "ERROR" if str(tags.get("error", "")).lower() == "true" else str(tags.get("otel.status_code", "UNSET"))
    return Span(
        service=str(process.get("serviceName", "")),
        instance=str(resource.get(semconv.SERVICE_INSTANCE_ID, "")),
        name=str(raw.get("operationName", "")),
        kind=str(tags.get("span.kind", "unspecified")),
        trace_id=trace_id,
        span_id=_id(raw["spanID"], 16),
        parent_id=parents[0] if parents else "",
        start_ns=start_ns,
        end_ns=start_ns + int(raw["duration"]) * 1000,
        status=status,
        message=str(tags.get("otel.status_description", "")),
        attributes=tags,
        links=tuple(of for kind, of, _ in references if of != trace_id or kind != "CHILD_OF"),
    )


def _id(value: str, digits: int) -> str:
    """Lower-case hexadecimal of `digits`; stores write ids in hexadecimal, with or without zeros in front, or in base64."""
    if not value:
        return ""
    if len(value) <= digits and set(value.lower()) <= set("0123456789abcdef"):
        return value.lower().zfill(digits)
    try:
        found = base64.b64decode(value, validate=True).hex()
    except binascii.Error:
        raise NotTraces(f"{value!r} is no id of a span or trace") from None
    return found.zfill(digits)


def _number(value: Any, prefix: str, numbers: dict[str, int], case: Any) -> int:
    """An enumeration's value, written as its number or as its name."""
    return numbers.get(case(value.removeprefix(prefix)), 0) if isinstance(value, str) else int(value)


def _attributes(pairs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {pair["key"]: _value(pair.get("value", {})) for pair in pairs}


def _value(value: dict[str, Any]) -> Any:
    if "arrayValue" in value:
        return [_value(item) for item in value["arrayValue"].get("values", ())]
    if "intValue" in value:
        return int(value["intValue"])
    return next(iter(value.values()), None)


def _pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _typed(value)} for key, value in attributes.items()]


def _typed(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_typed(item) for item in value]}}
    return {"stringValue": str(value)}
