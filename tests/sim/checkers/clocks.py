"""A clock that is far off drags nobody along: the others refuse what it gave, and go on by their own."""

from __future__ import annotations

from collections.abc import Mapping


def dragged(leads: Mapping[str, float], most_s: float) -> list[str]:
    """`leads`: seconds by which each node's hybrid clock is ahead of the time, while another machine's clock is off by more than that."""
    return [f"the clock of {node} was dragged {lead:.0f} s ahead" for node, lead in sorted(leads.items()) if lead > most_s]
