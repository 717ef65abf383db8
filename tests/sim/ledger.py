"""Seeds add up over runs: one record a run in a file, like kills in tests/crash/ledger.py. `python -m tests.sim --ledger FILE` adds one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.ledgers import Ledger

LEDGER = Path("docs/reliability-seeds.json")


@dataclass(frozen=True, slots=True)
class Run:
    """Seeds `first` .. `first` + `seeds`, how many of them were bad, and how long it took. Of a sum of several runs `first` is -1."""

    date: str
    commit: str
    first: int
    seeds: int
    bad: int
    seconds: int
    mended: str = ""

    @property
    def identity(self) -> tuple[str | int, ...]:
        return self.date, self.commit, self.first

    def plus(self, other: Run) -> Run:
        """Both, as one that names no commit."""
        sums = self.seeds + other.seeds, self.bad + other.bad, self.seconds + other.seconds
        return Run(max(self.date, other.date), "", -1, *sums)


NOTHING = Run("", "", -1, 0, 0, 0)


_SEEDS = Ledger(Run, NOTHING)
read, append, total = _SEEDS.read, _SEEDS.append, _SEEDS.total
