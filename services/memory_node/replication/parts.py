"""What an author may say of a trace in a signed update: its own versions and its own feedback, never another store's."""

from __future__ import annotations

from collections.abc import Iterable

from ndml.crdt import existence
from ndml.crdt.causal import CausalContext, Dot
from ndml.errors import FieldInvalid
from ndml.internal.v1 import replication_pb2 as rpb

MOST_SPELLED = 1024
"""Dots past one that is left out of a context which are named one by one; past that fewer are claimed, which is never wrong."""


def own_part(record: rpb.TraceRecord, replica: int) -> rpb.TraceRecord | None:
    """The record without what others wrote; None: nothing is left.

    A version of another's that still stands must not look replaced, so its dot leaves the context with it.
    """
    if record.length == existence.REMOVED:
        return record
    others = [Dot(one.dot.replica, one.dot.counter) for one in record.versions if one.dot.replica != replica]
    states = [one for one in record.states if one.replica == replica]
    if not others and len(states) == len(record.states):
        return record
    versions = [one for one in record.versions if one.dot.replica == replica]
    if not versions and not states:
        return None
    made = rpb.TraceRecord(trace_id=record.trace_id, length=record.length, versions=versions, states=states, requests=record.requests)
    if versions:
        made.context = without(CausalContext.from_bytes(record.context), others).to_bytes()
    return made


def own_update(update: rpb.OwnerUpdate) -> tuple[rpb.OwnerUpdate, list[bytes]]:
    """The update with its author's part of each record, and the ids of traces of which the author has none."""
    parts = [own_part(record, update.replica) for record in update.records]
    missing = [record.trace_id for record, part in zip(update.records, parts, strict=True) if part is None]
    made = rpb.OwnerUpdate()
    made.CopyFrom(update)
    del made.records[:]
    made.records.extend(part for part in parts if part is not None)
    return made, missing


def check_own(update: rpb.OwnerUpdate) -> None:
    """Raises FieldInvalid where the author speaks for another store."""
    for i, record in enumerate(update.records):
        authors = {one.dot.replica for one in record.versions} | {one.replica for one in record.states}
        if authors - {update.replica}:
            raise FieldInvalid(f"node {update.node_id!r} signed what another store wrote", field=f"records[{i}]")


def without(context: CausalContext, dots: Iterable[Dot]) -> CausalContext:
    """The context without these dots."""
    gone = set(dots)
    vector, cloud = dict(context.vector), set(context.cloud) - gone
    for replica in {dot.replica for dot in gone}:
        reached = vector.get(replica, 0)
        first = min((dot.counter for dot in gone if dot.replica == replica and dot.counter <= reached), default=0)
        if first:
            vector[replica] = first - 1
            later = range(first + 1, min(reached, first + MOST_SPELLED) + 1)
            cloud |= {Dot(replica, counter) for counter in later} - gone
    return CausalContext(vector, frozenset(cloud))
