"""The roster: what each memory node last said of itself, as a join-semilattice.

A record has a single writer, the node, which counts `incarnation` up whenever anything else in it changes. The join of two rosters
keeps the record with the largest incarnation for each node, so it is commutative, associative and idempotent: consensus nodes that
exchange rosters in any order, any number of times, end with the same one, without a leader.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from hashlib import sha256
from struct import pack
from typing import Any

from ndml.errors import FieldInvalid, FieldViolation

MAX_NODE_ID_BYTES = 128
MAX_ADDRESS_BYTES = 261  # a DNS name of 255 bytes, a colon, a port
MAX_LABEL_BYTES = 64
MAX_INCARNATION = 1 << 48  # 1024 members at this bound still sum to less than the uint64 of an epoch
MAX_REPLICA = (1 << 63) - 1  # SQLite's integers have a sign
_ADDRESS = re.compile(r"(?:[^\s:\[\]]+|\[[^\s\[\]]+\]):(?P<port>[0-9]{1,5})")


class MemberPhase(IntEnum):
    """How a member takes part. The numbers are those of ndml.v1.MemberPhase (a test holds them together)."""

    UNSPECIFIED = 0
    JOINING = 1
    ACTIVE = 2
    LEAVING = 3
    LEFT = 4


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What a memory node says of itself. `address` is host:port, empty only in the record of a member never heard of.

    `replica` is the number of its store, 0 where it did not say. A record never has the phase UNSPECIFIED: who says nothing is ACTIVE.
    """

    node_id: str
    address: str = ""
    zone: str = ""
    profile: str = "general"
    incarnation: int = 0
    phase: MemberPhase = MemberPhase.ACTIVE
    replica: int = 0

    def to_bytes(self) -> bytes:
        """Canonical bytes, every text with its length: equal bytes, equal records; larger incarnation, larger bytes."""
        texts = [text.encode() for text in (self.node_id, self.address, self.zone, self.profile)]
        return pack(">QBQ", self.incarnation, self.phase, self.replica) + b"".join(pack(">I", len(text)) + text for text in texts)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return asdict(self) | {"phase": int(self.phase)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> NodeRecord:
        """What `to_json` gave, or an older release, which knew no phases. Raises TypeError, ValueError."""
        return cls(**{**values, "phase": MemberPhase(values.get("phase", MemberPhase.ACTIVE))})


Roster = Mapping[str, NodeRecord]


def newer(one: NodeRecord, other: NodeRecord) -> NodeRecord:
    """The record that a join keeps: larger incarnation; at equal ones the larger bytes, so that all nodes choose alike."""
    return max(one, other, key=NodeRecord.to_bytes)


def join(roster: Roster, records: Iterable[NodeRecord]) -> dict[str, NodeRecord]:
    """Least upper bound of a roster and records; neither is changed."""
    joined = dict(roster)
    for record in records:
        known = joined.get(record.node_id)
        joined[record.node_id] = record if known is None else newer(known, record)
    return joined


def epoch_of(records: Iterable[NodeRecord]) -> int:
    """Sum of the members' incarnations: a join never lowers it, and raises it whenever a member's record grew."""
    return sum(record.incarnation for record in records)


def digest_of(records: Iterable[NodeRecord]) -> str:
    """SHA-256 of the records in the order of their ids, hexadecimal; equal on converged nodes."""
    digest = sha256()
    for record in sorted(records, key=lambda record: record.node_id):
        data = record.to_bytes()
        digest.update(pack(">I", len(data)) + data)
    return digest.hexdigest()


def check_record(record: NodeRecord, field: str = "node") -> None:
    """Raise FieldInvalid with every rule that the record breaks; `field` is the path of the record in its request."""
    broken = [FieldViolation(f"{field}.{name}", text, FieldInvalid.reason) for name, text in _faults(record)]
    if broken:
        raise FieldInvalid("; ".join(f"{fault.field}: {fault.description}" for fault in broken), violations=broken)


def _faults(record: NodeRecord) -> Iterable[tuple[str, str]]:
    if not 1 <= len(record.node_id.encode()) <= MAX_NODE_ID_BYTES:
        yield "node_id", f"must have 1 to {MAX_NODE_ID_BYTES} bytes; set the node's stable name"
    if not is_address(record.address):
        yield "address", f"must be host:port where gateways reach the node, not {record.address[:80]!r}"
    if len(record.zone.encode()) > MAX_LABEL_BYTES:
        yield "zone", f"must have at most {MAX_LABEL_BYTES} bytes"
    if not 1 <= len(record.profile.encode()) <= MAX_LABEL_BYTES:
        yield "profile", f"must have 1 to {MAX_LABEL_BYTES} bytes, such as 'general'"
    if not 1 <= record.incarnation <= MAX_INCARNATION:
        yield "incarnation", f"must be 1 to {MAX_INCARNATION}: the node counts it up from 1"
    if record.phase is MemberPhase.UNSPECIFIED:
        yield "phase", "must be said: JOINING, ACTIVE, LEAVING or LEFT"
    if not 0 <= record.replica <= MAX_REPLICA:
        yield "replica", f"must be 0 to {MAX_REPLICA}: the number that the store was given when it was made"


def is_address(address: str) -> bool:
    """host:port with a port of 1 to 65535; the host may be a name, an IPv4 or a bracketed IPv6 address."""
    parts = _ADDRESS.fullmatch(address)
    return parts is not None and len(address.encode()) <= MAX_ADDRESS_BYTES and 1 <= int(parts["port"]) <= 65535
