"""The production store on a virtual disk: files in memory, group commits that take virtual time, and the engine without its index."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, cast

import numpy as np

from ndml.btsp.lifecycle import LifecycleOptions
from ndml.btsp.state import Dynamics
from ndml.errors import NdmlError, OwnerUnavailable, StoreUnavailable, TraceNotFound
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1.memory_pb2 import ReinforceResult
from ndml.v1.types_pb2 import LIFECYCLE_STATE_ARCHIVED, MemoryTrace
from ndml.wire import error_to_status
from services.memory_node.changes import Outdated, StateChange, StateRow
from services.memory_node.commit import WriteAction, WriteJob, WriteResult
from services.memory_node.heads import Heads
from services.memory_node.housekeeping import DropOwner, JournalPrune, Kept, SettleOwner
from services.memory_node.ports import PlacementView, check_owner, check_taker
from services.memory_node.reader import NEWEST, Reader
from services.memory_node.reads import Reads
from services.memory_node.records import Owner, parse_trace_id
from services.memory_node.replication.ports import ReplicaReader
from services.memory_node.residents import Residents
from services.memory_node.schema import Identity
from services.memory_node.settings import StoreSection
from services.memory_node.states import States, lifecycle_of
from services.memory_node.store import Store
from tests.sim.disks import GroupCommit

T = TypeVar("T")

DIMENSION, MODEL = 4, "sim"
_PAGE_BYTES = 8 << 20
_PAGE = 1000
_OWNERS = 16
_TRIES = 8
"""Of feedback whose trace got others' feedback meanwhile."""

_FULL = 2
"""SQLite's number for synchronous = FULL."""

Displaced = Callable[[Owner, str, Sequence[str]], None]
"""Told the texts that a write was made in place of, as its coordinator showed them."""


class _NothingResident:
    """No owner has an index here."""

    def get(self, owner: Owner) -> None:
        return None


class Files:
    """One node's directory. `new_replica` numbers a store that is made here."""

    def __init__(self, directory: Path, node_id: str, template: bytes, new_replica: Callable[[], int], now_ns: Callable[[], int]) -> None:
        self.directory = directory
        self._identity = Identity(node_id, DIMENSION, MODEL)
        self._template = template
        self._new_replica = new_replica
        self._now_ns = now_ns

    def wipe(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def open(self, restore_from: Path | None = None) -> Store:
        """The store that is there, else the snapshot, else a new one."""
        path = self.directory / "ndml.db"
        if not path.exists() and restore_from is None:
            self.directory.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._template)
            with sqlite3.connect(path, isolation_level=None) as connection:
                facts = [(self._identity.node_id, "node_id"), (self._new_replica(), "replica")]
                connection.executemany("UPDATE meta SET value = ? WHERE key = ?", facts)
            connection.close()
        settings = StoreSection(data_dir=self.directory, restore_from=restore_from, check="never", cache_bytes=1 << 20)
        store = Store(settings, self._identity, 1_000_000, self._now_ns)
        store.open()
        return store


def template(directory: Path) -> bytes:
    """A store file as it is when it was just made: copying it is ten times as fast as making one."""
    store = Store(StoreSection(data_dir=directory, check="never"), Identity("template", DIMENSION, MODEL), 1)
    store.open()
    store.close()
    return (directory / "ndml.db").read_bytes()


