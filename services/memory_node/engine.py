"""The engine: one thread that owns every partition and answers every operation.

Threads, and why these:
- the event loop parses batches and sends answers; it does no disk, index or numpy work;
- the engine's thread takes whatever arrived during its last turn, so load makes batches by itself; searches of one owner become one
  matrix product. It passes writes on at once and never waits for them;
- the writer's thread (writer.py) commits in groups and posts the outcome back. Only then, on the engine's thread, do the rows enter the
  index, and only after that is the write acknowledged. So an fsync never holds a search up, an acknowledged write is on disk and
  visible, and since outcomes arrive in commit order `applied` means "everything up to here can be found";
- the loader's thread (residents.py) reads owners that are not in memory, so that a cold owner does not hold up the warm ones.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import ParamSpec

from ndml.errors import Draining, FieldInvalid, InternalFault, NdmlError, Overloaded, TraceNotFound
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.runtime import metrics
from ndml.runtime.log import get_logger
from ndml.wire import error_to_status
from services.memory_node.batch import Batch, Deliver, Slot, refusal
from services.memory_node.care import Caretaker
from services.memory_node.changes import Outdated, StateChange
from services.memory_node.commit import Commit, Done, Signatures, WriteAction, WriteJob, WriteResult
from services.memory_node.feedback import FeedbackDesk
from services.memory_node.gate import WriteGate
from services.memory_node.heads import Heads
from services.memory_node.housekeeping import DropOwner, JournalPrune, SettleOwner
from services.memory_node.inbox import Inbox
from services.memory_node.merges import Merge
from services.memory_node.partition import Partition
from services.memory_node.payloads import PayloadCache
from services.memory_node.ports import PlacementView, check_owner, check_taker
from services.memory_node.positions import joined_update
from services.memory_node.reads import Reads
from services.memory_node.records import Judgement, Owner
from services.memory_node.residents import Loaded, Residents
from services.memory_node.search import GroupKey, Searcher, group_key
from services.memory_node.spaces import bringing
from services.memory_node.weighing import Weigh
from services.memory_node.writer import Writer

log = get_logger(__name__)

_WRITES = {"put", "update", "delete", "resolve", "merge"}
_RATES = {action: metrics.MEMORY_UPDATE_RATE.labels(action) for action in ("add", "update", "delete")}
_SEARCH_BATCH = metrics.BATCH_SIZE.labels("search")
_IDLE_S = 0.25
# Looking after traces: how often, and how long at a time.
_CARE_S, _CARE_BUDGET_S = 0.25, 0.005
# Feedback that others' feedback overtook is done again, so often: each time somebody else got on.
_TRIES = 8
# Stopping waits for what was let in, which is bounded; longer than this means a fault, and the process must end all the same.
_STOP_S = 20.0

Work = ParamSpec("Work")
Item = Batch | Commit | Loaded | WriteJob
Groups = dict[Owner, dict[GroupKey, list[Slot]]]


class Engine:
    """Give it its parts, `start`, then `submit` from the event loop; `stop` answers what was let in."""

    def __init__(
        self,
        inbox: Inbox[Item],
        writer: Writer,
        residents: Residents,
        searcher: Searcher,
        reads: Reads,
        cache: PayloadCache,
        placement: PlacementView,
        gate: WriteGate | None,
        feedback: FeedbackDesk,
        caretaker: Caretaker,
        response_bytes: int,
        applied: int,
        heads: Heads,
        signatures: Signatures | None = None,
    ) -> None:
        self._signatures = signatures
        self.applied = applied
        self._heads = heads
        self._gate = gate
        self._feedback = feedback
        self._caretaker = caretaker
        self._care_due = 0.0
        self._inbox = inbox
        self._writer = writer
        self._residents = residents
        self._searcher = searcher
        self._reads = reads
        self._cache = cache
        self._placement = placement
        self._response_bytes = response_bytes
        self._parked: dict[Owner, list[Slot]] = defaultdict(list)
        self._under_way: dict[bytes, list[Slot]] = {}
        self._done: list[Batch] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def resident_traces(self) -> int:
        return self._residents.traces

    def owners(self) -> list[tuple[Owner, int]]:
        """Owners in memory and how many traces each has there. Any thread may ask."""
        return self._residents.counts()

    @property
    def index_bytes(self) -> int:
        return self._residents.nbytes

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answers are delivered on `loop`."""
        self._loop = loop
        self._writer.start()
        self._thread.start()

    def stop(self) -> None:
        """Blocks until everything that was let in is on disk and answered."""
        self._inbox.close()
        self._thread.join(_STOP_S)
        if self._thread.is_alive():
            log.error("engine_stuck", operations=self._inbox.weight)
        self._writer.stop()
        self._residents.close()

    def submit(self, request: pb.ExecuteRequest, deliver: Deliver) -> None:
        """Have a batch executed; `deliver` gets the serialised ExecuteResponse. A full queue answers at once."""
        batch = Batch(request, deliver, self._done.append)
        if not batch.operations:
            deliver(refusal(request, FieldInvalid("a batch needs an operation", field="operations")))
        elif not self._inbox.offer(batch, len(batch.operations)):
            deliver(refusal(request, self._refused()))

    def merge(self, owner: Owner, merge: Merge, done: Done) -> None:
        """Have a cluster merged; a consolidation asks for one at a time. `done` is called on the engine's thread, on refusal at once."""
        self.join(owner, merge, done)

    def join(self, owner: Owner, action: Merge | pb.MergeAction | JournalPrune | DropOwner | SettleOwner | Weigh, done: Done) -> None:
        """Have a component's write done, bounded as callers' are. `done` is called on the engine's thread, on refusal at once."""

        def written(result: WriteResult | NdmlError) -> None:
            self._inbox.release(job.weight)
            done(result)

        job = WriteJob(owner, action, written)
        job.checked = True
        if not self._inbox.offer(job, job.weight):
            done(self._refused())

    def _refused(self) -> NdmlError:
        if self._inbox.closed:
            return Draining("this node is stopping: another one may own the scope, or it is back shortly")
        return Overloaded(f"{self._inbox.weight} operations are under way (engine.queue_operations): come back shortly")

    def _run(self) -> None:
        while not (self._inbox.closed and self._inbox.weight == 0):
            items = self._inbox.take(_IDLE_S)
            try:
                self._turn(items)
            except Exception:
                # Each operation is guarded by itself; what ends here is a fault of the loop, which must go on for the others.
                log.exception("engine_fault")
            self._send()

    def _turn(self, items: Iterable[Item]) -> None:
        slots: list[Slot] = []
        idle = True
        for item in items:
            idle = False
            if isinstance(item, Batch):
                slots += [Slot(item, i) for i in range(len(item.operations))]
            elif isinstance(item, Commit):
                self._committed(item)
            elif isinstance(item, WriteJob):
                self._write([item])
            else:
                slots += self._loaded(item)
        if idle:
            self._residents.idle()
        self._execute(slots)
        self._care()

    def _care(self) -> None:
        """A bounded bit, now and then: what must happen without a request shares the thread with those."""
        now = time.monotonic()
        if now < self._care_due:
            return
        self._care_due = now + _CARE_S
        jobs = self._caretaker.expired()
        for partition in self._residents.all():
            if self._caretaker.due(partition):
                change = self._caretaker.visit(partition, self._residents.traces)
                jobs += [self._changed(partition, change, _unheard)] if change is not None else []
                self._residents.settle(partition)
                if time.monotonic() - now > _CARE_BUDGET_S:
                    break
        self._write(jobs)

    def _committed(self, commit: Commit) -> None:
        for sequences in commit.removed.values():
            self._cache.forget(sequences)
        self._residents.apply(commit)
        self.applied = commit.last_sequence
        self._heads.follow(commit)
        _count(commit)
        for job, result in zip(commit.jobs, commit.results, strict=True):
            job.done(result)

    def _loaded(self, loaded: Loaded) -> list[Slot]:
        """Slots that waited for the owner and can run now."""
        self._residents.install(loaded)
        waiting = self._parked.pop(loaded.owner, [])
        if not isinstance(loaded.outcome, NdmlError):
            return waiting
        for slot in waiting:
            slot.finish(loaded.outcome)
        return []

    def _execute(self, slots: Iterable[Slot]) -> None:
        writes: list[WriteJob] = []
        groups: Groups = defaultdict(lambda: defaultdict(list))
        reads: list[Slot] = []
        for slot in slots:
            self._guard(slot, self._sort, slot, writes, groups, reads)
        # Writes first: their fsync runs while the searches compute.
        self._write(writes)
        for slot in reads:
            self._guard(slot, self._read, slot)
        for owner, by_key in groups.items():
            self._search(owner, by_key)

    def _sort(self, slot: Slot, writes: list[WriteJob], groups: Groups, reads: list[Slot]) -> None:
        self._check(slot)
        action = slot.action
        if brought := bringing(action, slot.operation):
            if self._awaits(slot.owner, [slot]):
                return
            self._residents.check(slot.owner, brought)
        if action == "search":
            groups[slot.owner][group_key(slot.operation.search)].append(slot)
        elif action == "put":
            writes += self._put(slot)
        elif action == "reinforce":
            writes += self._reinforce(slot)
        elif action in _WRITES:
            writes.append(self._job(slot, getattr(slot.operation, action)))
        elif action is None:
            raise FieldInvalid("the operation says nothing to do", field="action")
        else:
            reads.append(slot)

    def _put(self, slot: Slot) -> list[WriteJob]:
        """The write, judged by the gate. Empty while the owner is being loaded: a memory is judged by all that its owner remembers."""
        action = slot.operation.put
        if self._gate is None and action.deduplicate:
            raise FieldInvalid("deduplicate needs the write gate, which is off here (gate.enabled, gate.profile)", field="deduplicate")
        if self._gate is None:
            return [self._job(slot, action)]
        if action.skip_existing:
            return [self._job(slot, action, self._gate.weigh(self._residents.get(slot.owner), action.traces))]
        if self._awaits(slot.owner, [slot]):
            return []
        judged = self._gate.judge(slot.owner, self._residents.get(slot.owner), action.traces, action.deduplicate)
        job = self._job(slot, action, judged)
        job.done = lambda result: self._stored(slot, job, result)
        return [job]

    def _job(self, slot: Slot, action: WriteAction, judged: Sequence[Judgement | None] = ()) -> WriteJob:
        """The slot's write; its result is the slot's."""
        job = WriteJob(slot.owner, action, judged=judged)
        job.wanted = slot.operation.want_update
        job.done = lambda result: slot.written(result, job.update, job.more)
        return job

    def _stored(self, slot: Slot, job: WriteJob, result: WriteResult | NdmlError) -> None:
        """The put is on disk. What was said again is strengthened by it, and that too is on disk before the answer goes."""
        partition = self._residents.get(slot.owner)
        if partition is None or not isinstance(result, pb.PutResult):
            slot.written(result, job.update, job.more)
            return
        change = self._feedback.restated(partition, result.outcomes)
        if change is None:
            slot.written(result, job.update, job.more)
            return

        def strengthened(outcome: WriteResult | NdmlError) -> None:
            # Where the state had moved on meanwhile it is not strengthened: what was said again is stored by itself all the same.
            if not isinstance(outcome, NdmlError | Outdated):
                result.sequence = max(result.sequence, outcome.sequence)
            if self._signatures is None:
                slot.written(result, joined_update(job.update, again.update))
                return
            signed = [*([job.update] if job.update else []), *job.more, *([again.update] if again.update else []), *again.more]
            slot.written(result, signed[0] if signed else None, signed[1:])

        again = self._changed(partition, change, strengthened)
        again.wanted, again.follows = job.wanted, None if self._signatures else result.sequence
        self._write([again])

    def _reinforce(self, slot: Slot) -> list[WriteJob]:
        digest = slot.operation.reinforce.request_digest
        if digest and digest in self._under_way:
            self._under_way[digest].append(slot)  # its repeat is answered when the first is on disk
            return []
        if self._awaits(slot.owner, [slot]):
            return []
        partition = self._residents.get(slot.owner)
        answer, change = self._feedback.reinforce(partition, slot.operation.reinforce)
        if partition is None or change is None:
            again = answer.replayed and slot.operation.want_update
            slot.written(answer, *(self._again(slot) if again else ()))
            return []
        if digest:
            self._under_way[digest] = []

        def done(result: WriteResult | NdmlError) -> None:
            repeats = self._under_way.pop(digest, [])
            if isinstance(result, Outdated) and slot.tries < _TRIES:
                slot.tries += 1
                self._execute([slot, *repeats])
                return
            if isinstance(result, NdmlError | Outdated):
                error = result if isinstance(result, NdmlError) else Overloaded("other copies' feedback overtook this: come back shortly")
                for each in (slot, *repeats):
                    each.finish(error)
                return
            answer.sequence = result.sequence
            slot.written(answer, job.update, job.more)
            self._execute(repeats)

        job = self._changed(partition, change, done)
        job.wanted = slot.operation.want_update
        return [job]

    def _again(self, slot: Slot) -> tuple[rpb.OwnerUpdate | None, Sequence[rpb.OwnerUpdate]]:
        """What feedback that was carried out before changed."""
        update = self._reads.feedback_update(slot.owner, slot.operation.reinforce)
        if self._signatures is None:
            return update, ()
        signed = self._signatures.kept(slot.owner, [record.trace_id for record in update.records])
        return (signed[0], signed[1:]) if signed else (None, ())

    def _changed(self, partition: Partition, change: StateChange, done: Done) -> WriteJob:
        """The write of states that have changed in memory already: if it fails, memory is ahead of the disk and is read anew.

        Meanwhile the partition stays in memory: read anew before the write it would be without the change.
        """
        partition.unwritten += 1

        def written(result: WriteResult | NdmlError) -> None:
            partition.unwritten -= 1
            if isinstance(result, NdmlError | Outdated) or self._residents.get(partition.owner) is not partition:
                self._residents.forget(partition.owner)
            done(result)

        return WriteJob(partition.owner, change, written)

    def _check(self, slot: Slot) -> None:
        """Raises DeadlinePassed, FieldInvalid, StaleEpoch, OwnerUnavailable, StoreUnavailable."""
        slot.check_deadline()
        operation = slot.operation
        if not operation.tenant or not (operation.user or slot.action == "stats"):
            raise FieldInvalid("scope needs a tenant and a user", field="scope.user" if operation.tenant else "scope.tenant")
        if operation.user:
            check = check_taker if slot.action in ("merge", "record") else check_owner
            check(self._placement, slot.batch.request.epoch, *slot.owner)
        if operation.seen:
            self._heads.check(slot.owner, operation.seen, self.applied)

    def _write(self, jobs: list[WriteJob]) -> None:
        if not jobs:
            return
        for job in jobs:
            # What others wrote is theirs to pass on. Before the first placement nobody knows: then there may be copies.
            # A signed update names the one before it, whoever had copies then.
            copied = self._signatures is not None or len(self._placement.copies(*job.owner)) != 1
            job.journal = copied and not isinstance(job.action, pb.MergeAction)
        left: list[WriteJob] = jobs
        error: NdmlError | None = None
        try:
            left = self._writer.submit(jobs)
            error = self._writer.overloaded() if left else None
        except NdmlError as refused:
            error = refused
        for job in left:
            assert error is not None
            job.done(error)

    def _read(self, slot: Slot) -> None:
        if self._reads.needs_partition(slot.operation) and self._awaits(slot.owner, [slot]):
            return
        if not slot.operation.want_heads:
            slot.finish(self._reads.run(slot.owner, slot.operation, self._residents))
            return
        try:
            result = self._reads.run(slot.owner, slot.operation, self._residents)
        except TraceNotFound as error:  # that it is gone is seen, too
            result = pb.OperationResult(error=error_to_status(error))
        result.heads.extend(self._heads.shown(slot.owner, self.applied, stored=True))
        slot.finish(result)

    def _awaits(self, owner: Owner, slots: list[Slot]) -> bool:
        """True when the owner is being loaded: the slots come back with its partition (`_loaded`). An owner without traces has none."""
        if self._residents.get(owner) is not None or self._reads.is_empty(owner):
            return False
        self._parked[owner] += slots
        self._residents.request(owner)
        return True

    def _search(self, owner: Owner, by_key: dict[GroupKey, list[Slot]]) -> None:
        everyone = [slot for slots in by_key.values() for slot in slots]
        try:
            if self._awaits(owner, everyone):
                return
        except NdmlError as error:
            for slot in everyone:
                slot.finish(error)
            return
        partition = self._residents.get(owner)
        if partition is None:
            for slot in everyone:
                slot.finish(self._searcher.nothing(slot.operation.search) + self._shown(slot))
            return
        for slots in by_key.values():
            for slot, result in zip(slots, self._results(partition, slots), strict=True):
                metrics.MEMORY_QUERY_LATENCY.observe(slot.batch.waited_ms() / 1e3, metrics.exemplar(slot.operation.traceparent))
                slot.finish(result if isinstance(result, NdmlError) else result + self._shown(slot))
        self._residents.settle(partition)

    def _shown(self, slot: Slot) -> bytes:
        """To be appended to the result of a search."""
        if not slot.operation.want_heads:
            return b""
        return pb.OperationResult(heads=self._heads.shown(slot.owner, self.applied, stored=False)).SerializeToString()

    def _results(self, partition: Partition, slots: list[Slot]) -> list[bytes | NdmlError]:
        actions = [slot.operation.search for slot in slots]
        _SEARCH_BATCH.observe(len(slots))
        try:
            return self._searcher.run(partition, actions, [slot.batch.waited_ms() for slot in slots])
        except NdmlError as error:
            return [error] * len(slots)
        except Exception as error:
            return [_fault(error)] * len(slots)

    def _guard(self, slot: Slot, work: Callable[Work, None], *args: Work.args, **kwargs: Work.kwargs) -> None:
        try:
            work(*args, **kwargs)
        except NdmlError as error:
            slot.finish(error)
        except Exception as error:
            slot.finish(_fault(error))

    def _send(self) -> None:
        """Hand finished batches to the event loop, with one wake-up for all of them."""
        if not self._done:
            return
        done, answers = self._done.copy(), []
        self._done.clear()
        for batch in done:
            answers.append((batch.deliver, batch.encode(self._response_bytes, self._heads.replica)))
            self._inbox.release(len(batch.operations))
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(_deliver, answers)
        except RuntimeError as error:
            log.warning("answers_lost", batches=len(answers), error=str(error))


def _deliver(answers: list[tuple[Deliver, bytes]]) -> None:
    for deliver, answer in answers:
        deliver(answer)


def _unheard(result: WriteResult | NdmlError) -> None:
    """Nobody waits for what happens without a request; a failure is in the writer's log, and the next visit tries again."""


def _count(commit: Commit) -> None:
    puts = [outcome for result in commit.results if isinstance(result, pb.PutResult) for outcome in result.outcomes]
    updates = sum(isinstance(result, pb.TraceResult) for result in commit.results)
    deletes = sum(isinstance(result, pb.DeleteResult) and result.deleted for result in commit.results)
    _RATES["add"].inc(sum(not (each.existed or each.duplicate_of or each.HasField("error")) for each in puts))
    _RATES["update"].inc(updates)
    _RATES["delete"].inc(deletes)


def _fault(error: Exception) -> InternalFault:
    log.error("operation_fault", exc_info=error)
    return InternalFault("internal fault: the node's log has the details")
