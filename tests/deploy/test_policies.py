"""What every pod has to keep, by the chart and by the plain manifests alike; and that what they say fits the services they run."""

from __future__ import annotations

import functools
import importlib
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from ndml.runtime.service import DEFAULT_PORTS
from ndml.runtime.settings import ServiceSettings, load_settings
from scripts.generate_config_docs import settings_class
from tests.deploy import manifests
from tests.deploy.manifests import COMPONENTS, K8S, PROFILES, by_key, config_of, of_profile, pods, rendered, workload
from tests.deploy.test_chart import EVERYTHING

KUSTOMIZATIONS = sorted(path.parent for path in (K8S / "overlays").glob("*/kustomization.yaml"))
CASES = [*PROFILES, "everything", *(path.name for path in KUSTOMIZATIONS)]

Pod = dict[str, Any]


@functools.cache
def objects_of(case: str) -> tuple[manifests.Object, ...]:
    if case == "everything":
        return tuple(rendered(EVERYTHING))
    if case in PROFILES:
        return of_profile(case)
    return manifests.kustomized(K8S / "overlays" / case)


def containers(pod: Pod) -> Iterator[Pod]:
    yield from pod.get("initContainers", [])
    yield from pod["containers"]


def amount(text: str) -> Fraction:
    """A quantity as a number."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()  # type: ignore[union-attr]
    scale = {"": 1, "m": Fraction(1, 1000), "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    return Fraction(number) * scale[unit]


def faults(name: str, pod: Pod) -> Iterator[str]:
    """What a pod breaks of the restricted standard, and of our own rules."""
    security = pod.get("securityContext", {})
    if not security.get("runAsNonRoot") or security.get("runAsUser", 0) < 10_000:
        yield "runs as root, or as a user that the machine may know"
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")) or any("hostPath" in each for each in pod.get("volumes", [])):
        yield "reaches into the machine"
    if "automountServiceAccountToken" not in pod:
        yield "leaves it open whether it gets a token"
    if pod.get("enableServiceLinks") is not False:
        yield "gets every service of the namespace as environment, some of which would be read as settings"
    for each in containers(pod):
        own = each.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or not own.get("readOnlyRootFilesystem") or own.get("privileged"):
            yield f"{each['name']} may write to its root, or raise its privileges"
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own.get("capabilities", {}).get("add"):
            yield f"{each['name']} keeps capabilities"
        image = each["image"]
        if not re.search(r"(@sha256:[0-9a-f]{64}|:[\w][\w.-]*)$", image) or image.endswith(":latest"):
            yield f"{each['name']} runs {image}, which is another image tomorrow"
        for kind in ("requests", "limits"):
            if {"cpu", "memory"} - each.get("resources", {}).get(kind, {}).keys():
                yield f"{each['name']} has no {kind}"
        if name.startswith(("Deployment", "StatefulSet")) and {"startupProbe", "livenessProbe", "readinessProbe"} - each.keys():
            yield f"{each['name']} lacks a probe"
        if any("secret" in value.lower() for value in each.get("args", [])):
            yield f"{each['name']} has a secret in its arguments"


@pytest.mark.parametrize("case", CASES)
def test_every_pod_is_restricted_limited_and_probed(case: str) -> None:
    found = {name: list(faults(name, pod)) for name, pod in pods(objects_of(case))}
    assert len(found) >= 4
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_the_rules_catch_what_breaks_them() -> None:
    good = next(pod for name, pod in pods(objects_of("default")) if name == "Deployment/ndml-gateway")
    spoiled: list[dict[str, Any]] = [
        {**good, "securityContext": {**good["securityContext"], "runAsUser": 0}},
        {**good, "securityContext": {**good["securityContext"], "seccompProfile": {}}},
        {**good, "volumes": [{"name": "x", "hostPath": {"path": "/"}}]},
        {key: value for key, value in good.items() if key != "automountServiceAccountToken"},
    ]
    container = good["containers"][0]
    for change in ({"image": "ndml-gateway"}, {"image": "ndml-gateway:latest"}, {"resources": {}}, {"securityContext": {}}):
        spoiled.append({**good, "containers": [{**container, **change}]})
    spoiled.append({**good, "containers": [{key: value for key, value in container.items() if key != "livenessProbe"}]})
    assert not list(faults("Deployment/x", good))
    assert all(list(faults("Deployment/x", each)) for each in spoiled)


@pytest.mark.parametrize("case", CASES)
def test_a_token_is_mounted_only_where_a_role_gives_it_a_use(case: str) -> None:
    objects = objects_of(case)
    bound = {subject["name"] for each in objects if each["kind"] in ("RoleBinding", "ClusterRoleBinding") for subject in each["subjects"]}
    for name, pod in pods(objects):
        assert pod["automountServiceAccountToken"] == (pod.get("serviceAccountName") in bound), name


def test_rights_are_the_fewest() -> None:
    allowed = {
        ("discovery.k8s.io", "endpointslices"): {"list", "watch"},
        ("apps", "statefulsets"): {"get"},
        ("coordination.k8s.io", "leases"): {"get", "create", "update"},
        ("", "nodes"): {"get"},
    }
    seen = set()
    for each in objects_of("everything"):
        for rule in each.get("rules", []) if each["kind"] in ("Role", "ClusterRole") else []:
            for resource in rule["resources"]:
                key = (rule["apiGroups"][0], resource)
                assert set(rule["verbs"]) <= allowed[key]
                seen.add(key)
                assert key != ("apps", "statefulsets") or rule["resourceNames"] == ["ndml-memory-node"]
    assert seen == allowed.keys()
    plain = [each for each in rendered({"memoryNode": {"handOver": {"enabled": False}}}) if "Role" in each["kind"]]
    assert plain == [], "without what needs them there is no role at all"


# Services and their doors


@pytest.mark.parametrize("case", CASES)
def test_ports_and_probes_are_the_services_own(case: str) -> None:
    objects = objects_of(case)
    for component in COMPONENTS:
        pod = manifests.pod_spec(workload(objects, component))
        assert pod is not None
        container = pod["containers"][0]
        port = DEFAULT_PORTS[f"ndml-{component}"]
        tls = "tls" in config_of(objects, component)[1]
        assert {each["name"]: each["containerPort"] for each in container["ports"]} == {
            "grpc": port,
            "metrics": port + 1000,
            **({"http": 7780} if component == "gateway" else {}),
            **({"health": port + 2000} if tls else {}),
        }
        assert container["command"] == ["python", "-m", f"services.{component.replace('-', '_')}"]
        importlib.import_module(container["command"][2])
        asked = {probe: container[f"{probe}Probe"]["grpc"] for probe in ("startup", "liveness", "readiness")}
        assert {each["port"] for each in asked.values()} == {port + 2000 if tls else port}
        assert [asked[each]["service"] for each in ("startup", "liveness", "readiness")] == ["liveness", "liveness", "readiness"]
        service = by_key(objects)["Service", f"ndml-{component}"]["spec"]
        assert {each["targetPort"] for each in service["ports"]} <= {each["name"] for each in container["ports"]}


def read(component: str, objects: tuple[manifests.Object, ...], directory: Path, monkeypatch: pytest.MonkeyPatch) -> ServiceSettings:
    """The settings as the pod's process reads them: file and environment, by the real loader."""
    text, _ = config_of(objects, component)
    file = directory / f"{component}.yaml"
    file.write_text(text)
    pod = manifests.pod_spec(workload(objects, component))
    assert pod is not None
    plain = {"POD_NAME": f"ndml-{component}-2", "POD_NAMESPACE": "memory", "POD_IP": "10.1.2.3", "NODE_NAME": "machine-1"}
    for each in pod["containers"][0]["env"]:
        if each["name"].startswith("NDML_"):
            value = each.get("value", '[{"token": "0123456789abcdef", "name": "ops", "tenants": ["acme"]}]')
            monkeypatch.setenv(each["name"], re.sub(r"\$\((\w+)\)", lambda match: plain[match[1]], value))
    return load_settings(settings_class(component.replace("-", "_")), file)


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("case", CASES)
def test_the_service_takes_every_setting(case: str, component: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = objects_of(case)
    _, config = config_of(objects, component)
    loaded = read(component, objects, tmp_path, monkeypatch)
    assert loaded.server.port == DEFAULT_PORTS[f"ndml-{component}"] and loaded.server.host == "0.0.0.0"
    told = yaml.safe_load(yaml.safe_dump(loaded.model_dump(mode="json")))
    for section, keys in config.items():
        for key, value in keys.items():
            if not isinstance(value, dict):
                assert told[section][key] == value, f"{section}.{key}"


@pytest.mark.parametrize("component", ["memory-node", "consensus"])
def test_a_pod_is_known_by_its_name(component: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = objects_of("default")
    loaded = read(component, objects, tmp_path, monkeypatch)
    assert loaded.server.instance == f"ndml-{component}-2"
    assert loaded.server.advertise == f"ndml-{component}-2.ndml-{component}.memory.svc.cluster.local:{loaded.server.port}"
    _, consensus = config_of(objects, "consensus")
    if component == "consensus":
        assert loaded.server.advertise in consensus["cluster"]["peers"], "or a node would take itself for a peer"
    else:
        assert loaded.node.node_id in consensus["cluster"]["members"]  # type: ignore[attr-defined]


def test_the_copies_follow_the_nodes() -> None:
    found = {}
    for nodes in (1, 2, 3, 6):
        _, config = config_of(rendered({"memoryNode": {"replicas": nodes}}), "consensus")
        found[nodes] = config["cluster"]["replication_factor"], len(config["cluster"]["members"])
    assert found == {1: (1, 1), 2: (2, 2), 3: (3, 3), 6: (3, 6)}


# Leaving


def shutdown(component: str, loaded: ServiceSettings, pre_stop: float) -> float:
    """The most that a process takes from SIGTERM to its end, by its own settings, and what runs before it."""
    settings: Any = loaded
    total = pre_stop + settings.server.drain_s + settings.server.grace_s
    if component == "gateway":
        return float(total + settings.rest.drain_s + settings.learning.drain_s + settings.quorum.stop_s)
    if component == "memory-node":
        # Sealing reads the whole of a store up to seal_bytes, a second a gigabyte.
        return float(total + settings.replication.stream.drain_s + settings.store.seal_bytes / (1 << 30))
    return float(total)


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("case", CASES)
def test_there_is_time_to_leave(case: str, component: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """preStop + drain + grace + what follows < terminationGracePeriodSeconds."""
    objects = objects_of(case)
    pod = manifests.pod_spec(workload(objects, component))
    assert pod is not None
    command = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
    pre_stop = sum(float(word.removeprefix("--timeout=")) for word in command if word.startswith("--timeout="))
    assert bool(command) == (component == "memory-node")
    needed = shutdown(component, read(component, objects, tmp_path, monkeypatch), pre_stop)
    assert needed + 5 < pod["terminationGracePeriodSeconds"], f"{needed} s and a reserve of 5"


def test_the_grace_follows_what_is_configured() -> None:
    patient = {"gateway": {"config": {"learning": {"drain_s": 100}}}, "memoryNode": {"handOver": {"timeoutSeconds": 60}}}
    before, after = (
        {each: manifests.pod_spec(workload(objects, each))["terminationGracePeriodSeconds"] for each in COMPONENTS}  # type: ignore[index]
        for objects in (objects_of("default"), rendered(patient))
    )
    assert after["gateway"] - before["gateway"] == 92
    assert before["memory-node"] - after["memory-node"] == 1740
    assert (after["llm"], after["consensus"]) == (before["llm"], before["consensus"])


# Resources


@pytest.mark.parametrize("case", CASES)
def test_what_a_process_keeps_in_memory_fits_its_limit(case: str) -> None:
    """The bounds of the settings, which nothing but their sum keeps below what the kernel kills at."""
    objects = objects_of(case)
    limits = {}
    for component in COMPONENTS:
        pod = manifests.pod_spec(workload(objects, component))
        assert pod is not None
        own = pod["containers"][0]["resources"]
        for kind in ("cpu", "memory"):
            assert amount(own["requests"][kind]) <= amount(own["limits"][kind]), component
        limits[component] = own["limits"]
    node = config_of(objects, "memory-node")[1]
    fixed = settings_class("memory_node").model_validate({})
    kept = node["engine"]["index_memory_limit"] + fixed.engine.payload_cache_bytes + 3 * fixed.store.cache_bytes  # type: ignore[attr-defined]
    assert kept + (128 << 20) <= amount(limits["memory-node"]["memory"])
    llm = config_of(objects, "llm")[1]
    if llm["embedding"]["device"] == "cpu":
        assert llm["embedding"]["workers"] == math.ceil(amount(limits["llm"]["cpu"])), "a worker past the limit only makes others wait"


# The network


def test_every_edge_has_both_ends_and_nothing_else_is_open() -> None:
    objects = objects_of("default")
    policies = [each for each in objects if each["kind"] == "NetworkPolicy"]
    role = "app.kubernetes.io/component"
    came, went = set(), set()
    for each in policies:
        spec = each["spec"]
        own = spec["podSelector"]["matchLabels"].get(role, "*")
        for rule in spec.get("ingress", []):
            ports = {port["port"] for port in rule["ports"]}
            for peer in rule.get("from", [{}]):
                other = peer.get("podSelector", {}).get("matchLabels", {}).get(role, "anybody")
                came |= {(other, own, port) for port in ports}
        for rule in spec.get("egress", []):
            for peer in rule.get("to", [{}]):
                other = peer.get("podSelector", {}).get("matchLabels", {}).get(role, "anywhere")
                went |= {(own, other, port["port"]) for port in rule["ports"]}
    edges = {
        ("gateway", "memory-node", 7710),
        ("gateway", "llm", 7730),
        ("gateway", "consensus", 7720),
        ("memory-node", "memory-node", 7710),
        ("memory-node", "consensus", 7720),
        ("consensus", "consensus", 7720),
        ("client", "gateway", 7700),
    }
    doors = {
        ("anybody", "gateway", 7700),
        ("anybody", "gateway", 7780),
        *(("anybody", "*", port + 1000) for port in DEFAULT_PORTS.values()),
    }
    assert came == edges | doors
    assert went == edges | {("*", "anywhere", 53), ("memory-node", "anywhere", 443), ("memory-node", "anywhere", 6443)}
    denied = by_key(objects)["NetworkPolicy", "ndml-default-deny"]["spec"]
    assert denied["policyTypes"] == ["Ingress", "Egress"] and "ingress" not in denied and "egress" not in denied


@pytest.mark.parametrize("case", [case for case in CASES if case != "laptop"])
def test_one_pod_at_a_time_goes(case: str) -> None:
    objects = by_key(objects_of(case))
    for component in COMPONENTS:
        budget = objects.get(("PodDisruptionBudget", f"ndml-{component}"))
        if budget is None:
            assert case == "dev"
            continue
        labels = workload(objects_of(case), component)["spec"]["template"]["metadata"]["labels"]
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert budget["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize("case", CASES)
def test_state_is_kept_on_purpose(case: str) -> None:
    for component in ("memory-node", "consensus"):
        spec = workload(objects_of(case), component)["spec"]
        assert spec["podManagementPolicy"] == "Parallel"
        assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
        headless = by_key(objects_of(case))["Service", spec["serviceName"]]["spec"]
        assert headless["clusterIP"] == "None" and headless["publishNotReadyAddresses"] is True


@pytest.mark.parametrize("case", CASES)
def test_autoscalers_read_metrics_that_there_are(case: str) -> None:
    known = set(re.findall(r"^\| `(ndml_\w+)`", (manifests.ROOT / "docs/reference/metrics.md").read_text(), re.MULTILINE))
    for each in objects_of(case):
        if each["kind"] == "HorizontalPodAutoscaler":
            names = {metric["pods"]["metric"]["name"] for metric in each["spec"]["metrics"] if metric["type"] == "Pods"}
            assert names and names <= known
            assert each["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300
            assert "replicas" not in by_key(objects_of(case))["Deployment", each["metadata"]["name"]]["spec"]
        if each["kind"] == "ScaledObject":
            for trigger in each["spec"]["triggers"]:
                assert set(re.findall(r"ndml_\w+", trigger["metadata"]["query"])) <= known
        assert each["kind"] not in ("HorizontalPodAutoscaler", "ScaledObject") or "memory" not in each["metadata"]["name"]
