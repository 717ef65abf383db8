"""Every alert asks for what is exported, has a runbook whose commands exist, and is tested where it must fire and where it must not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from ndml.cli.app import app
from ndml.testing import Suite
from scripts.observability.promql import OUR_FAULT
from scripts.observability.rules import AVAILABILITY, FAST_S
from tests.deploy.observed import FILES, ROOT, problems, rules

RULES = rules(yaml.safe_load((FILES / "alerts.yaml").read_text()))
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
UNIT_TESTS = Path(__file__).parent / "alerts_test.yaml"
RUNBOOKS = ROOT / "docs/operations/runbooks"
HEADINGS = ["What it means", "How to confirm", "What to do", "How it was tested"]
NO_PROMTOOL = "needs promtool: apt-get install prometheus, or take it from Prometheus' release"


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip(NO_PROMTOOL)
    return found


def run(*command: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)


@pytest.mark.parametrize("rule", RULES, ids=[rule.get("alert") or rule["record"] for rule in RULES])
def test_an_expression_asks_for_documented_metrics_and_labels(rule: dict[str, Any]) -> None:
    assert problems(rule["expr"], RECORDED) == []


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_who_is_called_and_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert re.fullmatch(r"Ndml[A-Za-z]+", name) and alert["labels"]["severity"] in ("critical", "warning", "info")
    assert re.fullmatch(r"\d+[mh]", alert["for"])
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/operations/runbooks/{name}.md"


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_runbook(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n") and re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    assert f"**{ALERTS[name]['labels']['severity']}**, after {ALERTS[name]['for']}." in text
    confirm, do = (text.split(f"## {heading}")[1].split("\n## ")[0] for heading in HEADINGS[1:3])
    assert "```bash" in confirm and re.search(r"^1\. ", do, re.MULTILINE)


def test_no_runbook_is_left_over() -> None:
    assert {path.stem for path in RUNBOOKS.glob("Ndml*.md")} == set(ALERTS)


def test_commands_in_runbooks_exist() -> None:
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in RUNBOOKS.glob("*.md"):
        text = path.read_text()
        said = re.findall(r"(?:^|`)ndml ([a-z]+)", text, re.MULTILINE)
        assert set(said) <= commands, f"{path.name}: {set(said) - commands}"
        assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets, path.name
        assert all((ROOT / named).exists() for named in re.findall(r"`(tests/[\w/.]+)`", text)), path.name


def test_settings_and_metrics_in_runbooks_exist() -> None:
    known = set(re.findall(r"^\| `([a-z_.]+)` \|", (ROOT / "docs/reference/configuration.md").read_text(), re.MULTILINE))
    sections = {name.partition(".")[0] for name in known}
    chart = yaml.safe_load((ROOT / "deploy/helm/ndml/values.yaml").read_text())
    known |= {f"{part}.{name}" for part, values in chart.items() if isinstance(values, dict) for name in values}
    exported = set(re.findall(r"^\| `((?:ndml|process)_[a-z_]+)`", (ROOT / "docs/reference/metrics.md").read_text(), re.MULTILINE))
    for path in RUNBOOKS.glob("*.md"):
        text = path.read_text()
        named = {name for name in re.findall(r"\b([a-z]+\.[a-z_]+(?:\.[a-z_]+)*)\b", text) if name.partition(".")[0] in sections}
        assert {name for name in named if name not in known and not name.endswith((".md", ".py", ".db"))} == set(), path.name
        metrics = set(re.findall(r"\b(ndml_[a-z_]+)", text))
        assert {name.removesuffix("_total") for name in metrics} <= exported, path.name


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_test_in_which_it_fires_and_one_in_which_not(name: str) -> None:
    cases = [
        case for test in yaml.safe_load(UNIT_TESTS.read_text())["tests"] for case in test["alert_rule_test"] if case["alertname"] == name
    ]
    assert any(case["exp_alerts"] for case in cases) and any(not case["exp_alerts"] for case in cases)


def test_the_promise_is_about_failures_that_the_error_page_knows() -> None:
    reasons = re.search(r'"(.*)"', OUR_FAULT)
    page = set(re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs/reference/errors.md").read_text(), re.MULTILINE))
    assert reasons is not None and set(reasons[1].split("|")) <= page
    assert AVAILABILITY == 0.999 and float(FAST_S) == 0.25


def test_promtool_takes_the_rules(promtool: str) -> None:
    done = run(promtool, "check", "rules", str(FILES / "alerts.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout + done.stderr


GROUPS = {group["name"]: group for group in yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"]}
RECORDING = ("ndml-slo", "ndml-slo-month")


@pytest.mark.parametrize("name", [name for name in GROUPS if name not in RECORDING])
def test_promtool_fires_each_alert_and_leaves_it_quiet(promtool: str, tmp_path: Path, name: str) -> None:
    """A group at a time, with the rules that it stands on: all rules at each step of each test would take four times as long."""
    needed = [GROUPS["ndml-slo"]] if name.startswith("ndml-slo") else []
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [*needed, GROUPS[name]]}))
    mine = {rule["alert"] for rule in GROUPS[name]["rules"]}
    whole = yaml.safe_load(UNIT_TESTS.read_text())
    tests = [test for test in whole["tests"] if test["alert_rule_test"][0]["alertname"] in mine]
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(whole | {"rule_files": ["rules.yaml"], "tests": tests}))
    done = run(promtool, "test", "rules", str(tmp_path / "tests.yaml"))
    assert tests and done.returncode == 0, done.stdout + done.stderr


def test_half_of_the_allowed_failures_leave_half_of_the_budget(promtool: str, tmp_path: Path) -> None:
    """Five calls of ten thousand fail by our fault, one in two hundred is slow. A tenth fails by callers' mistakes: that is not counted."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [GROUPS[name] for name in RECORDING]}))
    labels = 'namespace="ndml",method="/ndml.v1.MemoryService/GetMemory"'
    series = {
        f"ndml_rpc_duration_seconds_count{{{labels}}}": "0+600x180",
        f'ndml_rpc_duration_seconds_bucket{{{labels},le="0.25"}}': "0+597x180",
        f'ndml_rpc_errors_total{{{labels},reason="DRAINING"}}': "0+0.3x180",
        f'ndml_rpc_errors_total{{{labels},reason="TRACE_NOT_FOUND"}}': "0+60x180",
    }
    left = {
        f"round({name}, 0.001)": [{"labels": '{namespace="ndml"}', "value": 0.5}]
        for name in ("ndml:availability_budget:left30d", "ndml:latency_budget:left30d")
    }
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": expr, "eval_time": "3h", "exp_samples": samples} for expr, samples in left.items()],
    }
    whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(whole))
    done = run(promtool, "test", "rules", str(tmp_path / "tests.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("process", ["gateway-1", "memory-node-1", "consensus-1", "llm-1"])
def test_promtool_takes_the_metrics_of_every_service(promtool: str, suite: Suite, process: str) -> None:
    names = [name for name in suite.names if name.startswith(process.rpartition("-")[0])]
    port = suite.layout.by_name(process if process in names else names[0]).metrics_port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    done = run(promtool, "check", "metrics", stdin=text)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("ndml") and not _seeds(line)]
    assert ours == [] and done.returncode in (0, 3), done.stdout + done.stderr


def _seeds(line: str) -> bool:
    """Lint over a name that the seed gave: `ndml_memory_total_traces` and the like stay as they are."""
    return line.split(" ")[0].removesuffix("_total") in {"ndml_memory_total_traces", "ndml_memory_utilization", "ndml_memory_query_latency"}


def test_make_dashboards_runs_what_the_files_come_from() -> None:
    assert "$(BIN)/python -m scripts.observability" in (ROOT / "Makefile").read_text()
    done = run(sys.executable, "-c", "import scripts.observability.__main__ as made; print(len(made.rendered()))")
    assert done.stdout.strip() == "5", done.stderr
