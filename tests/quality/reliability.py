"""`make eval-reliability`: real processes, killed, cut off, overloaded, wiped, damaged and drained, into docs/reliability.md.

The rows that need no processes of their own name the test that holds them; they are run by `make test` and `make sim`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tests.crash import campaign, disk, fabric, forgotten, late, ledger, newcomer, overload, partition, scenarios
from tests.crash.load import Row, first
from tests.ledgers import commit_of, today
from tests.quality.science import at5
from tests.quality.science import rows as science
from tests.sim import ledger as seeds

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
| lattice laws type by type: commutative, associative, idempotent, inflationary | `make test TESTS=tests/property` |
| SIGKILL of a store alone while it commits; damage is found, kept and set aside | `make test TESTS=tests/unit/memory_node` |
| hostile input: damaged bytes to every decoder, requests made from the description of REST | `make fuzz`, `make fuzz-rest` |
| tenant isolation | `make test TESTS=tests/integration` |
"""


def kills(count: int, clients: int, seed: int, kept: Path) -> Row:
    """The campaign as a row, with what earlier ones add up to; `kept`: the ledger, to which this one is added."""
    report = campaign.run(count, seed, clients, None)
    runs = ledger.append(kept, ledger.run_of(asdict(report), today(), commit_of()))
    every, mended = ledger.total(runs), [run for run in runs if run.mended]
    found = (
        f"{report.lost} of {report.acked:,} lost, {report.returned} deletes undone, {report.sessions_broken} sessions broken in "
        f"{report.reads:,} reads, {report.failed_rpcs} calls failed; equal copies {report.converged_s} s after the end. "
        f"All {len(runs) - len(mended)} runs: {every.kills:,} kills, {every.lost} of {every.acked:,} lost, {every.returned} undone, "
        f"{every.sessions_broken} sessions broken in {every.reads:,} reads, {every.failed} calls failed"
    )
    found += "".join(
        f"; before {run.mended}: {run.kills} kills, {run.lost} lost, {run.sessions_broken} sessions broken, mended since" for run in mended
    )
    found += first(report.violations)
    done = f"{count} x SIGKILL at random instants under load, R=3 W=2"
    held = not (report.violations or every.lost or every.returned or every.sessions_broken)
    return Row("an acknowledged write survives any single node", done, "0 lost", found, held)


def simulated(count: int, kept: Path) -> Row:
    """Whole suites in one process under every fault of tests/sim; the seeds after those that the ledger has."""
    first_seed = max((run.first + run.seeds for run in seeds.read(kept)), default=0)
    command = [sys.executable, "-m", "tests.sim", "--seeds", str(count), "--from", str(first_seed), "--ledger", str(kept)]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)  # what is bad is in the ledger
    runs = seeds.read(kept)
    every, last = seeds.total(runs), runs[-1]
    found = f"{last.bad} of {last.seeds:,} seeds bad; all runs: {every.bad} of {every.seeds:,}"
    found += "".join(f"; before {run.mended}: {run.bad} of {run.seeds:,}, mended since" for run in runs if run.mended)
    done = "3 to 7 replicas simulated: 30 % lost, repeated, reordered, cut off, killed, wiped, clocks off by seconds and by minutes"
    target = "equal within ceil(log2 n) + 2 rounds, 0 lost, 0 returned, sessions and overlapping reads whole"
    return Row("replicas converge, and what the checkers ask", done, target, found, not every.bad)


def of_science(check: Callable[[], list[science.Row]], promise: str, done: str) -> Row:
    """An acceptance test of the science as a row."""
    found = check()
    text = "; ".join(f"{row.what}: {row.ours}" for row in found)
    return Row(promise, done, "0", text, all(row.passed for row in found))


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


def works(given: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Row], str]]:
    """Every row's name, its work, and why it cannot be done here."""
    yield "kills", lambda: kills(given.kills, 4, given.seed, given.ledger), ""
    apart = fabric.unavailable()
    for kind in ("both", "one-way"):
        yield kind, partial(cut, kind, given.cut_s, 4), apart
    small, faked = disk.unavailable(), late.unavailable()
    for scenario in (*scenarios.SCENARIOS, newcomer.added_node, forgotten.forgotten, disk.torn_log, late.slow_node, overload.row):
        yield scenario.__name__ if scenario is not overload.row else "overload", scenario, ""
    for scenario in (disk.full_disk_alone, disk.full_disk_of_three):
        yield scenario.__name__, scenario, small
    yield "clock_jump", late.clock_jump, faked
    yield "seeds", lambda: simulated(given.seeds, given.seed_ledger), ""
    laws = "records of 3 to 7 replicas under loss, repetition, reordering, partitions and lost disks"
    yield "laws", lambda: of_science(at5.schedules, "the lattice alone", laws), ""
    lies = "equivocators, forgers and missing pasts among honest nodes that tell each other what they hold"
    yield "liars", lambda: of_science(at5.liars, "forged and contradicting updates", lies), ""


def rows(given: argparse.Namespace) -> Iterator[Row]:
    for name, work, why_not in works(given):
        if given.only and name not in given.only:
            continue
        if why_not:
            print(f"left out  {name}: {why_not}", flush=True)
            continue
        row = work()
        print(f"{'held' if row.held else 'NOT HELD'}  {row.promise}: {row.found}", flush=True)
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--cut-s", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ledger", type=Path, default=ledger.LEDGER, help="where kills add up over runs")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--seed-ledger", type=Path, default=seeds.LEDGER, help="where simulated seeds add up over runs")
    parser.add_argument("--markdown", type=Path, default=None)
    parser.add_argument("only", nargs="*", help="kills, both, one-way, overload, or a scenario's name")
    given = parser.parse_args()
    done = list(rows(given))
    lines = [f"| {row.promise} | {row.done} | {row.target} | {row.found} | {'held' if row.held else '**not held**'} |" for row in done]
    if given.markdown is not None and not given.only:  # some rows alone are looked at, not a page
        text = HEAD.format(machine="two shared cores, all processes on one machine") + "\n".join(lines) + "\n" + FOOT
        given.markdown.write_text(text)
    raise SystemExit(not all(row.held for row in done))


if __name__ == "__main__":
    main()
