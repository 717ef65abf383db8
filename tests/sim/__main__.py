"""The long run: `python -m tests.sim --seeds 100000 --from 0`. One seed: `python -m tests.sim --from N --seeds 1 --verbose`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.ledgers import commit_of, today
from tests.sim import ledger
from tests.sim.seeds import again, lattice, suite, told
from tests.sim.world import Outcome, quiet

_PROGRESS_S = 5.0
_CHUNK = 8
_SHOWN = 20
"""Violations told of one seed: the first say it."""


def _verbose(found: Outcome | tuple[int, str]) -> None:
    if isinstance(found, Outcome):
        print(found.shape, found.plan, f"faults {found.faults}", f"refusals {found.failures}", sep="\n")
        print(f"{found.messages} messages, {found.rounds} rounds, {found.conflicts} conflicts left")


def _run(seeds: Sequence[int], records: bool, processes: int) -> Iterator[Outcome | tuple[int, str]]:
    work = lattice if records else suite
    if processes == 1:
        quiet()
        yield from map(work, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(processes, quiet) as pool:
        yield from pool.imap_unordered(work, seeds, _CHUNK)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="a seed at a time in each; default: the processors")
    parser.add_argument("--records", action="store_true", help="the lattice alone, 50 times as fast")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--ledger", type=Path, help=f"add this run to a file of runs, such as {ledger.LEDGER}")
    asked = parser.parse_args(arguments)
    if asked.ledger and asked.records:
        parser.error("--ledger counts whole suites: leave --records out")
    seeds = range(asked.first, asked.first + asked.seeds)
    began = said = time.monotonic()
    done, bad = 0, []
    for found in _run(seeds, asked.records, asked.processes if len(seeds) > 1 else 1):
        done += 1
        seed = found[0] if isinstance(found, tuple) else found.seed
        if wrong := told(found):
            bad.append(seed)
            print(f"\nseed {seed}, again with: {again(seed, records=asked.records)}", *wrong[:_SHOWN], sep="\n  ", flush=True)
        if asked.verbose:
            _verbose(found)
        if time.monotonic() - said > _PROGRESS_S:
            said = time.monotonic()
            line = f"\r{done} of {len(seeds)} seeds, {len(bad)} bad, {done / (said - began):.1f} a second "
            print(line, end="", file=sys.stderr, flush=True)
    if asked.ledger:
        ledger.append(asked.ledger, ledger.Run(today(), commit_of(), asked.first, done, len(bad), round(time.monotonic() - began)))
    print(f"\n{done} seeds from {asked.first}, {len(bad)} bad: {bad[:_SHOWN]}, {time.monotonic() - began:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
