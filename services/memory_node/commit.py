"""Group commits: jobs in, results out, everything between BEGIN and COMMIT. Runs on the writer's thread only."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from ndml.crdt.clock import HybridClock
from ndml.errors import InternalFault, NdmlError, StoreUnavailable
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.runtime.log import get_logger
from ndml.v1.types_pb2 import Embedding
from ndml.wire import error_to_status
from services.memory_node.changes import Outdated, StateChange
from services.memory_node.gaps import Gaps
from services.memory_node.housekeeping import DropOwner, JournalPrune, Kept, SettleOwner, prune
from services.memory_node.joins import join, weight_of
from services.memory_node.merges import Membership, Merge, sources_of
from services.memory_node.owners import Limits, OwnerRow, Totals
from services.memory_node.ports import NowNs
from services.memory_node.records import Judgement, Owner, TraceRow, check_model, is_trace_id, new_trace, unit_vectors
from services.memory_node.replicas import Damaged, Replicas
from services.memory_node.schema import Identity
from services.memory_node.transaction import Author, Transaction
from services.memory_node.vectors import joined
from services.memory_node.versions import Trust, trusted
from services.memory_node.weighing import Weigh, weigh

T = TypeVar("T")

log = get_logger(__name__)

WriteAction = (
    pb.PutAction
    | pb.UpdateAction
    | pb.DeleteAction
    | pb.ResolveAction
    | pb.MergeAction
    | StateChange
    | Merge
    | JournalPrune
    | DropOwner
    | SettleOwner
    | Weigh
)
WriteResult = pb.PutResult | pb.TraceResult | pb.DeleteResult | pb.ReinforceActionResult | pb.MergeResult | Outdated | Kept


Done = Callable[["WriteResult | NdmlError"], None]


def _ignored(result: WriteResult | NdmlError) -> None:
    """The submitter does not wait."""


class WriteJob:
    """One write operation of `weight` traces. `done` is the submitter's own, for it to call with the outcome.

    `judged`: of a put, what the gate made of each trace; empty where it was not asked. The result of a merge is a put's: without an
    outcome where the sources were not as planned. `journal`: the owner has other copies. `wanted`: the submitter wants `update`, what the
    job changed, which is there with the result. `follows`: see Transaction.end_job. Where updates are signed: `checked`: of a merge, its
    updates were judged; `more`: what goes along with `update`; `repeated`: traces of the update of which this store has written nothing.
    """

    __slots__ = ("action", "checked", "done", "follows", "journal", "judged", "more", "owner", "repeated", "update", "wanted", "weight")

    def __init__(self, owner: Owner, action: WriteAction, done: Done = _ignored, judged: Sequence[Judgement | None] = ()) -> None:
        self.owner = owner
        self.action = action
        self.done = done
        self.judged = judged
        self.journal = False
        self.wanted = False
        self.follows: int | None = None
        self.update: rpb.OwnerUpdate | None = None
        self.checked = False
        self.more: Sequence[rpb.OwnerUpdate] = ()
        self.repeated: Sequence[bytes] = ()
        self.weight = 1
        if isinstance(action, pb.PutAction):
            self.weight = max(1, len(action.traces))
        elif isinstance(action, pb.MergeAction):
            self.weight = weight_of(action)

    def size(self) -> int:
        """Bytes, about."""
        action = self.action
        if isinstance(action, StateChange):
            return sum(len(row.state) for row in action.states)
        if isinstance(action, Merge):
            return action.semantic.ByteSize()
        return 0 if isinstance(action, JournalPrune | DropOwner | SettleOwner | Weigh) else action.ByteSize()


class Refused(NamedTuple):
    """A job that is not to be carried out, and why."""

    job: WriteJob
    error: NdmlError


class Signatures(Protocol):
    """Judges what others wrote and signs what this store wrote, on the writer's thread, around its commits."""

    def screen(self, jobs: Sequence[WriteJob]) -> tuple[list[WriteJob], list[Refused]]:
        """The jobs to carry out, with joins of what waited for their updates; and the others."""
        ...

    def seal(self, commit: Commit) -> None:
        """Put signed updates in place of the jobs' own; where that fails, an error in place of their results."""
        ...

    def kept(self, owner: Owner, trace_ids: Sequence[bytes]) -> list[rpb.OwnerUpdate]:
        """Signed updates that these traces are made of. Any thread; raises StoreUnavailable."""
        ...


