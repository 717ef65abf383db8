"""Consensus nodes as real processes; heartbeats and watches by the components that memory nodes and gateways run."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ndml.errors import FieldInvalid, NdmlError, Overloaded, OwnerUnavailable, StaleEpoch
from ndml.internal.v1 import consensus_pb2 as pb2
from ndml.internal.v1 import consensus_pb2_grpc
from ndml.placement import MemberPhase, MemberState, Placement
from ndml.runtime.channel import Dialer
from ndml.runtime.placement import PlacementSettings, PlacementWatcher
from ndml.testing.ports import free_ports
from ndml.testing.process import ManagedProcess
from ndml.wire import rpc_error_to_ndml
from services.consensus.remotes import PeerDialer
from services.memory_node.heartbeat import Heartbeat, HeartbeatSettings, Identity
from tests.unit.consensus.delta_harness import Member, update

BOUND_S = 60.0  # of every wait; none needs a tenth of it on a quiet machine
USERS = [str(user) for user in range(60)]


async def eventually(reached: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(BOUND_S):
            while not reached():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"never happened: {what}")


class Cluster:
    """`size` consensus processes that know each other, members m0 and m1."""

    def __init__(self, directory: Path, size: int, settings: dict[str, str], zones: Sequence[str] = ()) -> None:
        self.directory = directory
        self.zones = zones or [""] * size
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(size)]
        self.processes = [self._process(index, settings) for index in range(size)]

    def _process(self, index: int, settings: dict[str, str]) -> ManagedProcess:
        name = f"consensus-{index}"
        own = {
            "SERVER__PORT": self.addresses[index].rpartition(":")[2],
            "SERVER__METRICS_PORT": "-1",
            "SERVER__INSTANCE": name,
            "SERVER__DRAIN_S": "0",
            "SERVER__ZONE": self.zones[index],
            "STORE__DATA_DIR": str(self.data_dir(index)),
            "CLUSTER__MEMBERS": '["m0", "m1"]',
            "CLUSTER__PEERS": json.dumps(self.addresses),
            "LIVENESS__SUSPECT_AFTER_S": "1.5",
            "LIVENESS__DOWN_AFTER_S": "3",
            "EXCHANGE__INTERVAL_S": "0.3",
            "MESH__RETRY_S": "0.2",
            "MESH__SETTLE_S": "0.5",
            "DELTAS__COMPACT_INTERVAL_S": "0.1",
            "DELTAS__GRACE_S": "0",
            **settings,
        }
        environment = {f"NDML_CONSENSUS__{key}": value for key, value in own.items()}
        return ManagedProcess(name, "services.consensus", environment, self.directory / f"{name}.log")

    def data_dir(self, index: int) -> Path:
        return self.directory / f"consensus-{index}"

    async def start(self, *indices: int) -> None:
        for index in indices:
            self.processes[index].start()
        for index in indices:
            await self._ready(index)

    async def _ready(self, index: int) -> None:
        process = self.processes[index]
        async with asyncio.timeout(BOUND_S), grpc.aio.insecure_channel(self.addresses[index]) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while True:
                assert process.running, process.log_tail()
                try:
                    answer = await stub.Check(health_pb2.HealthCheckRequest(service="readiness"), wait_for_ready=True, timeout=5)
                except grpc.aio.AioRpcError:
                    continue
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
                await asyncio.sleep(0.05)

    async def kill(self, *indices: int) -> None:
        for index in indices:
            self.processes[index].kill()
        for index in indices:
            assert await asyncio.to_thread(self.processes[index].wait, BOUND_S) is not None

    async def status(self, index: int) -> pb2.GetConsensusStatusResponse:
        async with stub_of(self.addresses[index]) as stub:
            return await stub.GetConsensusStatus(pb2.GetConsensusStatusRequest(), wait_for_ready=True, timeout=BOUND_S)

    async def converged(self, epoch: int) -> None:
        """Wait until every running node has one roster of at least this epoch and reaches its running peers."""
        running = [index for index, process in enumerate(self.processes) if process.running]
        async with asyncio.timeout(BOUND_S):
            while True:
                found = [await self.status(index) for index in running]
                alike = len({status.roster_digest for status in found}) == 1 and len({status.epoch for status in found}) == 1
                if alike and found[0].epoch >= epoch and all(status.peers_reachable == len(running) - 1 for status in found):
                    return
                await asyncio.sleep(0.05)


@asynccontextmanager
async def stub_of(address: str) -> AsyncIterator[consensus_pb2_grpc.ConsensusServiceAsyncStub]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: consensus_pb2_grpc.ConsensusServiceAsyncStub = consensus_pb2_grpc.ConsensusServiceStub(channel)
        yield stub


@asynccontextmanager
async def cluster_of(directory: Path, size: int, zones: Sequence[str] = (), **settings: str) -> AsyncIterator[Cluster]:
    cluster = Cluster(directory, size, settings, zones)
    try:
        await cluster.start(*range(size))
        yield cluster
    finally:
        await cluster.kill(*(index for index, process in enumerate(cluster.processes) if process.running))


@asynccontextmanager
async def watching(addresses: list[str], name: str = "test", *, first: str | None = None) -> AsyncIterator[PlacementWatcher]:
    """A watcher; `first` is the address it tries first."""
    settings = PlacementSettings(consensus=addresses, backoff_max_s=0.5, news_after_s=0.1)
    seeds = (seed for seed in range(1000) if first is None or random.Random(seed).sample(addresses, len(addresses))[0] == first)
    watcher = PlacementWatcher(settings, name, Dialer(), rng=random.Random(next(seeds)))
    await watcher.start()
    try:
        yield watcher
    finally:
        await watcher.stop()


@asynccontextmanager
async def beating(
    directory: Path, addresses: list[str], node_id: str, port: int, zone: str = "z", replica: int = 0
) -> AsyncIterator[Heartbeat]:
    settings = HeartbeatSettings(consensus=addresses, interval_s=0.2)
    identity = Identity(directory / node_id, node_id, f"127.0.0.1:{port}", zone, settings.profile, lambda: replica)
    heartbeat = Heartbeat(settings, identity, Dialer())
    await heartbeat.start()
    try:
        yield heartbeat
    finally:
        await heartbeat.stop()


def state(watcher: PlacementWatcher, node_id: str) -> MemberState | None:
    node = watcher.placement.node(node_id) if watcher.placement is not None else None
    return None if node is None else node.state


def address(watcher: PlacementWatcher, node_id: str) -> str:
    node = watcher.placement.node(node_id) if watcher.placement is not None else None
    return "" if node is None else node.address


def owners(watcher: PlacementWatcher) -> list[str]:
    return [watcher.owners("acme", user)[0].node_id for user in USERS]


async def test_watchers_agree_fail_over_and_never_go_back(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(cluster_of(tmp_path, 3))
        watchers = [await stack.enter_async_context(watching(cluster.addresses, first=address)) for address in cluster.addresses]
        await stack.enter_async_context(beating(tmp_path, cluster.addresses, "m0", 9000))
        async with beating(tmp_path, cluster.addresses, "m1", 9001):
            await eventually(lambda: all(watcher.epoch == 2 for watcher in watchers), "all watchers hold both members")
        assert {watcher.source for watcher in watchers} == set(cluster.addresses)
        await cluster.converged(2)
        before = owners(watchers[0])
        assert set(before) == {"m0", "m1"} and all(owners(watcher) == before for watcher in watchers)

        await cluster.kill(0)
        await eventually(lambda: watchers[0].source in cluster.addresses[1:], "the watcher of the dead node goes on elsewhere")
        await stack.enter_async_context(beating(tmp_path, cluster.addresses, "m1", 9111))  # restarted under another address
        await eventually(lambda: all(address(watcher, "m1") == "127.0.0.1:9111" for watcher in watchers), "the move reaches all")
        assert [watcher.epoch for watcher in watchers] == [3, 3, 3] and owners(watchers[0]) == before

        await cluster.kill(1, 2)
        await eventually(lambda: not any(watcher.source for watcher in watchers), "all consensus nodes are gone")
        assert [owners(watcher) for watcher in watchers] == [before] * 3, "the last placement serves on"
        await cluster.start(1)
        assert (await cluster.status(1)).epoch >= 3, "a restart does not forget"
        await cluster.start(0, 2)
        await cluster.converged(3)
        await eventually(lambda: all(watcher.source and state(watcher, "m1") is MemberState.ALIVE for watcher in watchers), "watched again")


async def test_a_silent_member_goes_down_and_keeps_what_it_owns(tmp_path: Path) -> None:
    changes: list[Placement] = []
    async with cluster_of(tmp_path, 2) as cluster, watching(cluster.addresses) as watcher:
        watcher.on_change(changes.append)
        async with (
            beating(tmp_path, cluster.addresses, "m0", 9000) as first,
            beating(tmp_path, cluster.addresses, "stranger", 9009) as other,
        ):
            async with beating(tmp_path, cluster.addresses, "m1", 9001):
                await eventually(lambda: state(watcher, "m1") is MemberState.ALIVE and watcher.epoch == 2, "both live")
                await eventually(lambda: state(watcher, "stranger") is MemberState.STANDBY, "the stranger stands by")
                await eventually(lambda: other.reachable == first.reachable == 2, "both heard everywhere")
                assert first.is_member and not other.is_member
                before = owners(watcher)
            await eventually(lambda: state(watcher, "m1") is MemberState.DOWN, "its silence is noticed")
            await eventually(lambda: state(watcher, "m0") is MemberState.ALIVE, "the other one lives")
            assert owners(watcher) == before and watcher.epoch == 2
            assert MemberState.DOWN in {node.state for placement in changes for node in placement.nodes if node.node_id == "m1"}
            async with beating(tmp_path, cluster.addresses, "m1", 9001):
                await eventually(lambda: state(watcher, "m1") is MemberState.ALIVE, "it is back")
            assert watcher.epoch == 2, "the same node at the same address is no change"
        await eventually(lambda: state(watcher, "stranger") is None, "a standby that fell silent is forgotten")


async def test_a_consensus_node_that_knows_less_overrides_nothing(tmp_path: Path) -> None:
    async with cluster_of(tmp_path / "a", 1) as cluster, cluster_of(tmp_path / "b", 1) as cut_off:
        both = [*cluster.addresses, *cut_off.addresses]
        async with watching(both, first=cut_off.addresses[0]) as watcher, beating(tmp_path, cluster.addresses, "m0", 9000):
            await eventually(lambda: watcher.source == cut_off.addresses[0], "the watcher is at the node that is cut off")
            assert watcher.epoch == 0 and set(owners(watcher)) == {"m0", "m1"}, "who owns what needs no heartbeat"
            assert await watcher.wait_newer(0, BOUND_S), "one that asks for news is moved to a node that has them"
            assert (watcher.epoch, watcher.source) == (1, cluster.addresses[0])
            await cluster.kill(0)
            await eventually(lambda: watcher.source == cut_off.addresses[0], "back at the node that knows less")
            assert (watcher.epoch, address(watcher, "m0")) == (1, "127.0.0.1:9000")
            assert not await watcher.wait_newer(1, 0.2)


@pytest.mark.parametrize("lost", ["node", "consensus"])
async def test_lost_disks_heal(tmp_path: Path, lost: str) -> None:
    """A node that forgot its incarnation counts past the known one; consensus nodes that forgot all hear it again from the nodes."""
    async with cluster_of(tmp_path, 2) as cluster, watching(cluster.addresses) as watcher:
        for port in (9000, 9001, 9002):
            async with beating(tmp_path, cluster.addresses, "m0", port):
                await eventually(lambda: address(watcher, "m0") == f"127.0.0.1:{port}", "it is known at this address")  # noqa: B023
        await cluster.converged(3)
        if lost == "node":
            shutil.rmtree(tmp_path / "m0")
        else:
            await cluster.kill(0, 1)
            for index in (0, 1):
                shutil.rmtree(cluster.data_dir(index))
            await cluster.start(0, 1)
            assert (await cluster.status(0)).epoch == 0
        async with beating(tmp_path, cluster.addresses, "m0", 9100) as heartbeat:
            await eventually(lambda: address(watcher, "m0") == "127.0.0.1:9100", "it is known at the newest address")
            await eventually(lambda: heartbeat.reachable == 2, "everybody takes its heartbeats")
            assert heartbeat.record.incarnation == watcher.epoch == 4
        await cluster.converged(4)


async def test_a_damaged_roster_is_set_aside_and_learned_again(tmp_path: Path) -> None:
    async with cluster_of(tmp_path, 2) as cluster, beating(tmp_path, cluster.addresses, "m0", 9000):
        await cluster.converged(1)
        await cluster.kill(1)
        roster = cluster.data_dir(1) / "roster.json"
        roster.write_bytes(roster.read_bytes()[:-9])
        await cluster.start(1)
        await cluster.converged(1)
        assert len(list(cluster.data_dir(1).glob("roster.json.corrupt-*"))) == 1
        assert "roster_corrupt" in cluster.processes[1].log_path.read_text()


async def refusal(call: grpc.aio.UnaryUnaryCall | grpc.aio.UnaryStreamCall) -> NdmlError:  # type: ignore[type-arg]
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await (call.read() if isinstance(call, grpc.aio.UnaryStreamCall) else call)
    return rpc_error_to_ndml(raised.value)


async def test_bad_requests_get_their_reason_and_bounds_hold(tmp_path: Path) -> None:
    settings = {"WATCH__MAX_WATCHERS": "1", "CLUSTER__MAX_STANDBYS": "1"}
    async with cluster_of(tmp_path, 1, **settings) as cluster, stub_of(cluster.addresses[0]) as stub:

        def beat(node_id: str, address: str = "h:1", incarnation: int = 1) -> grpc.aio.UnaryUnaryCall:  # type: ignore[type-arg]
            node = pb2.NodeRecord(node_id=node_id, address=address, profile="general", incarnation=incarnation)
            return stub.Heartbeat(pb2.HeartbeatRequest(node=node), timeout=BOUND_S)

        bad = await refusal(beat("", "nowhere", 0))
        assert isinstance(bad, FieldInvalid)
        assert {violation.field for violation in bad.violations} == {"node.node_id", "node.address", "node.incarnation"}
        assert (await beat("m0", incarnation=5)).is_member
        stale = await refusal(beat("m0", incarnation=4))
        assert isinstance(stale, StaleEpoch) and stale.metadata == {"incarnation": "5", "replica": "0"}
        assert not (await beat("x1")).is_member
        assert isinstance(await refusal(beat("x2")), Overloaded)
        peer = pb2.ExchangeRosterRequest(node_id="peer", records=[pb2.NodeRecord(node_id="m1", incarnation=1)])
        assert isinstance(await refusal(stub.ExchangeRoster(peer, timeout=BOUND_S)), FieldInvalid)

        watch = stub.WatchPlacement(pb2.WatchPlacementRequest(watcher="one"))
        first = await watch.read()
        assert isinstance(first, pb2.WatchPlacementResponse) and first.placement.epoch == 5
        too_many = await refusal(stub.WatchPlacement(pb2.WatchPlacementRequest(watcher="two"), timeout=BOUND_S))
        assert isinstance(too_many, Overloaded) and too_many.retry_after_s == 1.0
        assert (await cluster.status(0)).watchers == 1
        watch.cancel()
        async with watching(cluster.addresses) as watcher:
            await eventually(lambda: watcher.epoch == 5, "the place of a watcher that left is free again")
        assert "rpc_fault" not in cluster.processes[0].log_path.read_text()


async def test_sigterm_ends_a_node_with_open_watches(tmp_path: Path) -> None:
    async with cluster_of(tmp_path, 2) as cluster, watching(cluster.addresses, first=cluster.addresses[0]) as watcher:
        await eventually(lambda: watcher.source == cluster.addresses[0], "watched")
        cluster.processes[0].terminate()
        assert await asyncio.to_thread(cluster.processes[0].wait, BOUND_S) == 0, cluster.processes[0].log_tail()
        await eventually(lambda: watcher.source == cluster.addresses[1], "the watcher moved on")
        assert "exc_info" not in cluster.processes[0].log_path.read_text()


async def test_nothing_to_follow(tmp_path: Path) -> None:
    """Starting waits for nobody; without consensus nodes owners are unavailable for now; fixed members need none."""
    [port] = free_ports(1)
    async with watching([f"127.0.0.1:{port}"]) as watcher, beating(tmp_path, [f"127.0.0.1:{port}"], "m0", 9000) as heartbeat:
        with pytest.raises(OwnerUnavailable, match=str(port)) as refused:
            watcher.owners("acme", "ada")
        assert refused.value.retry_after_s and not watcher.owns("m0", "acme", "ada")
        assert heartbeat.reachable == 0 and not await watcher.wait_newer(0, 0.05)
    alone = PlacementWatcher(PlacementSettings(fixed=["m0=127.0.0.1:9000", "m1=[::1]:9001@z2"], replication_factor=2), "alone", Dialer())
    seen: list[Placement] = []
    alone.on_change(seen.append)
    await alone.start()
    assert {node.address for node in alone.owners("acme", "ada")} == {"127.0.0.1:9000", "[::1]:9001"}
    view = alone.view_of("m1")
    assert (view.epoch, view.owns("acme", "ada"), seen) == (2, True, [alone.placement])
    await alone.stop()
    for wrong in (["m0"], ["m0=h"], ["m0=h:1", "m0=h:2"]):
        with pytest.raises(ValueError, match=r"id=host:port|same id"):
            PlacementSettings(fixed=wrong)
    with pytest.raises(ValueError, match="host:port"):
        PlacementSettings(consensus=["localhost"])


def phase(watcher: PlacementWatcher, node_id: str) -> MemberPhase | None:
    node = watcher.placement.node(node_id) if watcher.placement is not None else None
    return None if node is None or not node.is_member else node.phase


async def test_a_node_whose_store_was_lost_is_not_read_from_until_it_says_so(tmp_path: Path) -> None:
    async with AsyncExitStack() as rest:
        cluster = await rest.enter_async_context(cluster_of(tmp_path, 2, CLUSTER__REPLICATION_FACTOR="2"))
        watcher = await rest.enter_async_context(watching(cluster.addresses))
        await rest.enter_async_context(beating(tmp_path, cluster.addresses, "m1", 9001, replica=11))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(beating(tmp_path, cluster.addresses, "m0", 9000, replica=10))
            await eventually(lambda: watcher.epoch == 2, "both are known")
            assert all(watcher.owns(node_id, "acme", user) for node_id in ("m0", "m1") for user in USERS)
            await stack.aclose()
            shutil.rmtree(tmp_path / "m0")
            wiped = await stack.enter_async_context(beating(tmp_path, cluster.addresses, "m0", 9000, replica=99))
            await eventually(lambda: phase(watcher, "m0") is MemberPhase.JOINING, "it joins by itself")
            view = watcher.view_of("m0")
            for user in USERS:
                assert (view.owns("acme", user), view.takes("acme", user)) == (False, True)
                assert view.copies("acme", user) == ("m1", "m0"), "the other one serves, and both get the writes"
            assert view.replication_factor == 2
            await wiped.set_phase(MemberPhase.ACTIVE)
            await eventually(lambda: phase(watcher, "m0") is MemberPhase.ACTIVE, "it has copied everything")
            assert all(watcher.owns("m0", "acme", user) for user in USERS)
            assert watcher.epoch == wiped.record.incarnation + 1


async def test_a_new_node_joins_and_leaves_where_nodes_are_admitted(tmp_path: Path) -> None:
    async with cluster_of(tmp_path, 2, CLUSTER__ADMIT="true") as cluster, watching(cluster.addresses) as watcher:
        async with (
            beating(tmp_path, cluster.addresses, "m0", 9000, replica=10) as founder,
            beating(tmp_path, cluster.addresses, "new", 9002, replica=12) as new,
        ):
            await eventually(lambda: phase(watcher, "new") is MemberPhase.JOINING, "it is admitted, and says that it joins")
            await eventually(lambda: new.is_member and founder.phase is MemberPhase.ACTIVE, "it knows, and the founder stays what it was")
            assert "new" not in set(owners(watcher)) and any("new" in watcher.view_of("m0").copies("acme", user) for user in USERS)
            await new.set_phase(MemberPhase.ACTIVE)
            await eventually(lambda: "new" in set(owners(watcher)), "it owns its share")
            await cluster.kill(0, 1)
            await cluster.start(0, 1)
            await cluster.converged(watcher.epoch)
            assert "new" in set(owners(watcher)), "admitted for good"
            await new.set_phase(MemberPhase.LEAVING)
            await eventually(lambda: phase(watcher, "new") is MemberPhase.LEAVING, "it leaves")
            moving = [user for user in USERS if watcher.owners("acme", user)[0].node_id == "new"]
            assert moving and all(len(watcher.copies("acme", user)) == 2 for user in moving), "those that take over get the writes already"
            await new.set_phase(MemberPhase.LEFT)
            await eventually(lambda: "new" not in set(owners(watcher)), "it has left")
        async with beating(tmp_path, cluster.addresses, "new", 9002, replica=12) as back:
            await eventually(lambda: back.reachable == 2, "heard again")
            assert back.phase is MemberPhase.LEFT, "a restart does not bring it back"


async def attach(member: Member, address: str) -> None:
    await member.attach_to(await PeerDialer(Dialer(), address).open())


async def test_deltas_survive_the_death_of_the_node_that_took_them(tmp_path: Path) -> None:
    """The author's consensus node is killed and comes back; what it took reaches the reader at another one, once and whole."""
    author, reader = Member(10, "m0"), Member(11, "m1")
    sent = [update(10, counter, previous=counter - 1, node="m0") for counter in range(1, 301)]
    async with cluster_of(tmp_path, 3, CLUSTER__REPLICATION_FACTOR="2") as cluster:
        await attach(reader, cluster.addresses[2])
        await attach(author, cluster.addresses[0])
        await author.write_durably(*sent[:100])
        await cluster.kill(0)
        await eventually(lambda: not author.attached, "the author notices")
        await attach(author, cluster.addresses[1])
        await author.write_durably(*sent[author.position : 200])
        await eventually(lambda: len(reader.has.get(10, ())) == 200, "the reader has what both took")
        await cluster.start(0)
        await attach(author, cluster.addresses[0])
        await eventually(lambda: author.attached, "back at the first")
        await author.write_durably(*sent[author.position :])
        await eventually(lambda: len(reader.has.get(10, ())) == 300, "the reader has everything")
        assert [reader.bodies[10, u.counter] for u in sent] == sent and reader.lost == {}
        found = [await cluster.status(index) for index in range(3)]
        assert sum(status.attached for status in found) == 2 and sum(status.updates_taken for status in found) >= 600
        await eventually_empty(cluster)
        for member in (author, reader):
            await member.detach()
        for process in cluster.processes:
            assert "rpc_fault" not in process.log_path.read_text()


