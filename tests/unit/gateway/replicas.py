"""Copies of one owner in memory, with a way to them that fails as it is told. They judge nothing: they keep records and join them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence

from ndml.errors import NdmlError, OwnerUnavailable, StaleEpoch, TraceNotFound
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rep
from ndml.placement import MemberPhase, MemberState, NodeRecord, Placement, PlacementNode
from ndml.v1 import memory_pb2, types_pb2
from services.gateway.liveness import Liveness
from services.gateway.ports import Sent
from services.gateway.quorum import Quorum
from services.gateway.reads import Reads
from services.gateway.scopes import Owner
from services.gateway.settings import LinkSettings, QuorumSettings
from services.gateway.tokens import tell_seen

OWNER = Owner("t", "ann")
TRY_S = 3.0
Dot = tuple[int, int]


class Kept:
    """A record: a multi-value register of contents, and feedback by store; None of it once it is erased."""

    def __init__(self) -> None:
        self.length = 1
        self.versions: dict[Dot, bytes] = {}
        self.context: set[Dot] = set()
        self.states: dict[int, int] = {}

    def write(self, replica: int, content: bytes) -> None:
        dot = (replica, 1 + max((counter for author, counter in self.context if author == replica), default=0))
        self.versions = {dot: content}
        self.context.add(dot)

    def erase(self) -> None:
        self.length, self.versions, self.context, self.states = 2, {}, set(), {}

    def join(self, other: rep.TraceRecord) -> None:
        if max(self.length, other.length) % 2 == 0:
            self.erase()
            return
        foreign = {(v.dot.replica, v.dot.counter): v.content for v in other.versions}
        known: set[Dot] = {tuple(dot) for dot in json.loads(other.context)}  # type: ignore[misc]
        kept = {dot: c for dot, c in self.versions.items() if dot in foreign or dot not in known}
        kept |= {dot: c for dot, c in foreign.items() if dot in self.versions or dot not in self.context}
        self.versions, self.context = kept, self.context | known
        for state in other.states:
            self.states[state.replica] = max(state.counter, self.states.get(state.replica, 0))

    def record(self, trace_id: str) -> rep.TraceRecord:
        record = rep.TraceRecord(trace_id=bytes.fromhex(trace_id), length=self.length)
        if self.length % 2:
            record.context = json.dumps(sorted(self.context)).encode()
            for (replica, counter), content in sorted(self.versions.items()):
                record.versions.add(dot=rep.Dot(replica=replica, counter=counter), content=content)
            for replica, counter in sorted(self.states.items()):
                record.states.add(replica=replica, counter=counter)
        return record

    def trace(self) -> types_pb2.MemoryTrace:
        shown = max(self.versions, key=lambda dot: (dot[1], dot[0]))
        return types_pb2.MemoryTrace.FromString(self.versions[shown])


class Copy:
    """One store."""

    def __init__(self, node_id: str, replica: int) -> None:
        self.node_id, self.replica = node_id, replica
        self.kept: dict[str, Kept] = {}
        self.heads: dict[int, int] = {}
        self.digests: set[bytes] = set()
        self.sequence = 0

    def execute(self, operation: pb.Operation) -> pb.OperationResult:
        action = operation.WhichOneof("action") or ""
        behind = [head for head in operation.seen if self.heads.get(head.replica, 0) < head.counter]
        if behind:
            raise OwnerUnavailable(f"{self.node_id} is behind what the caller has seen")
        heads = [rep.Head(replica=replica, counter=counter) for replica, counter in sorted(self.heads.items())] * operation.want_heads
        try:
            result: pb.OperationResult = getattr(self, action)(getattr(operation, action), operation)
        except TraceNotFound as error:
            tell_seen(error, OWNER, {head.replica: head.counter for head in heads})
            raise
        result.heads.extend(heads)
        return result

    def has(self, trace_id: str) -> bool:
        return trace_id in self.kept

    def put(self, action: pb.PutAction, operation: pb.Operation) -> pb.OperationResult:
        outcomes, changed = [], []
        for trace in action.traces:
            outcomes.append(pb.PutOutcome(existed=trace.trace_id in self.kept))
            if not outcomes[-1].existed:
                self.kept[trace.trace_id] = Kept()
                self.kept[trace.trace_id].write(self.replica, trace.SerializeToString())
                changed.append(trace.trace_id)
        repeated = [trace.trace_id for trace, outcome in zip(action.traces, outcomes, strict=True) if outcome.existed]
        return self._done(pb.OperationResult(put=pb.PutResult(outcomes=outcomes)), changed, operation, repeated)

    def update(self, action: pb.UpdateAction, operation: pb.Operation) -> pb.OperationResult:
        kept = self._present(action.trace.trace_id)
        done = kept.trace().text == action.trace.text
        if not done:
            kept.write(self.replica, action.trace.SerializeToString())
        result = pb.OperationResult(trace=pb.TraceResult(trace=kept.trace()))
        ids = [action.trace.trace_id]
        return self._done(result, [] if done else ids, operation, ids if done else [])

    def delete(self, action: pb.DeleteAction, operation: pb.Operation) -> pb.OperationResult:
        kept = self.kept.get(action.trace_id)
        deleted = kept is not None and kept.length % 2 == 1
        if kept is not None:
            kept.erase()
        result = pb.OperationResult(delete=pb.DeleteResult(deleted=deleted))
        repeated = [action.trace_id] if kept is not None and not deleted else []
        return self._done(result, [action.trace_id] if deleted else [], operation, repeated)

    def reinforce(self, action: pb.ReinforceAction, operation: pb.Operation) -> pb.OperationResult:
        replayed = action.request_digest in self.digests
        changed = [] if replayed else [row.trace_id for row in action.feedback]
        self.digests |= {action.request_digest} - {b""}
        result = pb.OperationResult(reinforce=pb.ReinforceActionResult(replayed=replayed))
        for trace_id in changed:
            self._present(trace_id).states[self.replica] = self.sequence + 1
        return self._done(result, changed, operation)

    def merge(self, action: pb.MergeAction, operation: pb.Operation) -> pb.OperationResult:
        for update in action.updates:
            for record in update.records:
                self.join(record)
            if update.previous <= self.heads.get(update.replica, 0):
                self.heads[update.replica] = max(update.counter, self.heads.get(update.replica, 0))
        for record in action.records:
            self.join(record)
        authors = {update.replica for update in action.updates} - {self.replica}
        heads = [rep.Head(replica=author, counter=self.heads[author]) for author in authors if author in self.heads]
        return pb.OperationResult(merge=pb.MergeResult(heads=heads))

    def join(self, record: rep.TraceRecord) -> None:
        trace_id = record.trace_id.hex()
        if trace_id not in self.kept:
            self.kept[trace_id] = Kept()
        self.kept[trace_id].join(record)

    def record(self, action: pb.RecordAction, operation: pb.Operation) -> pb.OperationResult:
        kept = self.kept.get(action.trace_id)
        return pb.OperationResult(record=pb.RecordResult(record=None if kept is None else kept.record(action.trace_id)))

    def get(self, action: pb.GetAction, operation: pb.Operation) -> pb.OperationResult:
        return pb.OperationResult(trace=pb.TraceResult(trace=self._present(action.trace_id).trace()))

    def search(self, action: pb.SearchAction, operation: pb.Operation) -> pb.OperationResult:
        """Longer texts score higher."""
        traces = sorted(self._living(), key=lambda trace: (-len(trace.text), trace.trace_id))[: action.k]
        hits = [memory_pb2.SearchHit(trace=trace, score=len(trace.text)) for trace in traces]
        response = memory_pb2.SearchMemoriesResponse(hits=hits).SerializeToString()
        return pb.OperationResult(search=pb.SearchResult(responses=[response]))

    def list(self, action: pb.ListAction, operation: pb.Operation) -> pb.OperationResult:
        def place(trace: types_pb2.MemoryTrace) -> tuple[int, bytes]:
            return trace.learned_at.ToMicroseconds(), bytes.fromhex(trace.trace_id)

        before = (action.before.learned_us, action.before.trace_id) if action.HasField("before") else (1 << 62, b"")
        found = sorted((trace for trace in self._living() if place(trace) < before), key=place, reverse=True)
        page = pb.ListResult(traces=found[: action.limit])
        if len(found) > action.limit:
            last = place(found[action.limit - 1])
            page.next.CopyFrom(pb.ListPlace(learned_us=last[0], trace_id=last[1]))
        return pb.OperationResult(list=page)

    def _living(self) -> Sequence[types_pb2.MemoryTrace]:
        return [kept.trace() for kept in self.kept.values() if kept.length % 2]

    def _present(self, trace_id: str) -> Kept:
        kept = self.kept.get(trace_id)
        if kept is None or kept.length % 2 == 0:
            raise TraceNotFound(f"no trace {trace_id}")
        return kept

    def _done(
        self, result: pb.OperationResult, changed: Sequence[str], operation: pb.Operation, repeated: Sequence[str] = ()
    ) -> pb.OperationResult:
        """As a memory node: with the owner's position, and on request an update of what changed and of what was as asked already."""
        previous = self.heads.get(self.replica, 0)
        if changed:
            self.sequence += 1
            self.heads[self.replica] = self.sequence
        getattr(result, result.WhichOneof("result") or "").sequence = self.heads.get(self.replica, 0)
        if operation.want_update and (changed or repeated):
            records = [self.kept[trace_id].record(trace_id) for trace_id in [*changed, *repeated]]
            result.update.CopyFrom(rep.OwnerUpdate(replica=self.replica, records=records))
            if changed:
                result.update.previous, result.update.counter = previous, self.sequence
        return result


