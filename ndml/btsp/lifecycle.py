"""The life of a trace: seven states, the transitions allowed between them, and why each happened.

    new -> active <-> aging -> archived <-> active          use and time
    any of these -> consolidating -> consolidated           it is being captured (tag and z), was; or a semantic trace says what it says
    any -> evicted                                          its own expiry

`archived` is a matter of this node: the row stays in the store and leaves the index; being read by id or graded brings it back. `evicted`
ends a trace that its writer gave an end. Nothing here deletes: a delete is a delete and comes from a user.

States are columns, found when somebody looks (a maintenance pass, a read by id), never by a timer for each trace.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from ndml.errors import FieldInvalid

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
Bools = NDArray[np.bool_]

HOUR_S, DAY_S = 3600.0, 86_400.0


class State(IntEnum):
    """Stored as one byte a trace: add at the end, never renumber."""

    NEW = 0
    ACTIVE = 1
    AGING = 2
    CONSOLIDATING = 3
    CONSOLIDATED = 4
    ARCHIVED = 5
    EVICTED = 6


ALLOWED: dict[State, frozenset[State]] = {
    State.NEW: frozenset({State.ACTIVE, State.AGING, State.CONSOLIDATING, State.CONSOLIDATED, State.ARCHIVED, State.EVICTED}),
    State.ACTIVE: frozenset({State.AGING, State.CONSOLIDATING, State.CONSOLIDATED, State.ARCHIVED, State.EVICTED}),
    State.AGING: frozenset({State.ACTIVE, State.CONSOLIDATING, State.CONSOLIDATED, State.ARCHIVED, State.EVICTED}),
    # Back to active: the cluster was refused, or the job was stopped.
    State.CONSOLIDATING: frozenset({State.CONSOLIDATED, State.ACTIVE, State.EVICTED}),
    # Back to active: the merge was undone.
    State.CONSOLIDATED: frozenset({State.ACTIVE, State.ARCHIVED, State.EVICTED}),
    State.ARCHIVED: frozenset({State.ACTIVE, State.EVICTED}),
    State.EVICTED: frozenset(),
}


class Cause(IntEnum):
    """What moved a trace, or keeps it where it is."""

    STAYS = 0
    EXPIRED = 1
    GRACE_OVER = 2
    IN_USE = 3
    FADED = 4
    CAPTURED = 5
    ARCHIVE_AGE = 6
    CAPTURING = 7


@dataclass(frozen=True, slots=True)
class LifecycleOptions:
    """Where states part."""

    grace_s: float = HOUR_S
    """A trace is new, and safe from eviction, for this long: nothing can yet be known about its use."""
    active_strength: float = 0.35
    """Strength (0..1) from which a trace is in use: about one use in the last days or several in the last months."""
    active_retrievability: float = 0.7
    """FSRS retrievability from which a graded trace is in use; .9 is the target of its schedule, .7 well overdue."""
    captured_z: float = 0.5
    """Late-phase consolidation from which a trace counts as captured: half of what a strong event reaches."""
    capturing_z: float = 0.05
    """Late phase from which a tagged trace is consolidating: it turns protein into a late phase right now."""
    tagged: float = 0.2
    """Early phase from which a trace is tagged (`CaptureOptions.tag_threshold`)."""
    archive_after_s: float = 0.0
    """Age from which an aging trace is archived although there is room. 0: never, room is the only reason to forget."""

    def __post_init__(self) -> None:
        shares = (self.active_strength, self.active_retrievability, self.captured_z, self.capturing_z, self.tagged)
        if any(not 0.0 <= share <= 1.0 for share in shares):
            raise FieldInvalid("strength, retrievability and z thresholds lie between 0 and 1", field="lifecycle")
        if not (self.grace_s >= 0 and self.archive_after_s >= 0):
            raise FieldInvalid("grace_s and archive_after_s are seconds, 0 or more", field="lifecycle.grace_s")


@dataclass(frozen=True, slots=True)
class Traces:
    """Columns [n] of the rows looked at. Times are unix seconds."""

    state: U8
    learned_at_s: F64
    strength: F64
    """0..1."""
    retrievability: F64
    """FSRS R, 0..1; NaN for a trace that was never graded."""
    z: F64
    protected: Bools
    """Never archived by age or room. An expiry that the writer gave still ends it."""
    expires_at_s: F64
    """NaN or infinity: never."""
    tag: F64
    """Early phase, -1..1."""

    def __post_init__(self) -> None:
        rows = self.state.shape
        for column in fields(self):
            if getattr(self, column.name).shape != rows:
                raise FieldInvalid(f"shape {getattr(self, column.name).shape}, expected {rows}: give a value a row", field=column.name)
        if rows and self.state.size and int(self.state.max()) > max(State):
            raise FieldInvalid(f"state {int(self.state.max())} is not known", field="state")


@dataclass(frozen=True, slots=True)
class Outcome:
    """States after a look at `traces` at `now_s`."""

    traces: Traces
    now_s: float
    options: LifecycleOptions
    state: U8
    cause: U8

    @property
    def changed(self) -> NDArray[np.int64]:
        """Rows whose state changed, int64."""
        return np.flatnonzero(self.state != self.traces.state)

    def why(self, row: int) -> str:
        """One line for the history of `row`: the states, and the numbers that moved it."""
        before, after = State(int(self.traces.state[row])), State(int(self.state[row]))
        return f"{before.name.lower()} -> {after.name.lower()}: {self._numbers(row)}"

    def _numbers(self, row: int) -> str:
        traces, options = self.traces, self.options
        age = _age(traces, self.now_s)[row]
        use = f"strength {traces.strength[row]:.2f}, retrievability {traces.retrievability[row]:.2f}"
        return {
            Cause.STAYS: "nothing changed",
            Cause.EXPIRED: f"expired {self.now_s - traces.expires_at_s[row]:.0f} s ago, at {traces.expires_at_s[row]:.0f}",
            Cause.GRACE_OVER: f"age {age:.0f} s >= {options.grace_s:.0f} s, {use}",
            Cause.IN_USE: f"{use} (in use from {options.active_strength:.2f} or {options.active_retrievability:.2f})",
            Cause.FADED: f"{use} (in use from {options.active_strength:.2f} or {options.active_retrievability:.2f})",
            Cause.CAPTURED: f"z {traces.z[row]:.2f} >= {options.captured_z:.2f}",
            Cause.CAPTURING: f"tag {traces.tag[row]:.2f} >= {options.tagged:.2f}, z {traces.z[row]:.2f} and growing",
            Cause.ARCHIVE_AGE: f"age {age:.0f} s >= {options.archive_after_s:.0f} s while aging, {use}",
        }[Cause(int(self.cause[row]))]


def next_state(traces: Traces, now_s: float, options: LifecycleOptions | None = None) -> Outcome:
    """One look at every row. What is archived, consolidating or evicted stays so here: jobs and callers move these, by `moved`.

    A clock that runs backwards makes traces no older than 0 s. NaN strength counts as 0.
    """
    chosen = options or LifecycleOptions()
    age = _age(traces, now_s)
    known = np.nan_to_num(traces.retrievability, nan=0.0)
    in_use = (np.nan_to_num(traces.strength, nan=0.0) >= chosen.active_strength) | (known >= chosen.active_retrievability)
    living = traces.state <= State.AGING
    past_grace = age >= chosen.grace_s
    old = (age >= chosen.archive_after_s) & (chosen.archive_after_s > 0) & ~traces.protected
    # The first that holds decides.
    rules: list[tuple[Bools, Cause, State]] = [
        ((traces.state != State.EVICTED) & (traces.expires_at_s <= now_s), Cause.EXPIRED, State.EVICTED),
        (living & (traces.z >= chosen.captured_z), Cause.CAPTURED, State.CONSOLIDATED),
        (living & (traces.tag >= chosen.tagged) & (traces.z >= chosen.capturing_z), Cause.CAPTURING, State.CONSOLIDATING),
        ((traces.state == State.AGING) & ~in_use & old, Cause.ARCHIVE_AGE, State.ARCHIVED),
        ((traces.state == State.NEW) & past_grace & in_use, Cause.GRACE_OVER, State.ACTIVE),
        ((traces.state == State.NEW) & past_grace, Cause.GRACE_OVER, State.AGING),
        ((traces.state == State.AGING) & in_use, Cause.IN_USE, State.ACTIVE),
        ((traces.state == State.ACTIVE) & ~in_use, Cause.FADED, State.AGING),
    ]
    conditions = [condition for condition, _, _ in rules]
    state = np.select(conditions, [np.uint8(to) for _, _, to in rules], traces.state).astype(np.uint8)
    cause = np.select(conditions, [np.uint8(cause) for _, cause, _ in rules], np.uint8(Cause.STAYS)).astype(np.uint8)
    return Outcome(traces, now_s, chosen, state, cause)


def moved(before: State, after: State, why: str) -> str:
    """The history line of a move made by a job or a caller, for example ACTIVE -> ARCHIVED by eviction.

    Raises FieldInvalid where the table does not allow it: that is a fault of the caller, a trace never jumps.
    """
    if after not in ALLOWED[before]:
        ways = ", ".join(sorted(state.name.lower() for state in ALLOWED[before])) or "nothing"
        raise FieldInvalid(f"{before.name.lower()} cannot become {after.name.lower()}, only {ways}", field="state")
    return f"{before.name.lower()} -> {after.name.lower()}: {why}"


def _age(traces: Traces, now_s: float) -> F64:
    return np.maximum(now_s - traces.learned_at_s, 0.0)
