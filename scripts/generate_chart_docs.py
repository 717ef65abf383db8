"""Write README.md and values.schema.json of the Helm chart from its values.yaml and the settings classes.

.venv/bin/python scripts/generate_chart_docs.py [CHART]

Types come from the defaults, ranges and choices from the tables below, what `<component>.config` takes from the services' own settings:
a mistyped knob is refused by `helm install`, before any pod starts. Values that have no comment are an error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from scripts.generate_config_docs import settings_class

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy/helm/ndml"
COMPONENTS = {"gateway": "gateway", "memoryNode": "memory_node", "consensus": "consensus", "llm": "llm"}

Schema = dict[str, Any]

_QUANTITY: Schema = {"type": ["string", "number"], "pattern": "^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"}
# The chart computes with the memory limit of these: half of it is the index's.
_BYTES: Schema = {"type": "string", "pattern": "^[0-9]+(k|M|G|Ki|Mi|Gi|Ti)$"}
_CORES: Schema = {"type": ["string", "number"], "pattern": "^[0-9]+(\\.[0-9]+)?m?$"}
_MAP: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
_OBJECTS: Schema = {"type": "array", "items": {"type": "object"}}
_TEXTS: Schema = {"type": "array", "items": {"type": "string", "minLength": 1}}
_PORTS: Schema = {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 65535}, "minItems": 1}
_ADDRESS: Schema = {"type": "string", "pattern": "^([^:/ ]+:[0-9]{1,5})?$"}
_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_SECONDS: Schema = {"type": "number", "minimum": 0}
_NAME: Schema = {"type": "string", "pattern": "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$"}
_AMOUNTS: Schema = {"type": "object", "required": ["cpu", "memory"], "additionalProperties": False}
_RESOURCES: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["requests", "limits"],
    "properties": {
        key: {**_AMOUNTS, "properties": {"cpu": _CORES, "memory": _BYTES, "ephemeral-storage": _QUANTITY}} for key in ("requests", "limits")
    },
}
_TOKEN: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["token", "name", "tenants"],
    "properties": {
        "token": {"type": "string", "minLength": 16},
        "name": {"type": "string", "minLength": 1},
        "tenants": {**_TEXTS, "minItems": 1},
        "operator": {"type": "boolean"},
    },
}
_METRIC: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "averageValue"],
    "properties": {"name": {"type": "string", "minLength": 1}, "matchLabels": _MAP, "averageValue": _QUANTITY},
}
_QUERY: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["query", "threshold"],
    "properties": {"query": {"type": "string", "minLength": 1}, "threshold": {"type": "string", "minLength": 1}},
}
_RETENTION: Schema = {"enum": ["Retain", "Delete"]}
_DURATION: Schema = {"type": "string", "pattern": "^[0-9]+(h|m|s)$"}


def _count(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


# Path of a value, * for one or several steps -> what it takes beyond its default's type. The first that fits.
RULES: list[tuple[str, Schema]] = [
    ("fullnameOverride", {**_NAME, "maxLength": 40}),
    ("nameOverride", {**_NAME, "maxLength": 40}),
    ("image.pullPolicy", {"enum": ["IfNotPresent", "Always", "Never"]}),
    ("*.image.digest", {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}),
    ("*.image.repository", {"type": "string", "minLength": 1}),
    ("replicationFactor", _count(0, 16)),
    ("writeCopies", _count(0, 16)),
    ("embedding.dimension", _count(4, 16384)),
    ("auth.tokens", {"type": "array", "items": _TOKEN}),
    ("logging.level", {"enum": ["debug", "info", "warning", "error"]}),
    ("telemetry.otlpEndpoint", _ADDRESS),
    ("collector.exportTo", _ADDRESS),
    ("telemetry.sampleRatio", _SHARE),
    ("tls.gatewayClientAuth", {"enum": ["require", "none"]}),
    (
        "tls.existingSecrets",
        {"type": "object", "additionalProperties": False, "properties": {key: {"type": "string"} for key in COMPONENTS}},
    ),
    (
        "tls.certManager.issuerRef",
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {key: {"type": "string"} for key in ("name", "kind", "group")},
            "dependentRequired": {"name": ["kind"]},
        },
    ),
    ("tls.certManager.*uration", _DURATION),
    ("tls.certManager.renewBefore", _DURATION),
    ("signing.operator", {"type": "string", "pattern": "^([0-9a-f]{64})?$"}),
    ("topologySpread.whenUnsatisfiable", {"enum": ["ScheduleAnyway", "DoNotSchedule"]}),
    ("topologySpread.maxSkew", _count(1, 100)),
    ("probes.*.*", _count(1, 3600)),
    ("memoryNode.replicas", _count(1, 1024)),
    ("consensus.replicas", _count(1, 64)),
    ("*.replicas", _count(0, 1000)),
    ("*.autoscaling.minReplicas", _count(1, 1000)),
    ("*.autoscaling.maxReplicas", _count(1, 1000)),
    ("*.autoscaling.cpuUtilization", _count(0, 100)),
    ("*.autoscaling.podMetrics", {"type": "array", "items": _METRIC}),
    ("*.autoscaling.behavior", {"type": "object"}),
    ("*.keda.queries", {"type": "array", "items": _QUERY, "minItems": 1}),
    ("*.keda.prometheus", {"type": "string", "pattern": "^(https?://.+)?$"}),
    ("*.rollingUpdate.*", {"type": ["integer", "string"]}),
    ("*.resources", _RESOURCES),
    ("*.antiAffinity", {"enum": ["soft", "hard", "off"]}),
    ("*.affinity", {"type": "object"}),
    ("*.service.type", {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}),
    ("*.shutdown.*", _SECONDS),
    ("memoryNode.maxTraces", {"type": "integer", "minimum": 1}),
    ("memoryNode.handOver.timeoutSeconds", _count(1, 86_400)),
    ("memoryNode.profile", {"enum": ["general", "code", "factual", "conversational"]}),
    ("*.persistence.retention.*", _RETENTION),
    ("*.size", _QUANTITY),
    ("*.tmpSize", _QUANTITY),
    ("*.sharedMemory", _QUANTITY),
    ("*.gpu.count", _count(1, 16)),
    ("llm.chat.upstreamUrl", {"type": "string", "pattern": "^(https?://.+)?$"}),
    ("llm.chat.upstreamKind", {"enum": ["openai", "anthropic"]}),
    ("consensus.members", {**_TEXTS, "uniqueItems": True}),
    ("*.cidrs", {**_TEXTS, "minItems": 1}),
    ("*.ports", _PORTS),
    ("backup.schedule", {"type": "string", "pattern": "^(@[a-z]+|\\S+( \\S+){4})$"}),
    ("backup.keep", _count(1, 1000)),
    ("*.imagePullSecrets", _OBJECTS),
    ("*Seconds", _count(0, 1_000_000)),
]
# What the chart decides itself, or what belongs into a Secret: settings that `<component>.config` does not take.
OURS = {
    "server": ("host", "port", "metrics_port", "advertise", "instance", "drain_s", "grace_s", "health_port"),
    "rest": ("host", "port", "drain_s"),
    "auth": ("tokens",),
    "chat": ("api_key",),
    "node": ("node_id", "rejoin", "dimension", "embedding_model"),
    "store": ("data_dir", "max_traces"),
    "cluster": ("members", "replication_factor", "peers", "admit"),
    "tls": ("cert_file", "key_file", "ca_file", "client_auth"),
}


def comments(text: str) -> Iterator[tuple[str, str]]:
    """(path, comment) of each key of a block mapping in values.yaml that has a comment above it. Paths are dotted."""
    stack: list[tuple[int, str]] = []
    waiting: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped:
            waiting = []
        elif stripped.startswith("#"):
            waiting.append(stripped.lstrip("# "))
        elif not stripped.startswith("- "):
            indent = len(line) - len(line.lstrip())
            stack = [each for each in stack if each[0] < indent]
            stack.append((indent, stripped.split(":", 1)[0]))
            yield ".".join(name for _, name in stack), " ".join(waiting)
            waiting = []
        else:
            waiting = []


def rule_of(path: str) -> Schema | None:
    return next((rule for pattern, rule in RULES if fnmatch(path, pattern)), None)


def schema_of(value: Any, path: str, known: Mapping[str, str]) -> Schema:
    """What a value takes, by its default and RULES. Objects are closed; an empty one is a map of the caller's own words."""
    if path.endswith(".config") and path.split(".")[0] in COMPONENTS:
        schema: Schema = {"$ref": f"#/$defs/{path.split('.')[0]}"}
    elif (rule := rule_of(path)) is not None:
        schema = dict(rule)
    elif isinstance(value, dict) and value and not path.endswith(("labels", "annotations")):
        inner = {key: schema_of(each, f"{path}.{key}" if path else key, known) for key, each in value.items()}
        schema = {"type": "object", "additionalProperties": False, "properties": inner}
    elif isinstance(value, dict):
        schema = dict(_MAP)
    elif isinstance(value, list):
        schema = dict(_TEXTS if path.endswith(("Hostnames", "DnsNames", "Ranges")) else _OBJECTS)
    else:
        kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
        schema = {"type": kinds[type(value)]}
    return {**({"description": known[path]} if known.get(path) else {}), **schema}


