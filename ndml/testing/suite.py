"""The whole of NDML as processes on loopback: for tests, demonstrations and a laptop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from types import TracebackType

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ndml.client._channel import credentials
from ndml.errors import FieldInvalid
from ndml.testing.layout import Layout, Role, SuiteOptions, plan
from ndml.testing.process import ManagedProcess
from ndml.v1 import admin_pb2, admin_pb2_grpc

_POLL_S = 0.05
_CALL_S = 2.0
# Edges first, so that nothing calls into a process that is gone; consensus last, so that placement is known to the end.
_STOP_ORDER: tuple[tuple[Role, ...], ...] = (("gateway",), ("memory-node", "llm"), ("consensus",))


class SuiteError(RuntimeError):
    """A process died or did not get ready in time; the message has the end of its log."""


class Suite:
    """Gateways, memory nodes, consensus nodes and the llm service, each a process of its own.

        with Suite(SuiteOptions(data_dir=Path("data"))) as suite:
            client = NdmlClient(suite.grpc_address)

    Data lies under `data_dir` and survives stop(), start() and restart(); ports stay the same as long as the object lives. Logs are
    `data_dir/logs/<process>.log`. `async with` works too. Ctrl-C in the terminal reaches this process alone: leaving the block drains
    the children. Should this process die by SIGKILL, they notice and end by themselves.
    """

    def __init__(self, options: SuiteOptions | None = None) -> None:
        self.options = options or SuiteOptions()
        self.layout: Layout = plan(self.options)
        self._processes = {
            spec.name: ManagedProcess(spec.name, spec.module, spec.environment, self.layout.logs / f"{spec.name}.log", spec.command)
            for spec in self.layout.processes
        }

    @property
    def grpc_address(self) -> str:
        """host:port of the first gateway."""
        return self.grpc_addresses[0]

    @property
    def grpc_addresses(self) -> list[str]:
        """host:port of every gateway."""
        return [spec.address for spec in self.layout.of_role("gateway")]

    @property
    def rest_url(self) -> str:
        """URL of the first gateway's REST door, without a slash at the end."""
        return self.rest_urls[0]

    @property
    def rest_urls(self) -> list[str]:
        """URL of every gateway's REST door."""
        scheme = "http" if self.options.tls is None else "https"
        return [f"{scheme}://{spec.host}:{spec.rest_port}" for spec in self.layout.of_role("gateway")]

    @property
    def names(self) -> list[str]:
        """Names of the processes, for kill(), restart() and the rest."""
        return list(self._processes)

    def process(self, name: str) -> ManagedProcess:
        """One process by its name. Raises FieldInvalid for a name that there is not."""
        if name not in self._processes:
            raise FieldInvalid(f"no process {name!r}; there are {', '.join(self._processes)}", field="name")
        return self._processes[name]

    def start(self, on_ready: Callable[[str], None] = lambda name: None) -> Suite:
        """Start what does not run and wait until the suite serves; `on_ready` gets the name of each process as it is ready.

        Raises SuiteError, after stopping what had started.
        """
        try:
            for process in self._processes.values():
                if not process.running:
                    process.start()
            for name in self._processes:
                self.wait_ready(name)
                on_ready(name)
            self.wait_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> dict[str, int | None]:
        """Drain and end everything, gateways first; SIGKILL after `stop_timeout_s`. Gives the exit codes (0: drained)."""
        try:
            for roles in _STOP_ORDER:
                self._end([spec.name for role in roles for spec in self.layout.of_role(role)])
        finally:
            # Reached with something alive only when a second Ctrl-C cut the drain short.
            for process in self._processes.values():
                process.kill()
                process.wait(self.options.stop_timeout_s)
        return {name: process.returncode for name, process in self._processes.items()}

    def kill(self, name: str) -> None:
        """SIGKILL one process and wait until it is gone."""
        process = self.process(name)
        process.kill()
        process.wait(self.options.stop_timeout_s)

    def terminate(self, name: str) -> None:
        """SIGTERM one process and return at once; it drains."""
        self.process(name).terminate()

    def restart(self, name: str) -> None:
        """Drain one process if it runs, start it and wait until it is ready."""
        process = self.process(name)
        self._end([name])
        process.start()
        self.wait_ready(name)

    def wait_ready(self, name: str) -> None:
        """Wait until the process answers SERVING to the standard health check. Raises SuiteError."""
        process = self.process(name)
        deadline = time.monotonic() + self.options.ready_timeout_s
        with self._channel(self.layout.by_name(name).address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while not _serving(health):
                self._raise_if_ended(process)
                if time.monotonic() > deadline:
                    raise SuiteError(
                        f"{name} was not ready after {self.options.ready_timeout_s} s; {process.log_path}:\n{process.log_tail()}"
                    )
                time.sleep(_POLL_S)

    def wait_healthy(self) -> None:
        """Wait until every running gateway sees every owner alive: readiness says nothing of a process's peers. Raises SuiteError."""
        deadline = time.monotonic() + self.options.ready_timeout_s
        for spec in self.layout.of_role("gateway"):
            process = self.process(spec.name)
            with self._channel(spec.address) as channel:
                admin = admin_pb2_grpc.AdminServiceStub(channel)
                while process.running and (problem := self._unhealthy(admin)):
                    if time.monotonic() > deadline:
                        raise SuiteError(f"{spec.name} does not see a healthy cluster after {self.options.ready_timeout_s} s: {problem}")
                    time.sleep(_POLL_S)
            self._raise_if_ended(process)

    def _channel(self, address: str) -> grpc.Channel:
        tls = self.options.tls
        if tls is None:
            return grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
        options = [*_CHANNEL_OPTIONS, *([("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else [])]
        return grpc.secure_channel(address, credentials(tls), options=options)

    def _unhealthy(self, admin: admin_pb2_grpc.AdminServiceStub) -> str:
        """What the gateway's view lacks; empty when all is well."""
        expected = sum(1 for spec in self.layout.processes if self.process(spec.name).running)
        try:
            status = admin.GetClusterStatus(admin_pb2.GetClusterStatusRequest(), timeout=_CALL_S)
        except grpc.RpcError as error:
            return str(error)
        started = [service for service in status.services if self.options.llm or service.service != "ndml-llm"]
        silent = [f"{service.instance or service.address}: {service.error}" for service in started if not service.reachable]
        if silent or not status.healthy:
            return "; ".join(silent) or "an owner is not alive"
        others = len(self.layout.of_role("gateway")) - 1
        found = len(started) + others
        return "" if found >= expected else f"{found} processes of {expected} known"

    def _raise_if_ended(self, process: ManagedProcess) -> None:
        if not process.running:
            raise SuiteError(f"{process.name} ended with exit code {process.returncode}; {process.log_path}:\n{process.log_tail()}")

    def _end(self, names: Iterable[str]) -> None:
        chosen = [self._processes[name] for name in names]
        for process in chosen:
            process.terminate()
        deadline = time.monotonic() + self.options.stop_timeout_s
        for process in chosen:
            if process.wait(max(0.0, deadline - time.monotonic())) is None:
                process.kill()
                process.wait(self.options.stop_timeout_s)

    def __enter__(self) -> Suite:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    async def __aenter__(self) -> Suite:
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.to_thread(self.stop)


# A process that starts up refuses connections first: reconnect at once instead of backing off for a second and more.
_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
)


def _serving(health: health_pb2_grpc.HealthStub) -> bool:
    try:
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=_CALL_S)
    except grpc.RpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
