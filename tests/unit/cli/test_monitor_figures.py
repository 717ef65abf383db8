"""What `ndml monitor` makes of scrapes: parsing, rates, quantiles, and the figures of a frame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ndml.cli.monitoring.model import Frame, bars, frame
from ndml.cli.monitoring.rates import MOST_SCRAPES, Growth, History, growth, quantile, spread
from ndml.cli.monitoring.samples import COUNTERS, GAUGES, HISTOGRAMS, STARTED, Scrape, Unreadable, count_of, parse, total
from ndml.cli.monitoring.sources import Reading, Strengths, Target, derived, named, split
from ndml.client import ClusterStatus, Placement, PlacementMember, ServiceStatus
from ndml.errors import FieldInvalid, OwnerUnavailable
from ndml.runtime import metrics, semconv

ERRORS, GATE = total(semconv.METRIC_RPC_ERRORS), total(semconv.METRIC_BTSP_UPDATES)
SEARCH = "/ndml.v1.MemoryService/SearchMemories"


def scrape(at_s: float, **values: float) -> Scrape:
    """Gate decisions by kind; `started` is the process's start."""
    found = {(GATE, (("kind", kind),)): value for kind, value in values.items() if kind != "started"}
    return Scrape(at_s, found | ({(STARTED, ()): values["started"]} if "started" in values else {}))


