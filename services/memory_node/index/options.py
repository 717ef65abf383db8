"""Every knob of the vector index, with its reason. The node's settings fill this in once; all partitions share it."""

from __future__ import annotations

from dataclasses import dataclass

from ndml.errors import FieldInvalid

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How one owner's vectors are held and searched. Raises FieldInvalid at construction when a value makes no sense."""

    dimension: int
    """Floats per vector; fixed by the embedding model."""

    fast_scan_from: int = 4_096
    """Live rows from which a partition is quantised. Fast-scan overtakes the exact slab at 1k rows for one query and at 2k in batches
    of 64; but training costs most of a second of one core, and 4,096 is also the first size that fills the training sample."""

    k_factor: int = 10
    """Candidates refined per hit, at least. Ten reach recall@10 .99 on real sentence embeddings up to some 10k rows."""

    k_factor_max: int = 80
    """Candidates refined per hit, at most: the bound on what `recall_target` may cost (800 rows refined cost what 60k scanned do)."""

    recall_target: float = 0.99
    """Share of the true top ten that must be among the candidates. The depth that gives it grows with the partition (46 candidates at 2.7k
    rows of real text, 116 at 12k, 370 at 100k on hard data), so it is measured instead of set."""

    probe_every: int = 64
    """One query in this many also measures the depth it needed. It costs two more scans: 3 % at 64."""

    train_sample: int = 4_096
    """Rows the quantiser learns from. 16 centroids per sub-space need no more: 16k rows took 5 times as long and gained nothing."""

    tombstone_share: float = 0.25
    """Share of dead rows that asks for compaction. Each dead row is still scanned, so this bounds the waste of a search and of memory."""

    tombstone_floor: int = 256
    """Dead rows below which compaction is not worth renumbering a partition."""

    growth: float = 1.5
    """Factor by which a full slab grows. Doubling would leave up to half of the memory unused; this leaves a third at most."""

    block_bytes: int = 16 * MIB
    """Largest temporary matrix (scores, decoded rows) of a search: bounds memory whatever the batch. At 4 MiB a batch of 64 reads a slab
    of 100k rows seven times over and takes twice as long; at 64 MiB it gains little."""

    catch_up_rows: int = 1_024
    """Rows copied into a freshly trained index per poll: some 8 ms, more than a worker's turn can add, so that catching up ends."""

    build_chunk: int = 8_192
    """Rows added between two looks at the cancel flag while a quantised index is built in the background."""

    train_attempts: int = 3
    """Failed trainings after which a partition stays exact for good; each retry waits until it has doubled."""

    def __post_init__(self) -> None:
        rules = {
            "dimension": self.dimension >= 1,
            "fast_scan_from": self.fast_scan_from >= 16,
            "k_factor": self.k_factor >= 1,
            "k_factor_max": self.k_factor_max >= self.k_factor,
            "recall_target": 0.0 < self.recall_target <= 1.0,
            "probe_every": self.probe_every >= 1,
            "train_sample": self.train_sample >= 16,
            "tombstone_share": 0.0 < self.tombstone_share <= 1.0,
            "tombstone_floor": self.tombstone_floor >= 1,
            "growth": 1.0 < self.growth <= 2.0,
            "block_bytes": self.block_bytes >= 4096,
            "catch_up_rows": self.catch_up_rows >= 1,
            "build_chunk": self.build_chunk >= 1,
            "train_attempts": self.train_attempts >= 1,
        }
        for name, holds in rules.items():
            if not holds:
                raise FieldInvalid(f"index option {name}={getattr(self, name)} is out of range; see IndexOptions", field=name)
