"""An acknowledged write is never lost: at the end, every copy shows it, or something that its writer wrote later."""

from __future__ import annotations

from collections.abc import Mapping

from tests.sim.history import GONE, History


def lost_acks(history: History, finals: Mapping[str, Mapping[str, int]]) -> list[str]:
    """`finals`: for each copy the number that it shows of each trace, 0 or absent: not there, `GONE`: it knows that it was deleted."""
    attempted = history.attempted()
    return [
        f"{copy} shows {_said(final.get(trace, 0))} of {trace}, {_said(number)} was acknowledged"
        for trace, number in history.acked().items()
        for copy, final in finals.items()
        if not number <= final.get(trace, 0) <= attempted[trace]
    ]


def _said(number: int) -> str:
    return "the delete" if number == GONE else f"write {number}" if number else "nothing"