class SimStore:
    """A LocalStore, and the node's Execute. Dies with its process: whatever is asked of it then fails."""

    def __init__(
        self, store: Store, view: PlacementView, now_ns: Callable[[], int], fsync_s: Callable[[], float], displaced: Displaced
    ) -> None:
        self.store = store
        # By the writer's connection: nobody here reads while something is written, and another one would read all anew after each commit.
        self.reader = Reader(store.committer.connection, store.committer.replicas, store.identity.node_id, store._digests)
        self.dead = False
        self._view = view
        self._now_ns = now_ns
        self._displaced = displaced
        self._states = States(Dynamics(), LifecycleOptions(), now_ns)
        self._reads = Reads(self.reader, self._states, DIMENSION, MODEL, _PAGE_BYTES, now_ns)
        self._heads = Heads(self.reader, _OWNERS)
        # SQLite in WAL mode syncs its log at every commit only if told so: else what was committed is in the system's memory for a while.
        self._syncs = int(store.committer.connection.execute("PRAGMA synchronous").fetchone()[0]) >= _FULL
        self._durable = store.log_bytes()
        self._commits: GroupCommit[WriteJob, WriteResult | NdmlError] = GroupCommit(self._carry_out, fsync_s)

    def crash(self) -> None:
        """The machine lost power: of the files is left what the disk was made to hold."""
        db, log = self.store.path.read_bytes(), self.store.log_path.read_bytes()[: self._durable]
        self.stop()
        self.store.path.write_bytes(db)
        self.store.log_path.write_bytes(log)
        self.store.log_path.with_name("ndml.db-shm").unlink(missing_ok=True)

    def stop(self) -> None:
        """The process is gone."""
        self.dead = True
        self.reader.close()
        self.store.committer.connection.close()
        self.store._release()

    # LocalStore

    @property
    def replica(self) -> int:
        return self.store.replica

    @property
    def last_sequence(self) -> int:
        return self.store.committer.last_sequence

    async def call(self, work: Callable[[ReplicaReader], T]) -> T:
        self._check()
        return work(cast(ReplicaReader, self.reader))

    async def join(self, owner: Owner, action: pb.MergeAction) -> pb.MergeResult:
        result, _ = await self._write(owner, action)
        assert isinstance(result, pb.MergeResult)
        return result

    async def written(self) -> None:
        await self.prune(0)

    async def prune(self, up_to: int) -> None:
        await self._write(Owner("", ""), JournalPrune(up_to))

    async def drop(self, owner: Owner, digest: bytes) -> bool:
        result, _ = await self._write(owner, DropOwner(digest))
        return isinstance(result, Kept) and result.done

    async def settle(self, owner: Owner, digest: bytes, absent: str) -> bool:
        result, _ = await self._write(owner, SettleOwner(digest, absent))
        return isinstance(result, Kept) and result.done

    # Execute

    async def execute(self, operation: pb.Operation, epoch: int) -> pb.OperationResult:
        """One operation, as the engine does it. Raises NdmlError."""
        self._check()
        owner, action = Owner(operation.tenant, operation.user), operation.WhichOneof("action") or ""
        (check_taker if action == "merge" else check_owner)(self._view, epoch, *owner)
        self._heads.check(owner, operation.seen, self.last_sequence)
        if action in ("get", "record"):
            return self._read(owner, operation)
        if action == "reinforce":
            return await self._reinforce(owner, operation)
        result, job = await self._write(owner, getattr(operation, action), wanted=operation.want_update)
        made = pb.OperationResult()
        name = {"update": "trace", "resolve": "trace"}.get(action, action)
        getattr(made, name).CopyFrom(result)
        if job.update is not None:
            made.update.CopyFrom(job.update)
        return made

    def _read(self, owner: Owner, operation: pb.Operation) -> pb.OperationResult:
        try:
            result = self._reads.run(owner, operation, cast(Residents, _NothingResident()))
        except TraceNotFound as error:
            result = pb.OperationResult(error=error_to_status(error))
        if operation.want_heads:
            result.heads.extend(self._heads.shown(owner, self.last_sequence, stored=True))
        return result

    async def _reinforce(self, owner: Owner, operation: pb.Operation) -> pb.OperationResult:
        action = operation.reinforce
        [feedback] = action.feedback
        for _ in range(_TRIES):
            row = self.reader.owner(owner)
            if row is not None and self.reader.knows_feedback(row.owner_id, action.request_digest):
                return pb.OperationResult(reinforce=pb.ReinforceActionResult(replayed=True))
            stored = None if row is None else self.reader.stored(row.owner_id, parse_trace_id(feedback.trace_id))
            if stored is None:
                raise TraceNotFound("no such trace here", field="trace_id")
            block, place = self._states.of(stored, None)
            block.grade(np.array([place]), np.array([feedback.grade]), self._now_ns() / 1e9)
            [packed] = block.pack(np.array([place]))
            life = lifecycle_of(int(block.column("lifecycle")[place]))
            state = StateRow(stored.row.first_sequence, life, packed, stored.row.trace_id)
            change = StateChange((state,), digest=action.request_digest, basis=self.last_sequence)
            result, job = await self._write(owner, change, wanted=operation.want_update)
            if not isinstance(result, Outdated):
                done = pb.OperationResult(reinforce=pb.ReinforceActionResult(results=[ReinforceResult(trace_id=feedback.trace_id)]))
                done.reinforce.sequence = result.sequence
                if job.update is not None:
                    done.update.CopyFrom(job.update)
                return done
        raise OwnerUnavailable("others gave feedback all the time")

    async def archive_everything(self) -> None:
        """What forgetting does to one trace after the other: they leave the index, which is this node's alone."""
        for owner in self.reader.owners(None, _PAGE):
            row = self.reader.owner(owner)
            assert row is not None
            page = self.reader.page(row.owner_id, NEWEST, _PAGE, _PAGE_BYTES)
            if page.traces:
                block = self._states.stored(page.traces, None)
                packed = block.pack(np.arange(len(page.traces)))
                rows = [
                    StateRow(one.row.first_sequence, LIFECYCLE_STATE_ARCHIVED, state, one.row.trace_id)
                    for one, state in zip(page.traces, packed, strict=True)
                ]
                await self._write(owner, StateChange(tuple(rows), basis=self.last_sequence, feedback=False))

    async def _write(self, owner: Owner, action: WriteAction, *, wanted: bool = False) -> tuple[WriteResult, WriteJob]:
        self._check()
        job = WriteJob(owner, action)
        job.wanted = wanted
        job.journal = bool(owner.tenant) and len(self._view.copies(*owner)) > 1
        result = await self._commits.submit(job)
        if isinstance(result, NdmlError):
            raise result
        return result, job

    def _carry_out(self, jobs: Sequence[WriteJob]) -> list[WriteResult | NdmlError]:
        """Writes that replace something go one by one, so that it is known what was shown when each was made."""
        results: list[WriteResult | NdmlError] = []
        group: list[WriteJob] = []
        for job in jobs:
            if isinstance(job.action, pb.UpdateAction | pb.ResolveAction):
                results += self._committed(group)
                group = []
                results += self._committed_watched(job)
            else:
                group.append(job)
        return results + self._committed(group)

    def _committed(self, jobs: list[WriteJob]) -> list[WriteResult | NdmlError]:
        if not jobs:
            return []
        commit = self.store.committer.commit(jobs)
        if self._syncs:
            self._durable = self.store.log_bytes()
        self._heads.follow(commit)
        return commit.results

    def _committed_watched(self, job: WriteJob) -> list[WriteResult | NdmlError]:
        action = job.action
        assert isinstance(action, pb.UpdateAction | pb.ResolveAction)
        trace_id = action.trace.trace_id if isinstance(action, pb.UpdateAction) else action.trace_id
        before = self.shown(job.owner, trace_id)
        texts = before[:1] if isinstance(action, pb.UpdateAction) else before
        results = self._committed([job])
        if not isinstance(results[0], NdmlError):
            new = action.trace.text if isinstance(action, pb.UpdateAction) else ""
            self._displaced(job.owner, trace_id, [text for text in texts if text != new])
        return results

    def _check(self) -> None:
        if self.dead:
            raise StoreUnavailable("the process is gone")

    # For the checkers

    def shown(self, owner: Owner, trace_id: str) -> list[str]:
        """Texts of a trace's versions, the shown one first; none where it is not there."""
        row = self.reader.owner(owner)
        stored = None if row is None else self.reader.stored(row.owner_id, bytes.fromhex(trace_id))
        if stored is None:
            return []
        held = self.reader.held(stored.row)
        order = [held.shown, *(dot for dot in sorted(held.versions) if dot != held.shown)]
        return [MemoryTrace.FromString(held.versions[dot].version.content).text for dot in order]

    def is_erased(self, owner: Owner, trace_id: str) -> bool:
        row = self.reader.owner(owner)
        return row is not None and self.reader.erased(row.owner_id, bytes.fromhex(trace_id))
