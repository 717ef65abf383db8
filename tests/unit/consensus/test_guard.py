"""With a roster of authors, what is forged does not pass: its author's own stream ends, a peer's goes on without it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ndml.crdt.envelope import Envelope, replica_number
from ndml.errors import RequestMalformed
from ndml.internal.v1 import consensus_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.runtime import metrics
from services.consensus.deltas.guard import SigningGuard
from tests.unit.consensus.delta_harness import KEEPING, AnsweringEnd, CallingEnd, Member, Pipe, eventually, exchange, placement_of, running
from tests.unit.crdt.signed_world import NOW_MS, envelope_by, roster_of

ALL = placement_of((1,), 1)
M1 = replica_number("m1", 7)


def signed(envelope: Envelope) -> rpb.OwnerUpdate:
    return rpb.OwnerUpdate(
        tenant=envelope.tenant, user=envelope.user, replica=envelope.replica, previous=envelope.previous, counter=envelope.counter,
        node_id=envelope.node_id, envelope=envelope.canonical, signature=envelope.signature,
    )  # fmt: skip


def guard(owners: int = 100, path: Path | None = None) -> SigningGuard:
    return SigningGuard(roster_of("m1", "m2"), owners, lambda: NOW_MS, path)


def with_change(change: Callable[[rpb.OwnerUpdate], object]) -> rpb.OwnerUpdate:
    update = signed(envelope_by("m1", 4))
    change(update)
    return update


def unsigned(replica: int, node: str, counter: int) -> rpb.OwnerUpdate:
    return rpb.OwnerUpdate(tenant="t", user="u", replica=replica, node_id=node, previous=counter - 1, counter=counter)


FORGED = {
    "no signature": with_change(lambda u: u.ClearField("signature")),
    "no envelope": with_change(lambda u: u.ClearField("envelope")),
    "another user": with_change(lambda u: setattr(u, "user", "mallory")),
    "another place": with_change(lambda u: setattr(u, "counter", 5)),
    "another's key": signed(envelope_by("m1", 4, key="m2")),
    "not on the roster": signed(envelope_by("m9", 4)),
    "from the future": signed(envelope_by("m1", 4, ms=NOW_MS + 61_000)),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
async def test_a_forged_update_is_refused(forged: rpb.OwnerUpdate) -> None:
    good = signed(envelope_by("m1", 3))
    assert set(await guard().refusals([good, forged])) == {1}


async def test_the_order_of_arrival_and_a_forgotten_past_do_not_matter() -> None:
    first = envelope_by("m1", 1)
    second = envelope_by("m1", 2, first)
    third = envelope_by("m1", 3, second)
    judge = guard(owners=1)
    assert await judge.refusals([signed(third), signed(first), signed(second), signed(third)]) == {}
    elsewhere = envelope_by("m2", 1, owner=("acme", "bob"))
    assert await judge.refusals([signed(elsewhere), signed(envelope_by("m1", 4, third))]) == {}


async def test_who_contradicts_himself_is_quarantined() -> None:
    judge = guard()
    one, other = envelope_by("m1", 2), envelope_by("m1", 2, text=b"told to others")
    assert await judge.refusals([signed(one), signed(other)]) == {}, "both stay, as siblings"
    assert list(judge.quarantined) == ["m1"]
    later = signed(envelope_by("m1", 9, previous=8, previous_hash=b"x" * 32))
    assert await judge.refusals([later, signed(envelope_by("m2", 1))]) == {0: "quarantined"}


async def test_an_author_that_writes_too_much_is_slowed_alone_and_loses_nothing(tmp_path: Path) -> None:
    pauses = metrics.AUTHORS_SLOWED.labels("stream")._value
    node, busy, idle = exchange(tmp_path, lambda: ALL, author_updates_per_s=200.0), Member(M1, "m1"), Member(replica_number("m2", 7), "m2")
    async with running(node):
        await busy.attach(node)
        await idle.attach(node)
        before = pauses.get()
        updates = [unsigned(M1, "m1", n) for n in range(1, 901)]
        for start in range(0, len(updates), 100):
            await busy.write(*updates[start : start + 100])
        await idle.write_durably(unsigned(idle.replica, "m2", 1))
        await busy.detach()
        await busy.attach(node)
        behind = [update for update in updates if update.counter > busy.position]
        for start in range(0, len(behind), 100):
            await busy.write(*behind[start : start + 100])
        await eventually(lambda: busy.acked == 900, "everything arrives")
        assert pauses.get() - before >= 3, "a new stream is no new beginning"
        assert [(M1, n) in node.log.index or node.log.index.positions[M1] >= n for n in range(1, 901)] == [True] * 900
        await busy.detach()
        await idle.detach()


async def test_the_stream_of_a_forger_ends_and_a_peer_is_passed_over(tmp_path: Path) -> None:
    unhurried = replace(KEEPING, grace_s=3600.0)  # so that what has passed is still in the log when the test looks
    node, author = exchange(tmp_path, lambda: ALL, guard=guard(), keeping=unhurried), Member(M1, "m1")
    good, bad = signed(envelope_by("m1", 3)), signed(envelope_by("m1", 4, key="m2"))
    async with running(node):
        await author.attach(node)
        await author.write_durably(good)
        await author.write(bad)
        await eventually(lambda: not author.attached, "its stream ended")
        assert node.log.index.positions == {M1: 3}, "and it may send again what it has not signed well"
        pipe = Pipe()
        served = node.serve(AnsweringEnd(pipe))
        end = CallingEnd(pipe)
        await end.send(pb.ExchangeDeltasRequest(hello=pb.DeltaHello(node_id="peer", zone="z")))
        fine = signed(envelope_by("m1", 5, previous=3, previous_hash=envelope_by("m1", 3).hash))
        await end.send(pb.ExchangeDeltasRequest(updates=[bad, fine]))
        await eventually(lambda: node.log.index.positions == {M1: 5} and (M1, 5) in node.log.index, "what is good passes")
        assert (M1, 4) not in node.log.index
        await end.close()
        await asyncio.wait({served})
        await author.detach()


async def test_a_proof_convicts_wherever_it_is_taken_and_after_a_restart(tmp_path: Path) -> None:
    first, path = guard(), tmp_path / "proofs.json"
    assert await first.refusals([signed(envelope_by("m1", 4)), signed(envelope_by("m1", 4, text=b"something else"))]) == {}
    (proof,) = first.proofs
    for _ in range(2):  # the second one reads what the first wrote
        other = guard(path=path)
        await other.learn([proof])
        assert list(other.quarantined) == ["m1"]
        assert list(other.proofs) == [proof]
    assert list(guard(path=path).quarantined) == ["m1"]
    with pytest.raises(RequestMalformed):
        await guard().learn([proof[:-1]])
    path.write_text("[")
    with pytest.raises(RequestMalformed):
        guard(path=path)
