"""Session guarantees of a client that passes its token on: it sees its own writes, and never less than it saw before."""

from __future__ import annotations

from collections.abc import Mapping

from tests.sim.history import GONE, History, Outcome, Read, Write


def read_your_writes(history: History) -> list[str]:
    """A read in the session of its trace's writer sees that writer's last acknowledged write, or one after it."""
    acked: dict[tuple[str, str], int] = {}
    attempted, found = history.attempted(), []
    for event in history.events:
        key = event.client, event.trace
        if isinstance(event, Write):
            if event.outcome is Outcome.ACKED:
                acked[key] = max(event.number, acked.get(key, 0))
        elif event.in_session and _seen(event, acked.get(key, 0), attempted) < acked.get(key, 0):
            found.append(
                f"{event.client} at {event.at:.3f} saw {event.number} of {event.trace} after its write {acked[key]} was acknowledged"
            )
    return found


def monotonic_reads(history: History) -> list[str]:
    """What a client saw of a trace in its session, it sees at every later read in it."""
    seen: dict[tuple[str, str], int] = {}
    attempted, found = history.attempted(), []
    for event in history.events:
        if isinstance(event, Write) or not event.in_session:
            continue
        key = event.client, event.trace
        before = seen.get(key, 0)
        now = _seen(event, before, attempted)
        if now < before:
            found.append(f"{event.client} at {event.at:.3f} saw {event.number} of {event.trace} after it had seen {before}")
        seen[key] = max(now, before)
    return found


def _seen(read: Read, before: int, attempted: Mapping[str, int]) -> int:
    """Nothing, where something was before and a delete was tried, is the delete: also one whose outcome its caller never heard of."""
    return GONE if read.number == 0 and before and attempted.get(read.trace) == GONE else read.number
