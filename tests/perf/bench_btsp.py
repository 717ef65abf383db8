"""The science's price and worth, each beside its reference in the same run: `make bench-btsp`, or

    python -m tests.perf.bench_btsp [--parts gate quality states adds consolidation] [--rounds 3] [--markdown FILE] [--json FILE]

gate: what a judgement costs a trace, step by step, beside exact and quantised search. quality: how well familiarity tells known from new on
LoCoMo (NDML_LOCOMO=file), and the alternatives to its choices. states: read-out, bytes, loading. adds: a whole suite with the gate on and
off. consolidation: the job on a node, by size. One thread in this process; run it on a quiet machine, four minutes on two cores.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # read once, when numpy and FAISS are imported

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path

import psutil

from ndml.btsp.record import RECORD_BYTES
from tests.perf import bench_state, btsp_choices, btsp_gate, btsp_node
from tests.perf.tables import Part, Row, Table, as_json, as_markdown

PARTS = ("gate", "quality", "states", "adds", "consolidation")


def states(rows: int) -> Part:
    """`bench_state`, with its targets."""
    found = bench_state.measure(rows)
    reads = [
        ("strength_256_us", "read-out of 256 candidates"),
        ("busy_strength_256_us", "read-out of 256 candidates while protein is about"),
    ]
    reference = f"gather, subtract, exponentiate, one product {found['reference_256_us']:.0f} us"
    targets = [
        Row(
            f"{what}, {rows:,} traces",
            f"{found[name]:.0f} us",
            reference,
            f"<= {bench_state.TARGET_US:.0f} us",
            found[name] <= bench_state.TARGET_US,
        )
        for name, what in reads
    ]
    size, most = found["bytes_per_trace"], bench_state.TARGET_BYTES
    held = "state of a trace, room to grow included"
    targets.append(Row(held, f"{size:.1f} B", f"{RECORD_BYTES} B packed", f"<= {most} B", size <= most))
    timed = [(name.rpartition("_"), value) for name, value in found.items() if name.endswith(_UNITS)]
    lines = [(what.replace("_", " "), f"{value:,.1f} {unit}") for (what, _, unit), value in timed]
    return Part(targets, [Table(f"Trace state, {rows:,} traces", _STATES, ("what", "time"), lines)])


_UNITS = ("_us", "_ms")
_STATES = f"""`python -m tests.perf.bench_state` has the same and says what each line is; numbers in a name are rows. Loading is of
{bench_state.LOADED:,} states at most: packed (something happened to all of them), begun (to none), and the reference that
copies their bytes."""


def run(options: argparse.Namespace) -> list[Part]:
    """The parts asked for, in order; prints what has a target as it comes."""
    work: dict[str, Callable[[], Part]] = {
        "gate": lambda: btsp_gate.cost(options.rows, options.others, options.rounds),
        "quality": btsp_choices.quality,
        "states": lambda: states(options.states),
        "adds": lambda: btsp_node.adds(options.adds, options.rounds),
        "consolidation": lambda: btsp_node.consolidation(options.sizes, options.rounds),
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
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, alternating with its reference")
    parser.add_argument("--rows", type=int, default=10_000, help="traces that the gate is measured at")
    parser.add_argument("--others", type=int, nargs="*", default=[4096, 20_000, 40_000], help="further sizes for familiarity beside search")
    parser.add_argument("--states", type=int, default=100_000, help="traces whose states are read and loaded")
    parser.add_argument("--adds", type=int, default=8192, help="traces of one owner, a multiple of 64; then as many again")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 2_000, 5_000, 10_000], help="traces that are consolidated, rising")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    parts = run(options)
    if options.json:
        machine = {"cores": psutil.cpu_count(), "python": platform.python_version(), "rounds": options.rounds}
        options.json.write_text(json.dumps(as_json(parts, machine), indent=1) + "\n")
    page = as_markdown(parts, _ABOVE.format(cores=psutil.cpu_count(), rounds=options.rounds))
    if options.markdown:
        options.markdown.write_text(page)
    else:
        print(page)


_ABOVE = """# Write gate, trace states, consolidation

Written by `make bench-btsp` ({cores} cores, shared with whatever else runs; medians of {rounds} runs that alternate with
their references). The targets were set on a machine whose two-hop echo took 0.65 ms ([benchmarks](benchmarks.md)): read the
ratios first."""


if __name__ == "__main__":
    main()
