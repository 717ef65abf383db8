"""The chart and the kustomizations as objects, for tests. Nothing here needs a cluster."""

from __future__ import annotations

import atexit
import functools
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from helm_python.chart import Chart

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/ndml"
K8S = ROOT / "deploy/k8s"
PROFILES = ["default", *sorted(path.stem.removesuffix("-values") for path in (CHART / "ci").glob("*-values.yaml"))]
COMPONENTS = ("gateway", "memory-node", "consensus", "llm")
NAMESPACE = "memory"

Object = dict[str, Any]
Key = tuple[str, str]


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice: one of the two would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        doubled = {key for key in keys if keys.count(key) > 1}
        if doubled:
            raise yaml.constructor.ConstructorError(None, None, f"stands twice: {doubled}", node.start_mark)
        return super().construct_mapping(node, deep)


def documents(text: str) -> list[Object]:
    return [found for found in yaml.load_all(text, StrictLoader) if found]


def profile(name: str) -> dict[str, Any]:
    """Values of ci/<name>-values.yaml; none for "default"."""
    return {} if name == "default" else dict(yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text()))


@functools.cache
def whole_chart() -> Path:
    """The chart with dashboards and alerts: those of the repository, or one of each where a check-out has none yet."""
    if list((CHART / "files/dashboards").glob("*.json")) and (CHART / "files/alerts.yaml").exists():
        return CHART
    scratch = Path(tempfile.mkdtemp(prefix="ndml-chart-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    copy = scratch / "ndml"
    shutil.copytree(CHART, copy)
    (copy / "files/dashboards").mkdir(parents=True, exist_ok=True)
    (copy / "files/dashboards/sample.json").write_text('{"uid": "sample", "title": "{{ not a template }}"}\n')
    rule = {"alert": "A", "expr": "up == 0", "annotations": {"summary": "{{ $labels.instance }} is down"}}
    (copy / "files/alerts.yaml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [rule]}]}))
    return copy


def rendered(values: Mapping[str, Any], name: str = "ndml") -> list[Object]:
    """Every object that the chart makes of the values, hooks included."""
    with Chart.load(whole_chart()) as chart:
        files = chart.render(values=dict(values), name=name, namespace=NAMESPACE)
    return [found for path, text in sorted(files.items()) if not path.endswith("NOTES.txt") for found in documents(text)]


def notes(values: Mapping[str, Any]) -> str:
    with Chart.load(whole_chart()) as chart:
        files = chart.render(values=dict(values), name="ndml", namespace=NAMESPACE)
    return next(text for path, text in files.items() if path.endswith("NOTES.txt"))


@functools.cache
def of_profile(name: str) -> tuple[Object, ...]:
    return tuple(rendered(profile(name)))


@functools.cache
def kustomized(path: Path) -> tuple[Object, ...]:
    """`kubectl kustomize` of a directory."""
    done = subprocess.run(["kubectl", "kustomize", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(documents(_HASHED.sub(r"\1", done.stdout)))


# Of the services' config maps: a configuration that changes has another name, and pods follow it.
_HASHED = re.compile(rf"\b(ndml-(?:{'|'.join(COMPONENTS)}))-[a-z0-9]{{10}}\b")


def by_key(objects: Iterator[Object] | tuple[Object, ...] | list[Object]) -> dict[Key, Object]:
    """(kind, name) -> object. Fails where two share one."""
    found: dict[Key, Object] = {}
    for each in objects:
        key = (each["kind"], each["metadata"]["name"])
        assert key not in found, f"{key} is there twice"
        found[key] = each
    return found


def pod_spec(item: Object) -> Object | None:
    """The pod that an object makes; None where it makes none."""
    kind, spec = item["kind"], item.get("spec", {})
    if kind == "Pod":
        return dict(spec)
    if kind in ("Deployment", "StatefulSet", "Job"):
        return dict(spec["template"]["spec"])
    if kind == "CronJob":
        return dict(spec["jobTemplate"]["spec"]["template"]["spec"])
    return None


def pods(objects: tuple[Object, ...] | list[Object]) -> Iterator[tuple[str, Object]]:
    """(kind/name, pod spec) of all that makes pods."""
    for each in objects:
        found = pod_spec(each)
        if found is not None:
            yield f"{each['kind']}/{each['metadata']['name']}", found


def workload(objects: tuple[Object, ...] | list[Object], component: str) -> Object:
    """The Deployment or StatefulSet of a component."""
    return next(
        each
        for each in objects
        if each["kind"] in ("Deployment", "StatefulSet") and each["metadata"]["labels"].get("app.kubernetes.io/component") == component
    )


def config_of(objects: tuple[Object, ...] | list[Object], component: str, name: str = "ndml") -> tuple[str, Object]:
    """(text, parsed) of a component's config.yaml."""
    text = by_key(objects)["ConfigMap", f"{name}-{component}"]["data"]["config.yaml"]
    return text, dict(yaml.load(text, StrictLoader))


@functools.cache
def crd_schemas() -> dict[tuple[str, str], Any]:
    """(apiVersion, kind) -> JSON schema of the custom resources that the chart may make."""
    found = {}
    for path in sorted((Path(__file__).parent / "crds").glob("*.json")):
        schema = json.loads(path.read_text())
        found[schema["properties"]["apiVersion"]["const"], schema["properties"]["kind"]["const"]] = schema
    return found
