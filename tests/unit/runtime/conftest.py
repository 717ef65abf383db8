"""Real services of the runtime: in this event loop, or as a process."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest

from ndml.internal.v1 import llm_pb2, llm_pb2_grpc
from ndml.runtime.auth import Authenticator
from ndml.runtime.service import Service
from ndml.runtime.settings import ServerSettings, ServiceSettings
from ndml.testing import free_ports

SAMPLE_FILE = Path(__file__).with_name("sample.py")


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("runtime_sample", SAMPLE_FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # pydantic looks annotations up in sys.modules.
    sys.modules["runtime_sample"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def sample() -> ModuleType:
    """The module sample.py."""
    return sys.modules.get("runtime_sample") or _load()


@dataclass
class Running:
    """A service under way in this event loop."""

    service: Service
    servicer: Any
    address: str
    stop: asyncio.Event
    task: asyncio.Task[None]
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    def channel(self) -> grpc.aio.Channel:
        """A plain channel: no retry, no interceptor."""
        opened = grpc.aio.insecure_channel(self.address, options=[("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)])
        self.channels.append(opened)
        return opened

    def stub(self) -> llm_pb2_grpc.LlmServiceAsyncStub:
        made: llm_pb2_grpc.LlmServiceAsyncStub = llm_pb2_grpc.LlmServiceStub(self.channel())
        return made

    async def embed(self, text: str, **options: Any) -> llm_pb2.EmbedResponse:
        response: llm_pb2.EmbedResponse = await self.stub().Embed(llm_pb2.EmbedRequest(texts=[text]), **options)
        return response

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close(None)
        self.stop.set()
        await asyncio.wait({self.task})


class Starter:
    """Starts services; the fixture stops them."""

    def __init__(self, sample: ModuleType) -> None:
        self._sample = sample
        self.running: list[Running] = []

    async def __call__(
        self,
        *components: Any,
        authenticator: Authenticator | None = None,
        more: Callable[[Service], None] | None = None,
        ready: bool = True,
        port: int = 0,
        **server: Any,
    ) -> Running:
        """A service with the sample servicer; `server`: fields of ServerSettings; `more` exposes further servicers."""
        port = port or free_ports(1)[0]
        server = {"drain_s": 0.0, "grace_s": 5.0, "metrics_port": -1, "port": port, **server}
        service = Service("ndml-sample", ServiceSettings(server=ServerSettings(**server)))
        if authenticator is not None:
            service.authenticate_with(authenticator)
        for component in components:
            service.attach(component)
        servicer = self._sample.SampleServicer(service.address)
        service.expose(self._sample.DESCRIPTOR, servicer)
        if more is not None:
            more(service)
        stop = asyncio.Event()
        running = Running(service, servicer, service.address, stop, asyncio.create_task(service.run(stop)))
        self.running.append(running)
        while ready and not service.serving and not running.task.done():
            await asyncio.sleep(0.002)
        return running


@pytest.fixture
async def serve(sample: ModuleType) -> AsyncIterator[Starter]:
    starter = Starter(sample)
    yield starter
    for running in starter.running:
        running.servicer.released.set()
        await running.close()


@pytest.fixture
async def running(serve: Starter) -> Running:
    """A ready service without authentication."""
    return await serve()


@pytest.fixture
def no_grpc_trace(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Fails the test when grpc itself logged an error: an exception that escaped our handlers."""
    yield caplog
    assert not [record.getMessage() for record in caplog.records if record.name.startswith("grpc") and record.levelname == "ERROR"]


class Process:
    """The sample service as a process of its own."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        self.directory = directory
        port = free_ports(1)[0]
        self.log = directory / "log.jsonl"
        own = {
            "SERVER__PORT": str(port),
            "SERVER__METRICS_PORT": "-1",
            "SERVER__DRAIN_S": "0.2",
            "MARKER__DIRECTORY": str(directory),
            "LOGGING__FILE": str(self.log),
            **settings,
        }
        environment = {**os.environ, **{f"NDML_SAMPLE__{key}": value for key, value in own.items()}}
        # A file and no pipe: a pipe that nobody reads fills up and stops the process.
        self._errors = directory / "stderr"
        with self._errors.open("w") as errors:
            self.process = subprocess.Popen([sys.executable, str(SAMPLE_FILE)], env=environment, stderr=errors)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_retries", 0)])
        self.stub = llm_pb2_grpc.LlmServiceStub(self.channel)

    def events(self) -> list[str]:
        return (self.directory / "events").read_text().splitlines()

    def wait(self) -> tuple[int, str]:
        """Exit code and stderr, once it has ended."""
        code = self.process.wait(timeout=60)
        return code, self._errors.read_text()

    def end(self) -> tuple[int, str]:
        """SIGTERM, then exit code and stderr."""
        self.process.terminate()
        return self.wait()

    def close(self) -> None:
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=60)


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts the sample service as a process: `spawn(LOGGING__LEVEL="debug")`."""
    started: list[Process] = []

    def make(**settings: str) -> Process:
        started.append(Process(tmp_path, settings))
        return started[-1]

    yield make
    for process in started:
        process.close()