@dataclass(slots=True)
class Commit:
    """What a group did: a result or an error for each job, and for each owner the rows that came, the sequences that went, the merges, the
    states that others' feedback changed (by first sequence), what is known of other authors now (heads, and peaks, 0: none any more: see
    positions.py); and the owners that are not here any more.
    """

    jobs: Sequence[WriteJob]
    results: list[WriteResult | NdmlError]
    last_sequence: int
    added: dict[Owner, list[TraceRow]] = field(default_factory=dict)
    removed: dict[Owner, list[int]] = field(default_factory=dict)
    membership: Membership = field(default_factory=Membership)
    states: dict[Owner, list[tuple[int, bytes]]] = field(default_factory=dict)
    heads: dict[Owner, dict[int, int]] = field(default_factory=dict)
    dropped: set[Owner] = field(default_factory=set)
    peaks: dict[Owner, dict[int, int]] = field(default_factory=dict)

    def owners(self) -> set[Owner]:
        """Whose memory the commit changed."""
        return (
            self.added.keys()
            | self.removed.keys()
            | self.membership.merged.keys()
            | self.membership.freed.keys()
            | self.states.keys()
            | self.dropped
        )

    def extend(self, later: Commit) -> None:
        """Take in a commit that came after this one, but for its jobs."""
        self.results += later.results
        self.last_sequence = later.last_sequence
        _append(self.added, later.added)
        _append(self.removed, later.removed)
        _append(self.states, later.states)
        _append(self.membership.merged, later.membership.merged)
        _append(self.membership.freed, later.membership.freed)
        for owner, heads in later.heads.items():
            self.heads.setdefault(owner, {}).update(heads)
        for owner, peaks in later.peaks.items():
            self.peaks.setdefault(owner, {}).update(peaks)
        self.dropped |= later.dropped


def _append(mine: dict[Owner, list[T]], theirs: dict[Owner, list[T]]) -> None:
    for owner, more in theirs.items():
        mine.setdefault(owner, []).extend(more)


