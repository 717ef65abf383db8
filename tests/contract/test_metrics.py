"""One list of metrics: in semconv, registered, exported, and in the reference page."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ndml.runtime import metrics, semconv

ROOT = Path(__file__).resolve().parents[2]
SEED = {
    "ndml_memory_total_traces",
    "ndml_memory_utilization",
    "ndml_memory_query_latency",
    "ndml_memory_update_rate",
    "ndml_consensus_operations",
}
ROW = re.compile(r"^\| `(ndml_[a-z_]+)` \| (\w+) \| ([^|]*)\| [^|]+ \| [^|]+ \|$", re.MULTILINE)


def named() -> set[str]:
    return {value for key, value in vars(semconv).items() if key.startswith("METRIC_")}


def registered() -> dict[str, Counter | Gauge | Histogram]:
    return {metric._name: metric for metric in vars(metrics).values() if isinstance(metric, Counter | Gauge | Histogram)}


def test_the_seeds_names_are_there() -> None:
    assert named() >= SEED


def test_every_name_is_a_metric_and_every_metric_has_a_name() -> None:
    assert set(registered()) == named()


def test_the_reference_page_has_every_metric_with_type_and_labels() -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text()
    rows = {name: (kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels in ROW.findall(page)}
    assert rows == {name: (metric._type, list(metric._labelnames)) for name, metric in registered().items()}


def test_a_scrape_has_every_metric_with_a_help_text() -> None:
    families = {family.name: family for family in text_string_to_metric_families(generate_latest().decode())}
    assert named() <= set(families)
    assert all(families[name].documentation for name in named())


def unused(prefix: str, names: list[str], definition: str) -> list[str]:
    files = [path for folder in ("ndml", "services") for path in (ROOT / folder).rglob("*.py") if path.name != definition]
    texts = [path.read_text() for path in files]
    return [name for name in names if not any(re.search(rf"\b({prefix})\.{name}\b", text) for text in texts)]


def test_every_name_of_semconv_is_used() -> None:
    assert unused("semconv|names", [key for key in vars(semconv) if key.isupper()], "semconv.py") == []


def test_every_metric_is_set_somewhere() -> None:
    objects = [key for key, value in vars(metrics).items() if isinstance(value, Counter | Gauge | Histogram)]
    assert unused("metrics", objects, "metrics.py") == []
