"""What the chart's objects are for, beyond their form: where pods go, where routes lead, what the pods that call us do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ndml.testing import Suite
from tests.deploy.manifests import COMPONENTS, PROFILES, Object, by_key, of_profile, pod_spec, profile, rendered, workload
from tests.deploy.test_chart import EVERYTHING
from tests.deploy.test_policies import objects_of


def pod_of(objects: tuple[Object, ...] | list[Object], component: str) -> Object:
    found = pod_spec(workload(objects, component))
    assert found is not None
    return found


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("case", PROFILES)
def test_pods_are_spread_over_zones_and_apart_from_each_other(case: str, component: str) -> None:
    objects, values = of_profile(case), profile(case)
    pod, labels = pod_of(objects, component), workload(objects, component)["spec"]["template"]["metadata"]["labels"]
    spread = pod.get("topologySpreadConstraints", [])
    assert bool(spread) == values.get("topologySpread", {}).get("enabled", True)
    for each in spread:
        assert (each["topologyKey"], each["maxSkew"]) == ("topology.kubernetes.io/zone", 1)
        assert each["labelSelector"]["matchLabels"].items() <= labels.items()
        assert each["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == component
    own = values.get("memoryNode" if component == "memory-node" else component, {})
    [(kind, [term])] = pod["affinity"]["podAntiAffinity"].items()
    assert kind.startswith("required") == (own.get("antiAffinity") == "hard")
    apart = term.get("podAffinityTerm", term)
    assert apart["topologyKey"] == "kubernetes.io/hostname"
    assert apart["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == component
    assert pod.get("priorityClassName") == values.get("priorityClassName")


def test_a_components_own_priority_and_affinity_go_first() -> None:
    own: dict[str, Any] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": []}]}}
    }
    objects = rendered(
        {"priorityClassName": "all", "llm": {"priorityClassName": "mine", "affinity": own}, "gateway": {"antiAffinity": "off"}}
    )
    assert (pod_of(objects, "llm")["priorityClassName"], pod_of(objects, "llm")["affinity"]) == ("mine", own)
    assert pod_of(objects, "gateway")["priorityClassName"] == "all" and "affinity" not in pod_of(objects, "gateway")


def test_gpu_pods_ask_for_one_put_up_with_the_taint_and_have_the_runtime() -> None:
    objects = of_profile("gpu")
    for component in COMPONENTS:
        pod = pod_of(objects, component)
        resources = pod["containers"][0]["resources"]
        if component in ("llm", "memory-node"):
            assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == 1
            assert pod["runtimeClassName"] == "nvidia" and pod["containers"][0]["image"].startswith(f"ndml-{component}-gpu:")
            assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        else:
            assert "nvidia.com/gpu" not in resources["limits"] and not {"tolerations", "runtimeClassName"} & pod.keys()


def test_every_route_leads_to_its_door() -> None:
    objects = by_key(objects_of("everything"))
    doors = {each["name"]: each["port"] for each in objects["Service", "ndml-gateway"]["spec"]["ports"]}
    for kind, door, host in (("grpc", "grpc", "a.example.com"), ("rest", "http", "b.example.com")):
        [rule] = objects["Ingress", f"ndml-gateway-{kind}"]["spec"]["rules"]
        assert rule["host"] == host
        assert [path["backend"]["service"] for path in rule["http"]["paths"]] == [{"name": "ndml-gateway", "port": {"number": doors[door]}}]
    production = by_key(of_profile("production"))
    for route, door, host in (("GRPCRoute", "grpc", "memory.example.com"), ("HTTPRoute", "http", "memory-api.example.com")):
        spec = production[route, "ndml-gateway"]["spec"]
        assert spec["parentRefs"] == [{"name": "public", "namespace": "gateways"}] and spec["hostnames"] == [host]
        assert spec["rules"] == [{"backendRefs": [{"name": "ndml-gateway", "port": doors[door]}]}]
    backend = production["BackendTLSPolicy", "ndml-gateway"]["spec"]
    assert backend["validation"]["hostname"] in production["Certificate", "ndml-gateway"]["spec"]["dnsNames"]


TRACES = ("receiver.example:4317", "ndml-collector.memory.svc.cluster.local:4317", "ndml-jaeger.memory.svc.cluster.local:4317", "")


@pytest.mark.parametrize("where", TRACES)
def test_spans_go_to_the_named_receiver_else_to_ours_else_nowhere(where: str) -> None:
    values: dict[str, Any] = {
        "telemetry": {"otlpEndpoint": where if where == TRACES[0] else ""},
        "collector": {"enabled": where in TRACES[:2], "exportTo": "elsewhere:4317"},
        "jaeger": {"enabled": where in TRACES[:3]},
    }
    objects = by_key(rendered({key: value for key, value in values.items() if where or key == "telemetry"}))
    for component in COMPONENTS:
        assert f"otlp_endpoint: {where or chr(34) * 2}\n" in objects["ConfigMap", f"ndml-{component}"]["data"]["config.yaml"]
    assert (("NetworkPolicy", "ndml-traces") in objects) == bool(where)


@pytest.mark.parametrize(("kind", "name"), [("Pod", "ndml-test-recall"), ("CronJob", "ndml-backup")])
def test_the_pods_that_call_us_do_what_they_are_for(kind: str, name: str, suite: Suite, tmp_path: Path) -> None:
    """Their command and arguments, as the chart has them, against a suite."""
    pod = pod_spec(by_key(rendered({"backup": EVERYTHING["backup"]}))[kind, name])
    assert pod is not None and pod["restartPolicy"] == "Never"
    [container] = pod["containers"]
    mounts = {each["mountPath"] for each in container["volumeMounts"]}
    assert ("/backup" in mounts) == (kind == "CronJob")
    words = [sys.executable, *container["command"][1:], *(str(tmp_path) if word == "/backup" else word for word in container["args"])]
    environment = {**os.environ, "NDML_ADDRESS": suite.grpc_address}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("memory" in done.stdout) if kind == "Pod" else len(list(tmp_path.glob("ndml-*.backup"))) == 1
