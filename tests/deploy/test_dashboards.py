"""Dashboards come from code, ask only for what processes export, and tell who reads them what to do."""

from __future__ import annotations

import json
import re
import urllib.request
from typing import Any, get_args

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ndml.client import NdmlClient
from ndml.testing import Suite
from scripts.observability.__main__ import DASHBOARDS, rendered
from scripts.observability.panels import Unit, to_grafana
from tests.deploy.observed import FILES, TARGET_LABELS, documented, groupings, metrics_in, problems, rules

LOADED = {board.uid: to_grafana(board, ()) for board in DASHBOARDS}
RECORDED = {rule["record"] for rule in rules(yaml.safe_load((FILES / "alerts.yaml").read_text())) if "record" in rule}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


EVERY = [(uid, panel) for uid, dashboard in LOADED.items() for panel in panels(dashboard)]
QUERIES = [(f"{uid}: {panel['title']}", target) for uid, panel in EVERY for target in panel["targets"]]


def test_the_files_are_what_the_code_makes() -> None:
    made = rendered()
    assert {str(path.relative_to(FILES)) for path in FILES.rglob("*") if path.is_file() and path.parent.name == "dashboards"} <= set(made)
    stale = [name for name, text in made.items() if not (FILES / name).is_file() or (FILES / name).read_text() != text]
    assert stale == [], "run make dashboards"


def test_an_edited_dashboard_would_be_seen() -> None:
    name, text = next(iter(rendered().items()))
    assert json.loads(text)["uid"] in name and text != text.replace("NDML", "ndml")


def test_addresses_and_titles_are_one_each() -> None:
    assert len({board.uid for board in DASHBOARDS}) == len({board.title for board in DASHBOARDS}) == len(DASHBOARDS) == 4
    for uid, dashboard in LOADED.items():
        titles = [panel["title"] for panel in panels(dashboard)]
        assert len(set(titles)) == len(titles), uid
        assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
        assert all(len(uid) <= 40 and re.fullmatch(r"[a-z-]+", uid) for uid in LOADED)


@pytest.mark.parametrize(("uid", "panel"), EVERY, ids=[f"{uid}-{panel['title']}" for uid, panel in EVERY])
def test_a_panel_has_unit_description_and_queries(uid: str, panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"] in get_args(Unit)
    assert len(panel["description"]) >= 30 and panel["description"].endswith((".", "?")), "say what to do"
    assert panel["targets"] and all(target["expr"] and target["legendFormat"] for target in panel["targets"])
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize("uid", LOADED)
def test_panels_lie_beside_each_other(uid: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in LOADED[uid]["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


@pytest.mark.parametrize(("where", "target"), QUERIES, ids=[where for where, _ in QUERIES])
def test_a_query_asks_for_documented_metrics_and_labels(where: str, target: dict[str, Any]) -> None:
    assert problems(target["expr"], RECORDED) == []
    shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    plain = "by (" not in target["expr"] and not any(name.startswith("ndml:") for name, _ in metrics_in(target["expr"]))
    of_metric = {label for name, _ in metrics_in(target["expr"]) if name in documented() for label in documented()[name].labels}
    assert shown <= groupings(target["expr"]) | (of_metric | TARGET_LABELS if plain else {"namespace"} if RECORDED else set())


def test_what_an_alert_tells_of_can_be_looked_at() -> None:
    """Some panel shows what it asks for; a recorded rule counts by its first two words, as 1 h and 6 h of one thing are one thing."""

    def thing(name: str) -> str:
        return name.rpartition(":")[0] or name

    shown = {thing(name) for _, target in QUERIES for name, _ in metrics_in(target["expr"])}
    alerts = [rule for rule in rules(yaml.safe_load((FILES / "alerts.yaml").read_text())) if "alert" in rule]
    unseen = {rule["alert"] for rule in alerts if not {thing(name) for name, _ in metrics_in(rule["expr"])} & shown}
    # Whom Prometheus does not reach sends nothing to show: its own pages on targets have him.
    assert unseen == {"NdmlServiceGone", "NdmlTargetDown"}


def test_a_wrong_query_would_be_found() -> None:
    assert problems('sum(rate(ndml_rpc_errors_total{job="x",reason="y"}[5m]))', set()) == []
    assert problems("ndml_made_up", set()) == ["ndml_made_up is not in metrics.md"]
    assert problems('ndml_ready{method="x"}', set()) == ["ndml_ready has no label method"]
    assert problems("sum by (method) (ndml_ready)", set()) == ["grouped by method, which nothing in it has"]
    assert problems("rate(ndml_rpc_errors[5m])", set()) == ["ndml_rpc_errors is not in metrics.md"], "a counter ends in _total"


def scrape(suite: Suite, process: str) -> dict[str, tuple[str, set[str]]]:
    """Of the process: series' name -> type and labels; of a family without samples, the names that it will have."""
    port = suite.layout.by_name(process).metrics_port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    found = {}
    for family in families:
        labels = {label for sample in family.samples for label in sample.labels}
        found |= {family.name + suffix: (family.type, labels) for suffix in suffixes.get(family.type, [""])}
    return found


@pytest.fixture(scope="module")
def exported(suite: Suite) -> dict[str, dict[str, tuple[str, set[str]]]]:
    """Role -> what a process of it exports, after some work."""
    with NdmlClient(suite.grpc_address, user="dashboards", timeout_s=30.0) as client:
        client.add("The observatory on the hill opens on Fridays.")
        client.search("When does the observatory open?")
    names = {spec.role: spec.name for spec in suite.layout.processes}
    return {role: scrape(suite, name) for role, name in names.items()}


def test_the_running_suite_exports_what_is_asked_for(exported: dict[str, dict[str, tuple[str, set[str]]]]) -> None:
    asked = {name for _, target in QUERIES for name, _ in metrics_in(target["expr"])} - RECORDED
    asked |= {
        name for rule in rules(yaml.safe_load((FILES / "alerts.yaml").read_text())) for name, _ in metrics_in(rule["expr"])
    } - RECORDED
    known = documented()
    for name in sorted(asked - {"up", "ALERTS"}):
        row = known[name]
        roles = exported if row.services == "all" else [role.strip() for role in row.services.split(",")]
        for role in roles:
            kind, labels = exported[role].get(name, ("nothing", set()))
            assert kind == row.kind, f"{role} exports {name} as {kind}"
            assert labels in (set(), row.labels) or labels == row.labels - {"le"}, f"{role}: {name} has labels {labels}"


def test_every_documented_metric_is_exported_where_the_page_says(exported: dict[str, dict[str, tuple[str, set[str]]]]) -> None:
    for name, row in documented().items():
        for role in exported if row.services == "all" else [role.strip() for role in row.services.split(",")]:
            assert name in exported[role], f"{role} lacks {name}"


def test_what_was_done_is_counted_where_it_was_done(suite: Suite, exported: dict[str, dict[str, tuple[str, set[str]]]]) -> None:
    assert exported["memory-node"]["ndml_search_stage_seconds_bucket"][1] == {"stage", "le"}
    assert exported["gateway"]["ndml_search_stage_seconds_bucket"][1] == {"stage", "le"}
    assert exported["memory-node"]["ndml_queue_limit"][1] == {"queue"}
    assert {role for role in exported if exported[role]["ndml_build_info"][1] == {"service", "version"}} == set(exported)