class Process:
    """A process's own registry, with metrics of the suite's names and labels."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.calls = Histogram(semconv.METRIC_RPC_DURATION, "s", ["method"], buckets=(0.01, 0.1, 1.0), registry=self._registry)
        self.errors = Counter(semconv.METRIC_RPC_ERRORS, "n", ["method", "code", "reason"], registry=self._registry)
        self.gate = Counter(semconv.METRIC_BTSP_UPDATES, "n", ["kind"], registry=self._registry)
        self.depth = Gauge(semconv.METRIC_QUEUE_DEPTH, "n", ["queue"], registry=self._registry)

    def scrape(self, at_s: float) -> Scrape:
        return parse(generate_latest(self._registry).decode(), at_s)


def test_every_name_that_is_read_is_one_that_the_suite_exports() -> None:
    exported = {metric._name: type(metric) for metric in vars(metrics).values() if isinstance(metric, Counter | Gauge | Histogram)}
    for kind, read in ((Counter, COUNTERS), (Gauge, GAUGES), (Histogram, HISTOGRAMS)):
        assert {name: exported.get(name) for name in read} == dict.fromkeys(read, kind)


def test_what_the_suite_exports_is_read_and_nothing_beside() -> None:
    text = '# TYPE other gauge\nother 7\nndml_queue_depth{queue="a\\"b\\nc"} 3\nndml_queue_depth{queue="nan"} NaN\n'
    found = parse(text, 1.0)
    assert found.values == {(semconv.METRIC_QUEUE_DEPTH, (("queue", 'a"b\nc'),)): 3.0}
    assert found.sum(semconv.METRIC_QUEUE_DEPTH) == 3.0 and found.sum(semconv.METRIC_SIBLINGS) is None


def test_a_counter_of_which_no_label_is_there_yet_is_zero() -> None:
    assert Process().scrape(0.0).sum(GATE) == 0.0


@pytest.mark.parametrize("text", ["<!doctype html><p>hi {there", "ndml_queue_depth{queue=} x", "ndml_queue_depth ten"])
def test_what_is_not_prometheus_text_says_so(text: str) -> None:
    with pytest.raises(Unreadable, match="metrics port"):
        parse(text, 0.0)


_ALPHABET = st.sampled_from('ndml_queue_depth{}="\\, \n#TYPEHLgauge019.eE+-NaIf\x00é')


@given(st.text(_ALPHABET, max_size=200) | st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse("ndml_queue_depth" + text, 0.0)
    except Unreadable:
        return
    assert all(math.isfinite(value) for value in found.values.values())


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), st.floats(allow_nan=False, allow_infinity=False)))
def test_labels_come_back_as_they_were(depths: dict[str, float]) -> None:
    process = Process()
    for queue, depth in depths.items():
        process.depth.labels(queue).set(depth)
    assert {labels["queue"]: value for labels, value in process.scrape(0.0).each(semconv.METRIC_QUEUE_DEPTH)} == depths


def test_a_counter_that_fell_began_anew() -> None:
    grown = growth([scrape(0.0, novel=100.0, related=5.0), scrape(2.0, novel=110.0, related=5.0), scrape(4.0, novel=3.0, related=6.0)])
    assert grown.seconds == 4.0
    # related did not fall, and yet is of the new process: six since it began, not one.
    assert grown.rate(GATE, kind="novel") == 13 / 4 and grown.rate(GATE, kind="related") == 6 / 4
    assert grown.rate(GATE) == 19 / 4 and grown.rate(ERRORS) is None


def test_a_label_that_appears_has_grown_from_zero() -> None:
    assert growth([scrape(0.0, novel=1.0), scrape(1.0, novel=1.0, update=4.0)]).rate(GATE, kind="update") == 4.0


def test_an_address_that_stands_for_several_processes_makes_up_no_calls() -> None:
    one, other = {"started": 10.0}, {"started": 20.0}
    taken = [
        scrape(0.0, novel=1000.0, **one),
        scrape(2.0, novel=7.0, **other),
        scrape(4.0, novel=1002.0, **one),
        scrape(6.0, novel=1006.0, **one),
    ]
    grown = growth(taken)
    assert grown.seconds == 2.0 and grown.rate(GATE) == 2.0
    assert growth(taken[:3]) == Growth()


def test_nothing_is_said_of_one_scrape_or_of_a_clock_that_stood_still() -> None:
    assert growth([scrape(1.0, novel=1.0)]).rate(GATE) is None
    assert growth([scrape(1.0, novel=1.0), scrape(1.0, novel=2.0)]).rate(GATE) is None


def test_a_history_keeps_its_window_and_what_bounds_it() -> None:
    history = History(10.0)
    for second in range(0, 40, 2):
        history.add(scrape(float(second), novel=float(second**2)))
    assert history.growth().seconds == 10.0 and history.growth().rate(GATE) == (38**2 - 28**2) / 10
    # After a pause there are still two.
    history.add(scrape(1000.0, novel=38.0**2 + 962))
    assert history.growth().rate(GATE) == 1.0
    for step in range(10 * MOST_SCRAPES):
        history.add(scrape(1001.0 + step / 1e6, novel=0.0))
    assert len(history._scrapes) == MOST_SCRAPES


@given(
    st.lists(st.integers(0, 50), min_size=2, max_size=10).filter(lambda counts: sum(counts[:-1]) > 0 and counts[-1] == 0),
    st.floats(0.01, 1.0),
)
def test_a_quantile_is_where_straight_lines_between_buckets_cross_its_rank(counts: list[int], share: float) -> None:
    bounds = [0.001 * 2**number for number in range(len(counts) - 1)]
    cumulative = list(accumulate(counts))
    buckets = dict(zip([*bounds, math.inf], map(float, cumulative), strict=True))
    rank = share * cumulative[-1]
    # The piecewise linear distribution, turned round by numpy; where it is flat, the next step that rises.
    steps = [(0.0, 0.0)] + [(bound, float(count)) for bound, count in zip(bounds, cumulative[:-1], strict=True)]
    upper = next(number for number, step in enumerate(steps) if step[1] >= rank and number)
    while steps[upper][1] == steps[upper - 1][1]:
        upper += 1
    low, high = steps[upper - 1], steps[upper]
    expected = float(np.interp(rank, [low[1], high[1]], [low[0], high[0]]))
    assert quantile(share, buckets) == pytest.approx(expected)


def test_quantiles_that_cannot_be_told() -> None:
    assert quantile(0.99, {}) is None and quantile(0.99, {0.1: 0.0, math.inf: 0.0}) is None
    assert quantile(0.5, {0.1: 5.0}) is None, "without +Inf it is no histogram"
    # Nine of ten lie beyond the last bound: it is what can be said.
    assert quantile(0.99, {0.1: 1.0, 1.0: 1.0, math.inf: 10.0}) == 1.0
    assert quantile(0.05, {0.1: 1.0, 1.0: 1.0, math.inf: 10.0}) == pytest.approx(0.05)


def test_histograms_of_two_processes_are_one() -> None:
    both, shots = [], [(0.005, 0.05), (0.5, 5.0)]
    for times in shots:
        process = Process()
        process.calls.labels(SEARCH).observe(99.0)
        before = process.scrape(0.0)
        for seconds in times:
            process.calls.labels(SEARCH).observe(seconds)
        process.calls.labels("/other").observe(1.0)
        both.append(growth([before, process.scrape(2.0)]))
    found = spread(both, semconv.METRIC_RPC_DURATION, method=SEARCH)
    assert found.count == 4 and found.mean == pytest.approx(5.555 / 4) and found.top == 1.0
    assert found.buckets == {0.01: 1.0, 0.1: 2.0, 1.0: 3.0, math.inf: 4.0}
    assert both[0].rate(count_of(semconv.METRIC_RPC_DURATION), method=SEARCH) == 1.0


NODE, GATEWAY = Target("memory-node-1", "10.0.0.2", 8710), Target("gateway-1", "10.0.0.1", 8700)


def row(service: str, instance: str, address: str, *, reachable: bool = True, error: str = "", **details: str) -> ServiceStatus:
    return ServiceStatus(service, instance, address, reachable, error, "1", timedelta(seconds=90), details)


def reading(answers: Mapping[Target, Scrape | str], rows: Sequence[ServiceStatus] = (), *, away: bool = False) -> Reading:
    services = tuple(rows) or (
        row("ndml-gateway", "gateway-1", "10.0.0.1:7700"),
        row("ndml-memory-node", "memory-node-1", "10.0.0.2:7710", owners="2", traces="9", epoch="3", owners_behind="1"),
        row("ndml-consensus", "consensus-1", "10.0.0.3:7720", epoch="3", lag="memory-node-1=4, memory-node-2=7"),
        row("ndml-consensus", "consensus-2", "10.0.0.4:7720", epoch="3", lag="memory-node-1=2"),
    )
    members = tuple(PlacementMember(f"memory-node-{n}", f"10.0.0.{n + 1}:7710", "a", "alive") for n in (1, 2))
    if away:
        return Reading(0.0, None, None, services, members, OwnerUnavailable("nobody"), answers)
    cluster = ClusterStatus(services, 3, True)
    return Reading(0.0, cluster, Placement(3, members, 2, ()), services, members, None, answers)


def of(found: Reading, grown: Mapping[Target, Growth] | None = None) -> Frame:
    return frame(found, grown or {}, datetime(2026, 5, 1, tzinfo=UTC))


def test_calls_by_rate_the_monitors_own_left_out() -> None:
    process = Process()
    for name in ("MemoryService/SearchMemories", "MemoryService/GetMemory", "AdminService/GetPlacement", "ModelService/ListModels"):
        process.calls.labels(f"/ndml.v1.{name}")
    process.calls.labels("/ndml.internal.v1.MemoryNodeService/Execute").observe(0.5)
    before = process.scrape(0.0)
    for seconds in (0.005, 0.005, 50.0):
        process.calls.labels(SEARCH).observe(seconds)
    process.calls.labels("/ndml.v1.MemoryService/GetMemory").observe(0.005)
    process.calls.labels("/ndml.v1.AdminService/GetPlacement").observe(0.005)
    process.errors.labels(SEARCH, "UNAVAILABLE", "OWNER_UNAVAILABLE").inc()
    after = process.scrape(2.0)
    found = of(reading({GATEWAY: after}), {GATEWAY: growth([before, after])})
    calls = {each.name: each for each in found.calls}
    assert list(calls) == ["SearchMemories", "AddMemory", "Chat", "GetMemory", "all", "node: search", "node: commit"]
    search = calls["SearchMemories"]
    assert (search.rate, search.errors, search.p99_s, search.beyond) == (1.5, 0.5, 1.0, True)
    assert search.p50_s == pytest.approx(0.0075) and calls["AddMemory"].rate is None
    assert (calls["GetMemory"].beyond, calls["GetMemory"].errors) == (False, 0.0)
    assert (calls["all"].rate, calls["all"].errors) == (2.0, 0.5) and found.window_s == 2.0


def test_a_process_without_metrics_says_so_in_its_row_and_the_rest_goes_on() -> None:
    process = Process()
    process.gate.labels("novel").inc(3)
    process.depth.labels("commit").set(5)
    found = of(reading({NODE: process.scrape(0.0), GATEWAY: "nobody listens"}))
    rows = {each.instance: each for each in found.processes}
    assert rows["gateway-1"].trouble == "nobody listens" and rows["gateway-1"].state == "up" and rows["gateway-1"].resident_bytes is None
    assert rows["consensus-1"].trouble.startswith("metrics address not known") and rows["memory-node-1"].trouble == ""
    assert found.troubles == ("gateway-1: no metrics at 10.0.0.1:8700, nobody listens",)
    assert [(each.name, each.total, each.rate) for each in found.gate][:2] == [("novel", 3.0, None), ("duplicate", None, None)]
    assert [(each.process, each.queue, each.waiting, each.batch) for each in found.queues] == [("memory-node-1", "commit", 5, None)]
    assert [each.total for each in found.replication if each.name == "conflicts"] == [None]
    assert (rows["gateway-1"].epoch, rows["memory-node-1"].epoch, rows["memory-node-1"].zone) == (3, 3, "a")


def test_nodes_with_what_the_consensus_nodes_know_of_them() -> None:
    one, two = of(reading({})).nodes
    assert (one.owners, one.traces, one.to_take, one.conflicts, one.behind) == (2, 9, 4, 0, 1)
    assert (two.owners, two.traces, two.to_take) == (None, None, 7)


def test_a_node_that_was_drained_has_left_and_is_no_trouble() -> None:
    rows = [row("ndml-gateway", "gateway-1", "10.0.0.1:7700"), row("ndml-memory-node", "memory-node-2", "", reachable=False)]
    found = reading({}, rows)
    gone = replace(found, members=tuple(replace(each, phase="left") for each in found.members))
    assert [each.state for each in of(found).processes] == ["up", "no answer"] and of(found).troubles
    assert [each.state for each in of(gone).processes] == ["up", "left"] and not of(gone).troubles


def test_without_the_gateway_what_was_last_known_stays_and_metrics_go_on() -> None:
    silent = [
        row("ndml-gateway", "gateway-1", "10.0.0.1:7700", reachable=False),
        row("ndml-memory-node", "memory-node-1", "", reachable=False),
    ]
    answered = of(reading({NODE: Process().scrape(0.0), GATEWAY: "nobody listens"}, silent, away=True))
    assert [(each.instance, each.state) for each in answered.processes] == [("gateway-1", "no answer"), ("memory-node-1", "up")]
    assert answered.healthy is None and "NO STATUS" in answered.verdict and {each.state for each in answered.nodes} == {"unknown"}
    assert [each.state for each in of(reading({NODE: "nobody listens"}, silent, away=True)).processes] == ["no answer", "unknown"]
    assert reading({NODE: "nobody listens"}, silent, away=True).silent and not reading({NODE: Process().scrape(0.0)}, away=True).silent


def test_a_process_named_by_hand_is_known_by_instance_address_or_its_service() -> None:
    rows = [row("ndml-llm", "10.0.0.5:7730", "10.0.0.5:7730"), row("ndml-gateway", "gateway-1", "10.0.0.1:7700")]
    answers = {Target("llm", "h", 1): "x", Target("10.0.0.1:7700", "h", 2): "y", Target("elsewhere", "h", 3): Process().scrape(0.0)}
    found = of(reading(answers, rows))
    assert [(each.instance, each.state, each.trouble) for each in found.processes] == [
        ("10.0.0.5:7730", "up", "x"),
        ("gateway-1", "up", "y"),
        ("elsewhere", "up", ""),
    ]


@given(st.lists(st.floats(0.0, 1.0)))
def test_bars_count_every_strength_once(values: list[float]) -> None:
    found = bars(Strengths("ann", tuple(values), len(values) + 5))
    assert sum(found.counts) == found.read == len(values) and len(found.counts) == 10


def test_bars_by_tenths() -> None:
    assert bars(Strengths("ann", (0.0, 0.05, 0.5, 0.99, 1.0), 5)).counts == (2, 0, 0, 0, 0, 1, 0, 0, 0, 2)


def test_metrics_are_a_thousand_ports_above_and_each_once() -> None:
    rows = [
        row("ndml-gateway", "g", "0.0.0.0:7700"),
        row("ndml-memory-node", "m", "[::1]:7710"),
        row("ndml-llm", "", "dns:///llm.ndml.svc:7730"),
        row("ndml-llm", "again", "llm.ndml.svc:7730"),
        row("ndml-memory-node", "unregistered", ""),
        row("ndml-memory-node", "too high", "h:65000"),
    ]
    assert derived(rows, "gateway.example:443") == (
        Target("g", "gateway.example", 8700),
        Target("m", "::1", 8710),
        Target("dns:///llm.ndml.svc:7730", "llm.ndml.svc", 8730),
    )


@given(st.text(max_size=40))
def test_any_address_is_split_or_none(text: str) -> None:
    found = split(text)
    assert found is None or (found[0] and 0 < found[1] < 65_536)


@pytest.mark.parametrize("text", ["", "8710", "a:", "a:port", "=a:1", "a:70000", "http://a:1", "a:1/metrics", "a:0"])
def test_an_address_that_is_none_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(FieldInvalid, match=r"\[instance=\]host:port"):
        named([text])


def test_addresses_named_by_hand() -> None:
    assert named(["a:1", "n1=b:2", "[::1]:3"]) == (Target("a:1", "a", 1), Target("n1", "b", 2), Target("[::1]:3", "::1", 3))
    with pytest.raises(FieldInvalid, match="twice"):
        named(["n=a:1", "n=b:2"])
