"""The write gate on the node: what a new memory is to what its owner remembers, before it is stored. Runs on the engine's thread.

Familiarity is asked first; exact search only where it says "known". Calcium of the stream (user, session) decides how strongly a trace
is encoded, never whether the user's words are kept. Decisions: ndml.btsp.gate; thresholds: the profile of the embedding model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from ndml.btsp.calibration import GateProfile
from ndml.btsp.contradiction import among
from ndml.btsp.gate import Decision, GateThresholds, contradicts, decide_many, explain, needs_search
from ndml.btsp.plateau import CalciumTable
from ndml.btsp.salience import DocumentFrequencies, salience_of
from ndml.contents import words_of
from ndml.language import entities
from ndml.language.causes import LOOKED_BACK, Turn, causes
from ndml.runtime import metrics
from ndml.v1.types_pb2 import (
    LINK_TYPE_CAUSED_BY,
    LINK_TYPE_CAUSES,
    LINK_TYPE_DUPLICATES,
    LINK_TYPE_RELATED,
    LINK_TYPE_SUPERSEDES,
    WRITE_DECISION_DUPLICATE,
    WRITE_DECISION_NOVEL,
    WRITE_DECISION_RELATED,
    WRITE_DECISION_UPDATE,
    GateDecision,
    LinkType,
    MemoryTrace,
    TraceLink,
    WriteDecision,
)
from services.memory_node.partition import Partition
from services.memory_node.ports import NowNs
from services.memory_node.reader import Reader
from services.memory_node.records import F32, Judgement, Owner, unit_vectors

# Texts that salience is measured against when an owner was loaded: enough for stable frequencies, and some 30 ms.
_WORDS_FROM = 2048
_AROUND = 8
"""Neighbours looked at around what sounds known: enough for what has been said of the same thing since."""
_READ_CHARS = 1000
"""Of a text that sounds known, what is read for its names: more says more than one thing, and takes the engine's thread too long."""

I64 = NDArray[np.int64]

