"""What was deleted never comes back: not from a stale copy, an old message or a restored snapshot."""

from __future__ import annotations

from collections.abc import Mapping

from tests.sim.history import GONE, History, Outcome, Read, Write


def erased_returns(history: History, finals: Mapping[str, Mapping[str, int]]) -> list[str]:
    """In the end no copy shows a trace whose delete was acknowledged, and the deleter's session has not seen it since."""
    deleted: dict[str, str] = {}
    found = []
    for event in history.events:
        if isinstance(event, Write) and event.number == GONE and event.outcome is Outcome.ACKED:
            deleted[event.trace] = event.client
        elif isinstance(event, Read) and event.in_session and deleted.get(event.trace) == event.client and 0 < event.number < GONE:
            found.append(f"{event.client} at {event.at:.3f} saw {event.number} of {event.trace}, which it had deleted")
    found += [
        f"{copy} shows write {final[trace]} of {trace}, which was deleted"
        for copy, final in finals.items()
        for trace in deleted
        if 0 < final.get(trace, 0) < GONE
    ]
    return found