class Committer:
    """The only one who writes to the store; not thread-safe."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        identity: Identity,
        limits: Limits,
        owner_cache: int,
        now_ns: NowNs,
        replicas: Replicas,
        trust: Trust = trusted,
    ) -> None:
        self.connection = connection
        self.replicas = replicas
        self._identity = identity
        self._limits = limits
        self._now_ns = now_ns
        self._owners: OrderedDict[Owner, OwnerRow] = OrderedDict()
        self._gaps = Gaps()
        self._owner_cache = owner_cache
        self.last_sequence = int(connection.execute("SELECT value FROM meta WHERE key = 'last_sequence'").fetchone()[0])
        self.removed_at = self.last_sequence
        """The last sequence number at which something was deleted or replaced: the store's log has it still."""
        clock = int(connection.execute("SELECT value FROM meta WHERE key = 'clock'").fetchone()[0])
        self.author = Author(HybridClock(now_ns, start=clock), identity.node_id, identity.dimension, trust)
        held = "SELECT total(episodic + semantic + procedural), count(*) FROM owners WHERE episodic + semantic + procedural > 0"
        self.totals = Totals(*(int(value) for value in connection.execute(held).fetchone()))

    def commit(self, jobs: Sequence[WriteJob]) -> Commit:
        """Carry the jobs out in order, in one transaction that is on disk when this returns. Never raises: errors stand in the results.

        A failing disk fails the whole group and leaves the store as it was. A fault of ours in one job must not fail its
        neighbours: then each job gets a transaction of its own.
        """
        try:
            return self._commit(jobs)
        except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
            if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.InterfaceError):
                return self._one_by_one(jobs, error)
            log.error("commit_failed", error=str(error), jobs=len(jobs))
            failure = StoreUnavailable(f"the store cannot write ({error}): nothing of this was stored, reads go on, try again later")
            return Commit(jobs, [failure] * len(jobs), self.last_sequence)
        except Exception as error:  # whatever it is, the jobs need an answer and the thread must live
            return self._one_by_one(jobs, error)

    def _one_by_one(self, jobs: Sequence[WriteJob], error: Exception) -> Commit:
        if len(jobs) == 1:
            log.error("write_fault", exc_info=error)
            return Commit(jobs, [InternalFault("internal fault while writing: the node's log has the details")], self.last_sequence)
        whole = Commit(jobs, [], self.last_sequence)
        for job in jobs:
            whole.extend(self.commit([job]))
        return whole

    def _commit(self, jobs: Sequence[WriteJob]) -> Commit:
        vectors = _Vectors(jobs, self._identity.dimension)
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            parts = (self._limits, self.replicas, self.author, self._gaps)
            work = Transaction(self.connection, self._owners, self.last_sequence, self.totals, *parts)
            results = [self._run(work, job, vectors) for job in jobs]
            work.finish()
            self.connection.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after a full disk.
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise
        self._remember(work)
        effects = (work.added, work.removed, work.membership, work.states, work.heads, work.dropped, work.peaks)
        return Commit(jobs, results, work.last_sequence, *effects)

    def _remember(self, work: Transaction) -> None:
        self.last_sequence, self.totals = work.last_sequence, work.totals
        if work.removed or work.dropped:
            self.removed_at = work.last_sequence
        for owner in work.dropped:
            self._owners.pop(owner, None)
            self._gaps.forget(owner)
        for owner, spans in work.waiting.items():
            self._gaps.note(owner, spans)
        for owner, grown in work.heads.items():
            for replica, head in grown.items():
                self._gaps.passed(owner, replica, head)
        self._owners.update(work.owners)
        while len(self._owners) > self._owner_cache:
            self._owners.popitem(last=False)

    def _run(self, work: Transaction, job: WriteJob, vectors: _Vectors) -> WriteResult | NdmlError:
        work.begin_job()
        job.update = None
        try:
            result = self._result(work, job, vectors)
        except NdmlError as error:
            return error
        except Damaged as error:
            log.error("row_damaged", error=str(error))
            return StoreUnavailable(f"{error}: a copy has it; start this node with store.check = always and store.on_damage = set_aside")
        if isinstance(result, pb.MergeResult):
            return result
        if isinstance(result, Outdated | Kept):
            result.sequence = work.last_sequence
            return result
        result.sequence, job.update = work.end_job(job.owner, journal=job.journal, update=job.wanted, follows=job.follows)
        return result

    def _result(self, work: Transaction, job: WriteJob, vectors: _Vectors) -> WriteResult:
        action, owner, now_us = job.action, job.owner, self._now_ns() // 1000
        if isinstance(action, pb.PutAction):
            work.look_up(owner, [bytes.fromhex(t.trace_id) for t in action.traces if is_trace_id(t.trace_id)])
            made = pb.PutResult(outcomes=[self._put(work, job, action, i, vectors) for i in range(len(action.traces))])
            work.arrive(owner, work.touched.fresh, (), now_us)
            return made
        if isinstance(action, Merge):
            return self._merge(work, owner, action, vectors)
        if isinstance(action, pb.UpdateAction):
            vector = vectors.take() if action.trace.HasField("embedding") else b""
            check_model(action.trace.embedding.model, self._identity.embedding_model)
            return pb.TraceResult(trace=work.update(owner, action, vector, now_us))
        if isinstance(action, pb.ResolveAction):
            return pb.TraceResult(trace=work.resolve(owner, action, now_us))
        if isinstance(action, pb.MergeAction):
            return join(work, owner, action, self._identity.dimension, now_us)
        if isinstance(action, StateChange):
            return work.change_states(owner, action, now_us)
        if isinstance(action, JournalPrune):
            return prune(self.connection, action)
        if isinstance(action, DropOwner):
            return Kept(work.drop(owner, action))
        if isinstance(action, SettleOwner):
            return Kept(work.settle(owner, action))
        if isinstance(action, Weigh):
            return weigh(work, action, now_us)
        return pb.DeleteResult(deleted=work.delete(owner, action.trace_id, now_us))

    def _merge(self, work: Transaction, owner: Owner, merge: Merge, vectors: _Vectors) -> pb.PutResult:
        now_us = self._now_ns() // 1000
        new = new_trace(owner, merge.semantic, vectors.take(), now_us)
        work.look_up(owner, [new.trace_id])
        outcome = work.merge(owner, merge, new, now_us)
        return pb.PutResult(outcomes=[] if outcome is None else [outcome])

    def _put(self, work: Transaction, job: WriteJob, action: pb.PutAction, i: int, vectors: _Vectors) -> pb.PutOutcome:
        trace, judged = action.traces[i], job.judged[i] if job.judged else None
        try:
            vector = vectors.take()
            check_model(trace.embedding.model, self._identity.embedding_model)
            made = None if judged is None else judged.made
            new = new_trace(job.owner, trace, vector, self._now_ns() // 1000, made)
            outcome = work.put(job.owner, new, action.skip_existing, judged)
            if made is not None and not outcome.existed:
                outcome.gate.CopyFrom(made.gate)
            sources = sources_of(trace) if trace.links else []
            if sources and not outcome.existed:
                work.adopt(job.owner, new.trace_id, sources, self._now_ns() // 1000)
            return outcome
        except NdmlError as error:
            return pb.PutOutcome(error=error_to_status(error))


class _Vectors:
    """The vectors of a group, checked in one go; taken one after the other in the order of the jobs."""

    def __init__(self, jobs: Sequence[WriteJob], dimension: int) -> None:
        self._given: list[Embedding] = []
        for job in jobs:
            if isinstance(job.action, pb.PutAction):
                self._given += [trace.embedding for trace in job.action.traces]
            elif isinstance(job.action, Merge):
                self._given.append(job.action.semantic.embedding)
            elif isinstance(job.action, pb.UpdateAction) and job.action.trace.HasField("embedding"):
                self._given.append(job.action.trace.embedding)
        matrix, self._errors = unit_vectors([embedding.vector for embedding in self._given], dimension)
        self._bytes = matrix.tobytes()
        self._width = 4 * dimension
        self._next = 0

    def take(self) -> bytes:
        """As they are stored (vectors.py). Raises EmbeddingDimensionMismatch, EmbeddingNotFinite, FieldInvalid."""
        i, self._next = self._next, self._next + 1
        if i in self._errors:
            raise self._errors[i]
        return joined(self._bytes[i * self._width : (i + 1) * self._width], self._given[i], self._width // 4)
