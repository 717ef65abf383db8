"""Each checker finds the violation that it is there for, and nothing in a history that has none."""

from __future__ import annotations

from tests.sim.checkers.clocks import dragged
from tests.sim.checkers.convergence import diverged, rounds_allowed
from tests.sim.checkers.erased import erased_returns
from tests.sim.checkers.lost_acks import lost_acks
from tests.sim.checkers.quorum import stale_reads
from tests.sim.checkers.sessions import monotonic_reads, read_your_writes
from tests.sim.history import GONE, History, Outcome, Read, Write

ACKED, UNKNOWN = Outcome.ACKED, Outcome.UNKNOWN


def _history(*events: Write | Read) -> History:
    return History(list(events))


GOOD = _history(
    Write("a", "t", 1, ACKED, 1.0),
    Read("a", "t", 1, 2.0),
    Write("a", "t", 2, UNKNOWN, 3.0),
    Read("a", "t", 2, 4.0),
    Read("b", "t", 1, 4.5),
    Write("a", "u", 1, ACKED, 5.0),
    Write("a", "u", GONE, ACKED, 6.0),
    Read("a", "u", 0, 7.0),
)


def test_a_good_history_has_no_violation() -> None:
    finals = {"n1": {"t": 2, "u": GONE}, "n2": {"t": 1, "u": GONE}}
    assert not read_your_writes(GOOD) and not monotonic_reads(GOOD)
    assert not lost_acks(GOOD, finals) and not erased_returns(GOOD, finals)
    assert not diverged({"o": {"n1": b"x", "n2": b"x"}}) and rounds_allowed(3) == 4 and rounds_allowed(7) == 5


def test_a_lost_ack_is_found_and_so_is_one_that_nobody_wrote() -> None:
    assert len(lost_acks(GOOD, {"n1": {"u": GONE}, "n2": {"t": 3, "u": GONE}})) == 2


def test_a_deleted_trace_that_is_back_is_found() -> None:
    assert len(erased_returns(GOOD, {"n1": {"u": 1}})) == 1
    assert len(erased_returns(_history(*GOOD.events, Read("a", "u", 1, 8.0)), {})) == 1


def test_a_session_that_goes_back_is_found() -> None:
    unseen = _history(*GOOD.events[:1], Read("a", "t", 0, 2.0))
    assert len(read_your_writes(unseen)) == 1 and not monotonic_reads(unseen)
    back = _history(Read("b", "t", 2, 1.0), Read("b", "t", 1, 2.0), Read("b", "t", 1, 3.0, in_session=False))
    assert len(monotonic_reads(back)) == 1 and not read_your_writes(back)


def test_copies_that_differ_are_found() -> None:
    assert len(diverged({"o": {"n1": b"x", "n2": b"y"}, "p": {"n1": b"x"}})) == 1


def test_a_read_that_misses_what_another_client_was_told_is_found() -> None:
    first, second = Write("a", "t", 1, ACKED, 1.0, 2), Write("a", "t", 2, ACKED, 3.0, 2)
    assert not stale_reads(_history(first, second, Read("b", "t", 2, 5.0, began=4.0, copies=2)), 3)
    assert len(stale_reads(_history(first, second, Read("b", "t", 1, 5.0, began=4.0, copies=2)), 3)) == 1
    assert len(stale_reads(_history(first, Read("b", "t", 0, 5.0, began=4.0, copies=3)), 3)) == 1
    gone = Write("a", "t", GONE, ACKED, 2.0, 2)
    assert len(stale_reads(_history(first, gone, Read("b", "t", 1, 5.0, began=4.0, copies=2)), 3)) == 1


def test_a_read_need_not_see_what_it_was_not_promised() -> None:
    """Written while it went on, or not acknowledged, or by too few copies, or asked of too few; nor what may have been deleted."""
    write = Write("a", "t", 1, ACKED, 4.5, 2)
    assert not stale_reads(_history(write, Read("b", "t", 0, 5.0, began=4.0, copies=2)), 3)
    assert not stale_reads(_history(Write("a", "t", 1, UNKNOWN, 1.0, 2), Read("b", "t", 0, 5.0, began=4.0, copies=3)), 3)
    assert not stale_reads(_history(Write("a", "t", 1, ACKED, 1.0, 1), Read("b", "t", 0, 5.0, began=4.0, copies=2)), 3)
    assert not stale_reads(_history(Write("a", "t", 1, ACKED, 1.0, 2), Read("b", "t", 0, 5.0, began=4.0, copies=1)), 3)
    tried = Write("a", "t", GONE, UNKNOWN, 2.0, 2)
    assert not stale_reads(_history(Write("a", "t", 1, ACKED, 1.0, 2), tried, Read("b", "t", 0, 5.0, began=4.0, copies=2)), 3)


def test_a_clock_that_follows_one_that_is_far_off_is_found() -> None:
    assert not dragged({"n1": 12.0, "n2": -300.0}, 60.0)
    assert dragged({"n1": 140.0, "n2": 3.0}, 60.0) == ["the clock of n1 was dragged 140 s ahead"]
