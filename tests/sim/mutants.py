"""Bugs that were put into the production code on purpose: each a patch, and why it is one. The simulator has to find every one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from ndml.crdt import record
from ndml.crdt.causal import Dot
from ndml.crdt.clock import HybridClock
from ndml.crdt.record import Contribution, TraceRecord
from ndml.internal.v1 import replication_pb2 as rpb
from services.gateway import quorum
from services.gateway.reads import Reads
from services.memory_node import joins, replica_reader, store, transaction
from services.memory_node.digests import Digests, owner_digests
from services.memory_node.heads import Heads
from services.memory_node.owners import OwnerRow
from services.memory_node.positions import Advance
from services.memory_node.records import Owner
from services.memory_node.replicas import CONTENT, Held
from services.memory_node.replication import reconcile
from services.memory_node.store import Store
from tests.sim.clients import ONE
from tests.sim.faults import Plan
from tests.sim.network import Weather
from tests.sim.world import Shape

_STORM = Weather(drop=0.3, delay_s=0.02)


@dataclass(frozen=True, slots=True)
class Mutant:
    """`put_in`: the bug, while the context lasts. The rest: what the runs are like that are to find it, so that few are needed.

    `small`: three nodes and one consensus node. `far_off`: a clock is off by minutes.
    """

    put_in: Callable[[], AbstractContextManager[Any]]
    kinds: tuple[str, ...] = ()
    weather: Weather | None = None
    destructive: str | None = None
    small: bool = False
    far_off: bool = False

    @property
    def name(self) -> str:
        return self.put_in.__name__

    def change(self, shape: Shape, plan: Plan) -> tuple[Shape, Plan]:
        """What the runs are like."""
        destructive = plan.destructive if self.destructive is None else self.destructive
        if self.small:
            shape, plan = replace(shape, nodes=3, consensus=1), replace(plan, zones=False)
        kinds, weather = self.kinds or plan.kinds, self.weather or plan.weather
        return shape, replace(plan, kinds=kinds, weather=weather, destructive=destructive, far_off=self.far_off or plan.far_off)


def context_is_not_merged() -> AbstractContextManager[Any]:
    """A join takes the other's versions and forgets what the other knew to be replaced: old contents come back."""
    right = record._joined

    def wrong(ours: TraceRecord, theirs: TraceRecord, settled: dict[int, Contribution]) -> TraceRecord:
        joined = right(ours, theirs, settled)
        return joined if joined.is_erased else replace(joined, context=ours.context.with_dots(joined.versions))

    return patch.object(record, "_joined", wrong)


def ack_comes_before_fsync() -> AbstractContextManager[Any]:
    """The log is written and not synced: what was acknowledged goes with the power."""
    right = Store._open

    def wrong(self: Store) -> None:
        right(self)
        self.committer.connection.execute("PRAGMA synchronous = NORMAL")

    return patch.object(store.Store, "_open", wrong)


def heads_advance_over_gaps() -> AbstractContextManager[Any]:
    """An update says that everything before it is known: a copy serves reads of what it has not got."""

    def wrong(
        known: Mapping[int, int], updates: Iterable[rpb.OwnerUpdate], heads: Iterable[rpb.Head], own: int, earlier: Callable[[int], Any]
    ) -> Advance:
        grown: dict[int, int] = {}
        said = [(each.replica, each.counter) for each in updates] + [(each.replica, each.counter) for each in heads]
        for replica, counter in said:
            grown[replica] = max(counter, grown.get(replica, 0), known.get(replica, 0))
        return Advance({replica: counter for replica, counter in grown.items() if replica != own}, [])

    return patch.object(joins, "advanced", wrong)


def tokens_leave_out_what_came_early() -> AbstractContextManager[Any]:
    """A read says what its copy has without a gap, and shows what is past that: the next copy that is asked has less."""
    right = Heads.shown

    def wrong(self: Heads, owner: Owner, applied: int, *, stored: bool) -> list[rpb.Head]:
        said = right(self, owner, applied, stored=stored)
        return said[: len({head.replica for head in said})]

    return patch.object(Heads, "shown", wrong)


