"""Fresh reads: where the copies that wrote and those that are asked overlap, a read sees every write acknowledged to anybody before it."""

from __future__ import annotations

from tests.sim.history import GONE, History, Outcome, Read, Write


def stale_reads(history: History, replicas: int) -> list[str]:
    """A read that asks R of `replicas` copies never misses a write that was acknowledged by W of them, to any client, before it began,
    where W + R > `replicas`. A delete that was tried may be what a read that finds nothing has seen."""
    acked: dict[str, list[Write]] = {}
    attempted, found = history.attempted(), []
    for event in history.events:
        if isinstance(event, Write):
            if event.outcome is Outcome.ACKED and event.copies:
                acked.setdefault(event.trace, []).append(event)
        elif event.copies:
            found += _missed(event, acked.get(event.trace, []), attempted.get(event.trace) == GONE, replicas)
    return found


def _missed(read: Read, acked: list[Write], deleted: bool, replicas: int) -> list[str]:
    """The newest of these writes that the read should have seen and has not."""
    due = [write for write in acked if write.at < read.began and write.copies + read.copies > replicas]
    newest = max(due, key=lambda write: write.number, default=None)
    if newest is None or read.number >= newest.number or (read.number == 0 and deleted):
        return []
    return [
        f"{read.client} at {read.at:.3f} saw {read.number} of {read.trace} at {read.copies} copies, asked at {read.began:.3f}:"
        f" {newest.client} was told at {newest.at:.3f} that {newest.copies} have write {newest.number}"
    ]
