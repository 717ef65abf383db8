"""/openapi.json from the annotated protos, and /docs, a page that reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

import ndml
from ndml.errors import BY_REASON
from services.gateway.rest import openai, seed
from services.gateway.rest.codec import leaf_names, to_json
from services.gateway.rest.operations import Group, Operation, Route
from services.gateway.rest.problems import HTTP_PROBLEMS, HTTP_STATUS, MEDIA_TYPE
from services.gateway.rest.requests import TIMEOUT_HEADER
from services.gateway.rest.schema import COMMENTS, Schema, Schemas
from services.gateway.rest.settings import RestSettings
from services.gateway.rest.streaming import NDJSON, SSE
from services.gateway.rest.transcoder import Binding

_GROUPS = (seed.GROUP, openai.GROUP)
_PAGE = Path(__file__).parent / "docs.html"
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
_JSON = "application/json"
_KIND = re.compile(r":\w+\}")
_VARIABLE = re.compile(r"\{(\w+)\}")
_PARENTS = re.compile(r"(?<=\{)[\w.]+\.")

_HEADERS: dict[str, Schema] = {
    "Tenant": {
        "name": "ndml-tenant",
        "description": "Tenant, where the credentials do not say it.",
        "schema": {"type": "string"},
    },
    "Traceparent": {"name": "traceparent", "description": "W3C trace context.", "schema": {"type": "string"}},
}
_HEADER_PARAMETERS = tuple({"$ref": f"#/components/parameters/{name}"} for name in ("Tenant", "Timeout", "Traceparent"))
_VIOLATION: Schema = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("field", "description", "rule")},
}
_PROBLEM: Schema = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "detail", "code", "reason"],
    "properties": {
        "type": {"type": "string", "description": "Where the reason is described."},
        "title": {"type": "string"},
        "status": {"type": "integer", "description": "HTTP status."},
        "detail": {"type": "string", "description": "What is wrong and what to do about it."},
        "code": {"type": "string", "description": "Canonical gRPC code."},
        "reason": {"type": "string", "description": "Stable name of the error."},
        "errors": {"type": "array", "items": _VIOLATION, "description": "Fields that break a rule."},
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
        "retry_after_s": {"type": "number", "description": "When to come back."},
        "trace_id": {"type": "string"},
    },
}

_STREAM_FAILURE: Schema = {
    "type": "object",
    "description": "The last line of a stream that failed after its first message.",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {"error": {"$ref": "#/components/schemas/Problem"}},
}
_OPENAI_ERROR: Schema = {
    "type": "object",
    "description": "An error as OpenAI's clients read it.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code", "reason"],
            "properties": {
                "message": {"type": "string", "description": "What is wrong and what to do about it."},
                "type": {"type": "string", "description": "invalid_request_error, rate_limit_error, server_error, …"},
                "param": {"type": ["string", "null"], "description": "The field that is wrong."},
                "code": {"type": "string", "description": "OpenAI's code where it has one, else the reason in lower case."},
                "reason": {"type": "string", "description": "Stable name of the error, as everywhere else here."},
                "trace_id": {"type": "string"},
            },
        }
    },
}


def build_document(bound: Iterable[Binding], settings: RestSettings) -> dict[str, Any]:
    """The OpenAPI 3.1 document of all routes, with the limits of these settings."""
    schemas = Schemas()
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, str] = {}
    for binding in bound:
        service = binding.method.containing_service
        tags[service.name] = COMMENTS.get(service.full_name, "")
        paths.setdefault(documented(binding.template), {})[binding.verb.lower()] = _operation(binding, schemas)
    for group in _GROUPS:
        tags[group.tag] = group.description
        for operation in group.operations:
            paths.setdefault(documented(operation.path), {})[operation.verb.lower()] = _group_operation(group, operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "NDML", "version": ndml.__version__, "description": "Long-term memory for LLM applications."},
        "servers": [{"url": "/"}],
        "security": [{}, {"bearer": []}],
        "tags": [{"name": name, "description": text} for name, text in tags.items()],
        "paths": paths,
        "components": _components(schemas, settings),
        "x-error-reasons": list(_reasons()),
    }


def document_routes(bound: Iterable[Binding], settings: RestSettings) -> Iterator[Route]:
    """(verb, path, handler) of the documents; they are made once."""
    document = to_json(build_document(bound, settings))
    page = _PAGE.read_bytes()

    async def openapi(_request: Request) -> Response:
        return Response(document, media_type=_JSON)

    async def docs(_request: Request) -> Response:
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": _PAGE_POLICY})

    async def root(_request: Request) -> Response:
        return RedirectResponse("/docs")

    yield "GET", "/openapi.json", openapi
    yield "GET", "/docs", docs
    yield "GET", "/", root


def _components(schemas: Schemas, settings: RestSettings) -> dict[str, Any]:
    errors = {"Problem": _PROBLEM, "StreamFailure": _STREAM_FAILURE, "OpenAIError": _OPENAI_ERROR}
    deadline = {"type": "integer", "minimum": 1, "maximum": int(settings.max_timeout_s * 1000)}
    headers = _HEADERS | {"Timeout": {"name": TIMEOUT_HEADER, "description": "Deadline in milliseconds.", "schema": deadline}}
    return {
        "schemas": dict(sorted(schemas.components.items())) | errors,
        "parameters": {key: header | {"in": "header", "required": False} for key, header in headers.items()},
        "responses": {
            name: {"description": "What went wrong.", "content": {media: {"schema": {"$ref": f"#/components/schemas/{name}"}}}}
            for name, media in (("Problem", MEDIA_TYPE), ("OpenAIError", _JSON))
        },
        "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
    }


def _operation(binding: Binding, schemas: Schemas) -> dict[str, Any]:
    method = binding.method
    answer = schemas.ref(method.output_type)
    if method.server_streaming:
        answer = {"anyOf": [answer, {"$ref": "#/components/schemas/StreamFailure"}]}
    media = (NDJSON, SSE) if method.server_streaming else (_JSON,)
    description = COMMENTS.get(method.full_name, "")
    operation: dict[str, Any] = {
        "operationId": method.name,
        "tags": [method.containing_service.name],
        "summary": description.partition(". ")[0].rstrip("."),
        "description": description,
        "parameters": [*_parameters(binding, schemas), *_HEADER_PARAMETERS],
    }
    if binding.body:
        fields = method.input_type.fields_by_name
        schema = schemas.ref(method.input_type) if binding.body == "*" else schemas.field(fields[binding.body])
        operation["requestBody"] = {"required": bool(method.input_type.fields), "content": {_JSON: {"schema": schema}}}
    success = {"description": "It went well.", "content": {kind: {"schema": answer} for kind in media}}
    return operation | {"responses": {"200": success, "default": {"$ref": "#/components/responses/Problem"}}}


def _parameters(binding: Binding, schemas: Schemas) -> Iterator[dict[str, Any]]:
    leaves = dict(leaf_names(binding.method.input_type))
    for name in binding.variables:
        yield _parameter(name.rpartition(".")[2], leaves[name], "path", schemas)
    if binding.body != "*":
        taken = (*binding.variables, binding.body)
        for name, field in leaves.items():
            if not any(name == other or name.startswith(f"{other}.") for other in taken):
                yield _parameter(name, field, "query", schemas)


def _parameter(name: str, field: FieldDescriptor, place: str, schemas: Schemas) -> dict[str, Any]:
    schema = schemas.field(field)
    description = schema.pop("description", "")
    return {"name": name, "in": place, "required": place == "path", "description": description, "schema": schema}


def documented(path: str) -> str:
    """A path with the bare names of its variables, no kinds: tools cannot read a dot there, and two paths that differ only in a
    variable's name are one to OpenAPI."""
    return _PARENTS.sub("", _KIND.sub("}", path))


