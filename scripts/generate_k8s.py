"""Write deploy/k8s, the plain manifests, from the Helm chart, so that both say the same: base, overlays, and two of the components.

.venv/bin/python scripts/generate_k8s.py [OUTPUT]

The base is the chart with its defaults. Components hold whole kinds of objects. An overlay is the base, its components, and what a profile
of the chart has otherwise: JSON patches for objects, files for configurations. components/gpu is written by hand and stays as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jsonpatch
import yaml
from helm_python.chart import Chart

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy/helm/ndml"
OUTPUT = ROOT / "deploy/k8s"
# Addresses in configurations have the namespace in them: another one is another run of this script.
NAMESPACE = "memory"
NAME = "ndml"
SERVICES = ("gateway", "memory-node", "consensus", "llm")
OVERLAYS = {"dev": ("laptop", ()), "prod": ("production", ("network-policies", "observability"))}
_HEAD = "# Made by scripts/generate_k8s.py from the Helm chart: change that, and run it.\n"
_HELMS = ("app.kubernetes.io/managed-by", "helm.sh/chart")

Object = dict[str, Any]
Key = tuple[str, str]


def objects(values: Mapping[str, Any], chart: Path = CHART) -> dict[Key, Object]:
    """(kind, name) -> what the chart makes of the values, without what belongs to Helm alone."""
    with Chart.load(chart) as loaded:
        files = loaded.render(values=dict(values), name=NAME, namespace=NAMESPACE)
    texts = (text for path, text in sorted(files.items()) if not path.endswith("NOTES.txt"))
    found = (each for text in texts for each in yaml.safe_load_all(text) if each)
    return {(each["kind"], each["metadata"]["name"]): _plain(each) for each in found if not _is_hook(each)}


def _is_hook(each: Object) -> bool:
    return "helm.sh/hook" in each["metadata"].get("annotations", {})


def _plain(each: Object) -> Object:
    """Kustomize sets the namespace, and renames what a configuration's change has to restart."""
    metadata = each["metadata"]
    metadata.pop("namespace", None)
    metadata["labels"] = {key: value for key, value in metadata["labels"].items() if key not in _HELMS}
    annotations = {key: value for key, value in metadata.get("annotations", {}).items() if not key.startswith("helm.sh/")}
    metadata.pop("annotations", None)
    if annotations:
        metadata["annotations"] = annotations
    pod = each["spec"].get("template", {}).get("metadata", {}) if each["kind"] in ("Deployment", "StatefulSet") else {}
    for key in [key for key in pod.get("annotations", {}) if key.startswith("checksum/")]:
        del pod["annotations"][key]
    return each


def split(found: Mapping[Key, Object]) -> tuple[dict[Key, Object], dict[str, str]]:
    """(objects, configurations by service): kustomize makes the config maps of the services itself."""
    configs = {}
    for service in SERVICES:
        configs[service] = found["ConfigMap", f"{NAME}-{service}"]["data"]["config.yaml"]
    rest = {key: each for key, each in found.items() if key not in {("ConfigMap", f"{NAME}-{service}") for service in SERVICES}}
    return rest, configs


def base_values() -> dict[str, Any]:
    return {"networkPolicy": {"enabled": False}}


def metrics(chart: Path) -> dict[str, Any]:
    """All of observability for which the chart has its files."""
    alerts, dashboards = (chart / "files/alerts.yaml").exists(), list((chart / "files/dashboards").glob("*.json"))
    wanted = {"serviceMonitor": True, "prometheusRule": alerts, "dashboards": bool(dashboards)}
    return {name: {"enabled": enabled} for name, enabled in wanted.items()}


def component_objects(name: str, chart: Path = CHART) -> dict[Key, Object]:
    """What a component adds to the base."""
    values = {
        "network-policies": {"networkPolicy": {"enabled": True}},
        "observability": {**base_values(), "metrics": metrics(chart)},
    }
    base, _ = split(objects(base_values(), chart))
    with_it, _ = split(objects(values[name], chart))
    return {key: each for key, each in with_it.items() if key not in base}


def profile(name: str, chart: Path = CHART) -> dict[str, Any]:
    """Values of ci/<name>-values.yaml."""
    values = dict(yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text()))
    if "metrics" in values:
        values["metrics"] |= metrics(chart)
    return values


