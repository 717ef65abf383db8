"""Callers of a simulated suite: sessions that write, read and pass their tokens on, and note what they were told."""

from __future__ import annotations

import asyncio
import hashlib
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
from services.memory_node.records import Owner, timestamp
from tests.sim.history import GONE, History, Outcome, Read, Write
from tests.sim.loop import EPOCH_NS
from tests.sim.stores import DIMENSION

DEADLINE_S = 8.0
ONE, QUORUM, ALL = types_pb2.CONSISTENCY_ONE, types_pb2.CONSISTENCY_QUORUM, types_pb2.CONSISTENCY_ALL
NOT_SAID = types_pb2.CONSISTENCY_UNSPECIFIED


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


@dataclass(frozen=True, slots=True)
class Habits:
    """What clients do, as shares of 1. `weak`: of writes that ask for ONE.

    `blind`: reads of many copies rely on these alone, without a token. Not where disks are lost: a copy that lost its disk knows nothing
    and answers, until it is taken for one that joins; a token tells it apart.
    """

    put: float = 0.15
    update: float = 0.4
    delete: float = 0.08
    reinforce: float = 0.07
    resolve: float = 0.03
    retry: float = 0.6
    weak: float = 0.0
    blind: bool = True


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
        self._seen: dict[Owner, dict[int, int]] = {}
        self._uncertain: set[str] = set()
        self._weak: set[str] = set()
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
        done = await self._tried(trace.owner, operation, word)
        for_sure = done is not None and (number != GONE or done.result.delete.deleted)
        if done is not None and operation.HasField("put") and done.result.put.outcomes[0].HasField("error"):
            for_sure = False
        if word == ONE:
            self._weak.add(trace.key)
        if for_sure:
            self._uncertain.discard(trace.key)
            self._notes.acked_texts.setdefault(trace.key, set()).add(text)
        else:
            self._uncertain.add(trace.key)
        if trace.writer:
            outcome = Outcome.ACKED if for_sure else Outcome.UNKNOWN
            self._notes.history.add(Write(self.name, trace.key, number, outcome, self._time()))

    async def _tried(self, owner: Owner, operation: pb.Operation, word: types_pb2.Consistency) -> Done | None:
        """The outcome, after some retries of the same request; None: the caller does not know."""
        operation.tenant, operation.user = owner.tenant, owner.user
        for _ in range(3):
            quorum, _reads = self._random.choice(self._gateways)
            twin = pb.Operation()
            twin.CopyFrom(operation)
            try:
                done = await quorum.write(_scope(owner), twin, self._time() + DEADLINE_S, word)
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
        trace = self._pick(mine=self._random.random() < 0.7, deleted=True)
        if trace is None or not trace.writer:
            return
        own = trace.writer == self.name
        word = self._random.choice([NOT_SAID, ONE, QUORUM, ALL] if own else [ONE, QUORUM, QUORUM])
        strong = word in (QUORUM, ALL)
        # What an unanswered write did is in no token; of what others wrote only so many copies tell for sure.
        in_session = (strong and self._habits.blind) or (own and trace.key not in self._uncertain)
        seen = self._seen.get(trace.owner, NOTHING_SEEN) if own else NOTHING_SEEN
        if strong and self._habits.blind and trace.key not in self._weak and self._random.random() < 0.5:
            seen = NOTHING_SEEN  # more than R copies wrote and answer in all: one of them has seen it
        action = pb.GetAction(trace_id=trace.trace_id, include_siblings=True)
        operation = pb.Operation(tenant=trace.owner.tenant, user=trace.owner.user, get=action)
        try:
            done = await self._random.choice(self._gateways)[1].read(_scope(trace.owner), operation, self._time() + DEADLINE_S, seen, word)
        except TraceNotFound:
            number = 0
        except NdmlError as error:
            self._note(error)
            return
        else:
            found = done.result.trace.trace
            number = max(number_of(text) for text in (found.text, *(sibling.trace.text for sibling in found.siblings)))
        self._notes.history.add(Read(self.name, trace.key, number, self._time(), in_session))

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
        if self._random.random() < self._habits.weak:
            return ONE
        return self._random.choice([NOT_SAID, NOT_SAID, QUORUM, ALL])

    def _remember(self, owner: Owner, seen: Seen) -> None:
        known = self._seen.setdefault(owner, {})
        for replica, counter in seen.items():
            known[replica] = max(counter, known.get(replica, 0))

    def _note(self, error: NdmlError) -> None:
        self._notes.failures[error.reason] = self._notes.failures.get(error.reason, 0) + 1

    def _time(self) -> float:
        return asyncio.get_running_loop().time()

    def _now(self) -> Timestamp:
        return timestamp((EPOCH_NS + round(self._time() * 1e9)) // 1000)
