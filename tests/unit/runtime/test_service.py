"""The lifecycle: health, order of components, drain, failure at start; in this loop and as a signalled process."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import urllib.request
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ndml.errors import Draining
from ndml.internal.v1 import llm_pb2
from ndml.testing import free_ports
from ndml.wire import rpc_error_to_ndml

SERVICE = "ndml.internal.v1.LlmService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Gate:
    """A component that starts or stops when it is let."""

    def __init__(self, name: str, events: list[str], *, hold_start: bool = False, fail: str = "") -> None:
        self.go = asyncio.Event()
        if not hold_start:
            self.go.set()
        self._name, self._events, self._fail = name, events, fail

    async def start(self) -> None:
        await self.go.wait()
        self._events.append(f"start {self._name}")
        if self._fail == "start":
            raise OSError("no disk")

    async def stop(self) -> None:
        self._events.append(f"stop {self._name}")
        if self._fail == "stop":
            raise RuntimeError("cannot stop")


async def health(running: Any, name: str) -> int:
    stub: health_pb2_grpc.HealthAsyncStub = health_pb2_grpc.HealthStub(running.channel())
    response = await stub.Check(health_pb2.HealthCheckRequest(service=name), wait_for_ready=True)
    return int(response.status)


async def test_alive_at_once_ready_after_the_last_component(serve: Any) -> None:
    gate = Gate("store", [], hold_start=True)
    running = await serve(gate, ready=False)
    assert await health(running, "liveness") == SERVING
    assert [await health(running, name) for name in ("readiness", "", SERVICE)] == [NOT_SERVING] * 3
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.embed("ok")
    assert isinstance(rpc_error_to_ndml(caught.value), Draining)
    gate.go.set()
    while not running.service.serving:
        await asyncio.sleep(0.002)
    assert [await health(running, name) for name in ("readiness", "", SERVICE, "liveness")] == [SERVING] * 4
    assert (await running.embed("ok")).model == "ok"


async def test_drain_serves_on_while_not_ready_and_finishes_what_is_under_way(serve: Any) -> None:
    events: list[str] = []
    running = await serve(Gate("store", events), drain_s=2.0)
    stub: health_pb2_grpc.HealthAsyncStub = health_pb2_grpc.HealthStub(running.channel())
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="readiness"))
    assert (await watch.read()).status == SERVING
    under_way = asyncio.create_task(running.embed("wait"))
    await running.servicer.began.wait()
    running.stop.set()
    assert (await watch.read()).status == NOT_SERVING
    assert await health(running, "liveness") == SERVING
    assert (await running.embed("ok")).model == "ok"
    running.servicer.released.set()
    assert (await under_way).model == "wait"
    await running.task
    assert events == ["start store", "stop store"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.embed("ok")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_call_past_the_grace_is_cancelled(serve: Any) -> None:
    running = await serve(grace_s=0.05)
    under_way = asyncio.create_task(running.embed("wait"))
    await running.servicer.began.wait()
    running.stop.set()
    with pytest.raises(grpc.aio.AioRpcError):
        await under_way
    await running.task
    assert running.servicer.ended == ["CancelledError"]


async def test_components_stop_in_reverse_even_when_one_cannot(serve: Any) -> None:
    events: list[str] = []
    running = await serve(Gate("a", events), Gate("b", events, fail="stop"), Gate("c", events))
    running.stop.set()
    await running.task
    assert events == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]


async def test_a_failed_start_stops_those_before_it_and_frees_the_port(serve: Any) -> None:
    events: list[str] = []
    port = free_ports(1)[0]
    running = await serve(Gate("a", events), Gate("b", events), Gate("c", events, fail="start"), Gate("d", events), port=port)
    with pytest.raises(OSError, match="no disk"):
        await running.task
    assert events == ["start a", "start b", "start c", "stop b", "stop a"]
    again = await serve(port=port)
    assert (await again.embed("ok")).model == "ok"


async def test_a_taken_port_fails_loudly(serve: Any) -> None:
    first = await serve()
    port = int(first.address.rpartition(":")[2])
    second = await serve(port=port)
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
        await second.task


async def test_reflection_names_the_services(running: Any) -> None:
    stub: reflection_pb2_grpc.ServerReflectionAsyncStub = reflection_pb2_grpc.ServerReflectionStub(running.channel())
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    answers = [answer async for answer in stub.ServerReflectionInfo(iter(asked))]
    names = {service.name for service in answers[0].list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert any(SERVICE.rpartition(".")[0].encode() in file for file in answers[1].file_descriptor_response.file_descriptor_proto)


async def test_metrics_are_served(serve: Any) -> None:
    port = free_ports(1)[0]
    running = await serve(metrics_port=port)
    await running.embed("ok")
    page = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode())
    assert f'ndml_rpc_duration_seconds_count{{method="/{SERVICE}/Embed"}}' in page
    assert "\nndml_ready 1.0\n" in page
    assert re.search(r'ndml_build_info\{service="ndml-sample",version="[^"]+"\} 1.0', page)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGTERM to catch")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_the_process(spawn: Any, number: int) -> None:
    process = spawn()
    process.stub.GetModelInfo(llm_pb2.GetModelInfoRequest(), wait_for_ready=True, timeout=60)
    chat = {"role": "ROLE_USER", "content": "ok"}
    stream = process.stub.Generate(llm_pb2.GenerateRequest(messages=[chat, {**chat, "content": "sleep 1"}, {**chat, "content": "ok last"}]))
    assert next(stream).delta == "ok"
    process.process.send_signal(number)
    assert [part.delta for part in stream] == ["sleep 1", "ok last"]
    code, errors = process.wait()
    assert code == 0
    assert "Traceback" not in errors
    assert process.events() == ["start first", "start second", "stop second", "stop first"]
    assert '"event": "stopped"' in process.log.read_text().splitlines()[-1]


def test_a_process_that_cannot_start_says_so_in_one_line(spawn: Any) -> None:
    process = spawn(MARKER__FAIL="true", LOGGING__FORMAT="json")
    code, errors = process.wait()
    assert code == 1
    assert process.events() == ["start first", "start second", "stop first"]
    assert '"error": "second cannot start"' in errors
    assert "Traceback" not in errors