def _group_operation(group: Group, operation: Operation, schemas: Schemas) -> dict[str, Any]:
    doc = (getattr(group.handlers, operation.name).__doc__ or "").strip()
    name = f"{group.prefix}_{operation.name}"
    result: dict[str, Any] = {"operationId": name, "tags": [group.tag], "summary": doc.partition(". ")[0].rstrip("."), "description": doc}
    result["parameters"] = [
        *(_text_parameter(name, "path") for name in _VARIABLE.findall(documented(operation.path))),
        *(_text_parameter(name, "query") for name in operation.query),
        *_HEADER_PARAMETERS,
    ]
    if operation.body is not None:
        schema = operation.body.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.components.update(schema.pop("$defs", {}))
        schemas.components[operation.body.__name__] = schema
        reference = {"$ref": f"#/components/schemas/{operation.body.__name__}"}
        result["requestBody"] = {"required": True, "content": {_JSON: {"schema": reference}}}
    responses: dict[str, Any] = {"default": {"$ref": f"#/components/responses/{group.error}"}}
    if operation.answer is not None:
        content: dict[str, Any] = {_JSON: {"schema": {"type": "object"}, "example": operation.answer}}
        if operation.events:
            content[SSE] = {"schema": {"type": "object"}}
        responses = {"200": {"description": "It went well.", "content": content}} | responses
    return result | {"responses": responses}


def _text_parameter(name: str, place: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": {"type": "string"}}


def _reasons() -> Iterator[dict[str, Any]]:
    """Every reason that a problem may have: what /docs#REASON shows."""
    for reason, leaf in BY_REASON.items():
        text = COMMENTS.get(f"ndml.v1.ErrorReason.ERROR_REASON_{reason}", "").partition(": ")[2]
        yield {"reason": reason, "code": leaf.code.name, "status": HTTP_STATUS[leaf.code], "description": text}
    for status, (code, reason, when) in HTTP_PROBLEMS.items():
        yield {"reason": reason, "code": code.name, "status": status, "description": when + "."}