async def eventually_empty(cluster: Cluster) -> None:
    async with asyncio.timeout(BOUND_S):
        while any([(await cluster.status(index)).log_entries for index in range(len(cluster.processes))]):
            await asyncio.sleep(0.05)


async def test_zones_exchange_deltas_through_their_gateways_and_a_lagging_reader_shows(tmp_path: Path) -> None:
    author, reader = Member(10, "m0"), Member(11, "m1")
    settings = {"CLUSTER__REPLICATION_FACTOR": "2", "DELTAS__MAX_ENTRIES": "100"}
    async with cluster_of(tmp_path, 3, ["a", "a", "b"], **settings) as cluster:
        await attach(author, cluster.addresses[1])
        await author.write_durably(*(update(10, counter, node="m0") for counter in range(1, 51)))
        async with asyncio.timeout(BOUND_S):
            while (await cluster.status(2)).log_entries < 50 or not (await cluster.status(2)).lag.get("m1"):
                await asyncio.sleep(0.05)
        found = [await cluster.status(index) for index in range(3)]
        assert [status.zone_gateway for status in found] == [True, False, True], "one for each zone"
        assert found[2].lag["m1"] == 50 and found[2].log_bytes > 0
        await author.write_durably(*(update(10, counter, node="m0") for counter in range(51, 301)))
        await attach(reader, cluster.addresses[2])
        rest = "it gets what is left, and hears up to where it has missed something"
        await eventually(lambda: 10 in reader.lost and reader.has.get(10, set()) >= set(range(reader.lost[10] + 1, 301)), rest)
        await eventually_empty(cluster)
        for member in (author, reader):
            await member.detach()
