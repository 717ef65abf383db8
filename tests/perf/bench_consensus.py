"""What replication costs, each figure beside its reference in the same run: `make bench-consensus`, or

    python -m tests.perf.bench_consensus [--parts reconcile overhead …] [--markdown FILE] [--json FILE]

reconcile: bytes and time to find 100 differences among 100,000 traces. overhead: symbols a difference. sync: bytes of full state, deltas
and digests. lost: last writer wins against versions. gossip: messages of 1,000 simulated nodes. signing: on and off. signed, deltas,
partition: real processes. Five minutes.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # read once, when numpy is imported

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.perf import consensus_choices, consensus_joins, consensus_processes, consensus_signed, consensus_sync
from tests.perf.tables import Part, as_json, as_markdown

PARTS = ("reconcile", "overhead", "sync", "joins", "lost", "gossip", "signing", "signed", "deltas", "partition")


def run(options: argparse.Namespace) -> list[Part]:
    """The parts asked for, in order; prints what has a target as it comes."""
    work: dict[str, Callable[[], Part]] = {
        "reconcile": lambda: consensus_sync.reconcile(options.traces, options.differing, options.seeds),
        "overhead": lambda: consensus_sync.overhead(options.seeds),
        "sync": lambda: consensus_sync.sync_bytes(options.traces),
        "joins": lambda: consensus_joins.joins(options.traces, options.seeds),
        "lost": lambda: consensus_choices.lost_updates(options.seeds * 20),
        "gossip": lambda: consensus_choices.gossip(options.nodes, options.zones, options.view),
        "signing": lambda: consensus_choices.signing(options.seeds * 20),
        "signed": lambda: consensus_signed.signed_adds(options.signed_s, 32, 3),
        "deltas": lambda: consensus_processes.carried(options.updates, 1024, 3),
        "partition": lambda: consensus_processes.healed(options.cut_s, 3),
    }
    parts = []
    for name in options.parts:
        parts.append(work[name]())
        for row in parts[-1].targets:
            print(f"{'met   ' if row.met else 'MISSED'} {row.path}: {row.ours}   [{row.reference}]   target {row.target}", flush=True)
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=21, help="runs of each; simulations and signatures take 20 times as many")
    parser.add_argument("--traces", type=int, default=100_000, help="that two copies share")
    parser.add_argument("--differing", type=int, default=100, help="of them")
    parser.add_argument("--nodes", type=int, default=1000, help="that gossip, a multiple of the zones")
    parser.add_argument("--zones", type=int, default=10)
    parser.add_argument("--view", type=int, default=5, help="neighbours of a node")
    parser.add_argument("--updates", type=int, default=5000, help="through real consensus nodes")
    parser.add_argument("--signed-s", type=float, default=10.0, help="length of a run with signing, and of one without")
    parser.add_argument("--cut-s", type=float, default=60.0, help="length of a partition")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    parts = run(options)
    if options.json:
        machine = {"cores": psutil.cpu_count(), "python": platform.python_version(), "seeds": options.seeds}
        options.json.write_text(json.dumps(as_json(parts, machine), indent=1) + "\n")
    page = as_markdown(parts, _ABOVE.format(cores=psutil.cpu_count(), seeds=options.seeds))
    if options.markdown:
        options.markdown.write_text(page)
    else:
        print(page)


_ABOVE = """# Replication

Written by `make bench-consensus` ({cores} cores, shared with whatever else runs; medians of {seeds} runs). Bytes, symbols and messages are
counted and the same on every machine; times are not: read them beside their references."""


if __name__ == "__main__":
    main()
