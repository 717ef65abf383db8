"""`make eval-reliability`: real processes, killed, cut off, wiped, damaged and drained under load, into docs/reliability.md.

The rows that need no processes of their own name the test that holds them; they are run by `make test` and `make sim`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.crash import campaign, fabric, partition
from tests.crash.scenarios import SCENARIOS, Row

HEAD = """# Reliability, measured

`make eval-reliability` wrote this page: {machine}. Clients write, update, delete and read all the while, pass their tokens
on, and note what they were told; in the end every copy is read from its own disk. The words: [consistency](reference/consistency.md).

| promise | what was done | target | found | |
|---|---|---|---|---|
"""

FOOT = """
Held by tests instead, with figures of their own where they print some:

| promise | test |
|---|---|
| replicas converge; sessions; acknowledged writes; deletes stay; eviction stays local | `make sim SEEDS=100000` |
| lattice laws, 1,000 schedules a type | `make test TESTS=tests/property` |
| a torn write, a full disk, a clock that jumps | `make test TESTS=tests/unit/memory_node` |
| hostile input; tenant isolation | `make test TESTS=tests/integration` |
| forged, replayed, equivocating updates | `make test TESTS=tests/property/test_audit.py` |
"""


def kills(count: int, clients: int, seed: int) -> Row:
    """The campaign as a row."""
    with tempfile.TemporaryDirectory() as made:
        report = campaign.run(count, seed, clients, Path(made))
    found = (
        f"{report.lost} of {report.acked:,} lost, {report.returned} deletes undone, {report.sessions_broken} sessions broken in "
        f"{report.reads:,} reads, {report.failed_rpcs} calls failed; equal copies {report.converged_s} s after the end"
    )
    done = f"{count} x SIGKILL at random instants under load, R=3 W=2"
    return Row("an acknowledged write survives any single node", done, "0 lost", found, not report.violations)


def cut(kind: str, seconds: float, clients: int) -> Row:
    """A partition as a row."""
    with tempfile.TemporaryDirectory() as made:
        report = partition.run(kind, seconds, clients, Path(made))
    what = "a memory node and a consensus node cut off" if kind == "both" else "what a memory node sends to its peers is lost"
    found = (
        f"{len(report.violations)} violations, {report.failed} calls failed, {report.acked_while_apart:,} writes acknowledged meanwhile; "
        f"equal copies {report.converged_s} s after it"
    )
    return Row(f"partition ({kind})", f"{what} for {seconds:.0f} s, R=3 W=2", "0 violations", found, not report.violations)


def rows(given: argparse.Namespace) -> Iterator[Row]:
    works: list[tuple[str, Callable[[], Row]]] = [("kills", lambda: kills(given.kills, 4, given.seed))]
    if not fabric.unavailable():
        works += [(kind, partial(cut, kind, given.cut_s, 4)) for kind in ("both", "one-way")]
    works += [(scenario.__name__, scenario) for scenario in SCENARIOS]
    for name, work in works:
        if not given.only or name in given.only:
            row = work()
            print(f"{'held' if row.held else 'NOT HELD'}  {row.promise}: {row.found}", flush=True)
            yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--cut-s", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--markdown", type=Path, default=None)
    parser.add_argument("only", nargs="*", help="kills, both, one-way, or a scenario's name")
    given = parser.parse_args()
    done = list(rows(given))
    lines = [f"| {row.promise} | {row.done} | {row.target} | {row.found} | {'held' if row.held else '**not held**'} |" for row in done]
    if given.markdown is not None:
        text = HEAD.format(machine="two shared cores, all processes on one machine") + "\n".join(lines) + "\n" + FOOT
        given.markdown.write_text(text)
    raise SystemExit(not all(row.held for row in done))


if __name__ == "__main__":
    main()
