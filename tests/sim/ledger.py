"""Seeds add up over runs: one record a run in a file, like kills in tests/crash/ledger.py. `python -m tests.sim --ledger FILE` adds one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

LEDGER = Path("docs/reliability-seeds.json")
MOST_RUNS = 500
"""Runs listed one by one; what is older goes on in one sum, so that the file stays small."""


@dataclass(frozen=True, slots=True)
class Run:
    """Seeds `first` .. `first` + `seeds` of one commit, how many of them were bad, and how long it took. Of a sum of several runs `commit`
    is empty, `date` the last one's and `first` -1. `mended`: the commit that mended what was bad, written by hand; such a run is in no sum.
    """

    date: str
    commit: str
    first: int
    seeds: int
    bad: int
    seconds: int
    mended: str = ""

    def plus(self, other: Run) -> Run:
        """Both, as one that names no commit."""
        sums = self.seeds + other.seeds, self.bad + other.bad, self.seconds + other.seconds
        return Run(max(self.date, other.date), "", -1, *sums)


NOTHING = Run("", "", -1, 0, 0, 0)


def read(path: Path) -> list[Run]:
    """Oldest first; none where there is no file."""
    return [Run(**each) for each in json.loads(path.read_text())["runs"]] if path.exists() else []


def append(path: Path, run: Run) -> list[Run]:
    """The runs with this one, written; one that is there already (same date, commit and first seed) is not counted twice."""
    runs = read(path)
    if not any((each.date, each.commit, each.first) == (run.date, run.commit, run.first) for each in runs):
        runs.append(run)
    while len(runs) > MOST_RUNS:
        old = [each for each in runs[:2] if not each.mended]  # one that was mended has been told of long enough
        runs[:2] = [old[0].plus(old[1])] if len(old) == 2 else old
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps({"runs": [asdict(each) for each in runs]}, indent=1) + "\n")
    beside.replace(path)
    return runs


def total(runs: Sequence[Run]) -> Run:
    """The sum of all but those whose finding was mended."""
    summed = NOTHING
    for run in runs:
        summed = summed if run.mended else summed.plus(run)
    return summed
