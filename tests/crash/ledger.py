"""Kills add up over runs: one record a run in a file, the sums of it in the table. `python -m tests.crash.ledger --import report.json`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.ledgers import Ledger, commit_of

LEDGER = Path("docs/reliability-kills.json")


@dataclass(frozen=True, slots=True)
class Run:
    """The sums of one campaign."""

    date: str
    commit: str
    seed: int
    kills: int
    acked: int
    lost: int
    returned: int
    sessions_broken: int
    reads: int
    failed: int
    mended: str = ""

    @property
    def identity(self) -> tuple[str | int, ...]:
        return self.date, self.commit, self.seed

    def plus(self, other: Run) -> Run:
        """Both, as one that names no commit."""
        counts = {name: getattr(self, name) + getattr(other, name) for name in COUNTS}
        return Run(max(self.date, other.date), "", -1, **counts)


COUNTS = tuple(each.name for each in fields(Run) if each.name not in ("date", "commit", "seed", "mended"))
NOTHING = Run("", "", -1, *([0] * len(COUNTS)))


def run_of(report: Mapping[str, Any], date: str, commit: str) -> Run:
    """The record of a campaign's report, as its dataclass or its JSON has it. Raises KeyError for what is no report."""
    renamed = {**report, "failed": report["failed_rpcs"]}
    return Run(date, commit, report["seed"], **{name: renamed[name] for name in COUNTS})


_KILLS = Ledger(Run, NOTHING)
read, append, total = _KILLS.read, _KILLS.append, _KILLS.total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ledger", type=Path, default=LEDGER)
    parser.add_argument("--import", dest="reports", type=Path, nargs="*", default=[], help="reports of tests.crash.campaign, as JSON")
    parser.add_argument("--commit", default=None, help="what the imported reports tested; else the commit that is checked out")
    given = parser.parse_args()
    commit = commit_of() if given.commit is None else given.commit
    for report in given.reports:
        date = datetime.fromtimestamp(report.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        append(given.ledger, run_of(json.loads(report.read_text()), date, commit))
    print(json.dumps(asdict(total(read(given.ledger)))))


if __name__ == "__main__":
    main()
