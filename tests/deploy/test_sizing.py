"""docs/operations/sizing.md says what the chart says, and its arithmetic holds for every profile."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from helm_python.chart import Chart

from scripts.generate_config_docs import settings_class
from tests.deploy import manifests
from tests.deploy.manifests import CHART, PROFILES, profile
from tests.deploy.test_policies import amount

PAGE = (manifests.ROOT / "docs/operations/sizing.md").read_text()
SETTINGS: Any = {name: settings_class(name)() for name in ("gateway", "memory_node", "consensus", "llm")}


def figure(row: str, column: int) -> float:
    """A number of the page, by the beginning of its row."""
    found = re.search(rf"^\| {re.escape(row)}[^|]*((?:\|[^|\n]*)+)\|$", PAGE, re.MULTILINE)
    assert found, row
    return float(re.sub(r"[^0-9.]", "", re.split(r"[A-Za-z]", found[1].split("|")[column].strip(), maxsplit=1)[0]))


def values_of(case: str) -> dict[str, Any]:
    with Chart.load(CHART) as chart:
        return chart.merge_values(profile(case))


def test_the_table_is_the_charts() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    for component in ("gateway", "memoryNode", "consensus", "llm"):
        own = defaults[component]["resources"]
        row = (
            f"| {component} | {own['requests']['cpu']} | {own['limits']['cpu']} | {own['requests']['memory']} | {own['limits']['memory']} |"
        )
        assert row in PAGE


@pytest.mark.parametrize(
    ("row", "file", "words"),
    [
        ("texts embedded a second on two cores", "benchmarks.md", "bare model {}/s"),
        ("durable adds a second of one node", "benchmarks.md", "{:,.0f}/s | store alone"),
        ("searches a second, 10,000 in scope", "benchmarks.md", "{}/s, p99"),
        ("CPU of a chat in the llm service", "benchmarks-chat.md", "| {} |"),
        ("CPU of a chat in the gateway", "benchmarks-chat.md", "| {} |"),
        ("record on disk", "science/recall.md", "| store_bytes of the node's status | {:,.0f} |"),
        ("index in memory", "science/recall.md", "| index_bytes of the node's status | {:,.0f} |"),
    ],
)
def test_a_figure_stands_in_the_benchmark_it_names(row: str, file: str, words: str) -> None:
    value = figure(row, 1)
    shown = words.format(int(value) if value == int(value) else value)
    assert shown in (manifests.ROOT / "docs" / file).read_text(), f"{row}: {shown} is not in {file} any more: work it out anew"


@pytest.mark.parametrize("case", PROFILES)
def test_the_disk_holds_the_traces(case: str) -> None:
    values, store = values_of(case), SETTINGS["memory_node"].store
    node = values["memoryNode"]
    needed = node["maxTraces"] * figure("record on disk", 1) * (1 + store.snapshots_kept) + store.log_limit_bytes
    assert needed <= amount(node["persistence"]["size"])
    consensus = SETTINGS["consensus"].deltas
    assert 2 * consensus.max_bytes <= amount(values["consensus"]["persistence"]["size"])
    if values["backup"]["enabled"]:
        copies = values["replicationFactor"] or min(3, node["replicas"])
        traces = node["maxTraces"] * node["replicas"] / copies
        assert traces * figure("record on disk", 1) * (values["backup"]["keep"] + 1) <= amount(values["backup"]["size"])


@pytest.mark.parametrize("case", PROFILES)
def test_the_bounds_of_each_process_fit_its_memory(case: str) -> None:
    values = values_of(case)
    gateway, consensus, llm = SETTINGS["gateway"], SETTINGS["consensus"], SETTINGS["llm"]
    kept = {
        "gateway": [
            gateway.server.max_in_flight_bytes,
            gateway.rest.body_budget_bytes,
            gateway.quorum.merge_bytes,
            gateway.learning.max_bytes,
        ],
        "consensus": [200 * consensus.deltas.max_entries, consensus.deltas.recent_bytes, consensus.deltas.queue_bytes],
        "llm": [llm.chat.state_bytes, llm.chat.store_bytes, llm.chat.prefix_bytes],
    }
    for component, bounds in kept.items():
        needed = figure(component, 1) * (1 << 20) + sum(bounds)
        assert needed <= amount(values[component]["resources"]["limits"]["memory"]), component


@pytest.mark.parametrize("case", PROFILES)
def test_a_full_node_is_handed_over_in_time(case: str) -> None:
    node = values_of(case)["memoryNode"]
    seconds = node["maxTraces"] * figure("record on disk", 1) / SETTINGS["memory_node"].replication.sweep.bytes_per_s
    assert seconds <= node["handOver"]["timeoutSeconds"]


def test_the_gpu_profile_is_what_the_page_works_out() -> None:
    values, gib = values_of("gpu"), 1 << 30
    node, llm, chat = values["memoryNode"], values["llm"], SETTINGS["llm"].chat
    sizes = {
        (name, kind): amount(values[name]["resources"][kind]["memory"]) for name in ("memoryNode", "llm") for kind in ("requests", "limits")
    }
    index, given = node["maxTraces"] * figure("index in memory", 1), sizes["memoryNode", "limits"] / 2
    assert amount("24Gi") / 2 < index <= given, "every trace is in memory, and the next smaller machine would not do"
    engine, store = SETTINGS["memory_node"].engine, SETTINGS["memory_node"].store
    beside = figure("memory-node", 1) * (1 << 20) + 3 * (32 << 20) + engine.payload_cache_bytes + store.digest_cache_bytes
    asked = given + beside + given / 10 + 4 * gib
    weights, kept = 7e9 * 2, figure("llm", 1) * (1 << 20) + chat.state_bytes + chat.store_bytes + chat.prefix_bytes
    most = 2 * weights + kept + amount(llm["gpu"]["sharedMemory"])
    assert asked <= sizes["memoryNode", "requests"] and weights + kept <= sizes["llm", "requests"] and most <= sizes["llm", "limits"]
    on_device = node["maxTraces"] * values["embedding"]["dimension"] * 2
    for row, worked_out in (
        ("index of a full memory node", index),
        ("memory limit of a memory node", 2 * index),
        ("memory request of a memory node", asked),
        ("vectors on its GPU", on_device),
        ("memory request of an llm pod", weights + kept),
        ("memory limit of an llm pod", most),
    ):
        [line] = [line for line in PAGE.splitlines() if line.startswith(f"| {row} |")]
        assert f"{worked_out / gib:.1f} GiB" in line, f"{row}: {worked_out / gib:.1f} GiB"
    for (name, kind), row in zip(
        sizes, ("request of a memory node", "limit of a memory node", "request of an llm pod", "limit of an llm pod"), strict=True
    ):
        assert f"| memory {row} | {values[name]['resources'][kind]['memory']} |" in PAGE


def test_the_page_says_that_the_gpu_target_is_not_measured_while_it_is_the_cpus() -> None:
    waiting = [metric for metric in values_of("gpu")["llm"]["autoscaling"]["podMetrics"] if metric.get("matchLabels") == {"queue": "embed"}]
    assert [float(metric["averageValue"]) for metric in waiting] == [180.0]
    assert "180 texts waiting are a second of work of two CPU cores" in PAGE and "not measured on a GPU" in PAGE
