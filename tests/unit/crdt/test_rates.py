"""How much of one author is taken: it is slowed to its rate, whatever the batches, and nobody else is."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.crdt.rates import BURST_S, AuthorRates


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.sampled_from([100.0, 250.0, 5000.0]))
def test_who_waits_as_told_is_held_to_the_rate_and_loses_nothing(batches: list[int], per_s: float) -> None:
    clock = Clock()
    rates = AuthorRates(per_s, clock)
    began = clock.now
    for batch in batches:
        assert rates.wait_s("busy") <= 1e-9
        clock.now += rates.took("busy", batch)
        assert rates.wait_s("idle") == 0.0
    assert clock.now - began >= sum(batches) / per_s - BURST_S - 1e-6
    assert clock.now - began <= sum(batches) / per_s, "nobody waits for more than what was written"


def test_a_burst_is_free_and_comes_back_with_time() -> None:
    clock = Clock()
    rates = AuthorRates(100.0, clock)
    assert rates.took("a", 200) == 0.0
    assert rates.took("a", 50) == 0.5
    clock.now += 0.25
    assert rates.wait_s("a") == 0.25
    clock.now += 60
    assert rates.took("a", 200) == 0.0, "no more than a burst is saved up"
    assert rates.took("a", 1) > 0


def test_zero_is_no_bound_and_the_authors_are_bounded() -> None:
    clock = Clock()
    assert AuthorRates(0, clock).took("a", 10**9) == 0.0
    rates = AuthorRates(100.0, clock, most=2)
    assert [rates.took(name, 300) > 0 for name in "abc"] == [True] * 3
    assert [rates.wait_s(name) > 0 for name in "abc"] == [False, True, True]
