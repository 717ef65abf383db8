"""Grafana's JSON for a dashboard, made of rows of panels. Nothing here knows what is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

SCHEMA = 39
"""Grafana 10.4's; later ones read it."""
_WIDTH = 24
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

Unit = Literal["short", "percentunit", "s", "bytes", "ops", "reqps", "none"]


@dataclass(frozen=True)
class Query:
    """One query and the legend of its series; `exemplar` shows the traces behind a histogram as points."""

    expr: str
    legend: str
    exemplar: bool = False


@dataclass(frozen=True)
class Panel:
    """One panel. `description` says what to do when it looks wrong. `steps`: value -> colour from there on.

    width: of Grafana's 24 columns.
    """

    title: str
    unit: Unit
    description: str
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    width: int = 8
    height: int = 8
    steps: tuple[tuple[float | None, str], ...] = ((None, "green"),)
    stacked: bool = False
    most: float | None = None


@dataclass(frozen=True)
class Row:
    """A heading and the panels under it."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """One dashboard; `uid` is its address for as long as it lives."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]


def to_grafana(dashboard: Dashboard, others: Sequence[Dashboard]) -> dict[str, Any]:
    """The dashboard as Grafana imports it, with links to `others`."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["ndml"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "annotations": {"list": [_alerts_shown()]},
        "links": [_link(other) for other in others],
        "panels": _laid_out(dashboard.rows),
    }


def _link(other: Dashboard) -> dict[str, Any]:
    return {"type": "link", "title": other.title, "url": f"/d/{other.uid}", "keepTime": True, "includeVars": True}


def _variables() -> list[dict[str, Any]]:
    data = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}
    asked = {"namespace": "label_values(ndml_build_info, namespace)", "job": 'label_values(ndml_build_info{namespace=~"$namespace"}, job)'}
    asked["instance"] = 'label_values(ndml_build_info{namespace=~"$namespace",job=~"$job"}, instance)'
    return [data, *(_variable(name, query) for name, query in asked.items())]


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "refresh": 2,
        "sort": 1,
        "hide": 0,
    }


def _alerts_shown() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "enable": True,
        "datasource": _DATASOURCE,
        "expr": 'ALERTS{alertname=~"Ndml.*",alertstate="firing",namespace=~"$namespace|"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{instance}}{{node}}{{queue}}",
        "iconColor": "red",
    }


def _laid_out(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Panels from left to right, a new line where one does not fit; rows of one line are as high as their highest."""
    made: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        head = {"type": "row", "title": row.title, "collapsed": False, "panels": [], "gridPos": _at(0, y, _WIDTH, 1)}
        made.append({**head, "id": len(made) + 1})
        y, x, line = y + 1, 0, 0
        for panel in row.panels:
            if x + panel.width > _WIDTH:
                y, x, line = y + line, 0, 0
            made.append(_panel(panel, len(made) + 1, _at(x, y, panel.width, panel.height)))
            x, line = x + panel.width, max(line, panel.height)
        y += line
    return made


def _at(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Panel, number: int, at: dict[str, int]) -> dict[str, Any]:
    custom: dict[str, Any] = {"fillOpacity": 20 if panel.stacked else 8, "lineWidth": 1, "showPoints": "never"}
    custom["stacking"] = {"mode": "normal" if panel.stacked else "none"}
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in panel.steps]},
        "custom": custom if panel.kind == "timeseries" else {},
    }
    if panel.most is not None:
        defaults["max"] = panel.most
    return {
        "type": panel.kind,
        "id": number,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "gridPos": at,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel),
        "targets": [_target(query, index, panel.kind) for index, query in enumerate(panel.queries)],
    }


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area", "textMode": "auto"}
    if panel.kind == "table":
        return {"showHeader": True, "cellHeight": "sm"}
    legend = {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}
    return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def _target(query: Query, index: int, kind: str) -> dict[str, Any]:
    made: dict[str, Any] = {"refId": chr(ord("A") + index), "datasource": _DATASOURCE, "expr": query.expr, "legendFormat": query.legend}
    if kind == "table":
        made |= {"instant": True, "format": "table"}
    if query.exemplar:
        made["exemplar"] = True
    return made
