"""How much of what was said is found again: `make eval-recall`.

python -m tests.quality.recall [--conversations N] [--sets locomo,tasks,reviews] [--page FILE] [--no-costs] [--no-neighbours]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console

from ndml.client import SearchMode
from ndml.testing import Suite
from tests.perf.tables import as_json, as_markdown
from tests.quality.recall import costs, page
from tests.quality.recall.measures import Asked, Hits, LeftOut, left_out
from tests.quality.recall.rows import FULL, REFERENCES, WAYS, Stored, Way, neighbours, offline
from tests.quality.recall.sets import SETS, SetName, load

_MOST = {"locomo": 10, "tasks": 3, "reviews": 3, "symbols": 3}
_SHIPPED = "as shipped"


def study(name: SetName, most: int, address: str, others: list[Way], console: Console) -> page.Study:
    """Writes a set through the API and asks every question in every way. Raises NdmlError."""
    talks = load(name, most)
    found: dict[str, list[Hits]] = {row: [] for row in (*REFERENCES, *(way.name for way in WAYS), *(way.name for way in others))}
    for talk in talks:
        began = time.monotonic()
        stored = Stored(address, talk)
        for row, hits in offline(talk).items():
            found[row].append(hits)
        for way in (*WAYS, *others):
            found[way.name].append(stored.hits(way))
        console.print(f"{talk.name}: {len(talk.turns)} memories, {len(talk.questions)} questions, {time.monotonic() - began:.0f} s")
    asked = Asked(talks)
    measured = {row: asked.measure(hits) for row, hits in found.items()}
    left: LeftOut | None = None
    if others and len(talks) > 1:
        candidates = {_SHIPPED: measured[FULL]} | {way.name: measured[way.name] for way in others}
        left = left_out(asked, candidates, _SHIPPED)
    return page.Study(name, asked, measured, left)


def _sets(text: str) -> list[SetName]:
    names = [name for name in SETS if name in text.split(",")]
    if len(names) != len(text.split(",")):
        raise argparse.ArgumentTypeError(f"give some of {', '.join(SETS)}, with commas between")
    return names


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=0, help="of each set at most; 0: all")
    parser.add_argument("--sets", type=_sets, default=["locomo", "tasks", "reviews"])
    parser.add_argument("--page", type=Path, help="write it there, and JSON beside it")
    parser.add_argument("--rows", type=int, default=10_000, help="memories in the scope where latency is measured")
    parser.add_argument("--searches", type=int, default=200, help="of each mode, for latency")
    parser.add_argument("--no-costs", action="store_true", help="leave out latency, bytes and rates")
    parser.add_argument("--no-neighbours", action="store_true", help="leave out other weights than the shipped ones")
    return parser.parse_args()


def main() -> int:
    given, console = _options(), Console(width=190)
    others = [] if given.no_neighbours else neighbours()
    began, parts = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        with Suite(costs.options(Path(folder) / "recall")) as suite:
            for name in given.sets:
                most = given.conversations or _MOST[name]
                parts.append(page.part(study(name, most, suite.grpc_address, others if name == "locomo" else [], console)))
        if not given.no_costs:
            parts.append(costs.measure(Path(folder), given.rows, given.searches))
    console.print(*page.tables(parts))
    for row in (row for part in parts for row in part.targets):
        console.print(f"{'met   ' if row.met else 'MISSED'} {row.path}: {row.ours}   ({row.reference})   target {row.target}", markup=False)
    if given.page:
        machine = {"cores": psutil.cpu_count(), "python": platform.python_version(), "seconds": round(time.monotonic() - began)}
        run = {"sets": given.sets, "conversations": given.conversations, "modes": [str(mode) for mode in SearchMode]}
        given.page.with_suffix(".json").write_text(json.dumps({**as_json(parts, machine), "run": run}, indent=1) + "\n")
        above = f"{page.ABOVE}\n\nThis run: {machine['cores']} cores, shared with whatever else runs, {machine['seconds']} s."
        given.page.write_text(as_markdown(parts, above) + "\n" + page.BELOW + "\n")
    return 0 if all(row.met for part in parts for row in part.targets) else 1


if __name__ == "__main__":
    sys.exit(main())
