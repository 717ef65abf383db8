"""A memory node killed, stopped and left while it consolidates and takes feedback: whole merges or none, acknowledged feedback once."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from ndml.btsp.consolidation import semantic_id
from ndml.errors import Overloaded
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1 import types_pb2 as types
from ndml.v1.memory_pb2 import CREDIT_CLOCK_NONE, ConsolidateMemoriesResponse, CreditSpread
from ndml.wire import rpc_error_to_ndml
from tests.integration.test_memory_node import execute, node_process
from tests.unit.memory_node import node_harness as harness
from tests.unit.memory_node.dynamics_harness import near, profile

CLUSTERS = 150
REQUEST = pb.ConsolidateRequest(tenant="t", user="u")
WAIT_S = 60.0


def members(cluster: int) -> list[types.MemoryTrace]:
    made = [harness.trace(f"c{cluster} {i}", f"topic{cluster} seen {'abc'[i]}") for i in range(3)]
    for i, trace in enumerate(made):
        trace.embedding.vector = near(f"topic {cluster}", 0.97, str(i))
    return made


SOURCES = {trace.trace_id for cluster in range(CLUSTERS) for trace in members(cluster)}


async def fill(stub: Any) -> None:
    answers = await execute(stub, *([harness.put("u", *members(cluster))] for cluster in range(CLUSTERS)))
    assert not any(outcome.HasField("error") for results in answers.values() for outcome in results[0].put.outcomes)


async def consolidated(stub: Any) -> ConsolidateMemoriesResponse:
    """A whole run: its last message."""
    last: ConsolidateMemoriesResponse = [answer.progress async for answer in stub.Consolidate(REQUEST)][-1]
    assert last.done and not last.stopped_because
    return last


def merges(data_dir: Path) -> int:
    """Semantic traces on disk."""
    with closing(sqlite3.connect(f"file:{data_dir / 'ndml.db'}?mode=ro", uri=True)) as store:
        return int(store.execute("SELECT count(*) FROM traces WHERE kind = ?", (types.TRACE_KIND_SEMANTIC,)).fetchone()[0])


async def merged(data_dir: Path, count: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while merges(data_dir) < count:
            await asyncio.sleep(0.001)


async def whole(stub: Any) -> set[str]:
    """Ids of the semantic traces, after a look that sources are all there, each in one merge at most, its state as its merge says."""
    traces = [trace async for chunk in stub.Export(pb.ExportRequest(tenant="t", user="u")) for trace in chunk.traces]
    made = [trace for trace in traces if trace.kind == types.TRACE_KIND_SEMANTIC]
    assert {trace.trace_id for trace in traces if trace.kind == types.TRACE_KIND_EPISODIC} == SOURCES
    linked = {trace.trace_id: sorted(link.trace_id for link in trace.links if link.type == types.LINK_TYPE_DERIVED_FROM) for trace in made}
    assert all(semantic_id([bytes.fromhex(each) for each in sources]).hex() == name for name, sources in linked.items())
    times = Counter(each for sources in linked.values() for each in sources)
    assert set(times.values()) <= {1}, "no source stands behind two"
    gets = [harness.operation("u", get=pb.GetAction(trace_id=each, include_history=True)) for each in sorted(SOURCES)]
    for result in (await execute(stub, gets))[1]:
        source = result.trace.trace
        events = [event.kind for event in source.history if event.kind != "state"]
        # Without a merge too a trace may count as consolidated: by capture.
        assert source.state == types.LIFECYCLE_STATE_CONSOLIDATED or source.trace_id not in times
        assert events.count("consolidated") == times[source.trace_id]
    return set(linked)


@pytest.fixture
def gated(tmp_path: Path) -> dict[str, str]:
    return {"GATE__PROFILE": str(profile(tmp_path / "profile.json"))}


async def follow(stub: Any) -> None:
    """A run whose node is killed under it."""
    with pytest.raises(grpc.aio.AioRpcError):
        await consolidated(stub)


async def test_a_node_killed_while_it_consolidates_has_whole_merges_and_ends_as_if_undisturbed(
    tmp_path: Path, gated: dict[str, str]
) -> None:
    async with node_process(tmp_path / "calm", **gated) as (_, stub):
        await fill(stub)
        made = (await consolidated(stub)).merged
        undisturbed = await whole(stub)
        assert made == len(undisturbed) > 120
    for round_number, count in enumerate((1, 40, 100)):
        async with node_process(tmp_path / "n", **gated) as (process, stub):
            if not round_number:
                await fill(stub)
            so_far = await whole(stub)
            assert so_far < undisturbed
            running = asyncio.create_task(follow(stub))
            await merged(tmp_path / "n", max(count, len(so_far) + 1))
            process.send_signal(signal.SIGKILL)
            await running
    async with node_process(tmp_path / "n", **gated) as (_, stub):
        so_far = await whole(stub)
        assert 100 <= len(so_far) < made, "the last kill came in the middle"
        assert (await consolidated(stub)).merged == made - len(so_far)
        assert await whole(stub) == undisturbed
        assert (await consolidated(stub)).clusters_total == 0


async def test_a_run_that_its_caller_leaves_stops_and_the_next_one_goes_on(tmp_path: Path, gated: dict[str, str]) -> None:
    async with node_process(tmp_path / "n", **gated) as (process, stub):
        await fill(stub)
        call: Any = stub.Consolidate(REQUEST)
        reading = asyncio.create_task(call.read())
        await merged(tmp_path / "n", 5)
        with pytest.raises(grpc.aio.AioRpcError) as second:
            await consolidated(stub)
        assert isinstance(rpc_error_to_ndml(second.value), Overloaded)
        call.cancel()
        await asyncio.wait([reading])
        async with asyncio.timeout(WAIT_S):
            while (left := await retried(stub)) is None:
                await asyncio.sleep(0.02)
        assert left.merged > 0, "it had stopped before the last cluster"
        assert left.merged < len(await whole(stub))
        assert (await consolidated(stub)).merged == 0
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def retried(stub: Any) -> ConsolidateMemoriesResponse | None:
    """A run, None where another one is under way still."""
    try:
        return await consolidated(stub)
    except grpc.aio.AioRpcError as error:
        assert isinstance(rpc_error_to_ndml(error), Overloaded)
        return None


async def test_a_node_told_to_stop_while_it_consolidates_ends_cleanly(tmp_path: Path, gated: dict[str, str]) -> None:
    async with node_process(tmp_path / "n", **gated) as (process, stub):
        await fill(stub)
        running = asyncio.create_task(consolidated(stub))
        await merged(tmp_path / "n", 5)
        process.send_signal(signal.SIGTERM)
        [ended] = await asyncio.gather(running, return_exceptions=True)
        assert isinstance(ended, ConsolidateMemoriesResponse | grpc.aio.AioRpcError)
        assert await process.wait() == 0
    async with node_process(tmp_path / "n", **gated) as (_, stub):
        so_far = await whole(stub)
        assert len(so_far) >= 5
        rest = (await consolidated(stub)).merged
        assert len(await whole(stub)) == len(so_far) + rest > 120


# Feedback


def feedback(number: int) -> pb.Operation:
    """The `number`-th feedback: on one of five traces."""
    one = pb.TraceFeedback(trace_id=harness.trace_id(number % 5), grade=1.0 if number % 3 else -1.0)
    digest = number.to_bytes(16, "little")
    return harness.operation(
        "u", reinforce=pb.ReinforceAction(request_digest=digest, feedback=[one], spread=CreditSpread(clock=CREDIT_CLOCK_NONE))
    )


async def uses(stub: Any) -> list[int]:
    gets = [harness.operation("u", get=pb.GetAction(trace_id=harness.trace_id(i), include_strength=True)) for i in range(5)]
    return [result.trace.trace.strength.uses for result in (await execute(stub, gets))[1]]


def counted(numbers: Sequence[int]) -> list[int]:
    return [sum(number % 5 == i for number in numbers) for i in range(5)]


async def test_acknowledged_feedback_survives_sigkill_and_no_feedback_counts_twice(tmp_path: Path, gated: dict[str, str]) -> None:
    acknowledged: list[int] = []
    sent: list[int] = []
    for life in range(2):
        async with node_process(tmp_path / "n", **gated) as (process, stub):
            if not life:
                await execute(stub, [harness.put("u", *(harness.trace(i) for i in range(5)))])
            killer = asyncio.create_task(_kill_after(process, acknowledged, 60 * (life + 1)))
            await _grade_until_killed(stub, sent, acknowledged, 1_000_000 * life)
            await killer
    assert len(acknowledged) < len(sent)
    async with node_process(tmp_path / "n", **gated) as (process, stub):
        found = await uses(stub)
        assert all(low <= n <= high for low, n, high in zip(counted(acknowledged), found, counted(sent), strict=True))
        repeated = (await execute(stub, [feedback(number) for number in sent]))[1]
        known = {number for number, result in zip(sent, repeated, strict=True) if result.reinforce.replayed}
        assert set(acknowledged) <= known
        assert await uses(stub) == counted(sent), "each once"
        process.send_signal(signal.SIGKILL)
        await process.wait()
    async with node_process(tmp_path / "n", **gated) as (_, stub):
        assert await uses(stub) == counted(sent)


async def _kill_after(process: asyncio.subprocess.Process, acknowledged: list[int], count: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while len(acknowledged) < count:
            await asyncio.sleep(0.001)
    process.send_signal(signal.SIGKILL)


async def _grade_until_killed(stub: Any, sent: list[int], acknowledged: list[int], first: int) -> None:
    """Batches of eight, several under way at a time, until the stream breaks."""
    numbers: dict[int, list[int]] = {}
    room = asyncio.Semaphore(8)

    async def requests() -> AsyncIterator[pb.ExecuteRequest]:
        for batch in range(1, 100_000):
            await room.acquire()
            numbers[batch] = list(range(first + 8 * batch, first + 8 * batch + 8))
            sent.extend(numbers[batch])
            yield pb.ExecuteRequest(batch_id=batch, operations=[feedback(number) for number in numbers[batch]])

    with pytest.raises(grpc.aio.AioRpcError):
        async for answer in stub.Execute(requests()):
            good = zip(numbers[answer.batch_id], answer.results, strict=True)
            acknowledged += [number for number, result in good if result.HasField("reinforce")]
            room.release()
