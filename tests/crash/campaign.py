"""Kill memory nodes of a running suite, over and over, under load: `python -m tests.crash.campaign --kills 50`.

Three nodes hold three copies, two of which must be on disk before a write is acknowledged. One node at a time dies by SIGKILL at a random
instant and comes back. In the end every copy is read from its own disk and compared with what the clients were told.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from ndml.testing.layout import Role, SuiteOptions
from tests.crash import ledger
from tests.crash.clients import RecordingClient, together
from tests.crash.load import SWEEPS, p99_s, under_load
from tests.integration.signed_suite import signed_settings
from tests.ledgers import commit_of, today
from tests.sim.checkers.erased import erased_returns
from tests.sim.checkers.lost_acks import lost_acks
from tests.sim.checkers.sessions import monotonic_reads, read_your_writes
from tests.sim.history import Outcome

NODES = 3


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of one campaign."""

    seed: int
    kills: int
    acked: int
    unknown: int
    reads: int
    failed_rpcs: int
    lost: int
    returned: int
    sessions_broken: int
    converged_s: float
    p99_ms_calm: float
    p99_ms_after_kill: float
    violations: list[str]
    failures: list[str]


def options(data_dir: Path, *, signed: bool = False) -> SuiteOptions:
    """Three copies, two acknowledged."""
    copies = {"CLUSTER__REPLICATION_FACTOR": str(NODES)}
    more: dict[Role, dict[str, str]] = signed_settings(data_dir, NODES) if signed else {"memory-node": {}, "consensus": {}}
    settings: dict[Role, dict[str, str]] = {"memory-node": {**SWEEPS, **more["memory-node"]}, "consensus": {**copies, **more["consensus"]}}
    return SuiteOptions(data_dir=data_dir, memory_nodes=NODES, llm=False, settings=settings)


def run(kills: int, seed: int, clients: int, data_dir: Path | None, *, signed: bool = False) -> Report:
    """One campaign; the same seed kills the same nodes in the same order."""
    random = Random(seed)
    with tempfile.TemporaryDirectory() as made:
        directory = data_dir or Path(made)
        with under_load(options(directory, signed=signed), clients=clients, seed=seed, data_dir=directory) as load:
            killed_at = []
            for _ in range(kills):
                node = random.choice(sorted(load.nodes))
                time.sleep(random.uniform(0.2, 1.2))
                killed_at.append(time.monotonic())
                load.suite.kill(node)
                time.sleep(random.uniform(0.0, 1.0))
                load.start_again(node)
            load.end()
            took = load.converged(NODES)
            finals = load.finals()
    return _report(seed, kills, load.clients, finals, took, killed_at)


def _report(
    seed: int, kills: int, clients: list[RecordingClient], finals: dict[str, dict[str, int]], took: float, killed_at: list[float]
) -> Report:
    history = together(clients)
    lost, returned = lost_acks(history, finals), erased_returns(history, finals)
    broken = [*read_your_writes(history), *monotonic_reads(history)]
    outcomes = [write.outcome for write in history.writes()]
    calls = [call for client in clients for call in client.calls]
    near = [seconds for began, seconds in calls if any(0 <= began - at < 1.0 for at in killed_at)]
    calm = [seconds for began, seconds in calls if not any(-0.2 <= began - at < 5.0 for at in killed_at)]
    failures = [f"{error.reason}: {error.message}" for client in clients for error in client.failures]
    return Report(
        seed=seed,
        kills=kills,
        acked=outcomes.count(Outcome.ACKED),
        unknown=outcomes.count(Outcome.UNKNOWN),
        reads=len(history.events) - len(outcomes),
        failed_rpcs=len(failures),
        lost=len(lost),
        returned=len(returned),
        sessions_broken=len(broken),
        converged_s=round(took, 2),
        p99_ms_calm=round(1000 * p99_s(calm), 1),
        p99_ms_after_kill=round(1000 * p99_s(near), 1),
        violations=[*lost, *returned, *broken][:20],
        failures=failures[:20],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--signed", action="store_true", help="nodes sign what they write, and take nothing unsigned")
    parser.add_argument("--ledger", type=Path, default=None, help="add the sums of this run to that file")
    given = parser.parse_args()
    report = run(given.kills, given.seed, given.clients, given.data_dir, signed=given.signed)
    if given.ledger is not None:
        ledger.append(given.ledger, ledger.run_of(asdict(report), today(), commit_of()))
    print(json.dumps(asdict(report), indent=1))
    raise SystemExit(bool(report.violations))


if __name__ == "__main__":
    main()
