"""How a memory looks to a person: one card, its strength, what happened to it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import RenderableType
from rich.table import Table

from ndml.cli.output import table
from ndml.client import GateDecision, Memory, Strength

_TIMESCALES = ("5 s", "60 s", "15 min", "4 h", "2 d", "14 d", "90 d", "ever")


def cards(memory: Memory) -> list[RenderableType]:
    """The memory; below it its history and its siblings, where they were asked for."""
    shown: list[RenderableType] = [card(memory)]
    if memory.history:
        rows = ((when(event.at), event.kind, event.state, event.why) for event in memory.history)
        shown += ["", table("=when", "what", "state", "why", rows=rows)]
    if memory.siblings:
        contents = (
            ("shown" if s.shown else "", s.sibling_id, s.node_id, s.support, when(s.memory.updated_at), s.memory.text)
            for s in memory.siblings
        )
        shown += ["", table("", "=sibling", "written at", ">support", "=updated", "text", rows=contents)]
    return shown


def card(memory: Memory) -> Table:
    rows = [*_said(memory), *_life(memory), *(strength_rows(memory.strength) if memory.strength else ())]
    return table("", "", rows=((name, value) for name, value in rows if value not in ("", None)))


def _said(memory: Memory) -> Iterator[tuple[str, object]]:
    scope = memory.scope
    yield "id", memory.trace_id
    yield "text", memory.text
    yield "speaker", memory.speaker
    yield "said", when(memory.said_at)
    yield "holds from", when(memory.valid_from)
    yield "holds until", when(memory.valid_until)
    yield "learned", when(memory.learned_at)
    yield "updated", when(memory.updated_at)
    yield "kind", memory.kind
    yield "labels", ", ".join(f"{key}={value}" for key, value in sorted(memory.metadata.items()))
    yield "salience", f"{memory.salience:g}" if memory.salience else ""
    yield "source", memory.provenance.source if memory.provenance else ""
    yield "scope", " / ".join(filter(None, (scope.tenant, scope.user, scope.agent, scope.session)))
    yield "version", memory.version
    yield "vector", f"{memory.embedding.dimension} x float32, {memory.embedding.model}" if memory.embedding else ""


def _life(memory: Memory) -> Iterator[tuple[str, object]]:
    yield "state", memory.state if memory.state != "unspecified" else ""
    yield "protected", "yes" if memory.protected else ""
    yield "expires", when(memory.expires_at)
    yield "gate", decision(memory.gate) if memory.gate else ""
    for link in memory.links:
        yield link.type.replace("_", " "), f"{link.trace_id} ({link.weight:.2f}){f': {link.evidence}' if link.evidence else ''}"


def strength_rows(strength: Strength) -> Iterator[tuple[str, object]]:
    left = zip(_TIMESCALES, strength.by_timescale, strict=False)
    yield "strength", f"{strength.strength:.3f}"
    yield "by timescale", "  ".join(f"{name} {value:.3g}" for name, value in left)
    yield "recall now", f"{strength.retrievability:.0%}, stability {strength.stability_days:.3g} d, difficulty {strength.difficulty:.3g}"
    yield "captured", f"{strength.captured:.3f}, tag {strength.tag:.3f}"
    yield "credit", f"{strength.credit:.3f}"
    yield "uses", f"{strength.uses} graded: {strength.successes} good, {strength.failures} bad"
    yield "last graded", when(strength.last_graded_at)


def decision(gate: GateDecision) -> str:
    """ "novel: familiarity 0.19 is below 0.27"."""
    return f"{gate.decision}: {gate.reason}" if gate.reason else str(gate.decision)


def when(time: datetime | None) -> str:
    """Minutes, in UTC; "" for None."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M") if time else ""
