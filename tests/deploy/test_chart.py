"""The Helm chart: lints, renders, refuses what is wrong in words that help, and is what Kubernetes takes, from 1.29 to 1.37."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from helm_python.chart import Chart, lint, package
from helm_python.errors import HelmError

import ndml
from ndml.runtime.settings import load_settings
from services.llm.settings import LlmSettings
from tests.deploy import manifests
from tests.deploy.manifests import CHART, PROFILES, by_key, of_profile, profile, rendered

VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
# All that a value can switch on, beyond what a profile does.
EVERYTHING: dict[str, Any] = {
    "auth": {"tokens": [{"token": "0123456789abcdef", "name": "ops", "tenants": ["acme"], "operator": True}]},
    "tls": {"enabled": True, "certManager": {"enabled": True}},
    "discovery": {"enabled": True},
    "zones": {"fromNode": True},
    "signing": {"rosterConfigMap": "ndml-roster", "operator": "a" * 64},
    "collector": {"enabled": True},
    "jaeger": {"enabled": True},
    "gateway": {"keda": {"enabled": True, "prometheus": "http://prometheus:9090"}, "service": {"type": "LoadBalancer"}},
    "consensus": {"lease": {"enabled": True}},
    "llm": {
        "gpu": {"enabled": True},
        "autoscaling": {"enabled": True},
        "models": {"enabled": True, "download": True, "tokenSecret": {"name": "hub"}},
        "chat": {"upstreamUrl": "https://models.example.com/v1", "model": "big", "apiKeySecret": {"name": "upstream"}},
    },
    "metrics": {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}, "dashboards": {"enabled": True}},
    "ingress": {
        "className": "nginx",
        "grpc": {"enabled": True, "host": "a.example.com"},
        "rest": {"enabled": True, "host": "b.example.com"},
    },
    "gatewayApi": {"enabled": True, "parentRefs": [{"name": "public"}], "backendCaConfigMap": "ndml-ca"},
    "backup": {"enabled": True},
}
CASES = [*PROFILES, "everything"]


@functools.cache
def objects_of(case: str) -> tuple[dict[str, Any], ...]:
    return tuple(rendered(EVERYTHING)) if case == "everything" else of_profile(case)


@pytest.mark.parametrize("case", CASES)
def test_it_lints_strictly(case: str) -> None:
    values = EVERYTHING if case == "everything" else profile(case)
    report = lint(manifests.whole_chart(), values, strict=True, namespace="memory", kube_version="v1.30.0")
    assert (report["errors"], [each for each in report["messages"] if each["severity"] >= 2]) == ([], [])


@pytest.mark.parametrize("case", CASES)
def test_every_object_is_there_once_in_its_namespace_with_our_labels(case: str) -> None:
    for (kind, name), found in by_key(objects_of(case)).items():
        metadata = found["metadata"]
        assert metadata.get("namespace") == (None if kind.startswith("Cluster") else "memory"), name
        assert metadata["labels"]["app.kubernetes.io/instance"] == "ndml", name


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_object(version: str) -> None:
    # Every profile against the ends; between them what has all kinds in it: a version costs two seconds a case.
    cases = CASES if version in (VERSIONS[0], VERSIONS[-1]) else ["everything", "production"]
    checked: dict[str, set[str]] = {}
    for found in (each for case in cases for each in objects_of(case)):
        text = json.dumps(found, sort_keys=True)
        if (found["apiVersion"], found["kind"]) not in manifests.crd_schemas() and text not in checked.setdefault(found["kind"], set()):
            kubernetes_validate.validate(found, version, strict=True)
            checked[found["kind"]].add(text)
    assert {"Deployment", "StatefulSet", "CronJob", "HorizontalPodAutoscaler", "NetworkPolicy", "Ingress", "Role"} <= checked.keys()


def test_custom_resources_are_as_their_owners_define_them() -> None:
    seen = set()
    for case in CASES:
        for found in objects_of(case):
            schema = manifests.crd_schemas().get((found["apiVersion"], found["kind"]))
            if schema is not None:
                jsonschema.validate(found, schema)
                seen.add(found["kind"])
    assert seen == {kind for _, kind in manifests.crd_schemas()}, "a schema that nothing is checked by"


BAD = [
    ({"gatway": {"replicas": 2}}, "additional properties 'gatway' not allowed"),
    ({"gateway": {"replicas": "two"}}, "at '/gateway/replicas': got string, want integer"),
    (
        {"gateway": {"config": {"learning": {"enabeld": False}}}},
        "at '/gateway/config/learning': additional properties 'enabeld' not allowed",
    ),
    ({"llm": {"config": {"chat": {"memory_tokens": -1}}}}, "at '/llm/config/chat/memory_tokens': minimum: got -1, want 0"),
    ({"llm": {"config": {"chat": {"api_key": "secret"}}}}, "additional properties 'api_key' not allowed"),
    ({"gateway": {"config": {"server": {"port": 1}}}}, "additional properties 'port' not allowed"),
    ({"gateway": {"config": {"auth": {"tokens": []}}}}, "additional properties 'tokens' not allowed"),
    ({"memoryNode": {"resources": {"limits": {"memory": "4 GB"}}}}, "at '/memoryNode/resources/limits/memory'"),
    ({"telemetry": {"otlpEndpoint": "http://jaeger:4317"}}, "at '/telemetry/otlpEndpoint'"),
    ({"memoryNode": {"antiAffinity": "always"}}, "value must be one of 'soft', 'hard', 'off'"),
    ({"consensus": {"replicas": 0}}, "at '/consensus/replicas': minimum: got 0, want 1"),
    ({"image": {"tag": "latest"}}, "the tag of image ndml-"),
    (
        {"replicationFactor": 4},
        "replicationFactor is 4 and memoryNode.replicas is 3: an owner cannot have more copies than there are nodes",
    ),
    ({"writeCopies": 4}, "writeCopies is 4 and each owner has 3 copies"),
    ({"llm": {"autoscaling": {"enabled": True}, "keda": {"enabled": True}}}, "KEDA makes an autoscaler of its own, choose one"),
    ({"gateway": {"autoscaling": {"enabled": True, "minReplicas": 20}}}, "gateway.autoscaling.minReplicas is 20, above maxReplicas 10"),
    ({"llm": {"autoscaling": {"enabled": True, "cpuUtilization": 0, "podMetrics": []}}}, "llm.autoscaling has nothing to scale by"),
    ({"gateway": {"keda": {"enabled": True}}}, "gateway.keda.prometheus is empty"),
    ({"collector": {"enabled": True}}, "there is nowhere to send traces: set collector.exportTo"),
    ({"ingress": {"rest": {"enabled": True}}}, "ingress.rest.host is empty"),
    ({"gatewayApi": {"enabled": True}}, "gatewayApi.parentRefs is empty"),
    ({**EVERYTHING, "gatewayApi": {"enabled": True, "parentRefs": [{"name": "a"}]}}, "gatewayApi.backendCaConfigMap is empty"),
    ({"llm": {"chat": {"upstreamUrl": "https://models.example.com/v1"}}}, "llm.chat.upstreamUrl needs llm.chat.model"),
    ({"tls": {"enabled": True}}, "tls.enabled is true and nothing makes the certificate of gateway"),
    (
        {"backup": {"enabled": True}, "auth": {"tokens": [{"token": "0" * 16, "name": "a", "tenants": ["t"]}]}},
        "no token in auth.tokens is an operator's",
    ),
]


@pytest.mark.parametrize(("values", "words"), BAD, ids=[words[:50] for _, words in BAD])
def test_what_is_wrong_is_refused_in_words_that_help(values: dict[str, Any], words: str) -> None:
    with pytest.raises(HelmError) as refused:
        rendered(values)
    assert words in str(refused.value)


def test_the_schema_and_the_readme_are_made_from_the_values(tmp_path: Path) -> None:
    for name in ("values.yaml", "Chart.yaml"):
        (tmp_path / name).write_bytes((CHART / name).read_bytes())
    script = [sys.executable, str(manifests.ROOT / "scripts/generate_chart_docs.py"), str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("README.md", "values.schema.json"):
        assert (tmp_path / name).read_text() == (CHART / name).read_text(), f"{name}: run .venv/bin/python scripts/generate_chart_docs.py"


def test_a_value_without_a_reason_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "Chart.yaml").write_bytes((CHART / "Chart.yaml").read_bytes())
    (tmp_path / "values.yaml").write_text("# why\nimage: {}\nlonely: 1\n")
    script = [sys.executable, str(manifests.ROOT / "scripts/generate_chart_docs.py"), str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "no reason given for lonely" in done.stderr


def test_the_schema_is_closed_all_the_way_down() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    opened = []

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            if "properties" in node and node.get("additionalProperties") is not False:
                opened.append(path)
            for key, each in node.items():
                walk(each, f"{path}/{key}")

    walk(schema, "")
    assert opened == []


def test_the_chart_is_of_this_release_and_packages(tmp_path: Path) -> None:
    with Chart.load(CHART) as chart:
        assert chart.metadata["appVersion"] == ndml.__version__
        assert chart.metadata["kubeVersion"] == f">={VERSIONS[0]}.0-0"
    archive = package(manifests.whole_chart(), destination=tmp_path)
    with Chart.load(archive) as again:
        assert len(again.render(values={}, name="ndml", namespace="memory")) > 10


def test_the_notes_warn_of_what_a_trial_leaves_open() -> None:
    open_suite = manifests.notes(profile("laptop"))
    assert "auth.existingSecret and auth.tokens are empty" in open_suite and "with one copy" in open_suite
    closed = manifests.notes(EVERYTHING)
    assert "WARNING" not in closed and "NOTE" not in closed and "https://ndml-gateway.memory" in closed


def test_any_name_of_a_model_is_answered_where_things_are_tried_out_and_nowhere_else() -> None:
    aliases = {name: manifests.config_of(of_profile(name), "gateway")[1]["rest"].get("model_aliases") for name in PROFILES}
    assert aliases.pop("laptop") == {"*": ""}
    assert "production" in aliases and not any(aliases.values())


def test_two_releases_share_a_namespace() -> None:
    names = set(by_key(rendered({}, name="a"))) & set(by_key(rendered({}, name="b")))
    assert names == set()
    gateway = by_key(rendered({}, name="a"))["Service", "a-ndml-gateway"]["spec"]["selector"]
    other = by_key(rendered({}, name="b"))["Service", "b-ndml-gateway"]["spec"]["selector"]
    assert gateway != other


def test_the_long_name_leaves_room_for_pods() -> None:
    # Labels and host names end at 63 characters; a StatefulSet's pods carry its name and a hash of 10, a CronJob's jobs 11 more.
    most = {"StatefulSet": 52, "CronJob": 52, "Deployment": 63, "Service": 63}
    long = [found for found in rendered(EVERYTHING, name="n" * 53) if len(found["metadata"]["name"]) > most.get(found["kind"], 253)]
    assert long == []


def test_a_token_in_values_becomes_a_secret_and_no_config_map() -> None:
    objects = by_key(rendered(EVERYTHING))
    secret = objects["Secret", "ndml-tokens"]["stringData"]
    assert json.loads(secret["tokens"])[0]["operator"] is True and secret["operator-token"] == "0123456789abcdef"
    for key, found in objects.items():
        assert key[0] == "Secret" or "0123456789abcdef" not in yaml.safe_dump(found), key


@pytest.mark.parametrize(("nodes", "asked"), [(3, "set_aside"), (1, "refuse")])
def test_a_damaged_store_is_filled_anew_only_where_there_are_copies(nodes: int, asked: str) -> None:
    [config] = [found for (kind, name), found in by_key(rendered({"memoryNode": {"replicas": nodes}})).items()
                if kind == "ConfigMap" and "memory-node" in name]  # fmt: skip
    [text] = config["data"].values()
    assert yaml.safe_load(text)["store"]["on_damage"] == asked


@pytest.mark.parametrize("asked", ["none", "require"])
def test_callers_of_ours_show_a_certificate_where_the_gateway_asks_for_one(asked: str) -> None:
    objects = by_key(rendered({**EVERYTHING, "tls": {**EVERYTHING["tls"], "gatewayClientAuth": asked}}))
    for key in (("Pod", "ndml-test-recall"), ("CronJob", "ndml-backup")):
        pod = manifests.pod_spec(objects[key])
        assert pod is not None
        environment = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
        [secret] = [each["secret"] for each in pod["volumes"] if each["name"] == "tls"]
        held = {each["key"] for each in secret.get("items", [])} or {"ca.crt", "tls.crt", "tls.key"}
        named = {value.rpartition("/")[2] for name, value in environment.items() if name.startswith("NDML_TLS") and value}
        assert named == held == ({"ca.crt"} if asked == "none" else {"ca.crt", "tls.crt", "tls.key"})
        assert "NDML_TOKEN" in environment


def test_a_scrape_names_the_services_as_alerts_and_scaling_ask_for_them() -> None:
    """By Prometheus' own rules of relabelling, for every service that the monitor selects."""
    objects = by_key(rendered({**EVERYTHING, "fullnameOverride": "memory-of-acme"}))
    monitor = objects["ServiceMonitor", "memory-of-acme"]["spec"]
    wanted, jobs = monitor["selector"]["matchLabels"], set()
    for (kind, _), found in objects.items():
        labels = found["metadata"]["labels"]
        if kind == "Service" and wanted.items() <= labels.items() and "ndml.dev/scrape" not in labels:
            assert "metrics" in {port["name"] for port in found["spec"]["ports"]}
            [rule] = [each for each in monitor["endpoints"][0]["relabelings"] if each["targetLabel"] == "job"]
            matched = re.fullmatch(rule["regex"], labels["app.kubernetes.io/component"])
            assert matched
            jobs.add(rule["replacement"].replace("$1", matched[1]))
    assert jobs == {"ndml-gateway", "ndml-memory-node", "ndml-consensus", "ndml-llm"}
    asked = re.findall(r'job="([^"]+)"', yaml.safe_dump([each for each in objects.values() if each["kind"] == "ScaledObject"]))
    assert asked and set(asked) <= jobs


