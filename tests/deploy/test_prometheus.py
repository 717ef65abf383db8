"""A real Prometheus scrapes a real suite with our rules loaded: exemplars come through, every query runs, and a killed node is an alert."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ndml.client import NdmlClient
from ndml.testing import Suite, free_ports
from scripts.observability.__main__ import DASHBOARDS
from scripts.observability.rules import groups

BOUND_S = 90.0  # of every wait; on a quiet machine none needs a third of it
VECTOR = [1.0] + [0.0] * 383


@dataclass
class Prometheus:
    url: str
    process: subprocess.Popen[bytes]

    def get(self, path: str, **query: str) -> Any:
        """`data` of an answer of the HTTP API."""
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            body = json.load(answer)
        assert body["status"] == "success", body
        return body["data"]

    def value(self, expr: str) -> list[Any]:
        return list(self.get("query", query=expr)["result"])

    def states(self, alert: str) -> set[str]:
        """Of the alerts of this name that are there now: pending, firing."""
        return {row["state"] for row in self.get("alerts")["alerts"] if row["labels"]["alertname"] == alert}


def eventually(reached: Callable[[], Any], what: str) -> Any:
    until = time.monotonic() + BOUND_S
    while not (found := reached()):
        assert time.monotonic() < until, f"never happened: {what}"
        time.sleep(0.2)
    return found


def hurried() -> dict[str, Any]:
    """The rules as they ship, but evaluated each second, and with a second for what must have been so for minutes."""
    made = groups()
    for group in made["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            if "alert" in rule:
                rule["for"] = "1s"
    return made


def targets(suite: Suite) -> list[dict[str, Any]]:
    roles = sorted({spec.role for spec in suite.layout.processes})
    return [
        {
            "job_name": f"ndml-{role}",
            "static_configs": [{"targets": [f"127.0.0.1:{spec.metrics_port}" for spec in suite.layout.of_role(role)]}],
        }
        for role in roles
    ]


@pytest.fixture
def prometheus(spare_suite: Suite, tmp_path: Path) -> Iterator[Prometheus]:
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("needs prometheus: apt-get install prometheus, or take it from Prometheus' releases")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(hurried()))
    config = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": ["rules.yaml"]}
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config | {"scrape_configs": targets(spare_suite)}))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    command = [
        binary,
        f"--config.file={tmp_path}/prometheus.yaml",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address={address}",
    ]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--enable-feature=exemplar-storage"], stdout=log, stderr=subprocess.STDOUT)
    try:
        eventually(lambda: _ready(address) or process.poll() is not None, "prometheus is ready")
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield Prometheus(f"http://{address}", process)
    finally:
        process.terminate()
        process.wait(30)


def _ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.timeout(400)
def test_a_suite_is_watched(spare_suite: Suite, prometheus: Prometheus) -> None:
    everybody = len(spare_suite.layout.processes)
    eventually(lambda: len(prometheus.value("up == 1")) == everybody, "every process is scraped")
    _rules_are_well(prometheus)
    _exemplars_name_a_trace(spare_suite, prometheus)
    _dashboards_have_data(prometheus)
    victim = spare_suite.layout.of_role("memory-node")[0]
    spare_suite.kill(victim.name)
    try:
        eventually(lambda: "firing" in prometheus.states("NdmlTargetDown"), "the killed node is an alert")
        eventually(lambda: "firing" in prometheus.states("NdmlMemoryNodeDown"), "consensus says so too")
        down = [row["labels"]["instance"] for row in prometheus.get("alerts")["alerts"] if row["labels"]["alertname"] == "NdmlTargetDown"]
        assert down == [f"127.0.0.1:{victim.metrics_port}"]
    finally:
        spare_suite.start()
    eventually(lambda: not prometheus.states("NdmlTargetDown") | prometheus.states("NdmlMemoryNodeDown"), "it is back, and quiet")


def _rules_are_well(prometheus: Prometheus) -> None:
    def unwell() -> list[str] | None:
        found = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        return None if any(rule["health"] == "unknown" for rule in found) else [rule for rule in found if rule["health"] != "ok"]

    assert eventually(lambda: unwell() is not None, "every rule was evaluated") and unwell() == []


def _exemplars_name_a_trace(suite: Suite, prometheus: Prometheus) -> None:
    """A sampled request stands beside its latency, at the gateway and at the node, under the trace id that its caller chose."""
    trace_id = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}

    def seen(histogram: str) -> bool:
        now = time.time()
        found = prometheus.get("query_exemplars", query=histogram, start=f"{now - 300}", end=f"{now + 1}")
        return any(each["labels"]["trace_id"] == trace_id for series in found for each in series["exemplars"])

    with NdmlClient(suite.grpc_address, user="watched", timeout_s=30.0) as client:
        client.add("The comet comes back in seventy-six years.", embedding=VECTOR)
        client.search(embedding=VECTOR, headers=headers)
    eventually(lambda: seen("ndml_rpc_duration_seconds_bucket"), "an exemplar of the gateway")
    eventually(lambda: seen("ndml_memory_query_latency_bucket"), "an exemplar of the node")


def _dashboards_have_data(prometheus: Prometheus) -> None:
    """Every query of every panel runs; of those about what has happened here most have something to show."""
    queries = [query.expr for board in DASHBOARDS for row in board.rows for panel in row.panels for query in panel.queries]
    shown = {}
    for expr in queries:
        plain = re.sub(r"\$(namespace|job|instance)", ".*", expr.replace("$__rate_interval", "1m"))
        shown[expr] = bool(prometheus.value(plain))
    assert sum(shown.values()) > len(queries) / 2, [expr for expr, found in shown.items() if not found]
    for part in ("ndml_ready", "ndml_memory_total_traces", "ndml_search_stage_seconds", "ndml_delta_log_limit", "ndml_queue_limit"):
        assert any(found for expr, found in shown.items() if part in expr), part
