"""Neighbours in a session against a brute-force list of what was said when."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.memory_node.columns import Columns
from services.memory_node.signals.sessions import Sessions
from tests.unit.memory_node.signals.rows import columns_of, dropping, row

NO = -1


def of(columns: Columns) -> Sessions:
    sessions = Sessions()
    sessions.append(columns)
    return sessions


def brute(columns: Columns, width: int) -> list[list[int]]:
    """For each row, dead ones too, what stands around it."""
    found = []
    for each in range(len(columns)):
        line = [NO] * (2 * width + 1)
        line[width] = each
        session = columns.ints("session")[each]
        if columns.alive[each] and session:
            others = [r for r in range(len(columns)) if columns.alive[r] and columns.ints("session")[r] == session]
            others.sort(key=lambda r: (columns.ints("said_at_us")[r], columns.ints("first_sequence")[r]))
            place = others.index(each)
            for step in range(-width, width + 1):
                if 0 <= place + step < len(others):
                    line[width + step] = others[place + step]
        found.append(line)
    return found


def check(sessions: Sessions, columns: Columns, width: int = 2) -> None:
    alive = np.flatnonzero(columns.alive)
    expected = [line for line, lives in zip(brute(columns, width), columns.alive, strict=True) if lives]
    assert sessions.around(alive, width, columns).tolist() == expected


def end(sessions: Sessions, columns: Columns, rows: list[int]) -> None:
    """As a partition ends rows: not alive first, then taken out of the list."""
    columns.alive[rows] = False
    sessions.remove(np.array(rows), columns)


def test_turns_in_order_are_linked_session_by_session() -> None:
    columns = columns_of([row(n, "ab"[n % 2], n) for n in range(1, 9)])
    sessions = of(columns)
    assert sessions.around(np.array([0, 3, 7]), 2, columns).tolist() == [[NO, NO, 0, 2, 4], [NO, 1, 3, 5, 7], [3, 5, 7, NO, NO]]
    check(sessions, columns)
    assert sessions.around(np.empty(0, np.int64), 2, columns).shape == (0, 5)


def test_rows_without_a_session_have_no_neighbours() -> None:
    columns = columns_of([row(1, "", 1), row(2, "s", 2), row(3, "", 3), row(4, "s", 4)])
    assert of(columns).around(np.arange(4), 1, columns).tolist() == [[NO, 0, NO], [NO, 1, 3], [NO, 2, NO], [1, 3, NO]]


def test_what_was_said_before_a_time_are_the_last_rows_of_the_session_until_then() -> None:
    columns = columns_of([row(n, "ab"[n % 2], n) for n in range(1, 30)])
    sessions = of(columns)
    odd = int(columns.ints("session")[0])
    assert sessions.said_before(odd, 7, 2, columns) == [4, 6]
    assert sessions.said_before(odd, 99, 3, columns) == [24, 26, 28]
    assert sessions.said_before(odd, 0, 3, columns) == []
    assert sessions.said_before(77, 9, 3, columns) == []
    assert sessions.said_before(odd, 2, 1, columns) == [], "what is older than nearly all of a long session is not looked for"


@pytest.mark.parametrize("times", [(3, 1, 2), (1, 3, 2), (2, 2, 1), (1, 1, 1)])
def test_what_comes_late_takes_the_place_of_its_time(times: tuple[int, ...]) -> None:
    columns = Columns()
    sessions = Sessions()
    for sequence, time in enumerate(times, 1):
        columns.append([row(sequence, "s", time)])
        sessions.append(columns)
    check(sessions, columns)
    columns.append([row(9, "s", 2), row(10, "s", 0), row(11, "t", 0)])
    sessions.append(columns)
    check(sessions, columns, 3)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("gone", [[0], [2], [4], [1, 2], [0, 4], [3, 4], [0, 1, 2, 3, 4]])
def test_who_stood_around_a_removed_row_stand_beside_each_other(gone: list[int], late: bool) -> None:
    columns = columns_of([row(n, "s", 9 - n if late else n) for n in range(1, 6)])
    sessions = of(columns)
    end(sessions, columns, gone)
    check(sessions, columns)
    columns.append([row(7, "s", 20), row(8, "s", 21)])  # what follows is linked to the last that is left
    sessions.append(columns)
    check(sessions, columns)


def test_a_changed_turn_keeps_its_place_and_a_moved_one_changes_it() -> None:
    columns = columns_of([row(n, "s", n) for n in range(1, 5)])
    sessions = of(columns)
    changes = [(2, "s", 2), (4, "s", 4), (1, "t", 1), (3, "s", 30)]
    for sequence, (first, session, time) in enumerate(changes, 10):
        old = columns.row_of_trace(first)
        assert old is not None
        columns.append([row(sequence, session, time, first_sequence=first)])
        sessions.append(columns)  # a partition appends the new row before it ends the old one
        end(sessions, columns, [old])
        check(sessions, columns)


def test_renumbered_rows_keep_their_neighbours() -> None:
    columns = columns_of([row(n, "ab"[n % 2], n) for n in range(1, 12)])
    sessions = of(columns)
    end(sessions, columns, [0, 3, 4, 10])
    for more in (0, 3):
        columns.renumber(dropping(columns.alive.tolist()))
        sessions.renumber()
        if more:
            columns.append([row(20 + n, "a", 40 + n) for n in range(more)])
            sessions.append(columns)
        check(sessions, columns)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(["", "a", "b"]), st.integers(0, 5)),
        st.tuples(st.just("remove"), st.integers(0, 40), st.integers(1, 3)),
        st.tuples(st.just("change"), st.integers(0, 40), st.integers(0, 5)),
        st.tuples(st.just("drop"), st.just(0), st.just(0)),
        st.tuples(st.just("look"), st.just(0), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_after_anything_the_neighbours_are_those_of_the_list(taken: list[tuple[str, str | int, int]]) -> None:
    columns, sessions = Columns(), Sessions()
    for sequence, (what, which, number) in enumerate(taken, 1):
        living = np.flatnonzero(columns.alive)
        if what == "add":
            columns.append([row(sequence, str(which), number)])
            sessions.append(columns)
        elif what == "remove" and len(living):
            end(sessions, columns, living[int(which) % len(living) :][:number].tolist())
        elif what == "change" and len(living):
            old = int(living[int(which) % len(living)])
            session = columns.strings.text(int(columns.ints("session")[old]))
            columns.append([row(sequence, session, number, first_sequence=int(columns.ints("first_sequence")[old]))])
            sessions.append(columns)
            end(sessions, columns, [old])
        elif what == "drop":
            columns.renumber(dropping(columns.alive.tolist()))
            sessions.renumber()
        elif what == "look":
            check(sessions, columns)
    check(sessions, columns, 1)
    check(sessions, columns, 3)
