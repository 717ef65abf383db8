"""State of every trace of one partition, as structure of arrays: rows in append order, 122 bytes each, read lazily at any time.

Nothing ticks and nothing is swept: a row changes when its trace is graded, credited or merged, everything else is computed at the read
from closed forms (`timescales`, `stability`, `capture`, `credit`). A read of n rows is a handful of array operations on [n, 8].

Strength, what ranking uses, is a monotone map of the base level to 0..1, ACT-R's logistic with noise 1:
    x = B_d(now) (1 + z) w / w0        B_d: sum of d-th powers of age; 1 + z: late phase; w / w0: credit weight against its start
    strength = x / (x + theta),  theta = half_age_s^-d: one use of gain 1 that is `half_age_s` old has strength 1/2
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ndml.btsp import capture, credit, stability, timescales
from ndml.btsp.capture import CaptureOptions, Protein
from ndml.btsp.checks import F64, above_zero, in_range, numbers
from ndml.btsp.credit import CreditOptions
from ndml.btsp.record import ORDER, RECORD, RECORD_BYTES, decoded, encoded
from ndml.btsp.stability import DAY_S, StabilityOptions
from ndml.btsp.timescales import DEFAULT_EXPONENT, HIGH_EXPONENT, LOW_EXPONENT, ORIGIN_S, RATES, TIME_LIMIT_S
from ndml.errors import FieldInvalid

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Rows = I64 | slice
_COUNT_MAX = np.iinfo(np.uint32).max


class TraceFlag(IntFlag):
    """Bits of `flags`."""

    PROTECTED = 1
    PLATEAU = 2
    MERGED = 4
    """A semantic trace says what it says."""


@dataclass(frozen=True, slots=True)
class StateOptions:
    """How state is read and grown."""

    exponent: float = DEFAULT_EXPONENT
    """d of the power law of forgetting, .05 to .8. .15: best on the dialogues that we measured, and FSRS's decay over its population
    (.1542); .5 is ACT-R's. The seed's decay_rate. It is a read-out: changing it changes no stored state."""
    half_age_s: float = DAY_S
    """Age at which one use of gain 1 has strength 1/2: what was said yesterday stands in the middle of the scale."""
    weakest_gain: float = 0.5
    """First accumulator gain of a trace of encoding strength 0; strength 1 gives 1. A written trace is never silent."""
    grade_step: float = 0.45
    """Change of the early phase by a grade of 1: a weak stimulus, tags but makes no protein alone."""
    initial_weight: float = 0.5
    """w0, credit weight of a new trace: feedback of either sign has equal room."""
    growth: float = 0.25
    """Share of room kept beyond what is filled: 25 % keeps a trace under 160 bytes."""
    scan_rows: int = 16384
    """Rows read at once in a long read: its temporaries, 2 MiB, stay in the cache."""

    def __post_init__(self) -> None:
        in_range(self.exponent, "exponent", LOW_EXPONENT, HIGH_EXPONENT)
        above_zero(self.half_age_s, "half_age_s")
        in_range(self.weakest_gain, "weakest_gain", 0.0, 1.0)
        in_range(self.grade_step, "grade_step", 0.0, 1.0)
        in_range(self.initial_weight, "initial_weight", 0.01, 1.0)
        in_range(self.growth, "growth", 0.01, 4.0)
        in_range(self.scan_rows, "scan_rows", 1, 1 << 24)


@dataclass(frozen=True, slots=True)
class Dynamics:
    """Options of everything that a StateBlock does."""

    state: StateOptions = field(default_factory=StateOptions)
    stability: StabilityOptions = field(default_factory=StabilityOptions)
    capture: CaptureOptions = field(default_factory=CaptureOptions)
    credit: CreditOptions = field(default_factory=CreditOptions)


@dataclass(frozen=True, slots=True)
class Readout:
    """One trace at one time; the fields of the API's TraceStrength."""

    strength: float
    by_timescale: tuple[float, ...]
    stability_days: float
    difficulty: float
    retrievability: float
    tag: float
    captured: float
    credit: float
    uses: int
    successes: int
    failures: int
    last_graded_s: float
    """Of a trace without feedback: when it was written."""


