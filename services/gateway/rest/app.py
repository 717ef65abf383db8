"""The Starlette application: routes from the annotated protos, the seed's routes, the documents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ndml.errors import InternalFault, NdmlError
from ndml.runtime.log import get_logger
from ndml.v1 import admin_pb2, chat_pb2, memory_pb2, model_pb2
from services.gateway.rest.codec import to_json, to_tree
from services.gateway.rest.openai import OpenAIRoutes
from services.gateway.rest.openai_errors import REFUSALS as OPENAI_REFUSALS
from services.gateway.rest.openapi import document_routes
from services.gateway.rest.ports import Dispatcher, Health
from services.gateway.rest.problems import PROBLEMS, Refusals, http_problem_response
from services.gateway.rest.requests import Bodies, converted, metadata_of, timeout_of
from services.gateway.rest.seed import SeedRoutes
from services.gateway.rest.settings import RestSettings
from services.gateway.rest.streaming import Lines, StreamAnswer
from services.gateway.rest.transcoder import Binding, bindings, request_of

PUBLIC_SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    module.DESCRIPTOR.services_by_name[name]
    for module, name in (
        (memory_pb2, "MemoryService"),
        (chat_pb2, "ChatService"),
        (model_pb2, "ModelService"),
        (admin_pb2, "AdminService"),
    )
)

Handler = Callable[[Request], Awaitable[Response]]

_log = get_logger(__name__)


def build_app(dispatcher: Dispatcher, settings: RestSettings, health: Health) -> Starlette:
    """The REST door. Raises ValueError when an annotation of the protos cannot be served."""
    bound = bindings(PUBLIC_SERVICES)
    bodies = Bodies(settings)
    seed, openai = SeedRoutes(dispatcher, settings, health, bodies), OpenAIRoutes(dispatcher, settings, bodies)
    paths: dict[str, dict[str, Handler]] = defaultdict(dict)
    for binding in bound:
        paths[binding.route][binding.verb] = Transcoded(binding, dispatcher, settings, bodies)
    for verb, path, handler in (*seed.routes(), *openai.routes(), *document_routes(bound, settings)):
        paths[path][verb] = handler
    refusals = {path: OPENAI_REFUSALS for _, path, _ in openai.routes()}
    # A path without variables goes before one whose variable would match it too, and {trace_id}:resolve before {trace_id}.
    ordered = sorted(paths.items(), key=lambda item: (item[0].count("{"), -len(item[0])))
    routes = [Route(path, Resource(handlers, refusals.get(path, PROBLEMS))) for path, handlers in ordered]
    app = Starlette(routes=routes, exception_handlers={404: _route_unknown})
    app.router.redirect_slashes = False
    return app


class Resource:
    """What stands at one path: a handler for each verb. The only place where errors become responses."""

    def __init__(self, handlers: Mapping[str, Handler], refusals: Refusals) -> None:
        self._handlers = handlers
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive, send))
        response.headers["X-Content-Type-Options"] = "nosniff"
        try:
            await response(scope, receive, send)
        except ClientDisconnect:
            _log.debug("rest_client_gone", path=scope["path"])

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._handler(request)(request)
        except NdmlError as error:
            return self._refusals.domain(error, request.headers.get("traceparent", ""))
        except HTTPException as error:
            return self._refusals.http(error)
        except ClientDisconnect:
            _log.debug("rest_client_gone", path=request.url.path)
            return Response(status_code=499)
        except Exception as error:
            _log.error("rest_fault", path=request.url.path, exc_info=error)
            fault = InternalFault("a fault of ours; the log line with the same trace id has the stack")
            return self._refusals.domain(fault, request.headers.get("traceparent", ""))

    def _handler(self, request: Request) -> Handler:
        handler = self._handlers.get(request.method)
        if handler is None:
            allowed = ", ".join(sorted(self._handlers))
            raise HTTPException(405, f"{request.url.path} takes {allowed}, not {request.method}", {"Allow": allowed})
        return handler


class Transcoded:
    """Handler of one annotated method."""

    def __init__(self, binding: Binding, dispatcher: Dispatcher, settings: RestSettings, bodies: Bodies) -> None:
        self._binding = binding
        self._dispatcher = dispatcher
        self._settings = settings
        self._bodies = bodies

    async def __call__(self, request: Request) -> Response:
        timeout_s = timeout_of(request, self._settings.max_timeout_s)
        metadata = metadata_of(request)
        message = await self._message(request)
        if self._binding.method.server_streaming:
            messages = self._dispatcher.stream(self._binding.rpc, message, metadata, timeout_s)
            accept, traceparent = request.headers.get("accept", ""), metadata.get("traceparent", "")
            return StreamAnswer(messages, timeout_s, Lines(accept, traceparent), self._settings.thread_above_bytes)
        answer = await self._dispatcher.unary(self._binding.rpc, message, metadata, timeout_s)
        encoded = await converted(answer.ByteSize(), self._settings.thread_above_bytes, _encode, answer)
        return Response(encoded, media_type="application/json")

    async def _message(self, request: Request) -> Message:
        limit = self._settings.max_query_fields
        async with self._bodies.read(request) as body:
            arguments = (self._binding, request.path_params, request.scope["query_string"], body, limit)
            return await converted(len(body), self._settings.thread_above_bytes, request_of, *arguments)


def _encode(message: Message) -> bytes:
    return to_json(to_tree(message))


async def _route_unknown(request: Request, _error: Exception) -> Response:
    return http_problem_response(HTTPException(404, f"no route {request.url.path}; /docs lists the routes"))
