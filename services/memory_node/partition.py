"""One owner's memory as searches see it: vector index and columns, row by row the same order. Derived from the store, never stored.

Belongs to the engine's thread once it is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.homeostasis import HomeostasisOptions, LogGain
from ndml.btsp.lifecycle import Outcome, State
from ndml.btsp.record import decoded, encoded
from ndml.btsp.salience import DocumentFrequencies
from ndml.btsp.state import TraceFlag
from ndml.contents import words_of
from ndml.errors import CapacityReached
from ndml.runtime.log import get_logger
from ndml.v1.types_pb2 import MemoryTrace
from services.memory_node.columns import Columns
from services.memory_node.familiarity import Familiarity
from services.memory_node.filters import Conditions, LabelSource, Mask, mask
from services.memory_node.index import AdaptiveIndex
from services.memory_node.ranking import Signals
from services.memory_node.reader import LoadedRows, Place, Reader, StoredTrace
from services.memory_node.records import F32, Owner, TraceRow
from services.memory_node.signals.evidence import Evidence, Said
from services.memory_node.signals.lexical import LexicalOptions
from services.memory_node.spaces import Spaces
from services.memory_node.states import RowSignals, States
from services.memory_node.told import Told
from services.memory_node.validity import Validity
from services.memory_node.vectors import sentences, words

log = get_logger(__name__)

_NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Parts:
    """What every partition is made of."""

    dimension: int
    make_index: Callable[[], AdaptiveIndex]
    states: States
    familiarity: Callable[[], Familiarity]
    homeostasis: HomeostasisOptions = field(default_factory=HomeostasisOptions)
    lexical: LexicalOptions = field(default_factory=LexicalOptions)


class Partition:
    """`through`: the sequence number up to which the store's changes are in; `joined`: up to which others' feedback is; `unwritten`:
    changes of states that are not on disk yet."""

    def __init__(self, owner: Owner, owner_id: int, parts: Parts) -> None:
        self.owner = owner
        self.owner_id = owner_id
        self.index = parts.make_index()
        self.columns = Columns()
        self.evidence = Evidence(parts.dimension, parts.lexical)
        self.validity = Validity()
        self.told = Told()
        self.spaces = Spaces()
        self.states = parts.states.block()
        self.words: DocumentFrequencies | None = None
        self._familiarity = parts.familiarity()
        self._gain = LogGain(parts.homeostasis)
        self.through = 0
        self.joined = 0
        self.next_visit_s = 0.0
        self.unwritten = 0
        self._parts = parts
        self._first_expiry_us = _NEVER

    @property
    def nbytes(self) -> int:
        return (
            self.index.nbytes
            + self.columns.nbytes
            + self.states.nbytes
            + self.evidence.nbytes
            + self.validity.nbytes
            + self.told.nbytes
            + self.spaces.nbytes
            + self._familiarity.nbytes
            + (0 if self.words is None else self.words.nbytes)
        )

    @property
    def live(self) -> int:
        return self.index.live

    def apply(self, added: Sequence[TraceRow], removed: Sequence[int], through: int) -> None:
        """Take over one commit. Rows that are in already (the partition was loaded after the commit) are passed over."""
        later = [row for row in added if row.sequence > self.through]
        fresh = self._resident(later) if later else later
        if fresh:
            self.append(fresh, self._carried(fresh))
        if removed:
            self._remove(self.columns.rows_of(removed))
        self.through = max(self.through, through)

    def _resident(self, rows: Sequence[TraceRow]) -> list[TraceRow]:
        """Without the new rows of traces that are archived: a change of their content does not bring them back."""
        new = {row.sequence for row in rows}
        return [
            row
            for row in rows
            if row.first_sequence == row.sequence or row.first_sequence in new or self.columns.row_of_trace(row.first_sequence) is not None
        ]

    def regroup(self, merged: Sequence[int], freed: Sequence[int]) -> None:
        """Traces, by first sequence, that stand in a semantic trace from now on, and that do not any more."""
        for sequences, on in ((merged, True), (freed, False)):
            if sequences:
                rows = np.flatnonzero(np.isin(self.columns.ints("first_sequence"), sequences))
                self.states.set_flag(rows, TraceFlag.MERGED, on)

    def append(self, rows: Sequence[TraceRow], carried: Mapping[int, bytes]) -> None:
        """Rows at the end of everything; `carried` has packed states by first_sequence, the others begin theirs."""
        vectors = sentences([row.vector for row in rows], self._parts.dimension)
        self.index.add(vectors)
        self.columns.append(rows)
        self._parts.states.append(self.states, rows, carried)
        self._familiarity.learn(vectors, self.columns.ints("first_sequence")[-len(rows) :])
        self._gain.observe_all([row.salience for row in rows])
        self._expire_from([row.expires_at_us for row in rows if row.expires_at_us])
        self._learn([row.speaker for row in rows], [row.payload for row in rows], [row.vector for row in rows])

    def append_loaded(self, rows: LoadedRows) -> None:
        """As `append`, of rows as the store read them."""
        self.index.add(sentences(rows.vectors, self._parts.dimension))
        self.columns.append_loaded(rows)
        self._parts.states.append_loaded(self.states, rows)
        self._gain.observe_all(rows.salience)
        self._expire_from(rows.expires_at_us[rows.expires_at_us > 0].tolist())
        self._learn(rows.speaker, rows.payloads, rows.vectors)

    def _learn(self, speakers: Sequence[str], payloads: Sequence[bytes], vectors: Sequence[bytes]) -> None:
        """What rows hold beside their sentence vectors."""
        traces = [MemoryTrace.FromString(payload) for payload in payloads]
        texts = [words_of(trace) for trace in traces]
        found = [words(vector, self._parts.dimension) for vector in vectors]
        self.evidence.append([Said(*each) for each in zip(speakers, texts, found, strict=True)], self.columns)
        self.validity.append(len(self.columns) - len(traces), traces)
        self.told.append(traces)
        self.spaces.append(len(self.columns) - len(traces), traces)

    def revive(self, stored: StoredTrace) -> int:
        """Bring an archived trace back into the index, active; returns its row. The change of its state is the caller's to write."""
        row = stored.row
        self.append([row], {row.first_sequence: stored.state} if stored.state is not None else {})
        place = len(self.columns) - 1
        self.states.set_lifecycle([place], int(State.ACTIVE))
        self.states.set_flag([place], TraceFlag.MERGED, stored.merged)
        return place

    def archive(self, rows: NDArray[np.int64]) -> None:
        """Take rows out of the index; the store keeps them."""
        self._remove(rows)

    def _expire_from(self, times_us: Sequence[int]) -> None:
        self._first_expiry_us = min([self._first_expiry_us, *times_us])

    def _carried(self, rows: Sequence[TraceRow]) -> dict[int, bytes]:
        """Packed states of the rows that these replace."""
        carried = {}
        for row in rows:
            if row.first_sequence < row.sequence:
                old = self.columns.row_of_trace(row.first_sequence)
                if old is not None:
                    carried[row.first_sequence] = self.states.pack(np.array([old]))[0]
        return carried

    def familiarity(self, vectors: F32) -> F32 | None:
        """Of new vectors [n, d], in 0..1; None where exact search decides alone."""
        if self._familiarity.wanted(self.live):
            rows = np.flatnonzero(self.columns.alive)
            self._familiarity.build(self.index.reconstruct(rows), self.columns.ints("first_sequence")[rows])
        return self._familiarity.of(vectors)

    def signals(self, now_s: float) -> Signals:
        """Salience and strength of rows, for ranking."""
        return RowSignals(self.states, self._gain, now_s)

    def look(self, rows: NDArray[np.int64], now_s: float) -> Outcome:
        """Where rows stand in their lives at `now_s`."""
        learned_us, expires_us = self.columns.ints("learned_at_us")[rows], self.columns.ints("expires_at_us")[rows]
        return self._parts.states.look(self.states, rows, learned_us, expires_us, now_s)

    def retain(self, sequences: NDArray[np.int64]) -> None:
        """Drop every row that the store no longer has."""
        self._remove(np.nonzero(self.columns.alive & ~np.isin(self.columns.ints("sequence"), sequences))[0])

    def _remove(self, rows: NDArray[np.int64]) -> None:
        if len(rows):
            self.index.remove(rows)
            self.columns.alive[rows] = False
            self.evidence.remove(rows, self.columns)
            self.spaces.remove(rows)

    def upkeep(self) -> None:
        """Bounded work between batches: swap in an index that was trained meanwhile, drop dead rows once they are many."""
        state = self.index.poll()
        if state.error is not None:
            log.warning("index_training_failed", traces=self.live, exc_info=state.error)
        if self.index.needs_compaction:
            new_rows = self.index.compact()
            self.columns.renumber(new_rows)
            self.states.renumber(new_rows)
            self.evidence.renumber(new_rows)
            self.validity.renumber(new_rows)
            self.spaces.renumber(new_rows)

    def close(self) -> None:
        self.index.close()

    def mask(self, wanted: Conditions | None, labels: LabelSource, now_us: int) -> Mask | None:
        """Rows that meet the conditions and have not expired; None: all do."""
        allowed = None if wanted is None else mask(wanted, self.columns, self.owner_id, labels, self.validity)
        if now_us < self._first_expiry_us:
            return allowed
        ends = self.columns.ints("expires_at_us")
        lasting: Mask = (ends == 0) | (ends > now_us)
        return lasting if allowed is None else allowed & lasting

    def newest(self, before: Place, limit: int, allowed: Mask) -> NDArray[np.int64]:
        """Rows that are alive and allowed, before a place of the list: the `limit` newest, newest first."""
        rows = np.nonzero(self.columns.alive & allowed & self.columns.listed_before(*before))[0]
        return self.columns.newest_first(rows)[:limit]

    def overwrite(self, changed: Sequence[tuple[int, bytes]], through: int) -> None:
        """States that others' feedback changed, packed, by first sequence. Flags and lifecycle stay as they are here."""
        self.joined = max(self.joined, through)
        found = [(self.columns.row_of_trace(first), state) for first, state in dict(changed).items()]
        here = [(row, state) for row, state in found if row is not None]
        if here:
            rows = np.array([row for row, _ in here])
            states = decoded([state for _, state in here]).copy()
            for name in ("flags", "lifecycle"):
                states[name] = self.states.column(name)[rows]
            self.states.overwrite(rows, encoded(states))


def load_partition(reader: Reader, owner: Owner, parts: Parts, max_traces: int) -> Partition | None:
    """Read an owner's rows into a new partition, in one consistent read. None: there is no such owner.

    Raises CapacityReached, StoreUnavailable.
    """
    with reader.snapshot():
        found = reader.owner(owner)
        if found is None:
            return None
        live = found.traces - (reader.archived(found.owner_id) if found.traces > max_traces else 0)
        if live > max_traces:
            raise CapacityReached(
                f"the owner's {live} traces do not fit into memory (engine.index_memory_limit allows {max_traces}): raise it"
            )
        partition = Partition(owner, found.owner_id, parts)
        partition.through = reader.last_sequence()
        partition.joined = found.joined
        try:
            for rows in reader.load(found.owner_id):
                partition.append_loaded(rows)
            parts.states.resume(partition.states, reader.protein(found.owner_id))
            partition.regroup(reader.merged(found.owner_id), ())
        except BaseException:
            partition.close()
            raise
    return partition
