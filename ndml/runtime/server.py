"""The gRPC door: descriptors become handlers that run the chain; and the same chain for doors that are not gRPC."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ndml.errors import NdmlError, NotAvailable, RequestMalformed
from ndml.runtime import metrics
from ndml.runtime.call import Call
from ndml.runtime.interceptors import Chain, Method, Reply
from ndml.runtime.settings import ServerSettings
from ndml.runtime.tls import TlsFiles
from ndml.wire import to_grpc_status

LIVENESS = "liveness"
READINESS = "readiness"

_PROBES_AT_ONCE = 64
"""On the health port: a kubelet has three under way; a watch each of some load balancers fits as well."""


def methods_of(descriptor: ServiceDescriptor, servicer: object, *, validated: bool = True) -> dict[str, Method]:
    """Every RPC of the service bound to its method in `servicer`. Raises TypeError where the servicer lacks one."""
    found: dict[str, Method] = {}
    for rpc in descriptor.methods:
        handler = getattr(servicer, rpc.name, None)
        if handler is None:
            raise TypeError(f"{type(servicer).__name__} lacks {rpc.name} of {descriptor.full_name}")
        path = f"/{descriptor.full_name}/{rpc.name}"
        observe = metrics.RPC_DURATION.labels(path).observe
        request, response = GetMessageClass(rpc.input_type), GetMessageClass(rpc.output_type)
        found[path] = Method(path, request, response, handler, rpc.client_streaming, rpc.server_streaming, validated, observe)
    return found


class GrpcServer:
    """grpc.aio server with health (liveness, readiness, each service) and reflection; by TLS where `tls` is given.

    `health_port` of the settings has the same health service in plain text, for probes that know no TLS.
    """

    def __init__(self, settings: ServerSettings, chain: Chain, tls: TlsFiles | None = None) -> None:
        self._settings = settings
        self._chain = chain
        self._tls = tls
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._services: list[str] = []
        self._server = grpc.aio.server(options=_options(settings))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._probes: grpc.aio.Server | None = None
        if settings.health_port:
            self._probes = grpc.aio.server(options=[("grpc.so_reuseport", 0)], maximum_concurrent_rpcs=_PROBES_AT_ONCE)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._probes)

    def add(self, descriptor: ServiceDescriptor, methods: Mapping[str, Method]) -> None:
        handlers = {path.rsplit("/", 1)[1]: _handler(self._chain, method) for path, method in methods.items()}
        reluctant = {path.rsplit("/", 1)[1]: _reluctant(self._chain, m) for path, m in methods.items() if _is_unary(m)}
        self._server.add_generic_rpc_handlers((_Handlers(descriptor.full_name, handlers, reluctant, self._chain),))
        self._services.append(descriptor.full_name)

    async def start(self) -> int:
        """Listen; alive but not ready. Returns the port. Raises OSError with the address where it is taken, FieldInvalid from TLS files."""
        reflection.enable_server_reflection([*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        credentials = None if self._tls is None else self._tls.server_credentials()
        port = _listen(self._server, self._settings.host, self._settings.port, credentials)
        if self._probes is not None:
            _listen(self._probes, self._settings.host, self._settings.health_port, None)
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self.set_ready(False)
        await self._server.start()
        if self._probes is not None:
            await self._probes.start()
        return port

    async def set_ready(self, ready: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", READINESS, *self._services):
            await self._health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let those under way finish for `grace_s` seconds, then cancel them."""
        await self._server.stop(grace_s)
        if self._probes is not None:
            await self._probes.stop(0)


