"""What one moment of the suite looks like, as figures: what the monitor shows and `-o json` prints. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ndml.cli.admin import drained, to_take
from ndml.cli.monitoring.rates import Growth, Spread, quantile, spread
from ndml.cli.monitoring.samples import CPU, RESIDENT, Scrape, bucket, count_of, total
from ndml.cli.monitoring.sources import Reading, Strengths, Target
from ndml.client import PlacementMember, ServiceStatus
from ndml.runtime import semconv as names

_PUBLIC, _OWN_CALLS = "/ndml.v1.", "/ndml.v1.AdminService/"
# In this order, called or not: what the suite is for. Others follow while they are called.
_ALWAYS = ("SearchMemories", "AddMemory", "Chat")
_MOST_CALLS = 12
_GATE = ("novel", "duplicate", "update", "related")
BINS = 10
_ZERO = timedelta()


@dataclass(frozen=True, slots=True)
class Process:
    """One process. `state`: "up", "no answer" (to the gateway), "left" (drained, so that nobody expects one), "unknown" (the gateway could
    not be asked). None: not known."""

    service: str
    instance: str
    address: str
    state: str
    zone: str = ""
    epoch: int | None = None
    uptime_s: float | None = None
    cpu_cores: float | None = None
    resident_bytes: int | None = None
    in_flight: int | None = None
    trouble: str = ""
    """Why figures of it are missing."""


@dataclass(frozen=True, slots=True)
class Node:
    """One memory node; `to_take`: updates that wait for it at the consensus nodes. None: not known."""

    node_id: str
    zone: str
    state: str
    phase: str
    owners: int | None
    traces: int | None
    to_take: int | None
    conflicts: int | None
    behind: int | None
    unpublished: int | None


@dataclass(frozen=True, slots=True)
class Calls:
    """One RPC of the gateways, or one step of the memory nodes. Rates a second, times in seconds, over the window; None: not known.

    `beyond`: p99 lies beyond the histogram's largest bound, which is what it shows.
    """

    name: str
    rate: float | None
    errors: float | None
    p50_s: float | None
    p99_s: float | None
    beyond: bool = False


@dataclass(frozen=True, slots=True)
class Counted:
    """Something that is counted: since the processes started, and a second."""

    name: str
    total: float | None
    rate: float | None


@dataclass(frozen=True, slots=True)
class Queue:
    """Items that wait, and how many a batch took on average over the window."""

    process: str
    queue: str
    waiting: int
    batch: float | None


@dataclass(frozen=True, slots=True)
class Bars:
    """How many of a user's traces are how strong: `counts` in ten equal bins from 0 to 1; `read` of the user's `traces`."""

    user: str
    counts: tuple[int, ...]
    read: int
    traces: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """Everything at once. `window_s`: what rates and latencies are taken over, 0 before there are two readings."""

    at: datetime
    verdict: str
    healthy: bool | None
    window_s: float
    troubles: tuple[str, ...]
    processes: tuple[Process, ...]
    nodes: tuple[Node, ...]
    calls: tuple[Calls, ...]
    gate: tuple[Counted, ...]
    queues: tuple[Queue, ...]
    replication: tuple[Counted, ...]
    strengths: Bars | None


def frame(reading: Reading, grown: Mapping[Target, Growth], at: datetime) -> Frame:
    """What a reading says, with how the counters of each target grew."""
    answered = {target: answer for target, answer in reading.answers.items() if isinstance(answer, Scrape)}
    growth = [grown[target] for target in answered if target in grown]
    scrapes = list(answered.values())
    return Frame(
        at=at,
        verdict=_verdict(reading),
        healthy=reading.cluster.healthy if reading.cluster else None,
        window_s=max((each.seconds for each in growth), default=0.0),
        troubles=tuple(_troubles(reading)),
        processes=tuple(_processes(reading, grown)),
        nodes=tuple(_nodes(reading)),
        calls=tuple(_calls(growth)),
        gate=tuple(_gate(scrapes, growth)),
        queues=tuple(_queues(answered, grown)),
        replication=tuple(_replication(scrapes, growth)),
        strengths=bars(reading.strengths) if reading.strengths else None,
    )


def bars(strengths: Strengths) -> Bars:
    """Strengths counted in bins; 1 belongs to the last."""
    counts = [0] * BINS
    for value in strengths.values:
        counts[min(BINS - 1, max(0, int(value * BINS)))] += 1
    return Bars(strengths.user, tuple(counts), len(strengths.values), strengths.traces, strengths.error)


def _verdict(reading: Reading) -> str:
    if reading.cluster is None:
        why = f"{reading.error.reason}: {reading.error.message}" if reading.error else "not asked"
        return f"NO STATUS, the gateway does not answer ({why})"
    copies = reading.placement.replication_factor if reading.placement else 0
    facts = f"placement epoch {reading.cluster.epoch}, {copies} {'copy' if copies == 1 else 'copies'}"
    return f"{'healthy' if reading.cluster.healthy else 'NOT HEALTHY'} ({facts})"


def _troubles(reading: Reading) -> Iterator[str]:
    left = drained(reading.members)
    for row in reading.cluster.services if reading.cluster else ():
        if not row.reachable and row.instance not in left:
            yield f"{row.instance or row.address}: {row.error}"
    for target, answer in reading.answers.items():
        if isinstance(answer, str):
            yield f"{target.name}: no metrics at {target.host}:{target.port}, {answer}"


def _processes(reading: Reading, grown: Mapping[Target, Growth]) -> Iterator[Process]:
    """Those that the gateway knows, or last knew, then those that were named by hand and are none of them."""
    zones = {row.node_id: row.zone for row in reading.members}
    left = drained(reading.members)
    targets = {target.name: target for target in reading.answers}
    # The gateway that is asked speaks of itself first.
    for number, row in enumerate(reading.services):
        target = next((targets.pop(name) for name in _known_as(row, reading.services) if name in targets), None)
        epoch = row.details.get("epoch", "")
        known = int(epoch) if epoch.isdigit() else None
        if number == 0 and reading.cluster:
            known = reading.cluster.epoch
        answers = isinstance(reading.answers.get(target), Scrape) if target else False
        asked = reading.cluster is not None or number == 0
        silent = "left" if row.instance in left else "no answer"
        state = ("up" if row.reachable else silent) if asked else "up" if answers else "unknown"
        yield _process(row, state, zones.get(row.instance, ""), known, target, reading, grown)
    for target in targets.values():
        unknown = ServiceStatus("", target.name, f"{target.host}:{target.port}", False, "", "", _ZERO, {})
        state = "up" if isinstance(reading.answers[target], Scrape) else "no answer"
        yield _process(unknown, state, "", None, target, reading, grown)


def _known_as(row: ServiceStatus, rows: Sequence[ServiceStatus]) -> Iterator[str]:
    """What a target may call the process: instance, address, or its service where that has one process."""
    yield from filter(None, (row.instance, row.address))
    if sum(other.service == row.service for other in rows) == 1:
        yield row.service.removeprefix("ndml-")


def _process(
    row: ServiceStatus, state: str, zone: str, epoch: int | None, target: Target | None, reading: Reading, grown: Mapping[Target, Growth]
) -> Process:
    answer = reading.answers.get(target, "") if target else "metrics address not known: name it with --metrics"
    scrape = answer if isinstance(answer, Scrape) else None
    seen = scrape.sum(names.METRIC_PLACEMENT_EPOCH) if scrape else None
    resident, flying = (scrape.sum(RESIDENT), scrape.sum(names.METRIC_RPC_IN_FLIGHT)) if scrape else (None, None)
    return Process(
        service=row.service.removeprefix("ndml-"),
        instance=row.instance or row.address,
        address=row.address,
        state=state,
        zone=zone,
        epoch=epoch if epoch is not None else int(seen) if seen else None,
        uptime_s=row.uptime.total_seconds() if row.reachable else None,
        cpu_cores=grown[target].rate(CPU) if target and target in grown and scrape else None,
        resident_bytes=None if resident is None else int(resident),
        in_flight=None if flying is None else int(flying),
        trouble=row.error or (answer if isinstance(answer, str) else ""),
    )


def _nodes(reading: Reading) -> Iterator[Node]:
    details = {row.instance: row.details for row in reading.services if row.reachable and row.service == "ndml-memory-node"}
    lag = to_take(reading.cluster) if reading.cluster else {}
    for row in reading.members:
        yield _node(row if reading.cluster else replace(row, state="unknown"), details.get(row.node_id), lag.get(row.node_id))


def _node(row: PlacementMember, own: Mapping[str, str] | None, to_take: int | None) -> Node:
    def figure(name: str) -> int | None:
        """A zero is left out of details, as protobuf leaves it out."""
        return None if own is None else int(text) if (text := own.get(name, "0")).isdigit() else None

    figures = [figure(name) for name in ("owners", "traces")]
    rest = [figure(name) for name in ("siblings", "owners_behind", "unpublished")]
    return Node(row.node_id, row.zone, row.state, row.phase, figures[0], figures[1], to_take, *rest)


def _calls(growth: Sequence[Growth]) -> Iterator[Calls]:
    """The gateways' RPCs, then what the memory nodes do for them. The monitor's own are none of them."""
    paths = {labels.get("method", "") for each in growth for labels, _ in each.each(count_of(names.METRIC_RPC_DURATION))}
    rows = {path: _call(path, growth) for path in paths if path.startswith(_PUBLIC) and not path.startswith(_OWN_CALLS)}
    by_name = {row.name: row for row in rows.values()}
    first = [by_name.pop(name, Calls(name, None, None, None, None)) for name in _ALWAYS]
    called = sorted((row for row in by_name.values() if row.rate), key=lambda row: (-(row.rate or 0.0), row.name))
    yield from first + called[: _MOST_CALLS - len(first)]
    known = [row for row in rows.values() if row.rate is not None]
    if known:
        failed = [row.errors for row in known if row.errors is not None]
        yield Calls("all", sum(row.rate or 0.0 for row in known), sum(failed), None, None)
    for name, metric in (("node: search", names.METRIC_QUERY_LATENCY), ("node: commit", names.METRIC_COMMIT_DURATION)):
        yield _timed(name, _rate(growth, count_of(metric)), None, spread(growth, metric))


def _call(path: str, growth: Sequence[Growth]) -> Calls:
    rate = _rate(growth, count_of(names.METRIC_RPC_DURATION), method=path)
    # A counter of errors comes into being with the first of them.
    errors = None if rate is None else _rate(growth, total(names.METRIC_RPC_ERRORS), method=path) or 0.0
    return _timed(path.rpartition("/")[2], rate, errors, spread(growth, names.METRIC_RPC_DURATION, method=path))


def _timed(name: str, rate: float | None, errors: float | None, times: Spread) -> Calls:
    p50, p99 = quantile(0.5, times.buckets), quantile(0.99, times.buckets)
    return Calls(name, rate, errors, p50, p99, beyond=p99 is not None and p99 >= times.top)


def _gate(scrapes: Sequence[Scrape], growth: Sequence[Growth]) -> Iterator[Counted]:
    """The gate's four decisions, then what else changes a trace's state."""
    name = total(names.METRIC_BTSP_UPDATES)
    counts: dict[str, float] = {}
    for scrape in scrapes:
        for labels, value in scrape.each(name):
            if kind := labels.get("kind"):
                counts[kind] = counts.get(kind, 0.0) + value
    kinds = [*_GATE, *sorted(set(counts) - set(_GATE))]
    return (Counted(kind, counts.get(kind), _rate(growth, name, kind=kind)) for kind in kinds)


def _queues(answered: Mapping[Target, Scrape], grown: Mapping[Target, Growth]) -> Iterator[Queue]:
    for target, scrape in answered.items():
        waiting = {labels.get("queue", ""): value for labels, value in scrape.each(names.METRIC_QUEUE_DEPTH)}
        batched = {labels.get("queue", "") for labels, _ in scrape.each(bucket(names.METRIC_BATCH_SIZE))}
        for queue in sorted(waiting.keys() | batched):
            own = [grown[target]] if target in grown else []
            yield Queue(target.name, queue, int(waiting.get(queue, 0)), spread(own, names.METRIC_BATCH_SIZE, queue=queue).mean)


def _replication(scrapes: Sequence[Scrape], growth: Sequence[Growth]) -> Iterator[Counted]:
    """What waits (its total is how much now), then what flows."""
    for name, metric in (
        ("not published yet", names.METRIC_REPLICATION_UNPUBLISHED),
        ("owners behind", names.METRIC_OWNERS_BEHIND),
        ("conflicts", names.METRIC_SIBLINGS),
        ("quarantined authors", names.METRIC_QUARANTINED_AUTHORS),
        ("in the delta logs", names.METRIC_DELTA_LOG_ENTRIES),
    ):
        yield Counted(name, _sum(scrapes, metric), None)
    for name, metric in (
        ("updates taken", names.METRIC_DELTAS_TAKEN),
        ("updates delivered", names.METRIC_DELTAS_DELIVERED),
        ("updates dropped", names.METRIC_DELTAS_DROPPED),
        ("updates refused", names.METRIC_DELTAS_REFUSED),
        ("records joined", names.METRIC_RECORDS_JOINED),
        ("bytes to repair", names.METRIC_REPAIR_BYTES),
    ):
        yield Counted(name, _sum(scrapes, total(metric)), _rate(growth, total(metric)))


def _rate(growth: Sequence[Growth], name: str, **labels: str) -> float | None:
    """A second, over several processes, each by its own window."""
    found = [rate for each in growth if (rate := each.rate(name, **labels)) is not None]
    return sum(found) if found else None


def _sum(scrapes: Sequence[Scrape], name: str) -> float | None:
    found = [value for scrape in scrapes if (value := scrape.sum(name)) is not None]
    return sum(found) if found else None
