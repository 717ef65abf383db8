"""What the reference page promises of metrics, and what a query asks of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "deploy/helm/ndml/files"
PAGE = ROOT / "docs/reference/metrics.md"
_ROW = re.compile(r"^\| `(ndml_[a-z_]+)` \| (\w+) \| ([^|]*)\| ([^|]+) \|", re.MULTILINE)
_OF_PROCESS = re.compile(r"^\| `(process_[a-z_]+)` \| (\w+) \|", re.MULTILINE)
TARGET_LABELS = {"job", "instance", "namespace"}
"""What Prometheus puts there."""
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_METRIC = re.compile(r"\b((?:ndml|process)_[a-z0-9_]+|ndml:[a-z0-9_:]+|up|ALERTS)\b(\{[^}]*\})?")
_GROUPED = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")


@dataclass(frozen=True)
class Documented:
    """A row of the reference page."""

    name: str
    kind: str
    labels: frozenset[str]
    services: str


def documented() -> dict[str, Documented]:
    """Every series' name as Prometheus has it -> its row."""
    found: dict[str, Documented] = {}
    text = PAGE.read_text()
    for name, kind, labels, services in _ROW.findall(text):
        row = Documented(
            name, kind, frozenset(re.findall(r"`(\w+)`", labels)) | ({"le"} if kind == "histogram" else set()), services.strip()
        )
        found |= {name + suffix: row for suffix in _SUFFIXES[kind]}
    return found | {name: Documented(name, kind, frozenset(), "all") for name, kind in _OF_PROCESS.findall(text)}


def metrics_in(expr: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric that a query names, with the labels that it selects by."""
    # What stands in quotes may look like anything; the braces of a template stay, empty.
    bare = _QUOTED.sub('""', expr)
    for match in _METRIC.finditer(_GROUPED.sub("", bare)):
        yield match[1], set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", match[2] or ""))


def groupings(expr: str) -> set[str]:
    """The labels that a query groups or joins by."""
    return {label.strip() for inside in _GROUPED.findall(_QUOTED.sub('""', expr)) for label in inside.split(",") if label.strip()}


def problems(expr: str, recorded: set[str]) -> list[str]:
    """What a query asks that no process exports; `recorded` are the names that rules make."""
    known, found = documented(), []
    allowed = set(TARGET_LABELS)
    for name, labels in metrics_in(expr):
        if name in recorded or name in ("up", "ALERTS"):
            continue
        if name not in known:
            found.append(f"{name} is not in {PAGE.name}")
            continue
        allowed |= known[name].labels
        if stray := labels - known[name].labels - TARGET_LABELS:
            found.append(f"{name} has no label {', '.join(sorted(stray))}")
    if stray := groupings(expr) - allowed:
        found.append(f"grouped by {', '.join(sorted(stray))}, which nothing in it has")
    return found


def rules(loaded: dict[str, Any]) -> list[dict[str, Any]]:
    """Every rule of a rule file."""
    return [rule for group in loaded["groups"] for rule in group["rules"]]
