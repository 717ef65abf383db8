"""Lifecycle: every transition is in the table, has a reason with its numbers, and one look is enough."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.btsp.lifecycle import ALLOWED, DAY_S, HOUR_S, LifecycleOptions, State, Traces, moved, next_state
from ndml.errors import FieldInvalid

NOW = 1_700_000_000.0
OPTIONS = LifecycleOptions(archive_after_s=30 * DAY_S)
share = st.one_of(st.just(math.nan), st.floats(0, 1))
row = st.tuples(
    st.sampled_from(State),
    st.floats(-DAY_S, 90 * DAY_S),
    share,
    share,
    st.floats(-0.5, 1),
    st.booleans(),
    st.floats(-DAY_S, DAY_S),
    st.floats(-1, 1),
)
rows = st.lists(row, min_size=1, max_size=20)


def traces(*given: tuple[State, float, float, float, float, bool, float, float]) -> Traces:
    """Columns out of (state, age, strength, retrievability, z, protected, seconds to expiry, tag)."""
    state, age, strength, known, z, protected, ends, tag = (np.array(column) for column in zip(*given, strict=True))
    return Traces(state.astype(np.uint8), NOW - age, strength, known, z, protected.astype(bool), NOW + ends, tag)


def one(
    state: State,
    age: float = DAY_S,
    strength: float = 0.0,
    known: float = math.nan,
    z: float = 0.0,
    protected: bool = False,
    ends: float = math.inf,
    tag: float = 0.0,
) -> tuple[State, str]:
    outcome = next_state(traces((state, age, strength, known, z, protected, ends, tag)), NOW, OPTIONS)
    return State(int(outcome.state[0])), outcome.why(0)


@pytest.mark.parametrize(
    ("before", "numbers", "after", "why"),
    [
        (State.NEW, {"age": 10.0, "strength": 1.0}, State.NEW, "nothing changed"),
        (State.NEW, {"age": -50.0}, State.NEW, "nothing changed"),  # a clock that ran backwards
        (State.NEW, {"age": HOUR_S, "strength": 0.5}, State.ACTIVE, "age 3600 s >= 3600 s, strength 0.50"),
        (State.NEW, {"age": HOUR_S}, State.AGING, "age 3600 s >= 3600 s"),
        (State.ACTIVE, {"strength": 0.1, "known": 0.4}, State.AGING, "strength 0.10, retrievability 0.40"),
        (State.ACTIVE, {"strength": 0.1, "known": 0.8}, State.ACTIVE, "nothing changed"),
        (State.AGING, {"strength": 0.6}, State.ACTIVE, "strength 0.60"),
        (State.AGING, {"age": 40 * DAY_S}, State.ARCHIVED, "while aging"),
        (State.AGING, {"age": 40 * DAY_S, "protected": True}, State.AGING, "nothing changed"),
        (State.ACTIVE, {"z": 0.7}, State.CONSOLIDATED, "z 0.70 >= 0.50"),
        (State.NEW, {"age": 10.0, "z": 0.1, "tag": 0.3}, State.CONSOLIDATING, "tag 0.30 >= 0.20, z 0.10"),
        (State.ACTIVE, {"strength": 0.9, "z": 0.1, "tag": 0.1}, State.ACTIVE, "nothing changed"),
        (State.CONSOLIDATED, {}, State.CONSOLIDATED, "nothing changed"),
        (State.CONSOLIDATING, {"z": 0.9}, State.CONSOLIDATING, "nothing changed"),
        (State.ARCHIVED, {"strength": 0.9}, State.ARCHIVED, "nothing changed"),
        (State.ACTIVE, {"ends": -5.0, "protected": True}, State.EVICTED, "expired 5 s ago"),
        (State.ARCHIVED, {"ends": 0.0}, State.EVICTED, "expired 0 s ago"),
        (State.EVICTED, {"ends": -5.0}, State.EVICTED, "nothing changed"),
    ],
)
def test_each_rule(before: State, numbers: dict[str, float], after: State, why: str) -> None:
    found, reason = one(before, **numbers)  # type: ignore[arg-type]
    assert found is after
    assert reason.startswith(f"{before.name.lower()} -> {after.name.lower()}: ") and why in reason


@settings(max_examples=80, deadline=None)
@given(rows)
def test_transitions_are_allowed_explained_and_settled_after_one_look(
    given: list[tuple[State, float, float, float, float, bool, float, float]],
) -> None:
    columns = traces(*given)
    outcome = next_state(columns, NOW, OPTIONS)
    for at in outcome.changed.tolist():
        before, after = State(int(columns.state[at])), State(int(outcome.state[at]))
        assert after in ALLOWED[before]
        assert "nothing changed" not in outcome.why(at) and any(letter.isdigit() for letter in outcome.why(at))
    for i, case in enumerate(given):  # rows do not see each other
        assert next_state(traces(case), NOW, OPTIONS).state[0] == outcome.state[i]
    after_that = next_state(Traces(outcome.state, *(getattr(columns, n) for n in list(Traces.__dataclass_fields__)[1:])), NOW, OPTIONS)
    # Aging to archived may take a second look: an old trace fades before it leaves.
    assert set(after_that.state[after_that.changed].tolist()) <= {State.ARCHIVED}


def test_jobs_and_callers_move_within_the_table() -> None:
    assert moved(State.ACTIVE, State.ARCHIVED, "evicted: pressure 0.31") == "active -> archived: evicted: pressure 0.31"
    assert moved(State.ARCHIVED, State.ACTIVE, "read by id") == "archived -> active: read by id"
    with pytest.raises(FieldInvalid, match="evicted cannot become active, only nothing"):
        moved(State.EVICTED, State.ACTIVE, "")
    with pytest.raises(FieldInvalid, match="archived cannot become consolidating"):
        moved(State.ARCHIVED, State.CONSOLIDATING, "")


def test_bad_columns_and_options_are_refused() -> None:
    good = traces((State.NEW, 0.0, 0.0, 0.0, 0.0, False, 0.0, 0.0))
    with pytest.raises(FieldInvalid, match="shape"):
        Traces(good.state, good.learned_at_s, np.zeros(2), good.retrievability, good.z, good.protected, good.expires_at_s, good.tag)
    with pytest.raises(FieldInvalid, match="state 9"):
        Traces(np.array([9], np.uint8), *(getattr(good, name) for name in list(Traces.__dataclass_fields__)[1:]))
    for wrong in ({"active_strength": 1.5}, {"grace_s": -1.0}, {"captured_z": math.nan}):
        with pytest.raises(FieldInvalid):
            LifecycleOptions(**wrong)
    empty = np.zeros(0)
    assert next_state(Traces(empty.astype(np.uint8), empty, empty, empty, empty, empty.astype(bool), empty, empty), NOW).changed.size == 0
