"""One lifecycle for all services.

    start    listen (alive, not ready) -> start components in order -> ready
    SIGTERM  not ready, serve on for drain_s -> refuse new calls, let those under way finish -> stop components in reverse -> flush spans

Readiness means "can serve what it owns"; it never depends on a peer.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from google.protobuf.descriptor import ServiceDescriptor

import ndml
from ndml.errors import NdmlError
from ndml.runtime import metrics
from ndml.runtime.admission import Limits
from ndml.runtime.auth import Authenticator
from ndml.runtime.channel import Dialer
from ndml.runtime.discovery import zone_of_node
from ndml.runtime.interceptors import Chain, ChainOptions, Method
from ndml.runtime.log import configure_logging, get_logger
from ndml.runtime.metrics import serve_metrics
from ndml.runtime.server import Dispatcher, GrpcServer, methods_of
from ndml.runtime.settings import ServiceSettings, parse_command_line
from ndml.runtime.telemetry import configure_telemetry
from ndml.runtime.tls import TlsFiles
from ndml.runtime.validation import ProtoValidator

log = get_logger(__name__)

DEFAULT_PORTS = {"ndml-gateway": 7700, "ndml-memory-node": 7710, "ndml-consensus": 7720, "ndml-llm": 7730}
_METRICS_OFFSET = 1000


class Component(Protocol):
    """A part with a life of its own: a store, a pool of links, a second server."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


C = TypeVar("C", bound=Component)
S = TypeVar("S", bound=ServiceSettings)


