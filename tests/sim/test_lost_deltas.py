"""Consensus nodes whose logs hold a few updates: what they drop is told on, and copies become equal without a round by the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import pytest

from services.consensus.deltas.entries import Key
from services.consensus.deltas.log import DeltaLog, LogBounds
from tests.sim import nodes
from tests.sim.checkers.convergence import diverged
from tests.sim.faults import Plan
from tests.sim.network import Weather
from tests.sim.world import Outcome, Shape, Suite, simulate

_SEEDS = 12
_PATIENCE_S = 60
"""Virtual seconds after all faults in which streams, and what they ask for, must have done it; a round by the clock never comes."""

_RARELY = nodes.REPLICATION.model_copy(
    update={"sweep": nodes.REPLICATION.sweep.model_copy(update={"least_interval_s": 1e6, "most_interval_s": 1e6})}
)


async def _wait_equal(suite: Suite) -> int:
    """Instead of rounds: wait."""
    for _ in range(_PATIENCE_S):
        if not diverged(suite._digests()):
            break
        await asyncio.sleep(1.0)
    return 0


def _change(shape: Shape, plan: Plan) -> tuple[Shape, Plan]:
    plan = replace(
        plan, kinds=("partition", "consensus"), weather=Weather(drop=0.1), destructive="", joins=False, leaves=False, far_off=False
    )
    return replace(shape, nodes=3, consensus=3, clients=3, operations=30), plan


class Drops:
    """Of all consensus nodes of a run: updates dropped, and times that one learned from another of something that it will not get."""

    def __init__(self) -> None:
        self.dropped = 0
        self.missed = 0


@contextmanager
def _small_logs(drops: Drops) -> Iterator[None]:
    drop, miss = DeltaLog.drop, DeltaLog.miss

    def dropped(self: DeltaLog, keys: Sequence[Key]) -> None:
        drops.dropped += len(keys)
        drop(self, keys)

    def missed(self: DeltaLog, author: int, counter: int) -> None:
        before = self.index.dropped.get(author, 0)
        miss(self, author, counter)
        drops.missed += self.index.dropped.get(author, 0) > before

    with (
        patch.object(nodes, "LogBounds", lambda: LogBounds(max_entries=3)),
        patch.object(nodes, "REPLICATION", _RARELY),
        patch.object(Suite, "_rounds", _wait_equal),
        patch.object(DeltaLog, "drop", dropped),
        patch.object(DeltaLog, "miss", missed),
    ):
        yield


def _run(seed: int) -> tuple[Outcome, Drops]:
    drops = Drops()
    with _small_logs(drops):
        return simulate(seed, _change), drops


@pytest.mark.timeout(600)
def test_what_is_dropped_is_told_and_mended_without_a_round_by_the_clock() -> None:
    runs = [_run(seed) for seed in range(_SEEDS)]
    bad = [(outcome.seed, outcome.violations, outcome.faults) for outcome, _ in runs if outcome.violations]
    assert not bad, bad
    assert sum(drops.dropped for _, drops in runs) > _SEEDS and sum(drops.missed for _, drops in runs) > 0, "logs were never too small"
