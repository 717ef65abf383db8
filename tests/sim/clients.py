"""Callers of a simulated suite: sessions that write, read and pass their tokens on, and note what they were told."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from ndml.errors import NdmlError, TraceNotFound
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1 import types_pb2
from ndml.v1.types_pb2 import Embedding, MemoryTrace
from services.gateway import scopes
from services.gateway.ids import request_digest, trace_id_of_request
from services.gateway.ports import NOTHING_SEEN, Done, Seen
from services.gateway.quorum import Quorum
from services.gateway.reads import Reads
from services.gateway.tokens import TOKEN, joined, read_consistency_token
from services.memory_node.records import Owner, timestamp
from tests.sim.history import GONE, History, Outcome, Read, Write
from tests.sim.loop import EPOCH_NS
from tests.sim.stores import DIMENSION

DEADLINE_S = 8.0
ONE, QUORUM, ALL = types_pb2.CONSISTENCY_ONE, types_pb2.CONSISTENCY_QUORUM, types_pb2.CONSISTENCY_ALL
NOT_SAID = types_pb2.CONSISTENCY_UNSPECIFIED
REPLICAS = 3
WRITTEN = {NOT_SAID: 2, ONE: 1, QUORUM: 2, ALL: 3}
"""Of three copies, as docs/reference/consistency.md has it: those that have a write on disk when its caller is told."""

ASKED = {NOT_SAID: 1, ONE: 1, QUORUM: 2, ALL: 3}
_FRESH = 3


def number_of(text: str) -> int:
    """Of a write, by the text that it wrote."""
    return int(text.rpartition("#")[2])


def vector_of(text: str) -> bytes:
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    values = np.random.default_rng(seed).standard_normal(DIMENSION).astype("<f4")
    return bytes((values / np.linalg.norm(values)).astype("<f4").tobytes())


def _scope(owner: Owner) -> scopes.Owner:
    """The gateway's word for it."""
    return scopes.Owner(owner.tenant, owner.user)


@dataclass(slots=True)
class Trace:
    """One trace of the run. `writer` "": anybody changes it, and then its writes have no order."""

    key: str
    owner: Owner
    trace_id: str
    writer: str
    written: int = 0
    deleted: bool = False


@dataclass(slots=True)
class Notes:
    """What a run's clients know together."""

    history: History = field(default_factory=History)
    traces: dict[str, Trace] = field(default_factory=dict)
    acked_texts: dict[str, set[str]] = field(default_factory=dict)
    """Texts of each trace whose writes were acknowledged."""

    displaced: dict[str, set[str]] = field(default_factory=dict)
    """Texts of each trace (by id) that a later write saw and replaced."""

    failures: dict[str, int] = field(default_factory=dict)
    fresh: deque[Trace] = field(default_factory=lambda: deque(maxlen=_FRESH))
    """Written last."""


@dataclass(frozen=True, slots=True)
class Habits:
    """What clients do, as shares of 1. `weak`: of writes that ask for ONE. `again`: of reads that are followed by one of the same trace;
    `fresh`: of what was written last, where copies differ most.

    `blind`: of clients that pass no token on, and rely on more than half of the copies for every write and for what they are to see. None
    where disks are lost: a copy that lost its disk knows nothing and answers, until it is taken for one that joins; a token tells it apart.
    """

    put: float = 0.15
    update: float = 0.4
    delete: float = 0.08
    reinforce: float = 0.07
    resolve: float = 0.03
    retry: float = 0.6
    again: float = 0.6
    fresh: float = 0.5
    weak: float = 0.0
    blind: float = 0.25


