"""Errors as RFC 9457 problem details."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ndml.errors import Code, NdmlError
from services.gateway.rest.codec import to_json

MEDIA_TYPE = "application/problem+json"

# As google.rpc.Code documents it.
HTTP_STATUS: dict[Code, int] = {
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}

# What only HTTP can get wrong: status -> (canonical code, reason, when it comes).
HTTP_PROBLEMS: dict[int, tuple[Code, str, str]] = {
    404: (Code.NOT_FOUND, "ROUTE_UNKNOWN", "no route has this path"),
    405: (Code.UNIMPLEMENTED, "METHOD_NOT_ALLOWED", "the route takes other methods; Allow names them"),
    408: (Code.DEADLINE_EXCEEDED, "BODY_TIMEOUT", "the body did not arrive in time"),
    413: (Code.RESOURCE_EXHAUSTED, "BODY_TOO_LARGE", "the body is larger than rest.max_body_bytes"),
    415: (Code.INVALID_ARGUMENT, "CONTENT_TYPE_UNSUPPORTED", "the body is not application/json"),
}

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Refusals(NamedTuple):
    """How errors become responses: domain errors (with the caller's traceparent), and those of the HTTP layer itself."""

    domain: Callable[[NdmlError, str], Response]
    http: Callable[[HTTPException], Response]


def problem_of(error: NdmlError, traceparent: str = "") -> dict[str, Any]:
    """Problem details of a domain error; `traceparent` is the caller's, for want of a better trace id."""
    problem = _problem(HTTP_STATUS[error.code], error.code, error.reason, error.message)
    if error.violations:
        problem["errors"] = [{"field": v.field, "description": v.description, "rule": v.rule} for v in error.violations]
    metadata = {key: value for key, value in error.metadata.items() if key != "trace_id"}
    if metadata:
        problem["metadata"] = metadata
    if error.retry_after_s is not None:
        problem["retry_after_s"] = error.retry_after_s
    trace_id = trace_id_of(error, traceparent)
    if trace_id:
        problem["trace_id"] = trace_id
    return problem


def trace_id_of(error: NdmlError, traceparent: str) -> str:
    """The trace to look for; empty: not known."""
    match = _TRACEPARENT.fullmatch(traceparent)
    return error.metadata.get("trace_id") or (match[1] if match else "")


def problem_response(error: NdmlError, traceparent: str = "") -> Response:
    """Response for a domain error."""
    return Response(to_json(problem_of(error, traceparent)), HTTP_STATUS[error.code], headers_of(error), MEDIA_TYPE)


def headers_of(error: NdmlError) -> dict[str, str]:
    """When to come back, and with what."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.code is Code.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def http_problem_response(error: HTTPException) -> Response:
    """Response for an error of the HTTP layer itself. `error.status_code` stands in HTTP_PROBLEMS."""
    code, reason, when = HTTP_PROBLEMS[error.status_code]
    headers = dict(error.headers or {})
    return Response(to_json(_problem(error.status_code, code, reason, error.detail or when)), error.status_code, headers, MEDIA_TYPE)


def _problem(status: int, code: Code, reason: str, detail: str) -> dict[str, Any]:
    title = reason.replace("_", " ").capitalize()
    return {"type": f"/docs#{reason}", "title": title, "status": status, "detail": detail, "code": code.name, "reason": reason}


PROBLEMS = Refusals(problem_response, http_problem_response)
