"""What TLS costs a search: two suites of real processes, one of them with certificates on every hop, asked in turns.

python docs/adr/evidence/a0011_tls.py [SEARCHES]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from ndml.client import ClientOptions, NdmlClient
from ndml.testing import Suite, SuiteOptions
from tests.deploy.certificates import Authority

_ROUND = 50


def main(searches: int) -> None:
    """Prints the quantiles of single searches, in plain text and by TLS."""
    with tempfile.TemporaryDirectory() as scratch:
        tls = Authority(Path(scratch, "ca")).issue()
        plain = SuiteOptions(data_dir=Path(scratch, "plain"), memory_nodes=1, consensus_nodes=1)
        secured = SuiteOptions(data_dir=Path(scratch, "tls"), memory_nodes=1, consensus_nodes=1, tls=tls)
        with (
            Suite(plain) as first,
            Suite(secured) as second,
            NdmlClient(first.grpc_address, user="ann") as one,
            NdmlClient(second.grpc_address, user="ann", options=ClientOptions(tls=tls)) as two,
        ):
            took: dict[str, list[float]] = {"plain text": [], "TLS": []}
            for client in (one, two):
                for number in range(200):
                    client.add(f"Bee number {number} came from garden {number % 7}.")
                client.search("bees", k=10)
            for _ in range(max(1, searches // _ROUND)):
                for name, client in zip(took, (one, two), strict=True):
                    took[name] += [_timed(client) for _ in range(_ROUND)]
    for name, seconds in took.items():
        ranked = sorted(seconds)
        print(
            f"{name:10} n={len(seconds)} p50 {statistics.median(seconds) * 1e3:.2f} ms p99 {ranked[int(0.99 * len(ranked))] * 1e3:.2f} ms"
        )
    print(f"ratio of medians {statistics.median(took['TLS']) / statistics.median(took['plain text']):.2f}")


def _timed(client: NdmlClient) -> float:
    began = time.perf_counter()
    client.search("bees", k=10)  # its vector is in the gateway's cache: two hops and no model
    return time.perf_counter() - began


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)
