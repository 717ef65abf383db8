"""A suite whose processes have a network each, which is cut and healed under load: `python -m tests.crash.partition`."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ndml.testing.layout import SuiteOptions
from tests.crash import fabric
from tests.crash.load import under_load
from tests.sim.history import Outcome

NODES = 3
PLACES = (
    *(f"memory-node-{i + 1}" for i in range(NODES)),
    *(f"consensus-{i + 1}" for i in range(3)),
    "gateway-1",
)


@dataclass(frozen=True, slots=True)
class Report:
    """What a partition did. `apart_failed`: calls that failed while it lasted; `converged_s`: from healing to equal copies."""

    kind: str
    cut_s: float
    acked: int
    acked_while_apart: int
    failed: int
    converged_s: float
    violations: list[str]


def options(data_dir: Path, net: fabric.Fabric) -> SuiteOptions:
    """Three copies in three networks."""
    sweep = {"REPLICATION__SWEEP__LEAST_INTERVAL_S": "5", "REPLICATION__SWEEP__MOST_INTERVAL_S": "10"}
    return SuiteOptions(
        data_dir=data_dir,
        memory_nodes=NODES,
        replication_factor=NODES,
        llm=False,
        hosts=net.addresses,
        commands={name: net.command(name) for name in net.addresses},
        settings={"memory-node": sweep},
    )


def run(kind: str, cut_s: float, clients: int, data_dir: Path, seed: int = 1) -> Report:
    """`kind`: "both" cuts one memory node and one consensus node off from all others; "one-way" loses what that node sends to its peers."""
    with fabric.Fabric(PLACES) as net, under_load(options(data_dir, net), clients=clients, seed=seed, data_dir=data_dir) as load:
        cut_at = time.monotonic()
        _cut(net, kind)
        time.sleep(cut_s)
        net.heal()
        healed_at = time.monotonic()
        load.end()
        load.converged(NODES)
        took = time.monotonic() - healed_at
        bad = load.violations()
    acked = [write for write in load.history().writes() if write.outcome is Outcome.ACKED]
    return Report(
        kind=kind,
        cut_s=cut_s,
        acked=len(acked),
        acked_while_apart=sum(cut_at <= write.at < healed_at for write in acked),
        failed=len(load.failures),
        converged_s=round(took, 2),
        violations=bad[:20],
    )


def _cut(net: fabric.Fabric, kind: str) -> None:
    alone = ["memory-node-1", "consensus-1"]
    others = [place for place in PLACES if place not in alone]
    if kind == "both":
        net.part(alone, others)
    else:
        for place in others:
            if place != "gateway-1":
                net.cut("memory-node-1", place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=("both", "one-way"), default="both")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=4)
    given = parser.parse_args()
    if why := fabric.unavailable():
        raise SystemExit(f"no partition on this machine: {why}")
    with tempfile.TemporaryDirectory() as made:
        report = run(given.kind, given.seconds, given.clients, Path(made))
    print(json.dumps(asdict(report), indent=1))
    raise SystemExit(bool(report.violations))


if __name__ == "__main__":
    main()
