"""What each process of a suite takes: memory when it has just become ready and with traces in it, seconds to ready. For sizing.md.

python -m tests.deploy.footprint [--traces 20000]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from ndml.client import NdmlClient, NewMemory
from ndml.testing import Suite, SuiteOptions

_BATCH = 64
_DIMENSION = 384


def resident(suite: Suite) -> dict[str, float]:
    """MiB of memory of each process by its name, which no other process shares."""
    return {name: psutil.Process(suite.process(name).pid).memory_full_info().uss / (1 << 20) for name in suite.names}


def fill(client: NdmlClient, traces: int, users: int) -> None:
    """Write so many traces with vectors of their own, spread over the users."""
    rng = np.random.default_rng(7)
    for start in range(0, traces, _BATCH):
        user = f"user-{start // _BATCH % users}"
        vectors = rng.standard_normal((min(_BATCH, traces - start), _DIMENSION)).astype(np.float32)
        memories = [
            NewMemory(f"trace {start + at}: what was said on day {at} about subject {start % 97}", embedding=vector)
            for at, vector in enumerate(vectors)
        ]
        client.add_many(memories, user=user)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        began, ready = time.monotonic(), {}
        suite = Suite(SuiteOptions(data_dir=Path(directory), memory_nodes=1, consensus_nodes=1))
        with suite.start(lambda name: ready.__setitem__(name, time.monotonic() - began)):
            empty = resident(suite)
            with NdmlClient(suite.grpc_address, user="sizing", timeout_s=60) as client:
                fill(client, options.traces, options.users)
                client.search("what was said about subject 5?", user="user-0")
            full = resident(suite)
    print(f"| process | MiB when ready | MiB with {options.traces:,} traces | bytes a trace | seconds to ready |")
    print("|---|---|---|---|---|")
    for name, mib in empty.items():
        a_trace = (full[name] - mib) * (1 << 20) / options.traces
        print(f"| {name} | {mib:.0f} | {full[name]:.0f} | {a_trace:,.0f} | {ready[name]:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
