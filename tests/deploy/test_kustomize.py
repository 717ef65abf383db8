"""The plain manifests: every overlay and component builds, and says what the chart says."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from ndml.runtime.settings import load_settings
from scripts import generate_k8s
from scripts.generate_config_docs import settings_class
from tests.deploy import manifests
from tests.deploy.manifests import K8S, by_key, kustomized, pod_spec, rendered, workload

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not here: install it (kubernetes.io/docs/tasks/tools), `kubectl kustomize` is used"
)
# Overlay -> values of the chart that make the same.
SAME = {
    "base": generate_k8s.base_values(),
    **{f"overlays/{overlay}": generate_k8s.profile(name) for overlay, (name, _) in generate_k8s.OVERLAYS.items()},
}


def build(directory: Path, overlay: str, *components: str) -> tuple[manifests.Object, ...]:
    """An overlay of the tree with more components over it."""
    paths = {name: os.path.relpath(K8S / name, directory) for name in (overlay, *(f"components/{each}" for each in components))}
    body: dict[str, Any] = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": [paths.pop(overlay)]}
    (directory / "kustomization.yaml").write_text(yaml.safe_dump({**body, "components": list(paths.values())}))
    return kustomized(directory)


def bare(found: manifests.Object) -> manifests.Object:
    """Without what only Helm, or only kustomize, writes."""
    metadata = dict(found["metadata"])
    metadata.pop("namespace", None)
    labels = {key: value for key, value in metadata["labels"].items() if key not in generate_k8s._HELMS} if "labels" in metadata else {}
    annotations = {key: value for key, value in metadata.pop("annotations", {}).items() if not key.startswith("helm.sh/")}
    plain = {
        **found,
        "metadata": {**metadata, **({"labels": labels} if labels else {}), **({"annotations": annotations} if annotations else {})},
    }
    pod = plain.get("spec", {}).get("template", {}).get("metadata", {}) if plain["kind"] in ("Deployment", "StatefulSet") else {}
    for key in [key for key in pod.get("annotations", {}) if key.startswith("checksum/")]:
        del pod["annotations"][key]
    if plain["kind"] == "ConfigMap" and "config.yaml" in plain["data"] and "server:" in plain["data"]["config.yaml"]:
        return {"data": yaml.safe_load(plain["data"]["config.yaml"])}
    return plain


@pytest.mark.parametrize("overlay", SAME)
def test_it_is_what_the_chart_makes(overlay: str) -> None:
    ours = {key: bare(found) for key, found in by_key(kustomized(K8S / overlay)).items()}
    assert ours.pop(("Namespace", "memory"))["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    chart = {key: bare(found) for key, found in by_key(rendered(SAME[overlay])).items() if "helm.sh/hook" not in yaml.safe_dump(found)}
    assert ours.keys() == chart.keys()
    for key, found in chart.items():
        assert ours[key] == found, key


@pytest.mark.parametrize("overlay", SAME)
def test_everything_is_in_the_one_namespace(overlay: str) -> None:
    for found in kustomized(K8S / overlay):
        expected = None if found["kind"].startswith("Cluster") or found["kind"] == "Namespace" else "memory"
        assert found["metadata"].get("namespace") == expected
        if found["kind"] in ("RoleBinding", "ClusterRoleBinding"):
            assert {subject["namespace"] for subject in found["subjects"]} == {"memory"}


@pytest.mark.parametrize("overlay", SAME)
@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_kubernetes_takes_every_object(overlay: str, version: str) -> None:
    for found in kustomized(K8S / overlay):
        if (found["apiVersion"], found["kind"]) not in manifests.crd_schemas():
            kubernetes_validate.validate(found, version, strict=True)


def test_the_tree_is_made_from_the_chart(tmp_path: Path) -> None:
    generate_k8s.main(tmp_path)
    fresh = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.yaml")}
    ours = {path.relative_to(K8S): path.read_text() for path in K8S.rglob("*.yaml") if "gpu" not in path.parts}
    assert ours == fresh, "run .venv/bin/python scripts/generate_k8s.py"


@pytest.mark.parametrize("overlay", ["base", "overlays/dev"])
def test_every_component_goes_over_it(overlay: str, tmp_path: Path) -> None:
    names = sorted(path.parent.name for path in (K8S / "components").glob("*/kustomization.yaml"))
    assert names == ["gpu", "network-policies", "observability"]
    kinds = {found["kind"] for found in build(tmp_path, overlay, *names)}
    assert {"NetworkPolicy", "ServiceMonitor", "StatefulSet"} <= kinds


@pytest.mark.parametrize("overlay", ["base", "overlays/prod"])
def test_the_gpu_component_is_the_charts_gpu(overlay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = build(tmp_path, overlay, "gpu")
    gpu = {
        "memoryNode": {"gpu": {"enabled": True}, "image": {"repository": "ndml-memory-node-gpu"}},
        "llm": {"gpu": {"enabled": True}, "image": {"repository": "ndml-llm-gpu"}},
    }
    chart = rendered(gpu)
    for component in ("llm", "memory-node"):
        mine, theirs = (pod_spec(workload(objects, component)) for objects in (ours, chart))
        assert mine is not None and theirs is not None
        assert mine["tolerations"] == theirs["tolerations"]
        own, other = mine["containers"][0], theirs["containers"][0]
        assert own["image"] == other["image"]
        for kind in ("requests", "limits"):
            assert str(own["resources"][kind]["nvidia.com/gpu"]) == str(other["resources"][kind]["nvidia.com/gpu"])
        for name in ("env", "volumeMounts"):
            assert {each["name"] for each in other[name]} <= {each["name"] for each in own[name]}
    if overlay == "base":
        check_settings(ours, tuple(chart), tmp_path, monkeypatch)


def check_settings(
    ours: tuple[manifests.Object, ...], chart: tuple[manifests.Object, ...], at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the component says by environment is what the chart says by file."""
    for component in ("llm", "memory-node"):
        cls = settings_class(component.replace("-", "_"))
        told = []
        for number, objects in enumerate((chart, ours)):
            file = at / f"{component}-{number}.yaml"
            file.write_text(manifests.config_of(objects, component)[0])
            pod = pod_spec(workload(objects, component))
            assert pod is not None
            with monkeypatch.context() as patch:
                for each in pod["containers"][0]["env"]:
                    if each["name"].startswith("NDML_") and "value" in each:
                        patch.setenv(each["name"], each["value"])
                told.append(load_settings(cls, file).model_dump())
        assert told[0] == told[1]
