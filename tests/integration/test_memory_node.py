"""A memory node as a real process behind gRPC: kills, snapshots under load, exports, streams."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ndml.errors import CapacityReached, OwnerUnavailable
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1.memory_node_pb2_grpc import MemoryNodeServiceStub
from ndml.runtime.channel import open_channel
from ndml.testing.ports import free_ports
from ndml.v1.memory_pb2 import SearchMemoriesResponse
from ndml.wire import status_to_error
from tests.unit.memory_node import node_harness as harness

READY_S = 60


@asynccontextmanager
async def node_process(data_dir: Path, **extra: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, MemoryNodeServiceStub]]:
    """A ready node; killed at the end if it still runs."""
    (port,) = free_ports(1)
    wanted = {
        "SERVER__PORT": str(port),
        "SERVER__METRICS_PORT": "-1",
        "SERVER__DRAIN_S": "0",
        "SERVER__GRACE_S": "1",
        "NODE__DIMENSION": str(harness.DIMENSION),
        "NODE__EMBEDDING_MODEL": harness.MODEL,
        "STORE__DATA_DIR": str(data_dir),
    }
    environment = os.environ | {f"NDML_MEMORY_NODE__{key}": value for key, value in (wanted | extra).items()}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.memory_node", env=environment)
    channel = open_channel(f"127.0.0.1:{port}")
    try:
        await ready(process, channel)
        yield process, MemoryNodeServiceStub(channel)
    finally:
        await channel.close(None)
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ready(process: asyncio.subprocess.Process, channel: grpc.aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    async with asyncio.timeout(READY_S):
        while True:
            assert process.returncode is None, "the node ended before it was ready"
            try:
                answer = await health.Check(health_pb2.HealthCheckRequest(service="readiness"), wait_for_ready=True, timeout=READY_S)
            except grpc.aio.AioRpcError:
                answer = health_pb2.HealthCheckResponse()
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
            await asyncio.sleep(0.02)


async def execute(stub: MemoryNodeServiceStub, *batches: list[pb.Operation]) -> dict[int, list[pb.OperationResult]]:
    """One stream with these batches; results by batch id, counted from 1."""

    async def requests() -> AsyncIterator[pb.ExecuteRequest]:
        for number, operations in enumerate(batches, 1):
            yield pb.ExecuteRequest(batch_id=number, operations=operations)

    return {answer.batch_id: list(answer.results) async for answer in stub.Execute(requests())}


async def texts_of(stub: MemoryNodeServiceStub, user: str) -> list[str]:
    chunks = [chunk async for chunk in stub.Export(pb.ExportRequest(tenant="t", user=user))]
    traces = [trace for chunk in chunks for trace in chunk.traces]
    assert chunks[0].total == len(traces)
    return harness.texts(traces)


async def test_a_stream_answers_every_batch_and_keeps_each_operations_error_to_itself(tmp_path: Path) -> None:
    async with node_process(tmp_path) as (process, stub):
        puts = [
            [harness.put(f"u{i % 3}", harness.trace((j, i), session=str(j), learned_at_us=harness.T0_US + 100 * j + i)) for i in range(32)]
            for j in range(10)
        ]
        written = await execute(stub, *puts)
        assert sorted(written) == list(range(1, 11))
        assert all(not harness.errors_of(result.put)[0] for results in written.values() for result in results)
        wrong = harness.search("u0", b"\0")
        results = await execute(stub, [harness.search("u0", (3, 0), 2), wrong], [harness.search("u1", (3, 1), 1, session="4")])
        assert SearchMemoriesResponse.FromString(results[1][0].search.responses[0]).hits[0].trace.text == "text (3, 0)"
        assert status_to_error(results[1][1].error).reason == "EMBEDDING_DIMENSION_MISMATCH"
        assert SearchMemoriesResponse.FromString(results[2][0].search.responses[0]).hits[0].trace.scope.session == "4"
        narrowed = [chunk async for chunk in stub.Export(pb.ExportRequest(tenant="t", user="u1", session="4", include_embedding=True))]
        assert {trace.scope.session for trace in narrowed[0].traces} == {"4"}
        assert narrowed[0].traces[0].embedding.vector == harness.vector((4, 1))
        status = await stub.GetNodeStatus(pb.GetNodeStatusRequest())
        assert (status.traces, status.owners, status.sequence) == (320, 3, 320)
        assert status.version
        assert status.started_at.seconds
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


@pytest.mark.parametrize("round_number", range(2))
async def test_every_acknowledged_write_survives_sigkill_of_the_node(tmp_path: Path, round_number: int) -> None:
    acknowledged: set[str] = set()
    dice = random.Random(round_number)
    for life in range(2):
        async with node_process(tmp_path) as (process, stub):
            writing = asyncio.create_task(_write_until_killed(stub, f"{round_number}-{life}", acknowledged))
            while len(acknowledged) < 100 * (life + 1):
                await asyncio.sleep(dice.random() * 0.02)
            process.send_signal(signal.SIGKILL)
            await writing
    async with node_process(tmp_path) as (_, stub):
        found = {text for user in range(3) for text in await texts_of(stub, f"u{user}")}
        assert acknowledged <= found
        probe = min(acknowledged)
        results = await execute(stub, [harness.search(f"u{user}", probe, 1) for user in range(3)])
        hits = [SearchMemoriesResponse.FromString(result.search.responses[0]).hits[0].trace.text for result in results[1]]
        assert probe in hits


async def _write_until_killed(stub: MemoryNodeServiceStub, name: str, acknowledged: set[str]) -> None:
    stream = stub.Execute()
    try:
        for number in range(1, 100_000):
            seeds = [f"{name}-{number}-{i}" for i in range(8)]
            operations = [harness.put(f"u{i % 3}", harness.trace(seed, seed)) for i, seed in enumerate(seeds)]
            await stream.write(pb.ExecuteRequest(batch_id=number, operations=operations))
            answer = await stream.read()
            if answer is grpc.aio.EOF:
                return
            acknowledged |= {seed for seed, result in zip(seeds, answer.results, strict=True) if result.HasField("put")}
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return


async def test_a_snapshot_taken_while_writing_starts_another_node(tmp_path: Path) -> None:
    async with node_process(tmp_path / "a") as (_, stub):
        await execute(stub, [harness.put("ann", harness.trace(i)) for i in range(50)])
        later = harness.T0_US + 1_000  # Export lists by the time learned: what is written meanwhile comes after the fifty
        more = [[harness.put("ann", harness.trace((j, i), learned_at_us=later)) for i in range(16)] for j in range(30)]
        writing = asyncio.create_task(execute(stub, *more))
        snapshot = await stub.CreateSnapshot(pb.CreateSnapshotRequest(), timeout=60)
        await writing
        assert snapshot.traces >= 50
    async with node_process(tmp_path / "b", STORE__RESTORE_FROM=snapshot.path, NODE__NODE_ID="memory-1") as (_, stub):
        found = await texts_of(stub, "ann")
        assert len(found) == snapshot.traces
        assert found[:50] == [f"text {i}" for i in range(50)]
        status = await stub.GetNodeStatus(pb.GetNodeStatusRequest())
        assert (status.node_id, status.traces) == ("memory-1", snapshot.traces)


async def test_bounds_reach_the_caller_as_reasons(tmp_path: Path) -> None:
    async with node_process(tmp_path, STORE__MAX_TRACES="5") as (_, stub):
        (result,) = (await execute(stub, [harness.put("ann", *(harness.trace(i) for i in range(6)))]))[1]
        errors = harness.errors_of(result.put)
        assert [type(error) for error in errors] == [type(None)] * 5 + [CapacityReached]
        late = harness.search("ann", 1)
        late.seen.add(replica=1, counter=99)
        assert isinstance(status_to_error((await execute(stub, [late]))[1][0].error), OwnerUnavailable)


async def test_a_damaged_store_does_not_start_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "ndml.db").write_bytes(b"this is not a database " * 1000)
    environment = os.environ | {"NDML_MEMORY_NODE__STORE__DATA_DIR": str(tmp_path), "NDML_MEMORY_NODE__SERVER__METRICS_PORT": "-1"}
    environment |= {"NDML_MEMORY_NODE__SERVER__PORT": str(free_ports(1)[0])}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.memory_node", env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, output = await asyncio.wait_for(process.communicate(), READY_S)
    assert process.returncode == 1
    assert b"damaged" in output
    assert b"Traceback" not in output
    assert (tmp_path / "ndml.db").read_bytes() == b"this is not a database " * 1000