def _listen(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
    address = f"{host}:{port}"
    try:
        return server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: is another process there? ({error})") from None


class Dispatcher:
    """Calls the service's methods through the chain without gRPC: what the REST door stands on."""

    def __init__(self, chain: Chain, methods: Mapping[str, Method]) -> None:
        self._chain = chain
        self._methods = methods

    async def unary(self, method: str, request: Message, metadata: Mapping[str, str], timeout_s: float | None = None) -> Message:
        """Raises NdmlError."""
        found = self._find(method)
        reply = await self._chain.unary(found, request, _call(method, metadata, timeout_s))
        return reply if isinstance(reply, Message) else self._reply_class(method).FromString(reply)

    async def stream(
        self, method: str, request: Message, metadata: Mapping[str, str], timeout_s: float | None = None
    ) -> AsyncIterator[Message]:
        """Raises NdmlError."""
        async for reply in self._chain.stream(self._find(method), request, _call(method, metadata, timeout_s)):
            yield reply if isinstance(reply, Message) else self._reply_class(method).FromString(reply)

    def _find(self, method: str) -> Method:
        if method not in self._methods:
            raise NotAvailable(f"no method {method}")
        return self._methods[method]

    def _reply_class(self, method: str) -> type[Message]:
        return self._methods[method].response


def _call(method: str, metadata: Mapping[str, str], timeout_s: float | None) -> Call:
    return Call(method, metadata, None if timeout_s is None else time.monotonic() + timeout_s)


def _options(settings: ServerSettings) -> list[tuple[str, int]]:
    streams = [
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.http.overload_protection", 0),  # it resets streams that are within the bound, and callers without retries see UNAVAILABLE
    ]
    return [
        *(streams if settings.max_concurrent_streams else []),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.so_reuseport", 0),  # a second process on the port must fail loudly, not share it by accident
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
    ]


def _serialize(reply: Reply) -> bytes:
    return reply if isinstance(reply, bytes) else reply.SerializeToString()


def _call_of(method: Method, context: grpc.aio.ServicerContext[Any, Any]) -> Call:
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    remaining = context.time_remaining()
    return Call(method.path, metadata, None if remaining is None else time.monotonic() + remaining)


class _Handlers(grpc.GenericRpcHandler[Any, Any] if TYPE_CHECKING else grpc.GenericRpcHandler):  # type: ignore[misc]
    """The methods of a service; of one that is crowded the handlers that refuse before they have read the request."""

    def __init__(
        self,
        service: str,
        handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]],
        reluctant: Mapping[str, grpc.RpcMethodHandler[Any, Any]],
        chain: Chain,
    ) -> None:
        self._handlers = {f"/{service}/{name}": handler for name, handler in handlers.items()}
        self._reluctant = {f"/{service}/{name}": handler for name, handler in reluctant.items()}
        self._chain = chain

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        path = str(handler_call_details.method)
        handler: grpc.RpcMethodHandler[Any, Any] | None = self._handlers.get(path)
        # What callers name and we lack is not counted: the table of methods must not grow by their words.
        if handler is None or not self._chain.is_crowded(path):
            return handler
        return self._reluctant.get(path) or handler


def _is_unary(method: Method) -> bool:
    return not (method.client_streaming or method.server_streaming)


def _reluctant(chain: Chain, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
    """A unary method whose request is read when there is time for it: to the caller it is the same call, and a refusal costs half."""
    serve = _unary(chain, method)

    async def handle(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> Reply:
        refusal = await chain.turn_away(method.path, context.time_remaining())
        if refusal is not None:
            await _abort(context, refusal)
        async for request in requests:
            reply: Reply = await serve(request, context)
            return reply
        raise RequestMalformed(f"{method.path} takes one request; none came")

    make: Callable[..., Any] = grpc.stream_unary_rpc_method_handler
    return make(handle, response_serializer=_serialize)  # type: ignore[no-any-return]


def _handler(chain: Chain, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
    """Requests stay bytes until the chain parses them: a broken one is then a clear error and not a stack trace inside grpc."""
    if method.server_streaming:
        make: Callable[..., Any] = (
            grpc.stream_stream_rpc_method_handler if method.client_streaming else grpc.unary_stream_rpc_method_handler
        )
        return make(_streaming(chain, method), response_serializer=_serialize)  # type: ignore[no-any-return]
    make = grpc.stream_unary_rpc_method_handler if method.client_streaming else grpc.unary_unary_rpc_method_handler
    return make(_unary(chain, method), response_serializer=_serialize)


def _unary(chain: Chain, method: Method) -> Callable[..., Any]:
    async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Reply:
        try:
            return await chain.unary(method, request, _call_of(method, context))
        except NdmlError as error:
            await _abort(context, error)
            raise

    return handle


def _streaming(chain: Chain, method: Method) -> Callable[..., Any]:
    async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Reply]:
        try:
            async for reply in chain.stream(method, request, _call_of(method, context)):
                yield reply
        except NdmlError as error:
            await _abort(context, error)

    return handle


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: NdmlError) -> None:
    await context.abort_with_status(to_grpc_status(error))  # type: ignore[attr-defined]