class StateBlock:
    """States of one partition's traces. One writer at a time; reads must not run beside a write."""

    def __init__(self, dynamics: Dynamics | None = None, protein: Protein | None = None) -> None:
        self.dynamics = dynamics or Dynamics()
        self.protein = protein or Protein(self.dynamics.capture)
        self._count = 0
        self._columns: dict[str, NDArray[Any]] = {
            name: np.zeros((0, *RECORD[name].shape), RECORD[name].base) for name in RECORD.names or ()
        }

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes held, room to grow included."""
        return sum(column.nbytes for column in self._columns.values())

    def column(self, name: str) -> NDArray[Any]:
        """Read-only view [rows] of a stored field (`ndml.btsp.record.RECORD`); valid until the next append."""
        view = self._columns[name][: self._count]
        view.setflags(write=False)
        return view

    # Writing

    def append(self, salience: ArrayLike, strength: ArrayLike, at_s: ArrayLike, flags: ArrayLike = 0) -> int:
        """Rows for n new traces; returns the first. Salience and encoding strength [n] in 0..1, times [n], unix seconds.

        A strength above the protein threshold (.5; a plateau has 1) is a strong event that lets weak traces near it be captured.
        FieldInvalid: a number out of range or NaN; nothing was appended then.
        """
        marks = np.atleast_1d(numbers(salience, "salience", 0.0, 1.0))
        strong = _each(numbers(strength, "strength", 0.0, 1.0), len(marks), "strength")
        at = _each(numbers(at_s, "at_s", -TIME_LIMIT_S, TIME_LIMIT_S), len(marks), "at_s")
        bits = _each(numbers(flags, "flags", 0, 255), len(marks), "flags")
        o = self.dynamics.state
        made = np.zeros(len(marks), RECORD)
        made["levels"] = timescales.event(timescales.silent(len(marks)), at, o.weakest_gain + (1.0 - o.weakest_gain) * strong)
        made["stability"], made["difficulty"] = stability.encoded(strong, self.dynamics.stability)
        made["last_graded_s"] = made["early_at_s"] = at
        made["early"], made["salience"], made["weight"], made["flags"] = strong, marks, o.initial_weight, bits
        first = self._extend(made)
        self._synthesise(at, strong)
        return first

    def grade(self, rows: ArrayLike, grades: ArrayLike, at_s: ArrayLike) -> None:
        """Graded use at `at_s` (one time or [n]): -1 wrong .. 1 right, 0 changes nothing. A row that stands twice is graded twice.

        Accumulators take positive grades as gains (they never go down), stability and tag both signs. Credit to the trace and its
        neighbours is `credit`. A clock that went back counts as no time passed. FieldInvalid: unknown row, grade outside -1..1 or NaN.
        """
        which = self._rows(rows)
        marks = _each(numbers(grades, "grades", -1.0, 1.0), len(which), "grades")
        at = _each(numbers(at_s, "at_s", -TIME_LIMIT_S, TIME_LIMIT_S), len(which), "at_s")
        for once in _rounds(which):
            used = once[marks[once] != 0]
            if len(used):
                self._grade_each(which[used], marks[used], at[used])

    def restate(self, rows: ArrayLike, gains: ArrayLike, at_s: float) -> None:
        """The traces were said again: accumulators take the gains (0..1), nothing is graded. Errors as in `grade`."""
        which = self._rows(rows)
        gain = _each(numbers(gains, "gains", 0.0, 1.0), len(which), "gains")
        at = _each(numbers([at_s], "at_s", -TIME_LIMIT_S, TIME_LIMIT_S), len(which), "at_s")
        levels = self._columns["levels"]
        for once in _rounds(which):
            levels[which[once]] = timescales.event(levels[which[once]], at[once], gain[once])

    def credit(self, rows: ArrayLike, amounts: ArrayLike) -> None:
        """Move the weights by `amounts` = feedback times kernel, -1..1 each; a row that stands twice moves twice. Errors as in `grade`."""
        which = self._rows(rows)
        step = _each(numbers(amounts, "amounts", -1.0, 1.0), len(which), "amounts")
        weight = self._columns["weight"]
        for once in _rounds(which):
            weight[which[once]] = credit.updated(weight[which[once]], step[once], self.dynamics.credit)
            self._count_up("changes", which[once])

    def capture(self, at_s: float, deviation: float = 1.0) -> None:
        """Something salient happened that is no trace of this block: protein for the weak traces around it. O(1)."""
        self._synthesise(numbers([at_s], "at_s", -TIME_LIMIT_S, TIME_LIMIT_S), numbers([deviation], "deviation", -1.0, 1.0))

    def settle(self, now_s: float) -> None:
        """Write down what is captured so far and empty the protein's memory. Changes no reading; `capture` calls it when it must."""
        in_range(now_s, "now_s", -TIME_LIMIT_S, TIME_LIMIT_S)
        if not self.protein.idle:
            for part in self._parts(slice(0, self._count, 1)):
                self._settle_rows(part, now_s)
        self.protein.rebase(now_s)

    def resume(self, protein: Protein) -> None:
        """Take over protein that was packed when some of the rows were there; strong rows written after its last event add theirs."""
        late = np.flatnonzero(self._columns["early_at_s"][: self._count] > protein.last_event_s)
        self.protein = protein
        self._synthesise(self._columns["early_at_s"][late], self._columns["early"][late].astype(np.float64))

    def set_flag(self, rows: ArrayLike, flag: TraceFlag, on: bool) -> None:
        """Set or clear one flag."""
        which, flags = self._rows(rows), self._columns["flags"]
        flags[which] = flags[which] | int(flag) if on else flags[which] & (0xFF ^ int(flag))
        self._count_up("changes", np.unique(which))

    def set_salience(self, rows: ArrayLike, salience: ArrayLike) -> None:
        """Salience 0..1, where its writer changed it."""
        which = self._rows(rows)
        self._columns["salience"][which] = _each(numbers(salience, "salience", 0.0, 1.0), len(which), "salience")

    def set_lifecycle(self, rows: ArrayLike, state: ArrayLike) -> None:
        """Store lifecycle states (`ndml.btsp.lifecycle`), 0..255."""
        which = self._rows(rows)
        self._columns["lifecycle"][which] = _each(numbers(state, "lifecycle", 0, 255), len(which), "lifecycle")
        self._count_up("changes", np.unique(which))

    # Reading

    def strength(self, rows: ArrayLike | slice, now_s: float, exponent: float | None = None) -> F32:
        """Strength [n] in 0..1 at `now_s`, for ranking: the module's docstring has the formula. FieldInvalid: unknown row, exponent."""
        o = self.dynamics.state
        d = o.exponent if exponent is None else exponent
        weights, theta = timescales.readout_weights(d).astype(np.float32), np.float32(o.half_age_s**-d)
        now = in_range(now_s, "now_s", -TIME_LIMIT_S, TIME_LIMIT_S)
        parts = [self._strength(part, now, weights, theta) for part in self._parts(self._readable(rows))]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.float32), *parts])

    def base_level(self, rows: ArrayLike | slice, now_s: float, exponent: float | None = None) -> F64:
        """B_d [n] in float64, of graded use and writing alone: no late phase, no credit."""
        d = self.dynamics.state.exponent if exponent is None else exponent
        return timescales.base_level(self._take("levels", self._readable(rows)), now_s, d)

    def retrievability(self, rows: ArrayLike | slice, now_s: float) -> F64:
        """FSRS's chance of recall [n] at `now_s`, 1 at the last grade (or the write)."""
        which = self._readable(rows)
        days = (in_range(now_s, "now_s", -TIME_LIMIT_S, TIME_LIMIT_S) - self._take("last_graded_s", which)) / DAY_S
        return stability.retrievability(days, self._take("stability", which).astype(np.float64), self.dynamics.stability)

    def tag(self, rows: ArrayLike | slice, now_s: float) -> F64:
        """Early phase [n] at `now_s`, -1..1."""
        which = self._readable(rows)
        return capture.early_phase(
            self._take("early", which).astype(np.float64), self._take("early_at_s", which), now_s, self.dynamics.capture
        )

    def captured(self, rows: ArrayLike | slice, now_s: float) -> F64:
        """Late phase [n] at `now_s`, -.5..1."""
        return self._late(self._readable(rows), now_s)

    def readout(self, row: int, now_s: float) -> Readout:
        """Everything about one trace."""
        at, c = np.array([row]), self._columns
        return Readout(
            strength=float(self.strength(at, now_s)[0]),
            by_timescale=tuple(timescales.activity(c["levels"][at], now_s)[0].tolist()),
            stability_days=float(c["stability"][row]),
            difficulty=float(c["difficulty"][row]),
            retrievability=float(self.retrievability(at, now_s)[0]),
            tag=float(self.tag(at, now_s)[0]),
            captured=float(self.captured(at, now_s)[0]),
            credit=float(c["weight"][row]),
            uses=int(c["uses"][row]),
            successes=int(c["successes"][row]),
            failures=int(c["failures"][row]),
            last_graded_s=float(c["last_graded_s"][row]),
        )

    # Bytes

    def pack(self, rows: ArrayLike) -> list[bytes]:
        """A record of fixed size (`RECORD_BYTES`) for each row; `Protein.pack` has what belongs to the partition as a whole."""
        which = self._rows(rows)
        out = np.empty(len(which), RECORD)
        for name, column in self._columns.items():
            out[name] = column[which]
        return encoded(out)

    def extend_packed(self, records: Sequence[bytes]) -> int:
        """Append records; returns the first row. FieldInvalid: not a record, or numbers no trace can have; nothing was appended then."""
        return self._extend(decoded(records))

    def overwrite(self, rows: ArrayLike, records: Sequence[bytes]) -> None:
        """Replace rows by records. FieldInvalid as `extend_packed`."""
        which, theirs = self._rows(rows), decoded(records)
        if len(which) != len(theirs):
            raise FieldInvalid(f"{len(theirs)} records for {len(which)} rows: give one for each", field="records")
        for name, column in self._columns.items():
            column[which] = theirs[name]

    def renumber(self, new_rows: ArrayLike) -> None:
        """Move row i to new_rows[i], which keep their order; drop it where that is negative. FieldInvalid: not one number for each row."""
        moves = _each(numbers(new_rows, "new_rows"), self._count, "new_rows")
        kept = np.flatnonzero(moves >= 0)
        order = kept[np.argsort(moves[kept], kind="stable")]
        self._columns = {name: column[: self._count][order] for name, column in self._columns.items()}
        self._count = len(order)

    def merge(self, rows: ArrayLike, records: Sequence[bytes]) -> None:
        """Join each row with another copy of it: any order, any repetition of copies ends in the same state.

        Accumulators and counters: the larger, one by one (both copies stem from one writer; different writers' accumulators add up, see
        `timescales.joint`). All else: from the copy with more changes. FieldInvalid as `extend_packed`.
        """
        which, theirs = self._rows(rows), decoded(records)
        if len(which) != len(theirs):
            raise FieldInvalid(f"{len(theirs)} records for {len(which)} rows: give one for each", field="records")
        for once in _rounds(which):
            self._merge_each(which[once], theirs[once])

    # Inside

    def _merge_each(self, rows: I64, theirs: NDArray[Any]) -> None:
        c = self._columns
        newer, decided = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        for name in ORDER:
            mine, other = c[name][rows], theirs[name]
            newer |= ~decided & (other > mine)
            decided |= other != mine
        for name in ORDER:
            c[name][rows] = np.where(newer, theirs[name], c[name][rows])
        for name in ("levels", "uses", "successes", "failures"):
            c[name][rows] = np.maximum(c[name][rows], theirs[name])

    def _grade_each(self, rows: I64, grades: F64, at: F64) -> None:
        c, o = self._columns, self.dynamics
        self._settle_rows(rows, at)
        early = np.clip(c["early"][rows] + o.state.grade_step * grades, -1.0, 1.0)
        c["early"][rows] = early
        c["levels"][rows] = timescales.event(c["levels"][rows], at, np.maximum(grades, 0.0))
        s, d = c["stability"][rows].astype(np.float64), c["difficulty"][rows].astype(np.float64)
        days = (at - c["last_graded_s"][rows]) / DAY_S
        c["stability"][rows], c["difficulty"][rows] = stability.graded(s, d, grades, days, o.stability)
        c["last_graded_s"][rows] = np.maximum(c["last_graded_s"][rows], at)
        for name, which in (("changes", rows), ("uses", rows), ("successes", rows[grades > 0]), ("failures", rows[grades < 0])):
            self._count_up(name, which)
        self._synthesise(at, early)

    def _count_up(self, name: str, rows: I64) -> None:
        """One more for each of `rows`, no row twice; at 2^32 - 1 it stands."""
        column = self._columns[name]
        column[rows] += column[rows] < _COUNT_MAX

    def _synthesise(self, at: F64, early: F64) -> None:
        """Protein for the strong ones among the events, those at one time as one."""
        strong = np.abs(early) > self.dynamics.capture.protein_threshold
        if not strong.any():
            return
        times, inverse = np.unique(at[strong], return_inverse=True)
        sizes = np.bincount(inverse, weights=np.abs(early[strong]))
        for when, size in zip(times.tolist(), sizes.tolist(), strict=True):
            if self.protein.full:
                self.settle(max(when, self.protein.last_event_s))
            self.protein.add(when, size)

    def _settle_rows(self, which: Rows, now_s: float | F64) -> None:
        c = self._columns
        at, early = self._take("early_at_s", which), self._take("early", which).astype(np.float64)
        now = np.maximum(at, now_s)
        late = self._late(which, now)
        c["early"][which] = capture.early_phase(early, at, now, self.dynamics.capture)
        c["late"][which], c["early_at_s"][which] = late, now

    def _late(self, which: Rows, now_s: float | F64) -> F64:
        late = self._take("late", which).astype(np.float64)
        if self.protein.idle:
            return late
        at = self._take("early_at_s", which)
        live = np.flatnonzero(at > self.protein.reaches_back_to_s)  # of the candidates of a search few were tagged lately
        if len(live):
            early = self._take("early", which)[live].astype(np.float64)
            now = now_s[live] if isinstance(now_s, np.ndarray) else now_s
            late[live] = capture.late_phase(late[live], early, at[live], now, self.protein)
        return late

    def _strength(self, which: Rows, now: float, weights: F32, theta: np.float32) -> F32:
        levels = self._take("levels", which)
        left = (levels - (now - ORIGIN_S) * RATES).astype(np.float32)  # [n, 8]; float64 up to here: L reaches 1e7, its differences matter
        np.minimum(left, levels[:, -1:].astype(np.float32), out=left)
        x: F32 = np.exp(left, out=left).dot(weights)
        x *= self._take("weight", which) / np.float32(self.dynamics.state.initial_weight)
        x *= (1.0 + self._late(which, now)).astype(np.float32)
        return x / (x + theta)

    def _extend(self, records: NDArray[Any]) -> int:
        first, total = self._count, self._count + len(records)
        self._reserve(total)
        for name, column in self._columns.items():
            column[first:total] = records[name]
        self._count = total
        return first

    def _reserve(self, total: int) -> None:
        if total <= len(self._columns["late"]):
            return
        room = total + max(int(total * self.dynamics.state.growth), 16)
        for name, column in self._columns.items():
            grown = np.zeros((room, *column.shape[1:]), column.dtype)
            grown[: self._count] = column[: self._count]
            self._columns[name] = grown

    def _rows(self, rows: ArrayLike) -> I64:
        which = np.atleast_1d(np.asarray(rows))
        if not len(which):
            return np.empty(0, np.int64)
        if which.dtype.kind in "iu" and which.ndim == 1:
            which = np.ascontiguousarray(which, np.int64)
            if which.view(np.uint64).max() < self._count:  # a negative row is a large one: one pass instead of two
                return which
        raise FieldInvalid(f"rows must be one list of whole numbers, at least 0 and below {self._count}", field="rows")

    def _take(self, name: str, which: Rows) -> NDArray[Any]:
        """Copy of a column's rows, a view for a slice; `take` is several times faster than indexing."""
        column = self._columns[name]
        return column[which] if isinstance(which, slice) else column.take(which, axis=0)

    def _readable(self, rows: ArrayLike | slice) -> Rows:
        return slice(*rows.indices(self._count)) if isinstance(rows, slice) else self._rows(rows)

    def _parts(self, which: Rows) -> Iterator[Rows]:
        size = self.dynamics.state.scan_rows
        if isinstance(which, slice):
            for start in range(which.start, which.stop, size * which.step):
                yield slice(start, min(start + size * which.step, which.stop), which.step)
        elif len(which) <= size:
            yield which
        else:
            yield from np.split(which, range(size, len(which), size))


def _each(values: F64, count: int, field: str) -> F64:
    """One value for all, or one for each of `count`."""
    if values.shape not in ((), (1,), (count,)):
        raise FieldInvalid(f"{field} has shape {values.shape}: give one number, or one for each of the {count} traces", field=field)
    return np.broadcast_to(values, (count,))


def _rounds(rows: I64) -> Iterator[I64]:
    """Positions in `rows`, in rounds within which no row stands twice, each row's in their order."""
    if len(rows) < 2 or len(np.unique(rows)) == len(rows):
        yield np.arange(len(rows))
        return
    order = np.argsort(rows, kind="stable")
    starts = np.flatnonzero(np.diff(rows[order], prepend=-1))
    turn = np.empty(len(rows), np.int64)
    turn[order] = np.arange(len(rows)) - np.repeat(starts, np.diff(starts, append=len(rows)))
    by_turn = np.argsort(turn, kind="stable")
    yield from np.split(by_turn, np.cumsum(np.bincount(turn))[:-1])


__all__ = ["RECORD_BYTES", "Dynamics", "Readout", "StateBlock", "StateOptions", "TraceFlag"]
