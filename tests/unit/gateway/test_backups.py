"""Backup, restore and drain over stores in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.errors import FieldInvalid, OwnerUnavailable
from ndml.internal.v1 import consensus_pb2, llm_pb2
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rep
from ndml.placement import MemberPhase, MemberState, NodeRecord, Placement, PlacementNode
from ndml.v1 import admin_pb2
from services.gateway.admin import Admin, Peers
from services.gateway.backups import Backups
from services.gateway.scopes import Owner
from services.gateway.settings import BackupSettings
from tests.sim.loop import run

Held = dict[Owner, dict[bytes, rep.TraceRecord]]


class Suite:
    """Nodes n0, n1, …: their stores, phases, and who does not answer. An owner's copies are by rendezvous, as everywhere."""

    def __init__(self, nodes: int, factor: int) -> None:
        self.held: dict[str, Held] = {f"n{i}": {} for i in range(nodes)}
        self.phases = dict.fromkeys(self.held, MemberPhase.ACTIVE)
        self.away: set[str] = set()
        self.factor = factor
        self.to_move = [3, 1]
        self.busy = 0
        self.epoch = 1
        options = BackupSettings(part_bytes=1 << 16, drain_misses=3)
        self.backups = Backups(self, self, self, options, write_copies=2)
        peers = Peers(admin_pb2.ServiceStatus, [], [])
        self.admin = Admin(self, self, self, peers, options, lambda: 0.0)

    @property
    def placement(self) -> Placement:
        records = [NodeRecord(n, f"127.0.0.1:{7000 + i}", "", "general", 1, self.phases[n]) for i, n in enumerate(self.held)]
        return Placement([PlacementNode(record, MemberState.ALIVE) for record in records], self.factor)

    def owners_of(self, owner: Owner) -> list[str]:
        return [node.node_id for node in self.placement.owners(*owner)]

    def copies(self, tenant: str, user: str) -> Sequence[PlacementNode]:
        return self.placement.copies(tenant, user)

    async def wait_newer(self, epoch: int, timeout_s: float) -> bool:
        return False

    def put(self, owner: Owner, number: int, *nodes: str) -> None:
        record = rep.TraceRecord(trace_id=number.to_bytes(16, "big"), length=1 + number % 2, context=bytes(number))
        for node_id in nodes or self.owners_of(owner):
            self.held[node_id].setdefault(owner, {})[record.trace_id] = record

    # ports.Cluster
    def at(self, address: str) -> str:
        node_id = f"n{int(address.rpartition(':')[2]) - 7000}"
        if node_id in self.away:
            raise OwnerUnavailable(f"{node_id} is away")
        return node_id

    async def node_status(self, address: str) -> pb.GetNodeStatusResponse:
        node_id = self.at(address)
        if self.phases[node_id] is MemberPhase.LEAVING:
            left = self.to_move.pop(0) if self.to_move else 0
            self.phases[node_id] = MemberPhase.LEAVING if left else MemberPhase.LEFT
        phase = admin_pb2.MemberPhase.Name(self.phases[node_id])
        return pb.GetNodeStatusResponse(
            owners=len(self.held[node_id]), phase=phase, owners_to_move=sum(self.to_move), quarantined=["a", "b"]
        )

    async def consensus_status(self, address: str) -> consensus_pb2.GetConsensusStatusResponse:
        raise OwnerUnavailable(address)

    async def model_info(self, address: str) -> llm_pb2.GetModelInfoResponse:
        raise OwnerUnavailable(address)

    async def create_snapshot(self, address: str) -> pb.CreateSnapshotResponse:
        raise OwnerUnavailable(address)

    # ports.Stores, and ports.Copies: `owners` is both
    def owners(self, where: object, what: object) -> object:
        return self.placement.owners(where, what) if isinstance(where, str) else self._listed(where, what)  # type: ignore[arg-type]

    async def _listed(self, node: PlacementNode, buckets: Sequence[int]) -> AsyncIterator[rep.OwnerState]:
        for owner in self.held[self.at(node.address)]:
            if blake2b(repr(owner).encode(), digest_size=1).digest()[0] in buckets:
                yield await self.state(node, owner)

    async def records(self, node: PlacementNode, owner: Owner) -> AsyncGenerator[Sequence[rep.TraceRecord], None]:
        for record in list(self.held[self.at(node.address)].get(owner, {}).values()):
            yield [record]

    async def state(self, node: PlacementNode, owner: Owner) -> rep.OwnerState:
        records = self.held[self.at(node.address)].get(owner, {})
        digest = blake2b(digest_size=16)
        for trace_id in sorted(records):
            digest.update(records[trace_id].SerializeToString())
        return rep.OwnerState(tenant=owner.tenant, user=owner.user, digest=digest.digest(), records=len(records))

    async def push(self, node: PlacementNode, owner: Owner, records: Sequence[rep.TraceRecord]) -> int:
        held = self.held[self.at(node.address)].setdefault(owner, {})
        if self.busy:
            self.busy -= 1
            raise OwnerUnavailable("restarting")
        new = [record for record in records if record.trace_id not in held]
        held |= {record.trace_id: record for record in new}
        return len(new)

    async def set_phase(self, node: PlacementNode, phase: admin_pb2.MemberPhase) -> admin_pb2.MemberPhase:
        self.phases[self.at(node.address)] = MemberPhase(phase)
        return phase


async def backed_up(suite: Suite) -> list[admin_pb2.BackupResponse]:
    return [response async for response in suite.backups.backup()]


