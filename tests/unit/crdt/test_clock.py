"""Hybrid clock: growing, close to the machine's time, not to be dragged away."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndml.crdt.clock import HybridClock, physical_ms
from ndml.errors import FieldInvalid

MS = 1_000_000
NOW_MS = 1_760_000_000_000


@given(times=st.lists(st.integers(-10, 1 << 47), min_size=1, max_size=40), start=st.integers(0, 1 << 62))
def test_ticks_grow_whatever_the_machine_says(times: list[int], start: int) -> None:
    given_ms = iter(times)
    clock = HybridClock(lambda: next(given_ms) * MS, start=start)
    ticks = [clock.tick() for _ in times]
    assert [start, *ticks] == sorted({start, *ticks})
    assert clock.last == ticks[-1]
    assert physical_ms(ticks[-1]) >= max(times)


def test_a_tick_tells_the_time_and_counts_within_a_millisecond() -> None:
    clock = HybridClock(lambda: NOW_MS * MS + 999_999)
    assert [clock.tick() - (NOW_MS << 16) for _ in range(3)] == [0, 1, 2]


def test_ticks_follow_what_was_observed() -> None:
    clock = HybridClock(lambda: NOW_MS * MS)
    ahead = (NOW_MS + 60_000) << 16
    clock.observe(ahead)
    clock.observe(5)
    assert clock.last == ahead
    assert clock.tick() == ahead + 1


@pytest.mark.parametrize("clock_value", [(NOW_MS + 60_001) << 16, -1, 1 << 63])
def test_a_clock_from_the_future_is_refused_and_forgotten(clock_value: int) -> None:
    clock = HybridClock(lambda: NOW_MS * MS, max_ahead_s=60.0)
    with pytest.raises(FieldInvalid) as refused:
        clock.observe(clock_value)
    assert refused.value.violations[0].field == "clock"
    assert clock.tick() == NOW_MS << 16


def test_threads_never_get_one_clock_twice() -> None:
    clock, ticks = HybridClock(lambda: NOW_MS * MS), list[int]()
    threads = [threading.Thread(target=lambda: ticks.extend([clock.tick() for _ in range(2000)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ticks)) == 8000