def erasing_forgets_the_id() -> AbstractContextManager[Any]:
    """A delete leaves nothing behind: the first stale copy brings the trace back."""

    def wrong(self: transaction.Transaction, row: OwnerRow, trace_id: bytes, *, withdrawn: bool) -> None:
        self.touched.add(trace_id, CONTENT)
        self.last_sequence += 1

    return patch.object(transaction.Transaction, "bury", wrong)


def writes_count_when_they_are_sent() -> AbstractContextManager[Any]:
    """The gateway counts the other copies' disks before they say anything: one disk is all that an acknowledged write is on."""
    right = quorum.Tally.__init__

    def wrong(self: quorum.Tally, wanted: int, first: bool) -> None:
        right(self, wanted, first)
        self.acked = wanted

    return patch.object(quorum.Tally, "__init__", wrong)


def digests_leave_out_what_is_erased() -> AbstractContextManager[Any]:
    """Anti-entropy compares what is there: copies that missed a delete look equal to those that did not."""
    right = owner_digests

    def wrong(connection: Any, owner_id: int, replica: int) -> Digests:
        found = right(connection, owner_id, replica)
        there = [i for i, row in enumerate(found.trace_ids) if not _is_erased(connection, owner_id, row.tobytes())]
        return Digests(found.digests[there], found.trace_ids[there])

    return patch.object(replica_reader, "owner_digests", wrong)


def _is_erased(connection: Any, owner_id: int, trace_id: bytes) -> bool:
    query = "SELECT 1 FROM erased WHERE owner_id = ? AND trace_id = ?"
    return connection.execute(query, (owner_id, trace_id)).fetchone() is not None


def a_write_replaces_what_it_did_not_see() -> AbstractContextManager[Any]:
    """An update ends every version, those too that its writer was not shown: the other side of a conflict is lost."""
    right = transaction.Transaction.rewrite

    def wrong(self: transaction.Transaction, owner: Any, row: OwnerRow, held: Held, new: Any, replaces: set[Dot]) -> Any:
        return right(self, owner, row, held, new, set(held.versions))

    return patch.object(transaction.Transaction, "rewrite", wrong)


def a_token_stands_for_the_other_copies() -> AbstractContextManager[Any]:
    """A QUORUM read of a caller with a token asks one copy that knows all of it: what others were told since is missed."""
    right = Reads._once

    async def wrong(self: Reads, owner: Any, operation: Any, deadline: Any, seen: Any, consistency: Any) -> Any:
        return await right(self, owner, operation, deadline, seen, ONE if seen else consistency)

    return patch.object(Reads, "_once", wrong)


def clocks_follow_anybody() -> AbstractContextManager[Any]:
    """A hybrid clock takes whatever it hears: one machine whose clock is minutes ahead drags all of them along."""

    def wrong(self: HybridClock, clock: int) -> None:
        self._last = max(self._last, clock)

    return patch.object(HybridClock, "observe", wrong)


@contextmanager
def sweeps_repair_nothing() -> Iterator[None]:
    """A round compares, and believes that it has mended: neither fetches nor pushes."""

    async def fetch(self: reconcile.Reconciler, owner: Any, partner: Any, digests: list[bytes], heads: Any) -> int:
        return len(digests)

    async def push(self: reconcile.Reconciler, owner: Any, partner: Any, trace_ids: Any, ours: Any, *, tell: bool) -> None:
        return None

    with patch.object(reconcile.Reconciler, "_fetch", fetch), patch.object(reconcile.Reconciler, "_push", push):
        yield


_CUTS = ("partition", "one_way")

MUTANTS = (
    Mutant(context_is_not_merged),
    Mutant(ack_comes_before_fsync, ("crash",)),
    Mutant(heads_advance_over_gaps, (*_CUTS, "consensus"), _STORM),
    Mutant(erasing_forgets_the_id, _CUTS),
    Mutant(writes_count_when_they_are_sent, (*_CUTS, "consensus"), Weather(drop=0.5, delay_s=0.02), "wipe", small=True),
    Mutant(digests_leave_out_what_is_erased, _CUTS, _STORM),
    Mutant(a_write_replaces_what_it_did_not_see),
    Mutant(sweeps_repair_nothing, _CUTS, _STORM),
    Mutant(clocks_follow_anybody, far_off=True),
    Mutant(a_token_stands_for_the_other_copies, _CUTS, _STORM, destructive=""),
)
