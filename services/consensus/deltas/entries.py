"""What the log holds of an update, and what it takes as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from ndml.crdt import existence
from ndml.errors import FieldInvalid
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.placement.roster import MAX_NODE_ID_BYTES, MAX_REPLICA

MAX_TENANT_BYTES = 128  # as in the contract
MAX_USER_BYTES = 256  # as in the contract
MAX_COUNTER = (1 << 63) - 1  # SQLite's integers have a sign

Key = tuple[int, int]
"""Author and its position: names an update everywhere."""

Positions = Mapping[int, int]
"""Author -> position."""


class Via(IntEnum):
    """From whom this node has an update: decides who is told at once, and who only if nobody else told him meanwhile."""

    AUTHOR = 0
    ZONE = 1
    WIDE = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """An update without its bytes.

    author, counter  the store that wrote it, and its position
    previous         the author's position before, for this owner
    node_id          the author's node
    size             bytes
    arrived          when this node got it, by the log's clock
    """

    author: int
    counter: int
    previous: int
    node_id: str
    tenant: str
    user: str
    size: int
    arrived: float
    via: Via

    @property
    def key(self) -> Key:
        return self.author, self.counter


@dataclass(frozen=True, slots=True)
class Delta:
    """An update: its entry, its bytes, the trace context of the request behind it, and ids of the traces that it erases."""

    entry: Entry
    body: bytes
    traceparent: str = ""
    erases: Sequence[bytes] = ()


def delta_of(update: rpb.OwnerUpdate, arrived: float, via: Via, max_bytes: int, field: str = "updates") -> Delta:
    """Raises FieldInvalid where the update breaks a rule."""
    for name, text, limit in (
        ("tenant", update.tenant, MAX_TENANT_BYTES),
        ("user", update.user, MAX_USER_BYTES),
        ("node_id", update.node_id, MAX_NODE_ID_BYTES),
    ):
        if not 1 <= len(text.encode()) <= limit:
            raise FieldInvalid(f"{field}.{name} must have 1 to {limit} bytes", field=f"{field}.{name}")
    check_position(update.replica, update.counter, field)
    if update.previous >= update.counter:
        raise FieldInvalid(f"{field}.previous must be less than counter, {update.counter}", field=f"{field}.previous")
    body = update.SerializeToString()
    if len(body) > max_bytes:
        raise FieldInvalid(f"an update of {len(body)} bytes; deltas.max_update_bytes is {max_bytes}: write in smaller jobs", field=field)
    entry = Entry(
        update.replica, update.counter, update.previous, update.node_id, update.tenant, update.user, len(body), arrived, via
    )  # fmt: skip
    return Delta(entry, body, update.traceparent, erased_in(update))


def erased_in(update: rpb.OwnerUpdate) -> list[bytes]:
    """Ids of the traces that it erases."""
    return [record.trace_id for record in update.records if record.length == existence.REMOVED]


def check_position(replica: int, counter: int, field: str) -> None:
    """Raises FieldInvalid unless both are numbers that a store can have."""
    if not 1 <= replica <= MAX_REPLICA:
        raise FieldInvalid(f"{field}.replica must be 1 to {MAX_REPLICA}: the number of the author's store", field=f"{field}.replica")
    if not 1 <= counter <= MAX_COUNTER:
        raise FieldInvalid(f"{field}.counter must be 1 to {MAX_COUNTER}", field=f"{field}.counter")


def positions_of(heads: Sequence[rpb.Head], most: int, field: str) -> dict[int, int]:
    """Author -> position. Raises FieldInvalid where there are more than `most`, or where one is impossible."""
    if len(heads) > most:
        raise FieldInvalid(f"{field} has {len(heads)} authors; at most {most} are known (deltas.max_authors)", field=field)
    for head in heads:
        check_position(head.replica, head.counter, field)
    return {head.replica: head.counter for head in heads}


def heads_of(positions: Iterable[tuple[int, int]]) -> list[rpb.Head]:
    return [rpb.Head(replica=replica, counter=counter) for replica, counter in positions]
