"""Memory nodes and a consensus node with their real servers, on loopback and in one process: the wiring, and replication over the wire."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ndml.errors import FieldInvalid
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.internal.v1.memory_node_pb2_grpc import MemoryNodeServiceStub
from ndml.internal.v1.replication_pb2_grpc import ReplicationServiceStub
from ndml.runtime.channel import open_channel
from ndml.runtime.service import Service
from ndml.testing.ports import free_ports
from ndml.v1 import admin_pb2
from ndml.wire import rpc_error_to_ndml
from services.consensus.main import build as build_consensus
from services.consensus.settings import ConsensusSettings
from services.memory_node.main import build as build_node
from services.memory_node.settings import NodeSettings
from tests.unit.memory_node import node_harness as harness

BOUND_S = 60.0  # of every wait; none needs a tenth of it on a quiet machine


async def eventually(reached: Callable[[], Any], what: str) -> None:
    try:
        async with asyncio.timeout(BOUND_S):
            while not await reached():
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"never happened: {what}")


class Running:
    """One service that runs in this process until `end()`."""

    def __init__(self, service: Service, address: str) -> None:
        self._service = service
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(service.run(self._stop))
        self.channel = open_channel(address)
        self.node = MemoryNodeServiceStub(self.channel)
        self.replication = ReplicationServiceStub(self.channel)

    async def ready(self) -> Running:
        async with asyncio.timeout(BOUND_S):
            while not self._service.serving:
                if self._task.done():
                    self._task.result()
                await asyncio.sleep(0.01)
        return self

    async def end(self) -> None:
        self._stop.set()
        await self.channel.close(None)
        await self._task

    async def put(self, user: str, *seeds: object) -> None:
        operation = harness.put(user, *(harness.trace(str(seed)) for seed in seeds))

        async def requests() -> AsyncIterator[pb.ExecuteRequest]:
            yield pb.ExecuteRequest(batch_id=1, operations=[operation])

        async for answer in self.node.Execute(requests()):
            assert [result.WhichOneof("result") for result in answer.results] == ["put"], answer

    async def offer(self, user: str, *seeds: object) -> bool:
        """A put by a caller that knows no epoch; False where the owner is not here."""
        operation = harness.put(user, *(harness.trace(str(seed)) for seed in seeds))

        async def requests() -> AsyncIterator[pb.ExecuteRequest]:
            yield pb.ExecuteRequest(batch_id=1, epoch=0, operations=[operation])

        results = [result async for answer in self.node.Execute(requests()) for result in answer.results]
        return [result.WhichOneof("result") for result in results] == ["put"]

    async def epoch(self, at_least: int) -> bool:
        return (await self.status()).epoch >= at_least

    async def unpublished(self, count: int) -> bool:
        return (await self.status()).unpublished == count

    async def phase(self, phase: admin_pb2.MemberPhase) -> bool:
        return (await self.status()).phase == phase

    async def is_empty(self) -> bool:
        return not await self.digests()

    async def texts(self, user: str) -> set[str]:
        chunks = [chunk async for chunk in self.node.Export(pb.ExportRequest(tenant="t", user=user, epoch=1 << 40))]
        return {trace.text for chunk in chunks for trace in chunk.traces}

    async def digests(self) -> dict[tuple[str, str], bytes]:
        pages = [page async for page in self.replication.ListOwners(rpb.ListOwnersRequest())]
        return {(state.tenant, state.user): state.digest for page in pages for state in page.owners}

    async def status(self) -> pb.GetNodeStatusResponse:
        return await self.node.GetNodeStatus(pb.GetNodeStatusRequest())


class Cluster:
    """Settings of up to `nodes` memory nodes and one consensus node; start what you need."""

    def __init__(self, directory: Path, nodes: int, *, fixed: bool, factor: int = 2) -> None:
        self.directory = directory
        self.consensus_at, *self.at = [f"127.0.0.1:{port}" for port in free_ports(nodes + 1)]
        self.names = [f"n{i}" for i in range(nodes)]
        self.fixed = [f"{name}={at}" for name, at in zip(self.names, self.at, strict=True)] if fixed else []
        self.factor = factor
        self._running: list[Running] = []

    def _server(self, address: str) -> dict[str, Any]:
        return {"port": int(address.rpartition(":")[2]), "metrics_port": -1, "drain_s": 0, "grace_s": 0.2}

    async def _run(self, name: str, settings: Any, build: Any, address: str) -> Running:
        service = Service(name, settings)
        build(settings, service)
        running = await Running(service, address).ready()
        self._running.append(running)
        return running

    async def consensus(self, members: list[str], **cluster: Any) -> Running:
        settings = ConsensusSettings.model_validate(
            {
                "server": self._server(self.consensus_at),
                "store": {"data_dir": self.directory / "consensus"},
                "cluster": {"members": members, "replication_factor": self.factor, **cluster},
                "liveness": {"suspect_after_s": 1.5, "down_after_s": 3},
            }
        )
        return await self._run("ndml-consensus", settings, build_consensus, self.consensus_at)

    async def node(self, i: int, **replication: Any) -> Running:
        consensus = [] if self.fixed else [self.consensus_at]
        settings = NodeSettings.model_validate(
            {
                "server": self._server(self.at[i]),
                "node": {"node_id": self.names[i], "dimension": harness.DIMENSION, "embedding_model": harness.MODEL},
                "store": {"data_dir": self.directory / self.names[i]},
                "placement": {"consensus": consensus, "fixed": self.fixed, "replication_factor": self.factor},
                "heartbeat": {"consensus": consensus, "interval_s": 0.1},
                "replication": {"sweep": {"least_interval_s": 0.3, "most_interval_s": 0.6, "least_gap_s": 0.05}, **replication},
            }
        )
        return await self._run("ndml-memory-node", settings, build_node, self.at[i])

    async def end(self) -> None:
        for running in reversed(self._running):
            await running.end()


@asynccontextmanager
async def cluster_of(directory: Path, nodes: int, *, fixed: bool, factor: int = 2) -> AsyncIterator[Cluster]:
    cluster = Cluster(directory, nodes, fixed=fixed, factor=factor)
    try:
        yield cluster
    finally:
        await cluster.end()


async def equal(*nodes: Running) -> bool:
    found = [await node.digests() for node in nodes]
    return bool(found[0]) and all(digests == found[0] for digests in found)


async def test_a_sweep_over_the_wire_mends_a_copy_and_a_wiped_one(tmp_path: Path) -> None:
    async with cluster_of(tmp_path, 2, fixed=True) as cluster:
        first, second = await cluster.node(0), await cluster.node(1)
        await first.put("alice", *range(50))
        await second.put("bob", *range(5))
        await eventually(lambda: equal(first, second), "two equal copies")
        assert len(await second.texts("alice")) == 50
        replica = (await second.status()).replica
        cluster._running.remove(second)
        await second.end()
        shutil.rmtree(tmp_path / "n1")
        await first.put("alice", "while away")
        second = await cluster.node(1)
        await eventually(lambda: equal(first, second), "a copy on a new disk")
        assert len(await second.texts("alice")) == 51
        status = await second.status()
        assert status.replica not in (0, replica)
        assert status.phase == admin_pb2.MEMBER_PHASE_ACTIVE
        assert 0 <= status.last_round_s < BOUND_S
        with pytest.raises(FieldInvalid):
            await _set_phase(second, admin_pb2.MEMBER_PHASE_LEAVING)


async def _set_phase(node: Running, phase: admin_pb2.MemberPhase) -> None:
    try:
        await node.replication.SetPhase(rpb.SetPhaseRequest(phase=phase))
    except Exception as error:
        raise rpc_error_to_ndml(error) from error  # type: ignore[arg-type]


async def test_pushes_are_answered_when_joined_and_symbols_stop_when_the_caller_leaves(tmp_path: Path) -> None:
    async with cluster_of(tmp_path, 2, fixed=True) as cluster:
        first, second = await cluster.node(0, enabled=False), await cluster.node(1, enabled=False)
        await first.put("alice", *range(300))
        fetched = [m async for m in first.replication.FetchRecords(rpb.FetchRecordsRequest(tenant="t", user="alice", all=True))]
        assert fetched[-1].owner.records == 300

        async def pushes() -> AsyncIterator[rpb.PushRecordsRequest]:
            for message in fetched[:-1]:
                yield rpb.PushRecordsRequest(tenant="t", user="alice", records=message.records)
            yield rpb.PushRecordsRequest(tenant="t", user="alice", heads=fetched[-1].owner.heads)

        answers = [answer async for answer in second.replication.PushRecords(pushes())]
        assert sum(answer.changed for answer in answers) == 300
        assert answers[-1].digest == fetched[-1].owner.digest
        request = rpb.StreamSymbolsRequest(tenant="t", user="alice", key=bytes(16), limit=1 << 30)
        async for message in first.replication.StreamSymbols(request):
            assert message.owner.records == 300
            assert len(message.symbols) % 26 == 0
            break
        await eventually(lambda: first.unpublished(1), "the journal was counted")


async def test_updates_reach_a_copy_through_a_real_consensus_node(tmp_path: Path) -> None:
    async with cluster_of(tmp_path, 2, fixed=False) as cluster:
        await cluster.consensus(["n0", "n1"])
        # No round of the sweep helps here.
        slow = {"sweep": {"least_interval_s": 1e6, "most_interval_s": 1e6}}
        first, second = await cluster.node(0, **slow), await cluster.node(1, **slow)
        await eventually(lambda: first.epoch(2), "both are members")
        await asyncio.sleep(1.0)  # what was asked for at the start is over
        for n in range(20):
            await first.put("alice", n)
        await second.put("alice", "other way")
        await eventually(lambda: equal(first, second), "two equal copies")
        assert len(await second.texts("alice")) == 21
        await eventually(lambda: first.unpublished(0), "everything is durable at the consensus node")


async def test_a_node_joins_and_another_leaves_without_losing_anything(tmp_path: Path) -> None:
    async with cluster_of(tmp_path, 3, fixed=False, factor=1) as cluster:
        await cluster.consensus(["n0", "n1"], admit=True)
        first, second = await cluster.node(0), await cluster.node(1)
        await eventually(lambda: first.epoch(2), "both are members")
        users = [f"u{n}" for n in range(24)]
        owned: dict[str, Running] = {}
        for user in users:
            owned[user] = await _put_where_owned(user, first, second)
        third = await cluster.node(2)
        # It calls itself active until it learns that it has to join, and while it has nothing every owner is at one node.
        await eventually(third.digests, "the third has taken some")
        await eventually(lambda: third.phase(admin_pb2.MEMBER_PHASE_ACTIVE), "the third has joined")
        await eventually(lambda: held_once(users, first, second, third), "every owner is at one node")
        await _set_phase(first, admin_pb2.MEMBER_PHASE_LEAVING)
        await eventually(lambda: first.phase(admin_pb2.MEMBER_PHASE_LEFT), "the first has left")
        await eventually(lambda: held_once(users, second, third), "every owner is at one of the two that stay")
        await eventually(lambda: first.is_empty(), "nothing is left at the first")
        for user in users:
            texts = (await second.texts(user)) | (await third.texts(user))
            assert texts == {f"text {user}-{n}" for n in range(3)}


async def _put_where_owned(user: str, *nodes: Running) -> Running:
    """At the node that takes it: with an old epoch, the other refuses."""
    for node in nodes:
        if await node.offer(user, *(f"{user}-{n}" for n in range(3))):
            return node
    pytest.fail(f"nobody owns {user}")


async def held_once(users: list[str], *nodes: Running) -> bool:
    held = [user for node in nodes for _, user in await node.digests()]
    return sorted(held) == sorted(users)
