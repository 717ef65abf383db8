"""Finished spans as data, a trace as a tree, a tree as lines. Pure: whoever got the spans, and from wherever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ndml.errors import Code
from ndml.runtime import semconv

# Numbers of the OTLP enumerations, as spans name them here.
STATUSES = {0: "UNSET", 1: "OK", 2: "ERROR"}
KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
_MOST_LINKS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Span:
    """One finished span. Ids are lower-case hexadecimal; `parent_id` is empty for the root."""

    service: str
    instance: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    status: str
    message: str
    attributes: dict[str, Any]
    links: tuple[str, ...]

    @property
    def duration_ms(self) -> float:
        return (self.end_ns - self.start_ns) / 1e6


@dataclass(slots=True)
class SpanNode:
    """A span and the spans below it, by start time."""

    span: Span
    children: list[SpanNode] = field(default_factory=list)


def tree(spans: Sequence[Span]) -> list[SpanNode]:
    """Nest spans under their parents, children by start time; a span whose parent is not among them is a root."""
    nodes = {span.span_id: SpanNode(span) for span in sorted(spans, key=lambda span: span.start_ns)}
    roots: list[SpanNode] = []
    for node in nodes.values():
        parent = nodes.get(node.span.parent_id)
        (roots if parent is None or parent is node else parent.children).append(node)
    return roots


_SHOWN = (
    semconv.NODE_ID,
    semconv.GEN_AI_REQUEST_MODEL,
    semconv.INDEX_KIND,
    semconv.BATCH_SIZE,
    semconv.MEMORY_K,
    semconv.MEMORY_HITS,
    semconv.MEMORY_COUNT,
    semconv.CACHE_HIT,
    semconv.QUEUE_MS,
    semconv.TENANT_HASH,
    semconv.ERROR_TYPE,
)


def render(roots: Sequence[SpanNode], *, offsets: bool = False) -> list[str]:
    """One line a span, indented below its parent: service, name, milliseconds, status, key attributes, what it is linked to.

    offsets: also the milliseconds from the first span's start to this one's.
    """
    flat = [(depth, node.span) for root in roots for depth, node in _walk(root, 0)]
    widest = max((2 * depth + len(span.service) for depth, span in flat), default=0)
    names = max((len(span.name) for _, span in flat), default=0)
    began = min((span.start_ns for _, span in flat), default=0)

    def line(depth: int, span: Span) -> str:
        at = f"  {(span.start_ns - began) / 1e6:+9.2f} ms" if offsets else ""
        head = f"{'  ' * depth + span.service:<{widest}}  {span.name:<{names}}{at}  {span.duration_ms:8.2f} ms"
        return f"{head}  {outcome(span)}{_key_attributes(span)}{_linked(span)}"

    return [line(depth, span) for depth, span in flat]


def outcome(span: Span) -> str:
    """OK, or the canonical code's name where the call failed, or ERROR for a failed span that is no call."""
    code = span.attributes.get(semconv.RPC_GRPC_STATUS_CODE, 0)
    if code:
        return Code(code).name if code in Code.__members__.values() else f"CODE_{code}"
    return "ERROR" if span.status == "ERROR" else "OK"


def _walk(node: SpanNode, depth: int) -> list[tuple[int, SpanNode]]:
    return [(depth, node), *(pair for child in node.children for pair in _walk(child, depth + 1))]


def _key_attributes(span: Span) -> str:
    shown = [(key, span.attributes[key]) for key in _SHOWN if key in span.attributes]
    return "".join(f"  {key.removeprefix('ndml.')}={round(value, 2) if isinstance(value, float) else value}" for key, value in shown)


def _linked(span: Span) -> str:
    shown = list(dict.fromkeys(span.links))
    more = len(shown) - _MOST_LINKS_SHOWN
    return "".join(f"  for={trace_id}" for trace_id in shown[:_MOST_LINKS_SHOWN]) + (f"  and {more} more" if more > 0 else "")
