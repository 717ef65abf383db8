"""AT-6a and AT-6b: every way on every family, without memory and with it; a state beside the prompt that it stands for."""

from __future__ import annotations

from ndml.fusion.ways import WAYS, Way
from tests.perf.tables import Part, Row, Table
from tests.unit.fusion.test_families import (
    CAT,
    EMPTY,
    FAMILIES,
    HELLO,
    LONGER,
    REFUSED,
    STEPS_FROM_STATES,
    bare,
    first_logits,
    fusion,
    open_ways,
)

NOTE = """Tiny random models, one of each family, called as transformers' own users do. In a cell: the largest change of a logit by a way
that has nothing to read (0 is bit for bit), then with two memories, in units of the log probability. *state* against *prompt*: the same
ids, once read anew and once gone on with from a kept state (AT-6b, below 1e-4)."""


def matrix() -> Part:
    """All families; a minute."""
    rows, idle, differences = [], [], []
    for name in FAMILIES:
        cells = [_cell(name, way) for way in WAYS]
        apart = _apart(name)
        idle += [cell[0] for cell in cells if cell]
        differences += [] if apart is None else [apart]
        shown = (f"{cell[0]:g}, {cell[1]:.2f}" if cell else "refused" for cell in cells)
        rows.append((name, fusion(name).family.keeps, *shown, "-" if apart is None else f"{apart:.0e}"))
    targets = [
        Row(
            "AT-6a: any way without memory, largest change of a logit",
            f"{max(idle):g}",
            f"{len(idle)} ways x families",
            "0",
            max(idle) == 0,
        ),
        Row(
            "AT-6b: state against prompt, largest difference of a logit",
            f"{max(differences):.1e}",
            f"{len(differences)} families",
            "< 1e-4",
            max(differences) < 1e-4,
        ),
    ]
    head = ("family", "keeps", *WAYS, "state against prompt")
    return Part(targets, [Table("Every way on every family", NOTE, head, rows)])


def _cell(name: str, way: Way) -> tuple[float, float] | None:
    if way not in open_ways(name):
        return None
    made = fusion(name)
    plan = made.plan(LONGER, EMPTY, way)
    idle = float((first_logits(made, plan) - bare(name, plan.tokens)).abs().max())
    none, some = (first_logits(made, made.plan(HELLO, memory, way)).log_softmax(-1) for memory in (EMPTY, CAT))
    return idle, float((some - none).abs().max())


def _apart(name: str) -> float | None:
    if name in REFUSED or name not in STEPS_FROM_STATES:
        return None
    made = fusion(name)
    prompt, state = (made.start(made.plan(HELLO, CAT, way)).logits[0] for way in ("prompt", "state"))
    return float((prompt - state).abs().max())