async def restored(suite: Suite, parts: Sequence[admin_pb2.BackupPart]) -> admin_pb2.RestoreResponse:
    async def requests() -> AsyncIterator[admin_pb2.RestoreRequest]:
        for part in parts:
            yield admin_pb2.RestoreRequest(part=part)

    return await suite.backups.restore(requests())


USERS = st.dictionaries(st.sampled_from("abcdefghij"), st.sets(st.integers(0, 9), min_size=1), max_size=8)


@given(USERS, st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_what_was_backed_up_is_restored_into_any_number_of_nodes(
    users: dict[str, set[int]], nodes: int, factor: int, nodes_after: int, factor_after: int
) -> None:
    async def main() -> None:
        old, new = Suite(nodes, factor), Suite(nodes_after, factor_after)
        for user, numbers in users.items():
            for number in numbers:
                old.put(Owner("t", user), number)
        responses = await backed_up(old)
        result = await restored(new, [response.part for response in responses])
        records = sum(map(len, users.values()))
        assert (result.owners, result.records, result.changed, result.verified) == (len(users), records, records, len(users))
        for user, numbers in users.items():
            owner = Owner("t", user)
            assert all(len(new.held[node_id][owner]) == len(numbers) for node_id in new.owners_of(owner))
        assert [r.owners_done for r in responses[-1:]] == [len(users)] * bool(users)
        again = await restored(new, [response.part for response in responses])
        assert (again.changed, again.verified) == (0, len(users))

    run(lambda loop: main())


def test_copies_that_differ_are_all_in_the_backup_and_nothing_claims_a_digest() -> None:
    async def main() -> None:
        suite, owner = Suite(3, 3), Owner("t", "ann")
        suite.put(owner, 1)
        suite.put(owner, 2, "n1")
        suite.put(owner, 3, "n2")
        parts = [response.part for response in await backed_up(suite)]
        assert {record for part in parts for record in part.records} == {
            record.SerializeToString() for held in suite.held.values() for record in held[owner].values()
        }
        assert parts[-1].owner_records and not parts[-1].owner_digest
        fresh = Suite(1, 1)
        result = await restored(fresh, parts)
        assert (result.owners, result.verified, len(fresh.held["n0"][owner])) == (1, 0, 3)

    run(lambda loop: main())


@pytest.mark.parametrize(("nodes", "factor", "away", "goes"), [(3, 3, 1, True), (3, 3, 2, False), (2, 2, 1, True), (3, 1, 1, False)])
def test_a_backup_that_could_miss_a_write_is_none(nodes: int, factor: int, away: int, goes: bool) -> None:
    async def main() -> None:
        suite = Suite(nodes, factor)
        suite.put(Owner("t", "ann"), 1)
        suite.away = {f"n{i}" for i in range(away)}
        if goes:
            assert (await backed_up(suite))[-1].owners_done == 1
        else:
            with pytest.raises(OwnerUnavailable, match="n0"):
                await backed_up(suite)

    run(lambda loop: main())


def test_a_restore_waits_for_who_restarts_and_names_what_is_broken() -> None:
    async def main() -> None:
        suite, target = Suite(1, 1), Suite(3, 3)
        suite.put(Owner("t", "ann"), 1)
        parts = [response.part for response in await backed_up(suite)]
        target.busy = 5
        assert (await restored(target, parts)).verified == 1
        target.away = {"n0", "n1"}
        with pytest.raises(OwnerUnavailable) as few:
            await restored(target, parts)
        assert few.value.metadata == {"acked": "1", "wanted": "2"}
        for broken in (admin_pb2.BackupPart(tenant="t"), admin_pb2.BackupPart(tenant="t", user="u", records=[b"\xff"])):
            with pytest.raises(FieldInvalid):
                await restored(target, [broken])

    run(lambda loop: main())


def test_a_drain_is_followed_to_its_end() -> None:
    async def main() -> None:
        suite = Suite(3, 2)
        suite.put(Owner("t", "ann"), 1, "n0")
        steps = [(r.phase, r.owners_left, r.owners_total) async for r in suite.admin.drain("n0")]
        leaving, left = admin_pb2.MEMBER_PHASE_LEAVING, admin_pb2.MEMBER_PHASE_LEFT
        assert steps == [(leaving, 1, 1), (leaving, 1, 1), (leaving, 0, 1), (left, 0, 1)]
        with pytest.raises(FieldInvalid, match="1 nodes would stay"):
            await anext(suite.admin.drain("n1"))
        with pytest.raises(FieldInvalid, match="members are n0, n1, n2"):
            await anext(suite.admin.drain("n7"))

    run(lambda loop: main())


def test_a_drain_whose_node_is_gone_says_so() -> None:
    async def main() -> None:
        suite = Suite(3, 2)
        steps = suite.admin.drain("n0")
        await anext(steps)
        suite.away = {"n0"}
        with pytest.raises(OwnerUnavailable, match="n0 does not answer any more"):
            await anext(steps)

    run(lambda loop: main())


async def test_status_and_placement_show_phases_and_lists() -> None:
    suite = Suite(2, 1)
    suite.phases["n1"] = MemberPhase.JOINING
    status = await suite.admin.status()
    assert dict(status.services[1].details) == {"phase": "active", "owners_to_move": "4", "quarantined": "a, b"}
    members = suite.admin.placement("", "").members
    assert [member.phase for member in members] == [admin_pb2.MEMBER_PHASE_ACTIVE, admin_pb2.MEMBER_PHASE_JOINING]
    await asyncio.sleep(0)
