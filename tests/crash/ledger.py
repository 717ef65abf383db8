"""Kills add up over runs: one record a run in a file, the sums of it in the table. `python -m tests.crash.ledger --import report.json`."""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LEDGER = Path("docs/reliability-kills.json")
MOST_RUNS = 500
"""Runs listed one by one; what is older goes on in one sum, so that the file stays small."""


@dataclass(frozen=True, slots=True)
class Run:
    """The sums of one campaign. `commit`: what was tested; of a sum of several runs, empty, as its `date` is the last one's. `mended`: the
    commit that mended what it found, written by hand; such a run is told of and is in no sum, for it tested other code."""

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


def read(path: Path) -> list[Run]:
    """Oldest first; none where there is no file."""
    return [Run(**each) for each in json.loads(path.read_text())["runs"]] if path.exists() else []


def append(path: Path, run: Run) -> list[Run]:
    """The runs with this one, written; one that is there already (same date, commit and seed) is not counted twice."""
    runs = read(path)
    if not any((each.date, each.commit, each.seed) == (run.date, run.commit, run.seed) for each in runs):
        runs.append(run)
    while len(runs) > MOST_RUNS:
        old = [each for each in runs[:2] if not each.mended]  # one that was mended has been told of long enough
        runs[:2] = [old[0].plus(old[1])] if len(old) == 2 else old
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps({"runs": [asdict(each) for each in runs]}, indent=1) + "\n")
    beside.replace(path)
    return runs


def total(runs: list[Run]) -> Run:
    """The sum of all but those whose finding was mended."""
    summed = NOTHING
    for run in (run for run in runs if not run.mended):
        summed = summed.plus(run)
    return summed


def today() -> str:
    """This second, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def commit_of(directory: Path = Path()) -> str:
    """The commit that is checked out there, with a plus where files other than pages differ from it; empty where git does not know."""
    head = _git(directory, "rev-parse", "--short=12", "HEAD")
    return head + "+" * bool(head and _git(directory, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs"))


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


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