class Client:
    """One session. `gateways`: the one that it talks to changes now and then."""

    def __init__(
        self, name: str, gateways: list[tuple[Quorum, Reads]], owners: list[Owner], notes: Notes, habits: Habits, random: Random
    ) -> None:
        self.name = name
        self._gateways = gateways
        self._owners = owners
        self._notes = notes
        self._habits = habits
        self._random = random
        self._blind = random.random() < habits.blind
        self._seen: dict[Owner, Seen] = {}
        self._requests = 0

    async def run(self, operations: int) -> None:
        for done in range(operations):
            await asyncio.sleep(self._random.expovariate(3.0))
            await (self._choose()() if done else self._put())

    def _choose(self) -> Callable[[], Coroutine[Any, Any, None]]:
        habits, at = self._habits, self._random.random()
        for share, act in (
            (habits.put, self._put),
            (habits.update, self._update),
            (habits.delete, self._delete),
            (habits.reinforce, self._reinforce),
            (habits.resolve, self._resolve),
        ):
            if at < share:
                return act
            at -= share
        return self._get

    # Writes

    async def _put(self) -> None:
        self._requests += 1
        owner = self._random.choice(self._owners)
        request = f"{self.name}-{self._requests}"
        trace = Trace(request, owner, trace_id_of_request(_scope(owner), request, 0), "" if self._random.random() < 0.3 else self.name, 1)
        self._notes.traces[trace.key] = trace
        text = self._text(trace, 1)
        stored = MemoryTrace(trace_id=trace.trace_id, text=text, version=1, embedding=Embedding(vector=vector_of(text)))
        stored.learned_at.CopyFrom(self._now())
        stored.updated_at.CopyFrom(self._now())
        await self._write(trace, 1, text, pb.Operation(put=pb.PutAction(traces=[stored])))

    async def _update(self) -> None:
        trace = self._pick(mine=True)
        if trace is None:
            return
        trace.written += 1
        number, text = trace.written, self._text(trace, trace.written)
        changed = MemoryTrace(trace_id=trace.trace_id, text=text, embedding=Embedding(vector=vector_of(text)))
        changed.updated_at.CopyFrom(self._now())
        await self._write(trace, number, text, pb.Operation(update=pb.UpdateAction(trace=changed, fields=["text", "embedding"])))

    async def _delete(self) -> None:
        trace = self._pick(mine=True)
        if trace is not None and trace.writer:
            trace.deleted = True
            await self._write(trace, GONE, "", pb.Operation(delete=pb.DeleteAction(trace_id=trace.trace_id)))

    async def _reinforce(self) -> None:
        trace = self._pick(mine=False)
        if trace is None:
            return
        self._requests += 1
        digest = request_digest(_scope(trace.owner), f"{self.name}-{self._requests}")
        feedback = [pb.TraceFeedback(trace_id=trace.trace_id, grade=self._random.choice([-1.0, 0.5, 1.0]))]
        operation = pb.Operation(reinforce=pb.ReinforceAction(request_digest=digest, feedback=feedback))
        await self._tried(trace.owner, operation, self._word())

    async def _resolve(self) -> None:
        trace = self._pick(mine=False)
        if trace is not None:
            await self._tried(trace.owner, pb.Operation(resolve=pb.ResolveAction(trace_id=trace.trace_id)), self._word())

    async def _write(self, trace: Trace, number: int, text: str, operation: pb.Operation) -> None:
        word = self._word()
        self._notes.fresh.append(trace)
        done = await self._tried(trace.owner, operation, word)
        for_sure = done is not None and (number != GONE or done.result.delete.deleted)
        if done is not None and operation.HasField("put") and done.result.put.outcomes[0].HasField("error"):
            for_sure = False
        if for_sure:
            self._notes.acked_texts.setdefault(trace.key, set()).add(text)
        if trace.writer:
            outcome = Outcome.ACKED if for_sure else Outcome.UNKNOWN
            self._notes.history.add(Write(self.name, trace.key, number, outcome, self._time(), WRITTEN[word]))

    async def _tried(self, owner: Owner, operation: pb.Operation, word: types_pb2.Consistency) -> Done | None:
        """The outcome, after some retries of the same request; None: the caller does not know."""
        operation.tenant, operation.user = owner.tenant, owner.user
        token = NOTHING_SEEN if operation.HasField("put") else self._token(owner)
        for _ in range(3):
            quorum, _reads = self._random.choice(self._gateways)
            twin = pb.Operation()
            twin.CopyFrom(operation)
            try:
                done = await quorum.write(_scope(owner), twin, self._time() + DEADLINE_S, word, token)
            except NdmlError as error:
                self._note(error)
                if self._random.random() > self._habits.retry:
                    return None
                continue
            self._remember(owner, done.seen)
            return done
        return None

    # Reads

    async def _get(self) -> None:
        if self._notes.fresh and self._random.random() < self._habits.fresh:
            trace: Trace | None = self._random.choice(self._notes.fresh)
        else:
            trace = self._pick(mine=self._random.random() < 0.7, deleted=True)
        if trace is None or not trace.writer:
            return
        await self._look_at(trace)
        while self._random.random() < self._habits.again:
            await self._look_at(trace)

    async def _look_at(self, trace: Trace) -> None:
        word = self._random.choice([NOT_SAID, ONE, QUORUM, ALL])
        owner, action = _scope(trace.owner), pb.GetAction(trace_id=trace.trace_id, include_siblings=True)
        operation = pb.Operation(tenant=owner.tenant, user=owner.user, get=action)
        _quorum, reads = self._random.choice(self._gateways)
        began = self._time()
        try:
            done = await reads.read(owner, operation, self._time() + DEADLINE_S, self._token(trace.owner), word)
        except TraceNotFound as error:
            number = 0
            self._remember(trace.owner, read_consistency_token(error.metadata.get(TOKEN, ""), owner))
        except NdmlError as error:
            self._note(error)
            return
        else:
            self._remember(trace.owner, done.seen)
            found = done.result.trace.trace
            number = max(number_of(text) for text in (found.text, *(sibling.trace.text for sibling in found.siblings)))
        # Without a token, more than R copies wrote and answer in all, and one of them has seen it; a single copy promises nothing.
        in_session = not self._blind or word in (QUORUM, ALL)
        self._notes.history.add(Read(self.name, trace.key, number, self._time(), in_session, began, ASKED[word]))

    # Small things

    def _pick(self, *, mine: bool, deleted: bool = False) -> Trace | None:
        found = [
            trace
            for trace in self._notes.traces.values()
            if (deleted or not trace.deleted) and (not mine or trace.writer in ("", self.name))
        ]
        return self._random.choice(found) if found else None

    def _text(self, trace: Trace, number: int) -> str:
        return f"{trace.key} {self.name}#{number}"

    def _word(self) -> types_pb2.Consistency:
        if not self._blind and self._random.random() < self._habits.weak:
            return ONE
        return self._random.choice([NOT_SAID, NOT_SAID, QUORUM, ALL])

    def _token(self, owner: Owner) -> Seen:
        return NOTHING_SEEN if self._blind else self._seen.get(owner, NOTHING_SEEN)

    def _remember(self, owner: Owner, seen: Seen) -> None:
        self._seen[owner] = joined(self._seen.get(owner, NOTHING_SEEN), seen)

    def _note(self, error: NdmlError) -> None:
        self._notes.failures[error.reason] = self._notes.failures.get(error.reason, 0) + 1

    def _time(self) -> float:
        return asyncio.get_running_loop().time()

    def _now(self) -> Timestamp:
        return timestamp((EPOCH_NS + round(self._time() * 1e9)) // 1000)