def settings_schemas() -> Schema:
    """$defs: for each component what its `config` takes, made from its settings class, without what the chart decides."""
    found: Schema = {}
    for component, service in COMPONENTS.items():
        model = settings_class(service).model_json_schema(ref_template=f"#/$defs/{component}_{{model}}")
        sections = model["properties"]
        for name, section in {**model.pop("$defs", {})}.items():
            found[f"{component}_{name}"] = section
        for section, keys in OURS.items():
            reference = json.dumps(sections.get(section, {}))
            for name in [each for each in found if f'"#/$defs/{each}"' in reference]:
                for key in keys:
                    found[name]["properties"].pop(key, None)
        found[component] = model
    return {name: _bare(each) for name, each in found.items()}


def _bare(schema: Any) -> Any:
    """Without titles, defaults and words: they stand in docs/reference/configuration.md. Closed also where pydantic says nothing."""
    if isinstance(schema, list):
        return [_bare(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in ("title", "default", "description", "format", "writeOnly")}
    # Names of properties are not keywords: one of them may be called like one.
    kept = {
        key: {name: _bare(each) for name, each in value.items()} if key in ("properties", "$defs") else _bare(value)
        for key, value in kept.items()
    }
    if "properties" in kept:
        kept.setdefault("additionalProperties", False)
        kept.pop("required", None)
    return kept


def chart_schema(values: Mapping[str, Any], known: Mapping[str, str]) -> Schema:
    schema = schema_of(dict(values), "", known)
    # Helm puts `global` into every chart's values.
    schema["properties"]["global"] = {"type": "object"}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Values of the ndml chart"}
    return {**head, **schema, "$defs": settings_schemas()}


def leaves(value: Any, path: str, known: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """What the README lists: every value that has a comment and, below it, none that has one of its own."""
    inside = [key for key in known if key.startswith(f"{path}.")] if path else list(known)
    if isinstance(value, dict) and value and any(known[key] for key in inside):
        for key, each in value.items():
            yield from leaves(each, f"{path}.{key}" if path else key, known)
    else:
        yield path, value


def uncommented(values: Mapping[str, Any], known: Mapping[str, str]) -> list[str]:
    """Values of which nothing says why: neither they nor what they stand in, next to it."""
    return [path for path, _ in leaves(dict(values), "", known) if not known.get(path)]


def readme(chart: Mapping[str, Any], values: Mapping[str, Any], known: Mapping[str, str]) -> str:
    rows = []
    section = ""
    for path, value in leaves(dict(values), "", known):
        head = path.split(".")[0]
        if head != section and isinstance(values[head], dict) and values[head]:
            rows += ["", f"### {head}", "", *([known[head], ""] if known.get(head) else []), "| value | default | why |", "|---|---|---|"]
        elif not rows:
            rows += ["### Names", "", "| value | default | why |", "|---|---|---|"]
        elif head != section and (not isinstance(values[head], dict) or not values[head]) and isinstance(values.get(section), dict):
            rows += ["", f"### {head}", "", "| value | default | why |", "|---|---|---|"] if values[section] else []
        section = head
        shown = json.dumps(value, ensure_ascii=False)
        reason = known[path].replace("|", "\\|")
        rows.append(f"| `{path}` | {'' if value in ('', {}, []) else f'`{shown}`'} | {reason} |".replace("|  |", "| |"))
    return _HEAD.format(description=chart["description"], kube=chart["kubeVersion"].removesuffix("-0")) + "\n".join(rows) + "\n"


_HEAD = """# The ndml chart

Generated by `scripts/generate_chart_docs.py` from `values.yaml`: change that, not this page.

{description} Kubernetes {kube}.

```
helm install ndml deploy/helm/ndml --namespace memory --create-namespace --values deploy/helm/ndml/ci/small-values.yaml
helm test ndml --namespace memory --logs
```

| profile | for |
|---|---|
| `ci/laptop-values.yaml` | kind, minikube: one of each, Jaeger beside it |
| `ci/small-values.yaml` | a team on three machines: three copies, tokens, a backup each night |
| `ci/production-values.yaml` | zones, certificates between services, autoscaling, alerts and dashboards, the Gateway API |
| `ci/gpu-values.yaml` | chat model, embedding and large indexes on GPUs |

- Bearer tokens: a Secret with two keys, made by you, and `auth.existingSecret` with its name. `tokens` is a JSON list such as
  `[{{"token": "…", "name": "app", "tenants": ["acme"]}}, {{"token": "…", "name": "ops", "tenants": ["acme"], "operator": true}}]`;
  `operator-token` is the bare token of the operator, for `helm test` and backups.
- Any setting of a service (`docs/reference/configuration.md`) goes under `<component>.config`; the schema knows them all and refuses
  what is mistyped, what the chart decides itself, and what belongs into a Secret.
- Memory nodes scale by their replicas: a pod that its StatefulSet no longer wants hands its users over before it ends; one that comes
  back joins.
- What the suite needs, by how much is remembered and asked: `docs/operations/sizing.md`. Day by day: `docs/operations/kubernetes.md`.

## Values

"""


def main() -> None:
    chart = Path(sys.argv[1]) if len(sys.argv) > 1 else CHART
    text = (chart / "values.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    known = dict(comments(text))
    silent = uncommented(values, known)
    if silent:
        raise SystemExit(f"values.yaml: no reason given for {', '.join(silent)}: write a comment above each")
    facts = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    (chart / "README.md").write_text(readme(facts, values, known), encoding="utf-8")
    (chart / "values.schema.json").write_text(
        json.dumps(chart_schema(values, known), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
