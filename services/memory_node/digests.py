"""Digests of an owner's records, as ndml.crdt.record makes them, straight from indexes: no content is read.

A record of one version, nothing else known of it, is most of them: those are put together as one array. 100,000 take about a quarter of a
second.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ndml.crdt import existence
from ndml.crdt.causal import CausalContext, Dot
from ndml.crdt.digests import DIGEST_BYTES
from ndml.crdt.record import digest_of

U8 = NDArray[np.uint8]

_IDS = "SELECT trace_id, sequence FROM traces INDEXED BY traces_identity WHERE owner_id = ?"
_VERSIONS = """SELECT sequence, replica, counter, first_sequence FROM traces INDEXED BY traces_versions
  WHERE owner_id = ? AND (replica <> 0 OR counter <> 1 OR first_sequence <> sequence)"""
_PAIR = Struct("<QQ")
_SAMPLE = Dot(1, 1)


class Digests(NamedTuple):
    """Of an owner's records, erased ones included, in no order: digests [n, 16] and trace ids [n, 16]."""

    digests: U8
    trace_ids: U8

    @property
    def whole(self) -> bytes:
        """XOR of them all: the owner's digest."""
        return np.bitwise_xor.reduce(self.digests, axis=0).tobytes() if len(self.digests) else bytes(DIGEST_BYTES)


def owner_digests(connection: sqlite3.Connection, owner_id: int, replica: int) -> Digests:
    """As the connection sees them now. `replica`: the store's own number."""
    versions = {sequence: rest for sequence, *rest in connection.execute(_VERSIONS, (owner_id,))}
    found = connection.execute(_IDS, (owner_id,))
    rows = [(trace_id, *versions.get(sequence, (0, 1, sequence))) for trace_id, sequence in found]
    unusual = _Unusual(connection, owner_id, replica)
    special = [i for i, row in enumerate(rows) if row[0] in unusual.ids or row[3] in unusual.changed]
    made = _plain(rows, replica)
    for i in special:
        made[i] = unusual.digest(*rows[i])
    erased = [trace_id for (trace_id,) in connection.execute("SELECT trace_id FROM erased WHERE owner_id = ?", (owner_id,))]
    made += [digest_of(trace_id, existence.REMOVED, b"", (), ()) for trace_id in erased]
    ids = b"".join([row[0] for row in rows] + erased)
    return Digests(np.frombuffer(b"".join(made), np.uint8).reshape(-1, 16), np.frombuffer(ids, np.uint8).reshape(-1, 16))


class _Unusual:
    """Traces of which more is known than one version: by id, and by first sequence those with own feedback."""

    def __init__(self, connection: sqlite3.Connection, owner_id: int, replica: int) -> None:
        self._replica = replica
        self._contexts = dict(connection.execute("SELECT trace_id, context FROM contexts WHERE owner_id = ?", (owner_id,)))
        self._siblings: dict[bytes, list[Dot]] = defaultdict(list)
        for trace_id, *dot in connection.execute("SELECT trace_id, replica, counter FROM siblings WHERE owner_id = ?", (owner_id,)):
            self._siblings[trace_id].append(Dot(*dot))
        self._states: dict[bytes, dict[int, int]] = defaultdict(dict)
        for trace_id, author, counter in connection.execute(
            "SELECT trace_id, replica, counter FROM contributions WHERE owner_id = ?", (owner_id,)
        ):
            self._states[trace_id][author] = counter
        query = "SELECT first_sequence, changed FROM states WHERE owner_id = ? AND changed > 0"
        self.changed: dict[int, int] = dict(connection.execute(query, (owner_id,)))
        self.ids = self._contexts.keys() | self._siblings.keys() | self._states.keys()

    def digest(self, trace_id: bytes, replica: int, counter: int, first_sequence: int) -> bytes:
        shown = Dot(replica or self._replica, counter)
        context = self._contexts.get(trace_id) or CausalContext({shown.replica: shown.counter}).to_bytes()
        states = dict(self._states.get(trace_id, {}))
        changed = self.changed.get(first_sequence, 0)
        if changed:
            states.setdefault(self._replica, changed)
        return digest_of(trace_id, existence.PRESENT, context, [shown, *self._siblings.get(trace_id, ())], states.items())


def _plain(rows: list[tuple[bytes, int, int, int]], replica: int) -> list[bytes]:
    """Digests of the rows as if each had one version and nothing else."""
    head, tail = _frame(_SAMPLE)
    size = len(head) + len(tail)
    frames = np.empty((len(rows), 16 + size), np.uint8)
    frames[:, :16] = np.frombuffer(b"".join([row[0] for row in rows]), np.uint8).reshape(-1, 16)
    dots = np.empty((len(rows), 2), "<u8")
    dots[:, 0] = [row[1] or replica for row in rows]
    dots[:, 1] = [row[2] for row in rows]
    pairs, at = dots.view(np.uint8).reshape(-1, 16), 16 + len(head)
    frames[:, 16:at] = np.frombuffer(head, np.uint8)
    frames[:, at:] = np.frombuffer(tail, np.uint8)
    frames[:, at : at + 16] = pairs
    frames[:, -16:] = pairs
    data, width = frames.tobytes(), 16 + size
    return [blake2b(data[i : i + width], digest_size=DIGEST_BYTES).digest() for i in range(0, len(data), width)]


def _frame(dot: Dot) -> tuple[bytes, bytes]:
    """What `digest_of` hashes after the id of a record of one version: up to the context's pair, and from it on.

    Context: a frame of 4 bytes, two counts, one pair; then the number of versions and their dots.
    """
    context = CausalContext({dot.replica: dot.counter}).to_bytes()
    pair = _PAIR.pack(*dot)
    head = bytes([existence.PRESENT]) + len(context).to_bytes(4, "little") + context[: -len(pair)]
    return head, pair + (1).to_bytes(4, "little") + pair
