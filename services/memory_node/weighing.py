"""Siblings weighed anew: what is shown of them follows from who wrote them, and trust in authors changes. Inside the writer's transaction.

The record stays as it is, so nothing is replicated: each copy comes to the same by itself, as soon as it knows the same of authors.
"""

from __future__ import annotations

from dataclasses import dataclass

from ndml.runtime.log import get_logger
from services.memory_node.housekeeping import Kept
from services.memory_node.records import Owner
from services.memory_node.replicas import Damaged
from services.memory_node.transaction import Transaction
from services.memory_node.versions import as_trace, says_the_same, shown

log = get_logger(__name__)

Place = tuple[int, bytes]
"""Owner's number here, trace id."""

START: Place = (0, b"")
_NEXT = """
SELECT DISTINCT s.owner_id, s.trace_id, o.tenant, o.user FROM siblings AS s JOIN owners AS o ON o.id = s.owner_id
WHERE (s.owner_id, s.trace_id) > (?, ?) ORDER BY s.owner_id, s.trace_id LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Weigh:
    """Look at `limit` traces with siblings past `after`. `weights` names the trust in force: where it was weighed by that, that is all."""

    weights: bytes
    after: Place = START
    limit: int = 64


@dataclass(slots=True)
class Weighed(Kept):
    """`done`: there are no more; else go on after `after`. Of `looked` traces another version is shown now in `changed`."""

    after: Place = START
    looked: int = 0
    changed: int = 0


def weigh(work: Transaction, action: Weigh, now_us: int) -> Weighed:
    """One page; the last one is remembered in the store."""
    connection = work.connection
    if action.after == START:
        found = connection.execute("SELECT value FROM meta WHERE key = 'weighed'").fetchone()
        if found is not None and found[0] == action.weights:
            return Weighed(True)
    work.flush()
    page = connection.execute(_NEXT, (*action.after, action.limit)).fetchall()
    changed = sum(_one(work, Owner(tenant, user), trace_id, now_us) for _, trace_id, tenant, user in page)
    if len(page) == action.limit:
        return Weighed(False, 0, (page[-1][0], page[-1][1]), len(page), changed)
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('weighed', ?)", (action.weights,))
    return Weighed(True, 0, START, len(page), changed)


def _one(work: Transaction, owner: Owner, trace_id: bytes, now_us: int) -> bool:
    """Whether another version is shown now."""
    row = work.owner(owner)
    assert row is not None, "joined with owners"
    try:
        held = work.replicas.held(work.replicas.rows(row.owner_id, [trace_id])[trace_id])
    except Damaged as error:
        log.error("row_damaged", error=str(error))  # reads of it say so; the others are weighed all the same
        return False
    it = shown(held.versions, work.author.trust, work.author.dimension)
    if it.dot == held.shown:
        return False
    work.place(owner, row, held, trace_id, held.versions, held.context)
    if not says_the_same(held.row, as_trace(owner, trace_id, held.versions[it.dot])):
        work.flush()
        work.withdraw(owner, row, held.row, "was changed", now_us)
    row.changed = work.last_sequence
    return True
