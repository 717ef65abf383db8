"""The simulator finds bugs: each mutant within a few seeds, and in the same runs without it nothing."""

from __future__ import annotations

import pytest

from tests.sim.mutants import MUTANTS, Mutant, a_token_stands_for_the_other_copies, tokens_leave_out_what_came_early
from tests.sim.orders import orders
from tests.sim.records import Records
from tests.sim.world import simulate

_SEEDS = 60
"""Within which a mutant must be found; most are in the first ten."""

_ALONE = 10
"""Of the one that only one checker sees."""

_RECORDS = 200
_ORDERS = 40


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_found(mutant: Mutant) -> None:
    found = next((seed for seed in range(_SEEDS) if _violations(mutant, seed)), None)
    assert found is not None, f"{mutant.name} went unnoticed in {_SEEDS} seeds"
    assert not simulate(found, mutant.change).violations, f"seed {found} is bad without {mutant.name} too"


@pytest.mark.timeout(900)
def test_only_the_overlap_of_copies_tells_of_a_quorum_read_of_one_copy() -> None:
    """Its callers' own sessions are kept, so every other checker is silent: what is missed is what others were told."""
    [mutant] = [mutant for mutant in MUTANTS if mutant.put_in is a_token_stands_for_the_other_copies]
    found = [each for seed in range(_ALONE) for each in _violations(mutant, seed)]
    assert found and all("was told at" in each for each in found), found


def _violations(mutant: Mutant, seed: int) -> list[str]:
    with mutant.put_in():
        return simulate(seed, mutant.change).violations


def test_the_lattice_alone_finds_a_join_that_forgets() -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "context_is_not_merged")
    with mutant.put_in():
        assert any(Records(seed).run() for seed in range(_RECORDS))
    assert not any(Records(seed).run() for seed in range(_RECORDS))


@pytest.mark.timeout(900)
def test_a_session_that_goes_back_behind_what_it_saw_is_found() -> None:
    with tokens_leave_out_what_came_early():
        assert any(orders(seed) for seed in range(_ORDERS)), f"unnoticed in {_ORDERS} seeds"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, _ORDERS, 10))
def test_no_order_of_updates_takes_a_session_back(first: int) -> None:
    wrong = {seed: found for seed in range(first, first + 10) if (found := orders(seed))}
    assert not wrong
