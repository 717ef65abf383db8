"""A process's /metrics as numbers. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from ndml.runtime import semconv as names

Labels = tuple[tuple[str, str], ...]
Key = tuple[str, Labels]
"""A sample's name and its labels, sorted."""

# Ten times what the largest process exports: beyond that it is not /metrics of NDML.
MOST_SAMPLES = 50_000
STARTED, CPU, RESIDENT = "process_start_time_seconds", "process_cpu_seconds_total", "process_resident_memory_bytes"


def total(name: str) -> str:
    """The sample in which Prometheus keeps a counter."""
    return f"{name}_total"


def bucket(name: str) -> str:
    """The samples in which it keeps a histogram's buckets; `count_of` and `sum_of` are beside it."""
    return f"{name}_bucket"


def count_of(name: str) -> str:
    return f"{name}_count"


def sum_of(name: str) -> str:
    return f"{name}_sum"


COUNTERS = (
    names.METRIC_RPC_ERRORS,
    names.METRIC_BTSP_UPDATES,
    names.METRIC_UPDATE_RATE,
    names.METRIC_RECORDS_JOINED,
    names.METRIC_REPAIR_BYTES,
    names.METRIC_DELTAS_TAKEN,
    names.METRIC_DELTAS_DELIVERED,
    names.METRIC_DELTAS_DROPPED,
    names.METRIC_DELTAS_REFUSED,
)
GAUGES = (
    names.METRIC_RPC_IN_FLIGHT,
    names.METRIC_QUEUE_DEPTH,
    names.METRIC_PLACEMENT_EPOCH,
    names.METRIC_TOTAL_TRACES,
    names.METRIC_REPLICATION_UNPUBLISHED,
    names.METRIC_OWNERS_BEHIND,
    names.METRIC_SIBLINGS,
    names.METRIC_QUARANTINED_AUTHORS,
    names.METRIC_DELTA_LOG_ENTRIES,
    names.METRIC_DELTA_LAG,
)
HISTOGRAMS = (names.METRIC_RPC_DURATION, names.METRIC_QUERY_LATENCY, names.METRIC_COMMIT_DURATION, names.METRIC_BATCH_SIZE)
CUMULATIVE = frozenset(
    [CPU, *map(total, COUNTERS), *(part(name) for name in HISTOGRAMS for part in (bucket, count_of, sum_of))],
)
"""Samples that only grow while their process lives."""
_READ = CUMULATIVE | {STARTED, RESIDENT, *GAUGES}


class Unreadable(ValueError):
    """What came is not Prometheus text; the message says so in one line."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """One reading of one process. `at_s`: when, on a clock that only goes forward. A metric that was not there is not in `values`."""

    at_s: float
    values: Mapping[Key, float]

    @property
    def started_s(self) -> float | None:
        """When the process started, where it says so: tells one process from the next."""
        return self.values.get((STARTED, ()))

    def each(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        """Labels and value of each sample of that name."""
        return ((dict(labels), value) for (found, labels), value in self.values.items() if found == name)

    def sum(self, name: str) -> float | None:
        """Over all labels; None where the process does not export it."""
        found = [value for _, value in self.each(name)]
        return sum(found) if found else None


def parse(text: str, at_s: float) -> Scrape:
    """The samples that the monitor shows; others, and those that are no finite number, are left out. Raises Unreadable."""
    values: dict[Key, float] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in _READ and math.isfinite(sample.value):
                    values[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
            if not family.samples and family.name in COUNTERS:
                # Exported, and none of its labels has come into being.
                values[total(family.name), ()] = 0.0
            if len(values) > MOST_SAMPLES:
                raise Unreadable(f"more than {MOST_SAMPLES:,} samples: is this a process of NDML?")
    except Unreadable:
        raise
    # The parser slices and indexes what it takes for a sample: foreign text ends in one of these.
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise Unreadable("what answers there is not Prometheus text: is it the metrics port (gRPC port + 1000)?") from error
    return Scrape(at_s, values)
