"""Seeds of the whole suite, and many more of the lattice alone. NDML_SIM_SEEDS and NDML_SIM_RECORDS say how many; `make sim` runs more."""

from __future__ import annotations

import os

import pytest

from tests.sim.faults import KINDS
from tests.sim.records import Records
from tests.sim.seeds import again
from tests.sim.world import Outcome, simulate

_PARTS = 40
"""Each a test, so that workers share them, and a slow machine has time for each."""

_SEEDS = int(os.environ.get("NDML_SIM_SEEDS", "500"))
_RECORDS = int(os.environ.get("NDML_SIM_RECORDS", "10000"))


def _told(outcome: Outcome) -> str:
    lines = [f"seed {outcome.seed}: {again(outcome.seed)}", *outcome.violations, f"{outcome.shape} {outcome.plan}", *outcome.faults]
    return "\n".join(lines)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(_PARTS))
def test_promises_hold_whatever_happens(part: int) -> None:
    outcomes = [simulate(seed) for seed in range(part, _SEEDS, _PARTS)]
    bad = [outcome for outcome in outcomes if outcome.violations]
    assert not bad, "\n\n".join(map(_told, bad))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(_PARTS))
def test_records_converge_and_forget_nothing_but_what_was_replaced(part: int) -> None:
    bad = {seed: wrong for seed in range(part, _RECORDS, _PARTS) if (wrong := Records(seed).run())}
    assert not bad, "\n".join(f"seed {seed}: {again(seed, records=True)}\n  {wrong[:3]}" for seed, wrong in bad.items())


def test_runs_do_what_they_are_for() -> None:
    """Without faults, conflicts and repairs in them, seeds that pass would say nothing."""
    outcomes = [simulate(seed) for seed in range(24)]
    assert any(outcome.crossed for outcome in outcomes), "nothing ever went from one zone to the other"
    kinds = {fault.split()[1] for outcome in outcomes for fault in outcome.faults}
    assert kinds == {*KINDS, "wipe", "old_file", "join", "leave", "far_off"}
    assert any(outcome.rounds for outcome in outcomes), "copies were always equal before the first round"
    assert any(outcome.conflicts for outcome in outcomes), "nobody ever contradicted anybody"
    assert sum(outcome.operations for outcome in outcomes) > 300


def test_a_seed_is_a_run() -> None:
    once, again_ = simulate(5), simulate(5)
    assert (once.messages, once.faults, once.failures) == (again_.messages, again_.faults, again_.failures)
    assert once.messages != simulate(6).messages
