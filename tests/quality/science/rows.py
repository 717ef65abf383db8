"""One line of an acceptance test: what the source says, what we get."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """`test` is the id in science.md (AT-1a ...), `what` the quantity, `passed` whether ours lies within the tolerance stated there."""

    test: str
    what: str
    reference: str
    ours: str
    passed: bool