class Service:
    """What `build` in a service's main.py fills: components, and the gRPC services it exposes."""

    def __init__(self, name: str, settings: ServiceSettings) -> None:
        server = settings.server
        if server.port == 0:
            server = server.model_copy(update={"port": DEFAULT_PORTS.get(name, 0)})
        self.name = name
        self.version = ndml.__version__
        self.instance = server.instance or f"{name}-{server.port}"
        self.address = server.advertise or f"{server.host}:{server.port}"
        self.started_at = time.time()
        self._settings = settings
        self._server_settings = server
        self._components: list[Component] = []
        self._exposed: dict[ServiceDescriptor, dict[str, Method]] = {}
        self._authenticator: Authenticator | None = None
        self._serving = self._ready = False
        self._on_drain: list[Callable[[], None]] = []
        self._chain: Chain | None = None
        self.tls = None if settings.tls.cert_file is None else self.attach(TlsFiles(settings.tls))
        self.dialer = Dialer(self.tls)

    def attach(self, component: C) -> C:
        """Start `component` after those attached before it, stop it before them."""
        self._components.append(component)
        return component

    def expose(self, descriptor: ServiceDescriptor, servicer: object, *, validated: bool = True) -> None:
        """Serve every RPC of `descriptor` by the method of that name in `servicer`. Raises TypeError where one is missing.

        validated: check requests against the rules in their protos; False where the caller is the gateway, which has done it.
        """
        self._exposed[descriptor] = methods_of(descriptor, servicer, validated=validated)

    def authenticate_with(self, authenticator: Authenticator) -> None:
        """Make this service an edge: calls are authenticated and start traces."""
        self._authenticator = authenticator

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Call `callback` when new calls are refused: the moment to end streams that callers hold open for as long as they live."""
        self._on_drain.append(callback)

    @property
    def serving(self) -> bool:
        """Ready: between the start of its components and the end of the drain."""
        return self._serving

    def dispatcher(self) -> Dispatcher:
        """The exposed methods for a door that is not gRPC."""
        return Dispatcher(self.chain, {path: method for methods in self._exposed.values() for path, method in methods.items()})

    @property
    def chain(self) -> Chain:
        """Made on first use: after `authenticate_with`."""
        if self._chain is None:
            server, edge = self._server_settings, self._authenticator is not None
            slow_s = self._settings.logging.slow_call_ms / 1000
            limits = Limits(
                server.max_in_flight, server.max_in_flight_bytes, server.least_in_flight, server.wait_share, server.refusals_per_s
            )
            options = ChainOptions(self._authenticator, edge, limits, server.default_deadline_s, slow_s)
            self._chain = Chain(options, ProtoValidator(), lambda: self.serving)
        return self._chain

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Raises what a component's start raises, after stopping those that had started."""
        telemetry = configure_telemetry(self._settings.telemetry, self.name, self.instance)
        metrics.BUILD_INFO.labels(self.name, self.version).set(1)
        metrics.READY.set_function(lambda: self._ready)
        server = GrpcServer(self._server_settings, self.chain, self.tls)
        for descriptor, methods in self._exposed.items():
            server.add(descriptor, methods)
        started: list[Component] = []
        metrics_server = None
        try:
            port = await server.start()
            metrics_server = self._serve_metrics(port)
            if await self._start_components(started, stop):
                _spare_the_collector()
                self._serving = True
                await server.set_ready(True)
                self._ready = True
                log.info("ready", address=self.address, version=self.version)
                await stop.wait()
                await self._drain(server)
        finally:
            self._serving = self._ready = False
            for component in reversed(started):
                await _stop(component)
            await server.stop(0)
            if metrics_server is not None:
                metrics_server.shutdown()
            if telemetry is not None:
                await asyncio.to_thread(telemetry.shutdown)
            log.info("stopped")

    async def _start_components(self, started: list[Component], stop: asyncio.Event) -> bool:
        """Start in order, noting each in `started`; False when `stop` came first. A model may load for minutes: SIGTERM need not wait."""
        stopping = asyncio.create_task(stop.wait())
        try:
            for component in self._components:
                starting = asyncio.ensure_future(component.start())
                await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not starting.done():
                    starting.cancel()
                    await asyncio.wait({starting})
                    return False
                starting.result()
                started.append(component)
            return not stop.is_set()
        finally:
            stopping.cancel()

    async def _drain(self, server: GrpcServer) -> None:
        log.info("draining", in_flight=self.chain.in_flight)
        self._ready = False
        await server.set_ready(False)
        await asyncio.sleep(self._server_settings.drain_s)
        for callback in self._on_drain:
            callback()
        await server.stop(self._server_settings.grace_s)

    def _serve_metrics(self, port: int) -> _Stoppable | None:
        wanted = self._server_settings.metrics_port
        if wanted < 0:
            return None
        host, chosen = self._server_settings.host, wanted or port + _METRICS_OFFSET
        try:
            return serve_metrics(host, chosen)
        except OSError as error:
            raise OSError(f"cannot serve metrics on {host}:{chosen}: {error.strerror}; set server.metrics_port, -1 for none") from None


async def _stop(component: Component) -> None:
    # Those below it still have to close their files and flush.
    try:
        await component.stop()
    except Exception:
        log.exception("stop_fault", component=type(component).__name__)


def _spare_the_collector() -> None:
    """What start-up made lives as long as the process: keep it out of collections, and collect less often than after 700 objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


class _Stoppable(Protocol):
    def shutdown(self) -> None: ...


def run_service(name: str, settings_class: type[S], build: Callable[[S, Service], None]) -> None:
    """The whole of a service's `__main__`: settings, logs, the object graph, and life until SIGTERM or SIGINT."""
    settings = parse_command_line(name, settings_class, sys.argv[1:])
    service = Service(name, settings)
    configure_logging(settings.logging, name, service.instance)
    try:
        asyncio.run(_run(service, settings, build))
    except (OSError, NdmlError) as error:
        log.error("cannot_start", error=str(error))
        raise SystemExit(1) from None


async def _run(service: Service, settings: S, build: Callable[[S, Service], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows has no loop signal handlers
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    if settings.kubernetes.zone_from_node and not settings.server.zone:
        settings.server.zone = await asyncio.to_thread(zone_of_node, settings.kubernetes)
    build(settings, service)
    await service.run(stop)