_WORDS: dict[Decision, WriteDecision] = {
    Decision.NOVEL: WRITE_DECISION_NOVEL,
    Decision.DUPLICATE: WRITE_DECISION_DUPLICATE,
    Decision.UPDATE: WRITE_DECISION_UPDATE,
    Decision.RELATED: WRITE_DECISION_RELATED,
}
_UPDATES = {decision: metrics.BTSP_UPDATES.labels(decision.name.lower()) for decision in Decision}
_PLATEAUS = metrics.BTSP_UPDATES.labels("plateau")
_LINKS: dict[Decision, LinkType] = {
    Decision.DUPLICATE: LINK_TYPE_DUPLICATES,
    Decision.UPDATE: LINK_TYPE_SUPERSEDES,
    Decision.RELATED: LINK_TYPE_RELATED,
}


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a batch of new vectors [n, d] resembles: familiarity [n] (NaN: no index), cosine [n] (NaN: no search) of the nearest, and it."""

    familiarity: F32
    cosine: F32
    nearest: list[_Known | None]


class _Known(NamedTuple):
    trace_id: str
    text: str
    learned_at: Timestamp
    speaker: str
    said_ns: int


class WriteGate:
    """Judges the traces of one put. `profile`: of the suite's embedding model. `causes`: link what a text names as cause or effect."""

    def __init__(self, profile: GateProfile, calcium: CalciumTable, reader: Reader, now_ns: NowNs, causes: bool = True) -> None:
        self._profile = profile
        self._dimension = profile.dimension
        self._calcium = calcium
        self._reader = reader
        self._now_ns = now_ns
        self._causes = causes

    def judge(self, owner: Owner, partition: Partition | None, traces: Sequence[MemoryTrace], deduplicate: bool) -> list[Judgement | None]:
        """One for each trace, None where the vector is broken. `partition` None: the owner has no traces yet."""
        vectors, broken = unit_vectors([trace.embedding.vector for trace in traces], self._dimension)
        words = self._words(partition)
        at = self._profile.thresholds(0 if partition is None else partition.live)
        seen = self._look(partition, vectors, traces, at)
        cosines = seen.cosine.tolist()
        clash = [self._contradicts(*each, at) for each in zip(seen.nearest, cosines, traces, strict=True)]
        decisions = decide_many(seen.familiarity, seen.cosine, np.array(clash, np.bool_), at).tolist()
        same = {i: known for i, known in enumerate(seen.nearest) if known is not None and decisions[i] == Decision.DUPLICATE}
        news = self._news(partition, vectors, traces, same)
        for i in news:
            decisions[i] = Decision.RELATED
        judged: list[Judgement | None] = []
        left_out: dict[str, str] = {}
        plateaus, now_s = 0, self._now_ns() / 1e9
        # Python's own numbers from here on: one trace after the other, numpy's cost more than what is done with them.
        rows = zip(traces, vectors, decisions, seen.familiarity.tolist(), cosines, seen.nearest, strict=True)
        for i, (trace, vector, value, familiarity, cosine, known) in enumerate(rows):
            decision, made = Decision(value), MemoryTrace()
            gate = made.gate
            gate.decision, gate.novelty_threshold = _WORDS[decision], at.novel
            gate.salience = trace.salience or salience_of(None, words.observe(words_of(trace)))
            _numbers(gate, familiarity, cosine)
            if known is not None:
                # A duplicate of one that is left out itself is one of what that duplicates.
                gate.nearest_trace_id = left_out.get(known.trace_id, known.trace_id)
            encoded = self._encode(gate, owner, trace, vector, now_s)
            compared = f"nearest cosine {cosine:.3f}, but {news[i]}" if i in news else explain(decision, familiarity, cosine, clash[i], at)
            gate.reason = f"{compared}; {encoded}"
            judgement = _judgement(made, decision, deduplicate, known)
            if judgement.duplicate_of:
                left_out[trace.trace_id] = judgement.duplicate_of
            elif self._causes:
                made.links.extend(self._caused(partition, traces[:i], trace, left_out))
            plateaus += gate.plateau
            judged.append(None if i in broken else judgement)
        _count(decisions, plateaus)
        return judged

    def weigh(self, partition: Partition | None, traces: Sequence[MemoryTrace]) -> list[Judgement | None]:
        """Imported traces are not judged; but they are ranked beside the others, so each gets the salience of its words."""
        words = self._words(partition)
        judged: list[Judgement | None] = []
        for trace in traces:
            made = MemoryTrace()
            made.gate.salience = trace.salience or salience_of(None, words.observe(words_of(trace)))
            judged.append(Judgement(made))
        return judged

    def _words(self, partition: Partition | None) -> DocumentFrequencies:
        """What the owner said so far, word by word; of an owner that was loaded since, its last texts."""
        if partition is None:
            return DocumentFrequencies()
        if partition.words is None:
            partition.words = DocumentFrequencies()
            for payload in self._reader.newest(partition.owner_id, _WORDS_FROM):
                partition.words.observe(words_of(MemoryTrace.FromString(payload)))
        return partition.words

    def _contradicts(self, known: _Known | None, cosine: float, trace: MemoryTrace, at: GateThresholds) -> bool:
        return known is not None and cosine >= at.related and contradicts(known.text, words_of(trace))

    def _news(self, partition: Partition | None, vectors: F32, traces: Sequence[MemoryTrace], same: dict[int, _Known]) -> dict[int, str]:
        """Why some of the traces that sound like one that is known, `same` by position, are no duplicates of it.

        It holds more than words. Each names what the other does not: vectors hardly tell "at 4:53" from "at 1:44". Or what is known was
        contradicted since it was said: who says again that they live in Oslo has moved back.
        """
        news = {i: "it holds more than its words" for i in same if traces[i].contents}
        apart = (i for i, known in same.items() if i not in news and _name_apart(known.text, words_of(traces[i])))
        news |= dict.fromkeys(apart, "it names something else")
        asked = [i for i in same if i not in news]
        for i, around in zip(asked, self._around(partition, vectors, traces, asked), strict=True):
            known = same[i]
            later = [each for each in around if each.speaker == known.speaker and each.said_ns > known.said_ns]
            contradicts_now = among([known.text, *(each.text for each in later)])
            if any(contradicts_now(known.text, each.text) for each in later):
                news[i] = "what is known was contradicted since"
        return news

    def _around(self, partition: Partition | None, vectors: F32, traces: Sequence[MemoryTrace], asked: list[int]) -> list[list[_Known]]:
        """Short texts near those asked for, of the store and of what stands before them in the batch."""
        near: list[list[_Known | None]] = [[] for _ in asked]
        if asked and partition is not None and partition.live:
            lasting = partition.mask(None, self._reader, self._now_ns() // 1000)
            rows = partition.index.search(vectors[asked], min(_AROUND, len(partition.columns)), lasting)[1]
            found = iter(self._known(partition, rows.ravel()))
            near = [[next(found) for _ in row] for row in rows]
        for i, stored in zip(asked, near, strict=True):
            before = np.argsort(-(vectors[:i] @ vectors[i]), kind="stable")[:_AROUND]
            stored += [_as_known(traces[j]) for j in before.tolist()]
        return [[each for each in known if each is not None and len(each.text) <= _READ_CHARS] for known in near]

    def _caused(
        self, partition: Partition | None, before: Sequence[MemoryTrace], trace: MemoryTrace, left_out: dict[str, str]
    ) -> list[TraceLink]:
        """Links to earlier turns of the session that the text names as its cause or explains."""
        session, said = trace.scope.session, trace.said_at if trace.HasField("said_at") else trace.learned_at
        if not session:
            return []
        turns: list[MemoryTrace] = []

        def earlier() -> list[Turn]:
            batch = [each for each in before if each.scope.session == session][-LOOKED_BACK:]
            turns.extend([*self._said_before(partition, session, said.ToMicroseconds()), *batch][-LOOKED_BACK:])
            return [Turn(each.speaker, each.text) for each in turns]

        return [
            TraceLink(
                type=LINK_TYPE_CAUSES if each.explains else LINK_TYPE_CAUSED_BY,
                trace_id=left_out.get(turns[each.place].trace_id, turns[each.place].trace_id),
                weight=each.weight,
                evidence=each.evidence,
            )
            for each in causes(trace.speaker, trace.text, earlier)
        ]

    def _said_before(self, partition: Partition | None, session: str, said_us: int) -> list[MemoryTrace]:
        """The last turns of a session until a time, first said first."""
        number = -1 if partition is None else partition.columns.strings.find(session)
        if partition is None or number < 0:
            return []
        rows = partition.evidence.sessions.said_before(number, said_us, LOOKED_BACK, partition.columns)
        sequences = partition.columns.ints("sequence")[rows].tolist()
        stored = self._reader.payloads(partition.owner_id, sorted(sequences))
        return [MemoryTrace.FromString(stored[each][0]) for each in sequences if each in stored]

    def _look(self, partition: Partition | None, vectors: F32, traces: Sequence[MemoryTrace], at: GateThresholds) -> _Seen:
        """Familiarity of all, exact neighbours of those that need them, the batch's own earlier traces included."""
        count = len(vectors)
        familiarity, cosine = np.full(count, np.nan, np.float32), np.full(count, np.nan, np.float32)
        nearest: list[_Known | None] = [None] * count
        if partition is not None and partition.live:
            known = partition.familiarity(vectors)
            familiarity = familiarity if known is None else known
            asked = np.flatnonzero(needs_search(familiarity, at))
            if asked.size:
                lasting = partition.mask(None, self._reader, self._now_ns() // 1000)
                scores, rows = partition.index.search(vectors[asked], 1, lasting)
                cosine[asked] = np.where(rows[:, 0] >= 0, scores[:, 0], np.nan)
                for i, found in zip(asked.tolist(), self._known(partition, rows[:, 0]), strict=True):
                    nearest[i] = found
        _among_themselves(vectors, traces, familiarity, cosine, nearest, at.distant)
        for i, trace in enumerate(traces):
            if not trace.text and not words_of(trace):  # its vector is of no words: what it resembles says nothing
                cosine[i], nearest[i] = np.nan, None
        return _Seen(familiarity, cosine, nearest)

    def _known(self, partition: Partition, rows: I64) -> list[_Known | None]:
        """Id and text of the rows; None for one that is not there, or was deleted this moment."""
        sequences = partition.columns.ints("sequence")[np.maximum(rows, 0)].tolist()
        stored = self._reader.payloads(partition.owner_id, sorted(set(sequences)))
        found: list[_Known | None] = []
        for row, sequence in zip(rows.tolist(), sequences, strict=True):
            trace = MemoryTrace.FromString(stored[sequence][0]) if row >= 0 and sequence in stored else None
            found.append(None if trace is None else _as_known(trace))
        return found

    def _encode(self, gate: GateDecision, owner: Owner, trace: MemoryTrace, vector: F32, now_s: float) -> str:
        """Calcium of the stream, how strongly it makes the trace be encoded, and why."""
        resembles = gate.similarity if gate.HasField("similarity") else gate.familiarity
        said_s = min(trace.said_at.seconds + trace.said_at.nanos / 1e9, now_s) if trace.HasField("said_at") else now_s
        novelty = 1.0 - max(0.0, min(1.0, resembles))
        encoding = self._calcium.observe((owner, trace.scope.session), vector, novelty, min(gate.salience, 1.0), said_s)
        gate.calcium, gate.plateau, gate.encoding_strength = encoding.calcium, encoding.plateau, encoding.strength
        return encoding.reason


def _as_known(trace: MemoryTrace) -> _Known:
    said = trace.said_at if trace.HasField("said_at") else trace.learned_at
    return _Known(trace.trace_id, words_of(trace), trace.learned_at, trace.speaker, said.ToNanoseconds())


def _name_apart(known: str, said: str) -> bool:
    """Whether each names something that the other does not."""
    if known == said:
        return False
    a, b = ({named.text.casefold() for named in entities(text[:_READ_CHARS])} for text in (known, said))
    return bool(a - b and b - a)


def _numbers(gate: GateDecision, familiarity: float, cosine: float) -> None:
    """NaN stays unset."""
    if familiarity == familiarity:
        gate.familiarity = familiarity
    if cosine == cosine:
        gate.similarity = cosine


def _count(decisions: Sequence[int], plateaus: int) -> None:
    for value, times in Counter(decisions).items():
        _UPDATES[Decision(value)].inc(times)
    _PLATEAUS.inc(plateaus)


def _among_themselves(
    vectors: F32, traces: Sequence[MemoryTrace], familiarity: F32, cosine: F32, nearest: list[_Known | None], distant: float
) -> None:
    """The batch's earlier traces are not in the index yet: where one of them is nearer than what is stored, it counts."""
    if len(vectors) < 2:
        return
    similar = np.tril(vectors @ vectors.T, -1)  # [n, n], each with those before it
    best = similar.argmax(axis=1)
    value = similar[np.arange(len(vectors)), best]
    for i in np.flatnonzero((value >= distant) & ~(value <= cosine)).tolist():
        cosine[i], familiarity[i], nearest[i] = value[i], np.nan, _as_known(traces[best[i]])


def _judgement(made: MemoryTrace, decision: Decision, deduplicate: bool, known: _Known | None) -> Judgement:
    nearest, link = made.gate.nearest_trace_id, _LINKS.get(decision)
    if known is None or link is None:
        return Judgement(made)
    made.links.add(type=link, trace_id=nearest, weight=min(1.0, made.gate.similarity))
    return Judgement(made, nearest, known.learned_at) if deduplicate and decision is Decision.DUPLICATE else Judgement(made)