class World:
    """So many owners, some coming ones; faults[node] are the fates of the next messages to it, "ok" when there are no more.

    "before": lost on the way there. "after": done, and the answer lost. "slow": done after TRY_S. "silent": never answered. "stale":
    refused, the placement is a newer one.
    """

    def __init__(
        self,
        owners: int,
        coming: int = 0,
        clock: Callable[[], float] | None = None,
        profiles: Sequence[str] = ("general",),
        **quorum: object,
    ) -> None:
        records = [NodeRecord(f"n{i}", f"127.0.0.1:{7000 + i}", "", profiles[i % len(profiles)], 1) for i in range(owners)]
        records += [NodeRecord(f"j{i}", f"127.0.0.1:{8000 + i}", "", "general", 1, MemberPhase.JOINING) for i in range(coming)]
        self.states = {record.node_id: MemberState.ALIVE for record in records}
        self._records = records
        self._factor = owners
        self.replicas = {record.node_id: Copy(record.node_id, 100 + i) for i, record in enumerate(records)}
        self.faults: dict[str, list[str]] = {}
        self.cut: set[str] = set()
        self.sent: list[tuple[str, str]] = []
        self.epoch = 1
        clock = clock or asyncio.get_running_loop().time
        links = LinkSettings(attempts=2, retry_backoff_s=0.1)
        settings = QuorumSettings.model_validate({"try_s": TRY_S, **quorum})
        self.liveness = Liveness(clock, settings.avoid_s)
        self.quorum = Quorum(self, self, self.liveness, settings, links, clock, lambda size: bytes(size - 1) + b"r")
        self.reads = Reads(self, self, self.liveness, settings, links)

    @property
    def placement(self) -> Placement:
        return Placement([PlacementNode(record, self.states[record.node_id]) for record in self._records], self._factor)

    def owners(self, tenant: str, user: str) -> Sequence[PlacementNode]:
        members = self.placement.members
        return [node for node in members if node.phase is MemberPhase.ACTIVE]

    def copies(self, tenant: str, user: str) -> Sequence[PlacementNode]:
        return [*self.owners(tenant, user), *(node for node in self.placement.members if node.phase is MemberPhase.JOINING)]

    async def wait_newer(self, epoch: int, timeout_s: float) -> bool:
        self.epoch += 1
        return True

    async def send(self, node: PlacementNode, operation: pb.Operation, deadline: float | None, *, write: bool) -> Sent:
        self.sent.append((node.node_id, operation.WhichOneof("action") or ""))
        fate = "before" if node.node_id in self.cut else (self.faults.get(node.node_id) or ["ok"]).pop(0)
        await asyncio.sleep(0.001)
        if fate == "before":
            raise OwnerUnavailable(f"{node.node_id} is away")
        if fate == "stale":
            raise StaleEpoch(f"{node.node_id} knows a newer epoch")
        if fate == "silent":
            await asyncio.sleep(1000)
        replica = self.replicas[node.node_id]
        if fate == "slow":
            await asyncio.sleep(1.5 * TRY_S)
        result = replica.execute(operation)
        if fate == "after":
            raise OwnerUnavailable(f"the answer of {node.node_id} was lost")
        return Sent(replica.replica, result)

    def holders(self, trace_id: str) -> list[str]:
        return [node_id for node_id, replica in self.replicas.items() if replica.has(trace_id)]

    def actions(self) -> Counter[str]:
        return Counter(action for _, action in self.sent)


def trace_of(number: int, text: str = "x", learned_us: int = 0) -> types_pb2.MemoryTrace:
    trace = types_pb2.MemoryTrace(trace_id=f"{number:032x}", text=text, version=1)
    trace.learned_at.FromMicroseconds(1_700_000_000_000_000 + (learned_us or number))
    return trace


def put(*traces: types_pb2.MemoryTrace) -> pb.Operation:
    return pb.Operation(tenant="t", user="ann", put=pb.PutAction(traces=traces))


def error_of(found: object) -> NdmlError | None:
    return found if isinstance(found, NdmlError) else None
