"""A process that writes to a store and prints the id of each trace once it is acknowledged; the crash test kills it."""

from __future__ import annotations

import sys
from pathlib import Path

from ndml.runtime.log import configure_logging
from ndml.runtime.settings import LogSettings
from services.memory_node.commit import WriteJob
from services.memory_node.records import Owner
from services.memory_node.schema import Identity
from services.memory_node.settings import StoreSection
from services.memory_node.store import Store
from services.memory_node.writer import Checkpointer
from tests.unit.memory_node import node_harness as harness


def main(directory: str, first: int) -> None:
    configure_logging(LogSettings(level="error"), "store-child", directory)
    # Small log limits, so that kills also fall into checkpoints.
    config = StoreSection(data_dir=Path(directory), checkpoint_bytes=1 << 20, log_limit_bytes=2 << 20, checkpoint_interval_s=0.01)
    store = Store(config, Identity("n0", harness.DIMENSION, harness.MODEL), 10**6)
    store.open()
    Checkpointer(store).start()
    for start in range(first, first + 100_000, 8):
        seeds = range(start, start + 8)
        jobs = [WriteJob(Owner("t", f"u{seed % 3}"), harness.put("", harness.trace(seed, "x" * 2000)).put) for seed in seeds]
        commit = store.committer.commit(jobs)
        for seed, result in zip(seeds, commit.results, strict=True):
            assert not result.outcomes[0].HasField("error"), result
            print(seed, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
