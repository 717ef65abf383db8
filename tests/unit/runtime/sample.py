"""A small service on the real runtime: what a call does is written in its request. Run as a program it is a process to be signalled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from pydantic import Field, SecretStr

from ndml import errors
from ndml.internal.v1 import llm_pb2, llm_pb2_grpc
from ndml.runtime import semconv
from ndml.runtime.auth import AnonymousAuthenticator
from ndml.runtime.call import Call
from ndml.runtime.channel import open_channel
from ndml.runtime.service import Service, run_service
from ndml.runtime.settings import Section, ServiceSettings, settings_config
from ndml.runtime.telemetry import span
from ndml.v1 import admin_pb2, memory_pb2

DESCRIPTOR = llm_pb2.DESCRIPTOR.services_by_name["LlmService"]
ADMIN = admin_pb2.DESCRIPTOR.services_by_name["AdminService"]
MEMORY = memory_pb2.DESCRIPTOR.services_by_name["MemoryService"]
SECRET = "swordfish"  # what must never reach a caller


class SampleServicer:
    """LlmService whose calls do as their text says: `ok`, `sleep 1`, `raise TraceNotFound`, `fault`, `down 2`, `relay`, `wait`."""

    def __init__(self, address: str = "") -> None:
        self.address = address
        self.calls: list[Call] = []
        self.attempts = 0
        self.began = asyncio.Event()
        self.released = asyncio.Event()
        self.ended: list[str] = []

    async def Embed(self, request: llm_pb2.EmbedRequest, call: Call) -> llm_pb2.EmbedResponse:
        await self._do(request.texts[0], call)
        return llm_pb2.EmbedResponse(model=request.texts[0])

    async def EmbedJoint(self, request: llm_pb2.EmbedJointRequest, call: Call) -> llm_pb2.EmbedJointResponse:
        await self._do(request.texts[0], call)
        return llm_pb2.EmbedJointResponse()

    async def Generate(self, request: llm_pb2.GenerateRequest, call: Call) -> AsyncIterator[llm_pb2.GenerateResponse]:
        for message in request.messages:
            await self._do(message.content, call)
            yield llm_pb2.GenerateResponse(delta=message.content)

    async def GetModelInfo(self, request: llm_pb2.GetModelInfoRequest, call: Call) -> llm_pb2.GetModelInfoResponse:
        self.calls.append(call)
        return llm_pb2.GetModelInfoResponse(embedding_model="sample", dimension=3)

    async def Score(self, request: llm_pb2.ScoreRequest, call: Call) -> llm_pb2.ScoreResponse:
        await self._do(request.texts[0], call)
        return llm_pb2.ScoreResponse()

    async def _do(self, text: str, call: Call) -> None:
        self.calls.append(call)
        self.attempts += 1
        self.began.set()
        word, _, argument = text.partition(" ")
        try:
            await getattr(self, f"_{word}")(argument)
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        self.ended.append("")

    async def _ok(self, _: str) -> None:
        pass

    async def _sleep(self, seconds: str) -> None:
        await asyncio.sleep(float(seconds))

    async def _wait(self, _: str) -> None:
        await self.released.wait()

    async def _raise(self, name: str) -> None:
        raise getattr(errors, name)(f"{name} it is", field="texts[0]", metadata={"seen": "yes"})

    async def _fault(self, _: str) -> None:
        raise RuntimeError(SECRET)

    async def _down(self, attempts: str) -> None:
        if self.attempts <= int(attempts):
            raise errors.ModelUnavailable("not yet")

    async def _relay(self, _: str) -> None:
        with span(semconv.SPAN_EMBED, {semconv.BATCH_SIZE: 1}):
            async with open_channel(self.address) as channel:
                stub: llm_pb2_grpc.LlmServiceAsyncStub = llm_pb2_grpc.LlmServiceStub(channel)
                await stub.GetModelInfo(llm_pb2.GetModelInfoRequest())

    async def _relayraise(self, name: str) -> None:
        async with open_channel(self.address) as channel:
            stub: llm_pb2_grpc.LlmServiceAsyncStub = llm_pb2_grpc.LlmServiceStub(channel)
            await stub.Embed(llm_pb2.EmbedRequest(texts=[f"raise {name}"]))


class AdminSample:
    """AdminService that says for which tenant it was called."""

    async def GetClusterStatus(self, _: admin_pb2.GetClusterStatusRequest, call: Call) -> admin_pb2.GetClusterStatusResponse:
        return admin_pb2.GetClusterStatusResponse(services=[admin_pb2.ServiceStatus(instance=call.principal, address=call.tenant)])

    async def GetPlacement(self, _: admin_pb2.GetPlacementRequest, call: Call) -> admin_pb2.GetPlacementResponse:
        return admin_pb2.GetPlacementResponse()

    async def CreateSnapshot(self, _: admin_pb2.CreateSnapshotRequest, call: Call) -> admin_pb2.CreateSnapshotResponse:
        return admin_pb2.CreateSnapshotResponse()

    async def DrainNode(self, request: admin_pb2.DrainNodeRequest, call: Call) -> AsyncIterator[admin_pb2.DrainNodeResponse]:
        for left in (2, 1, 0):
            yield admin_pb2.DrainNodeResponse(owners_left=left, owners_total=2)

    async def Backup(self, _: admin_pb2.BackupRequest, call: Call) -> AsyncIterator[admin_pb2.BackupResponse]:
        yield admin_pb2.BackupResponse(owners_done=1, owners_total=1)

    async def Restore(self, requests: AsyncIterator[admin_pb2.RestoreRequest], call: Call) -> admin_pb2.RestoreResponse:
        return admin_pb2.RestoreResponse(records=sum([len(request.part.records) async for request in requests]))


class MarkerSettings(Section):
    """Files by which the test sees the process."""

    directory: Path = Field(Path(), description="Where `started` and `stopped` are written.")
    fail: bool = Field(False, description="The second component's start fails.")
    token: SecretStr = Field(SecretStr(""), description="A secret.")


class SampleSettings(ServiceSettings):
    """The sample service."""

    model_config = settings_config("NDML_SAMPLE__")
    marker: MarkerSettings = Field(default_factory=MarkerSettings, description="Markers.")


class Marker:
    """A component that writes what happens to it."""

    def __init__(self, directory: Path, name: str, fail: bool = False) -> None:
        self._path = directory / "events"
        self._name = name
        self._fail = fail

    async def start(self) -> None:
        self._write("start")
        if self._fail:
            raise OSError(f"{self._name} cannot start")

    async def stop(self) -> None:
        self._write("stop")

    def _write(self, event: str) -> None:
        with self._path.open("a") as file:
            file.write(f"{event} {self._name}\n")


def build(settings: SampleSettings, service: Service) -> None:
    service.authenticate_with(AnonymousAuthenticator())
    service.attach(Marker(settings.marker.directory, "first"))
    service.attach(Marker(settings.marker.directory, "second", settings.marker.fail))
    service.expose(DESCRIPTOR, SampleServicer(service.address))


if __name__ == "__main__":
    run_service("ndml-sample", SampleSettings, build)
