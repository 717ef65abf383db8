"""What a service imports, wherever in it, is in its image: its lists of requirements name it, or something in them brings it."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = {"ndml", "services", "buf"}  # buf: protos/third_party, copied into every image
# faiss is taken for the store of neighbours where it is there (ndml/fusion/knn.py); an index on the device is the GPU image's.
NOT_EVERYWHERE = {"llm": {"faiss"}}
GPU = ("llm", "memory_node")


def _name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement.strip())[0]).lower()


def listed(path: Path) -> set[str]:
    """Names of distributions in a list of requirements."""
    lines = path.read_text("utf-8").splitlines()
    return {_name(line) for line in lines if line.strip() and not line.startswith("#")}


def brought(names: set[str]) -> set[str]:
    """These and all that they require without extras, as installed here."""
    found: set[str] = set()
    left = list(names)
    while left:
        if (name := left.pop()) in found:
            continue
        found.add(name)
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        left += [_name(line) for line in required if "extra ==" not in line]
    return found


def imported(graph: grimp.ImportGraph, service: str) -> dict[str, str]:
    """Packages from outside that the service's modules and all below them import, also within functions, and one module that does."""
    modules = {m for m in graph.modules if m == f"services.{service}" or m.startswith(f"services.{service}.")}
    reached = modules.union(*(graph.find_upstream_modules(module) for module in modules))
    found: dict[str, str] = {}
    for module in sorted(m for m in reached if m.split(".")[0] in OURS):
        for target in graph.find_modules_directly_imported_by(module):
            top = target.split(".")[0]
            if top not in OURS and top not in sys.stdlib_module_names:
                found.setdefault(top, module)
    return found


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("ndml", "services", include_external_packages=True)


@pytest.mark.parametrize("service", ["gateway", "consensus", "memory_node", "llm"])
def test_an_image_has_what_its_service_imports(graph: grimp.ImportGraph, service: str) -> None:
    folder = ROOT / "services" / service
    lists = [ROOT / "ndml" / "runtime" / "requirements.in", folder / "requirements.in"]
    there = brought(set().union(*map(listed, lists + ([folder / "requirements-gpu.in"] if service in GPU else []))))
    carriers = importlib.metadata.packages_distributions()
    found = imported(graph, service)
    assert {"grpc", "yaml"} <= set(found)
    missing = {
        package: module
        for package, module in found.items()
        if package not in NOT_EVERYWHERE.get(service, ()) and not {_name(name) for name in carriers.get(package, ())} & there
    }
    assert missing == {}
