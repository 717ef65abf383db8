"""What the store has of a trace beyond the row that is shown: versions beside it, causal context, feedback; and the record that others get.

Reads on one connection: the writer's inside its transaction, or a reader's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ndml.crdt import existence, strength
from ndml.crdt.causal import CausalContext, Dot
from ndml.crdt.record import Contribution, Version
from ndml.internal.v1 import replication_pb2 as rpb
from services.memory_node.births import Births
from services.memory_node.records import TraceRow, checks_of, row_checks

CHUNK = 256
"""Traces in one look-up; SQLite takes 32,766 variables."""

CONTENT, STATES = 1, 2
"""Parts of a record: versions with their context (or that it is erased), and feedback."""


class Damaged(sqlite3.DatabaseError):
    """A row is not as it was written: bits of it have changed on the disk."""


class Stored(NamedTuple):
    """A version, and the hash of the first write by which a repeated request is recognised."""

    version: Version
    content_hash: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """A trace in the store: its row, all versions by dot (the shown one's is `shown`), and what is known to have been replaced."""

    row: TraceRow
    shown: Dot
    versions: dict[Dot, Stored]
    twins: frozenset[Dot]
    context: CausalContext


class Replicas:
    """`replica`: number of this store; rows say 0 for it."""

    def __init__(self, connection: sqlite3.Connection, replica: int, births: Births) -> None:
        self._connection = connection
        self.replica = replica
        self._births = births

    def dot(self, row: TraceRow) -> Dot:
        """Of the content in the row."""
        return Dot(row.replica or self.replica, row.counter)

    def local(self, dot: Dot) -> tuple[int, int]:
        """As a row has it."""
        return (0 if dot.replica == self.replica else dot.replica), dot.counter

    def held(self, row: TraceRow) -> Held:
        """All versions of the row's trace."""
        shown = self.dot(row)
        versions, twins = {shown: of_row(row)}, set()
        query = "SELECT context FROM contexts WHERE owner_id = ? AND trace_id = ?"
        found = self._connection.execute(query, (row.owner_id, row.trace_id)).fetchone()
        if found is None:  # there are no siblings then
            return Held(row, shown, versions, frozenset(), implied(shown))
        for dot, stored, rival in self._siblings(row.owner_id, [row.trace_id]).get(row.trace_id, ()):
            versions[dot] = stored
            twins |= set() if rival else {dot}
        return Held(row, shown, versions, frozenset(twins), CausalContext.from_bytes(found[0]))

    def rows(self, owner_id: int, trace_ids: Sequence[bytes], *, damaged: bool = False) -> dict[bytes, TraceRow]:
        """Rows by trace id. Raises Damaged, unless `damaged` rows will do."""
        query = f"SELECT * FROM traces WHERE owner_id = ? AND trace_id IN ({_marks(trace_ids)})"
        rows = (TraceRow(*row) for row in self._connection.execute(query, (owner_id, *trace_ids)))
        return {row.trace_id: row if damaged else checked(row) for row in rows}

    def erased(self, owner_id: int, trace_ids: Sequence[bytes]) -> set[bytes]:
        """Those that are erased."""
        query = f"SELECT trace_id FROM erased WHERE owner_id = ? AND trace_id IN ({_marks(trace_ids)})"
        return {trace_id for (trace_id,) in self._connection.execute(query, (owner_id, *trace_ids))}

    def contributions(self, owner_id: int, rows: Sequence[TraceRow]) -> dict[bytes, dict[int, Contribution]]:
        """Feedback by trace id and author. This store's own, where it stands alone, is what its state has beyond its birth."""
        by_first = {row.first_sequence: row for row in rows}
        found: dict[bytes, dict[int, Contribution]] = {}
        ids = [row.trace_id for row in rows]
        query = f"SELECT trace_id, replica, counter, state FROM contributions WHERE owner_id = ? AND trace_id IN ({_marks(ids)})"
        for trace_id, author, counter, state in self._connection.execute(query, (owner_id, *ids)):
            found.setdefault(trace_id, {})[author] = Contribution(counter, state)
        query = "SELECT first_sequence, changed, state FROM states WHERE owner_id = ? AND changed > 0 AND first_sequence"
        query += f" IN ({_marks(rows)})"
        alone = [
            (by_first[first], changed, state)
            for first, changed, state in self._connection.execute(query, (owner_id, *by_first))
            if self.replica not in found.get(by_first[first].trace_id, ())
        ]
        if not alone:
            return found
        own = strength.contribution([state for *_, state in alone], self._births.of([row for row, *_ in alone]), [()] * len(alone))
        for (row, changed, _), state in zip(alone, own, strict=True):
            found.setdefault(row.trace_id, {})[self.replica] = Contribution(changed, state)
        return found

    def births(self, rows: Sequence[TraceRow]) -> list[bytes]:
        return self._births.of(rows)

    def ids(self, owner_id: int) -> list[bytes]:
        """Of all records of an owner, erased ones included."""
        query = "SELECT trace_id FROM traces INDEXED BY traces_identity WHERE owner_id = ?1"
        query += " UNION ALL SELECT trace_id FROM erased WHERE owner_id = ?1"
        return [trace_id for (trace_id,) in self._connection.execute(query, (owner_id,))]

    def records(self, owner_id: int, trace_ids: Sequence[bytes], parts: Sequence[int] = ()) -> Iterator[rpb.TraceRecord]:
        """Records of the traces, as far as there are any; `parts`: what to give of each, CONTENT and STATES; empty: everything."""
        for start in range(0, len(trace_ids), CHUNK):
            ids = list(dict.fromkeys(trace_ids[start : start + CHUNK]))
            wanted = dict(zip(trace_ids[start:], parts[start : start + CHUNK], strict=False))
            yield from self._chunk(owner_id, ids, wanted)

    def _chunk(self, owner_id: int, ids: Sequence[bytes], wanted: dict[bytes, int]) -> Iterator[rpb.TraceRecord]:
        rows, erased = self.rows(owner_id, ids), self.erased(owner_id, ids)
        graded = [row for row in rows.values() if wanted.get(row.trace_id, STATES) & STATES]
        states = self.contributions(owner_id, graded)
        query = f"SELECT trace_id, context FROM contexts WHERE owner_id = ? AND trace_id IN ({_marks(ids)})"
        contexts: dict[bytes, bytes] = dict(self._connection.execute(query, (owner_id, *ids)))
        siblings = self._siblings(owner_id, list(contexts)) if contexts else {}
        for trace_id in ids:
            row = rows.get(trace_id)
            if row is None:
                if trace_id in erased:
                    yield rpb.TraceRecord(trace_id=trace_id, length=existence.REMOVED)
                continue
            record = rpb.TraceRecord(trace_id=trace_id, length=existence.PRESENT)
            if wanted.get(trace_id, CONTENT) & CONTENT:
                record.context = contexts.get(trace_id) or implied(self.dot(row)).to_bytes()
                record.versions.append(on_wire(self.dot(row), of_row(row)))
                record.versions.extend(on_wire(dot, stored) for dot, stored, _ in siblings.get(trace_id, ()))
            for author, given in sorted(states.get(trace_id, {}).items()):
                record.states.add(replica=author, counter=given.counter, state=given.state)
            yield record

    def _siblings(self, owner_id: int, trace_ids: Sequence[bytes]) -> dict[bytes, list[tuple[Dot, Stored, bool]]]:
        query = "SELECT trace_id, replica, counter, rival, clock, content, vector, salience, encoding, content_hash, checks FROM siblings"
        query += f" WHERE owner_id = ? AND trace_id IN ({_marks(trace_ids)})"
        found: dict[bytes, list[tuple[Dot, Stored, bool]]] = {}
        for trace_id, replica, counter, rival, *version, digest, checks in self._connection.execute(query, (owner_id, *trace_ids)):
            stored = Stored(Version(*version), digest)
            if checks != checks_of(stored.version.vector, stored.version.content):
                raise Damaged(f"a version of trace {trace_id.hex()} is not as it was written")
            found.setdefault(trace_id, []).append((Dot(replica, counter), stored, bool(rival)))
        return found


def implied(dot: Dot) -> CausalContext:
    """The context of a trace whose shown version has this dot, where nothing says more: one author, each content replacing the last."""
    return CausalContext({dot.replica: dot.counter})


def of_row(row: TraceRow) -> Stored:
    """The content in a row."""
    return Stored(Version(row.clock, row.payload, row.vector, row.salience, row.encoding), row.content_hash)


def on_wire(dot: Dot, stored: Stored) -> rpb.TraceVersion:
    version = stored.version
    return rpb.TraceVersion(
        dot=rpb.Dot(replica=dot.replica, counter=dot.counter),
        clock=version.clock,
        content=version.content,
        vector=version.vector,
        salience=version.salience,
        encoding=version.encoding,
        content_hash=stored.content_hash,
    )


def new_record(row: TraceRow, dot: Dot) -> rpb.TraceRecord:
    """The record of a trace that was just made."""
    context = implied(dot).to_bytes()
    return rpb.TraceRecord(trace_id=row.trace_id, length=existence.PRESENT, context=context, versions=[on_wire(dot, of_row(row))])


def checked(row: TraceRow) -> TraceRow:
    """The row, if it is as it was written. Raises Damaged."""
    if row.checks and row.checks != row_checks(row):
        raise Damaged(f"the row of trace {row.trace_id.hex()} is not as it was written")
    return row


def check_rows(connection: sqlite3.Connection) -> None:
    """Look at every row and every sibling. Raises Damaged."""
    for row in connection.execute("SELECT * FROM traces"):
        checked(TraceRow(*row))
    for content, vector, checks in connection.execute("SELECT content, vector, checks FROM siblings"):
        if checks != checks_of(vector, content):
            raise Damaged("a version of a trace is not as it was written")


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