def dump(found: Iterable[Any]) -> str:
    return _HEAD + yaml.safe_dump_all(found, sort_keys=False, width=140, explicit_start=True, allow_unicode=True)


def file_of(each: Object) -> str:
    return f"{each['metadata']['labels'].get('app.kubernetes.io/component', 'suite')}.yaml"


def grouped(found: Iterable[Object]) -> dict[str, list[Object]]:
    files: dict[str, list[Object]] = {}
    for each in found:
        files.setdefault(file_of(each), []).append(each)
    return files


def maps(services: Iterable[str], **more: str) -> list[Object]:
    """configMapGenerator entries: a hash in the name, so that another configuration makes other pods."""
    return [{"name": f"{NAME}-{service}", **more, "files": [f"config.yaml=config/{service}.yaml"]} for service in services]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def kustomization(directory: Path, kind: str, body: Mapping[str, Any]) -> None:
    version = "v1alpha1" if kind == "Component" else "v1beta1"
    head = {"apiVersion": f"kustomize.config.k8s.io/{version}", "kind": kind}
    write(directory / "kustomization.yaml", _HEAD + yaml.safe_dump({**head, **body}, sort_keys=False, width=140))


def write_base(target: Path, chart: Path) -> None:
    found, configs = split(objects(base_values(), chart))
    files = grouped(found.values())
    for name, group in files.items():
        write(target / name, dump(group))
    for service, text in configs.items():
        write(target / "config" / f"{service}.yaml", _HEAD + text)
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    write(target / "namespace.yaml", dump([space]))
    resources = ["namespace.yaml", *sorted(files)]
    kustomization(target, "Kustomization", {"namespace": NAMESPACE, "resources": resources, "configMapGenerator": maps(SERVICES)})


def write_component(target: Path, name: str, chart: Path) -> None:
    found = component_objects(name, chart)
    files: dict[str, list[Object]] = {}
    for (kind, _), each in found.items():
        # A dashboard is long: one file each. Objects of the other kinds stand together.
        dashboard = kind == "ConfigMap"
        files.setdefault(f"{each['metadata']['name'] if dashboard else kind.lower()}.yaml", []).append(each)
    for file, group in files.items():
        write(target / file, dump(group))
    kustomization(target, "Component", {"resources": sorted(files)})


def write_overlay(target: Path, chart: Path, name: str, components: Iterable[str]) -> None:
    before, configs_before = split(objects(base_values(), chart))
    for component in components:
        before |= component_objects(component, chart)
    after, configs = split(objects(profile(name, chart), chart))
    patches = []
    for key, each in before.items():
        if key not in after:
            gone = {"$patch": "delete", "apiVersion": each["apiVersion"], "kind": key[0], "metadata": {"name": key[1]}}
            text = yaml.safe_dump(gone, sort_keys=False)
        else:
            changes = jsonpatch.make_patch(each, after[key]).patch
            text = yaml.safe_dump(changes, sort_keys=False, width=140) if changes else ""
        if text:
            file = f"patches/{key[0].lower()}-{key[1]}.yaml"
            write(target / file, _HEAD + text)
            patches.append({"path": file, "target": {"kind": key[0], "name": f"^{key[1]}$"}})
    added = grouped(each for key, each in after.items() if key not in before)
    for file, group in added.items():
        write(target / file, dump(group))
    changed = [service for service in SERVICES if configs[service] != configs_before[service]]
    for service in changed:
        write(target / "config" / f"{service}.yaml", _HEAD + configs[service])
    body: dict[str, Any] = {"namespace": NAMESPACE, "resources": ["../../base", *sorted(added)]}
    if components:
        body["components"] = [f"../../components/{component}" for component in components]
    kustomization(target, "Kustomization", {**body, "configMapGenerator": maps(changed, behavior="replace"), "patches": patches})


def main(output: Path, chart: Path = CHART) -> None:
    for path in [path for path in output.rglob("*.yaml") if "gpu" not in path.parts]:
        path.unlink()
    write_base(output / "base", chart)
    for component in ("network-policies", "observability"):
        write_component(output / "components" / component, component, chart)
    for overlay, (name, components) in OVERLAYS.items():
        write_overlay(output / "overlays" / overlay, chart, name, components)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT)