def test_dashboards_and_alerts_come_as_they_are() -> None:
    objects = by_key(rendered({"metrics": EVERYTHING["metrics"]}))
    files = manifests.whole_chart() / "files"
    alerts = yaml.safe_load((files / "alerts.yaml").read_text())
    assert objects["PrometheusRule", "ndml"]["spec"] == alerts
    for path in (files / "dashboards").glob("*.json"):
        held = next(each for each in objects.values() if path.name in each.get("data", {}))
        assert json.loads(held["data"][path.name]) == json.loads(path.read_text())
        assert held["metadata"]["labels"]["grafana_dashboard"] == "1"


@pytest.mark.parametrize(
    ("llm", "spread"),
    [
        ({"gpu": {"enabled": True, "count": 1}}, False),
        ({"gpu": {"enabled": True, "count": 2}}, True),
        ({"gpu": {"enabled": False, "count": 2}}, False),
        ({"gpu": {"enabled": True, "count": 2}, "chat": {"upstreamUrl": "https://models.example.com/v1", "model": "big"}}, False),
        ({"gpu": {"enabled": True, "count": 2}, "config": {"chat": {"spread": False}}}, False),
    ],
)
def test_a_pod_with_several_gpus_spreads_its_model_over_them(llm: dict[str, Any], spread: bool, tmp_path: Path) -> None:
    file = tmp_path / "llm.yaml"
    file.write_text(manifests.config_of(tuple(rendered({"llm": llm})), "llm")[0])
    assert load_settings(LlmSettings, file).chat.spread is spread
