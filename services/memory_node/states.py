"""Trace states between the store, a partition's block and the API. The dynamics themselves are ndml.btsp.state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from ndml.btsp.capture import Protein
from ndml.btsp.homeostasis import LogGain
from ndml.btsp.lifecycle import LifecycleOptions, Outcome, State, Traces, next_state
from ndml.btsp.state import Dynamics, StateBlock, TraceFlag
from ndml.v1.types_pb2 import LIFECYCLE_STATE_NEW, LifecycleState, TraceStrength
from services.memory_node.columns import Columns
from services.memory_node.ports import NowNs
from services.memory_node.reader import LoadedRows, StoredTrace
from services.memory_node.records import F32, TraceRow

I64 = NDArray[np.int64]


def lifecycle_of(state: int) -> LifecycleState:
    """The API's name of a core state: the same order, after UNSPECIFIED."""
    return cast(LifecycleState, state + LIFECYCLE_STATE_NEW)


class RowSignals:
    """Salience and strength of a block's rows at one time."""

    def __init__(self, block: StateBlock, gain: LogGain, now_s: float) -> None:
        self._block = block
        self._gain = gain
        self._now_s = now_s

    def salience(self, rows: I64) -> F32:
        return self._gain.apply(self._block.column("salience")[rows])

    def strength(self, rows: I64) -> F32:
        return self._block.strength(rows, self._now_s)


class Holder(Protocol):
    """A partition, as far as its states go."""

    columns: Columns
    states: StateBlock


class States:
    """Makes blocks and fills them. A trace that nothing happened to has no state in the store: its row says what it began with."""

    def __init__(self, dynamics: Dynamics, lifecycle: LifecycleOptions, now_ns: NowNs) -> None:
        self._dynamics = dynamics
        self._lifecycle = lifecycle
        self._now_ns = now_ns

    def block(self) -> StateBlock:
        return StateBlock(self._dynamics)

    def append(self, block: StateBlock, rows: Sequence[TraceRow], carried: Mapping[int, bytes]) -> None:
        """Rows as the store wrote them; those in `carried` (packed, by first_sequence) go on, the others begin."""
        born = self._born_s(np.array([row.said_at_us for row in rows]), np.array([row.learned_at_us for row in rows]))
        flags = [TraceFlag.PROTECTED * row.protected for row in rows]
        first = block.append([row.salience for row in rows], [row.encoding for row in rows], born, flags)
        older = [i for i, row in enumerate(rows) if row.first_sequence in carried]
        if older:
            places = np.array(older) + first
            block.overwrite(places, [carried[rows[i].first_sequence] for i in older])
            block.set_salience(places, [rows[i].salience for i in older])
            for protected in (True, False):
                which = [place for place, i in zip(places, older, strict=True) if bool(rows[i].protected) is protected]
                block.set_flag(np.array(which, np.int64), TraceFlag.PROTECTED, protected)

    def append_loaded(self, block: StateBlock, rows: LoadedRows) -> None:
        """Rows as the store read them, with the states that it has."""
        born = self._born_s(rows.said_at_us, rows.learned_at_us)
        first = block.append(rows.salience, rows.encoding, born, rows.protected * int(TraceFlag.PROTECTED))
        changed = [(i, state) for i, state in enumerate(rows.states) if state is not None]
        if changed:
            places = np.array([i for i, _ in changed]) + first
            block.overwrite(places, [state for _, state in changed])
            block.set_flag(places, TraceFlag.MERGED, False)  # who stands in a merge is in the table `members`

    def resume(self, block: StateBlock, protein: bytes | None) -> None:
        """After the last of an owner's rows: the protein that feedback made."""
        if protein is not None:
            block.resume(Protein.unpack(protein, self._dynamics.capture))

    def stored(self, rows: Sequence[StoredTrace], protein: Protein | None) -> StateBlock:
        """States of stored traces, in their order, in the index or not. `protein`: of their partition, None where that is not in memory."""
        block = self.block()
        self.append(block, [one.row for one in rows], {one.row.first_sequence: one.state for one in rows if one.state is not None})
        for merged in (True, False):
            block.set_flag(np.array([i for i, one in enumerate(rows) if one.merged is merged], np.int64), TraceFlag.MERGED, merged)
        block.protein = protein or block.protein
        return block

    def of(self, stored: StoredTrace, partition: Holder | None) -> tuple[StateBlock, int]:
        """Where the trace's state is: in the partition, or in a block of its own when it is archived or nothing is in memory."""
        place = None if partition is None else partition.columns.row_of_trace(stored.row.first_sequence)
        if partition is not None and place is not None:
            return partition.states, place
        return self.stored([stored], None if partition is None else partition.states.protein), 0

    def _born_s(self, said_at_us: I64, learned_at_us: I64) -> NDArray[np.float64]:
        """When the dynamics begin: when it was said, but not in the time to come, whatever a writer's clock or a story says."""
        return np.minimum(np.minimum(said_at_us, learned_at_us) / 1e6, self._now_ns() / 1e9)

    def look(self, block: StateBlock, rows: I64, learned_us: I64, expires_us: I64, now_s: float) -> Outcome:
        """Where rows stand in their lives, computed when somebody looks. Times [n] in microseconds since 1970, expiry 0: never."""
        flags, lifecycle = block.column("flags")[rows], block.column("lifecycle")[rows]
        merged = (flags & TraceFlag.MERGED > 0) & (lifecycle <= State.AGING)
        traces = Traces(
            state=np.where(merged, State.CONSOLIDATED, lifecycle).astype(np.uint8),
            learned_at_s=learned_us / 1e6,
            strength=block.strength(rows, now_s).astype(np.float64),
            retrievability=np.where(block.column("uses")[rows] > 0, block.retrievability(rows, now_s), np.nan),
            z=block.captured(rows, now_s),
            tag=block.tag(rows, now_s),
            protected=flags & TraceFlag.PROTECTED > 0,
            expires_at_s=np.where(expires_us > 0, expires_us / 1e6, np.inf),
        )
        return next_state(traces, now_s, self._lifecycle)


def strength_of(block: StateBlock, row: int, now_s: float) -> TraceStrength:
    """Row `row` of a block at `now_s`, as the API says it."""
    read = block.readout(row, now_s)
    made = TraceStrength(
        strength=read.strength,
        by_timescale=read.by_timescale,
        stability_days=read.stability_days,
        difficulty=read.difficulty,
        retrievability=read.retrievability,
        tag=read.tag,
        captured=read.captured,
        credit=read.credit,
        uses=read.uses,
        successes=read.successes,
        failures=read.failures,
    )
    if read.uses:
        made.last_graded_at.CopyFrom(Timestamp(seconds=int(read.last_graded_s), nanos=int(read.last_graded_s % 1 * 1e9)))
    return made
