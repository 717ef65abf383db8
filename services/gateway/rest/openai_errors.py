"""Errors as OpenAI's API shows them, so that its clients raise what their users catch."""

from __future__ import annotations

import re
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ndml.errors import NdmlError
from services.gateway.rest.codec import to_json
from services.gateway.rest.problems import HTTP_PROBLEMS, HTTP_STATUS, Refusals, headers_of, trace_id_of

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# Those of OpenAI's codes that applications compare with; every other error has its reason in lower case.
_CODES = {"MODEL_UNKNOWN": "model_not_found", "CREDENTIALS_INVALID": "invalid_api_key", "OVERLOADED": "rate_limit_exceeded"}
# What only this door can do about it.
_HINTS = {"MODEL_UNKNOWN": " -- GET /v1/models lists the names, rest.model_aliases (NDML_GATEWAY__REST__MODEL_ALIASES) gives more"}
# Where a field of our message stands in the body.
_PARAMS = (
    (re.compile(r"^sampling\.max_new_tokens$"), "max_completion_tokens"),
    (re.compile(r"^sampling\."), ""),
    (re.compile(r"^scope\.user$"), "user"),
    (re.compile(r"^scope\."), "metadata."),
    (re.compile(r"^(recall_k|fusion|learning|consistency_token|request_id)$"), r"metadata.\1"),
    (re.compile(r"^tools\[(\d+)\]\.parameters_json$"), r"tools[\1].function.parameters"),
    (re.compile(r"^tools\[(\d+)\]\.(name|description)$"), r"tools[\1].function.\2"),
    (re.compile(r"^texts\b"), "input"),
)


def error_tree(error: NdmlError, traceparent: str = "") -> dict[str, Any]:
    """{"error": …} of a domain error. `reason` is ours; `trace_id`, where it is known, the trace to look for."""
    status = HTTP_STATUS[error.code]
    param = param_of(error.violations[0].field) if error.violations else None
    message = error.message + _HINTS.get(error.reason, "")
    tree = _tree(status, message, param, _CODES.get(error.reason, error.reason.lower()), error.reason)
    trace_id = trace_id_of(error, traceparent)
    if trace_id:
        tree["error"]["trace_id"] = trace_id
    return tree


def error_response(error: NdmlError, traceparent: str = "") -> Response:
    """Response for a domain error."""
    headers = headers_of(error)
    if error.retry_after_s is not None:
        # The clients prefer it to Retry-After, which has whole seconds only.
        headers["Retry-After-Ms"] = str(max(1, round(error.retry_after_s * 1000)))
    return _response(error_tree(error, traceparent), HTTP_STATUS[error.code], headers)


def http_error_response(error: HTTPException) -> Response:
    """Response for an error of the HTTP layer itself. `error.status_code` stands in HTTP_PROBLEMS."""
    _, reason, when = HTTP_PROBLEMS[error.status_code]
    tree = _tree(error.status_code, error.detail or when, None, reason.lower(), reason)
    return _response(tree, error.status_code, dict(error.headers or {}))


def param_of(field: str) -> str | None:
    """Name in the body of a field of our messages."""
    for pattern, name in _PARAMS:
        field = pattern.sub(name, field)
    return field or None


def _tree(status: int, message: str, param: str | None, code: str, reason: str) -> dict[str, Any]:
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code, "reason": reason}}


def _response(tree: dict[str, Any], status: int, headers: dict[str, str]) -> Response:
    return Response(to_json(tree), status, headers, "application/json")


REFUSALS = Refusals(error_response, http_error_response)
