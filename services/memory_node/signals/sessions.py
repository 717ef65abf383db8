"""What stands around a memory: its neighbours in the session, in the order in which they were said. Pure numpy.

A linked list over the rows: what is said last is linked in O(1). A row that is older than its session's last (an import, a late copy) has
the list built anew by the next search.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.memory_node.columns import Columns
from services.memory_node.signals.arrays import grown

I64 = NDArray[np.int64]
I32 = NDArray[np.int32]

NONE = -1
_STEPS = 8
"""Times what is wanted, how far the end of a session is walked back to a time: an import may be older than all of it."""


class Sessions:
    """Neighbours of an owner's rows. Rows without a session have none. Belongs to the engine's thread."""

    def __init__(self) -> None:
        self._before: I32 = np.empty(0, np.int32)
        self._after: I32 = np.empty(0, np.int32)
        self._rows = 0
        self._last: dict[int, int] = {}
        self._stale = False

    @property
    def nbytes(self) -> int:
        return self._before.nbytes + self._after.nbytes + 100 * len(self._last)

    def append(self, columns: Columns) -> None:
        """Rows that `columns` gained at its end."""
        first, self._rows = self._rows, len(columns)
        self._before, self._after = grown(self._before, first, self._rows), grown(self._after, first, self._rows)
        self._before[first : self._rows] = NONE
        self._after[first : self._rows] = NONE
        if self._stale:
            return
        sessions, said, order = (columns.ints(name)[first:].tolist() for name in ("session", "said_at_us", "first_sequence"))
        for row, (session, when, sequence) in enumerate(zip(sessions, said, order, strict=True), first):
            if session:
                self._link(columns, row, session, (when, sequence))

    def _link(self, columns: Columns, row: int, session: int, place: tuple[int, int]) -> None:
        last = self._last.get(session)
        if last is not None:
            if place < (int(columns.ints("said_at_us")[last]), int(columns.ints("first_sequence")[last])):
                self._stale = True
                return
            self._before[row], self._after[last] = last, row
        self._last[session] = row

    def remove(self, rows: I64, columns: Columns) -> None:
        """Rows that are not alive any more: their neighbours become each other's."""
        if self._stale:
            return
        sessions = columns.ints("session")
        for row in rows.tolist():
            before, after = int(self._before[row]), int(self._after[row])
            if before != NONE:
                self._after[before] = after
            if after != NONE:
                self._before[after] = before
            elif self._last.get(int(sessions[row])) == row:
                self._forget(int(sessions[row]), before)
            self._before[row] = self._after[row] = NONE

    def _forget(self, session: int, before: int) -> None:
        if before == NONE:
            del self._last[session]
        else:
            self._last[session] = before

    def renumber(self) -> None:
        """The rows have new numbers."""
        self._stale = True

    def around(self, rows: I64, width: int, columns: Columns) -> I64:
        """[n, 2 * width + 1]: each row in the middle, those before it to its left, those after it to its right; -1 where there is none."""
        if self._stale:
            self._build(columns)
        found = np.full((len(rows), 2 * width + 1), NONE, np.int64)
        found[:, width] = rows
        for links, step in ((self._before, -1), (self._after, 1)):
            at = rows
            for distance in range(1, width + 1):
                at = np.where(at >= 0, links[at], NONE)
                found[:, width + step * distance] = at
        return found

    def said_before(self, session: int, said_us: int, most: int, columns: Columns) -> list[int]:
        """The last rows of a session, by number, that were said no later; at most `most`, first said first."""
        if self._stale:
            self._build(columns)
        said, row, found = columns.ints("said_at_us"), self._last.get(session, NONE), list[int]()
        for _ in range(_STEPS * most):
            if row == NONE or len(found) == most:
                break
            found += [row] if said[row] <= said_us else []
            row = int(self._before[row])
        return found[::-1]

    def _build(self, columns: Columns) -> None:
        self._rows = len(columns)
        self._before, self._after = np.full(self._rows, NONE, np.int32), np.full(self._rows, NONE, np.int32)
        session = columns.ints("session")
        rows = np.flatnonzero(columns.alive & (session != 0))
        order = rows[np.lexsort((columns.ints("first_sequence")[rows], columns.ints("said_at_us")[rows], session[rows]))]
        same = session[order[1:]] == session[order[:-1]]
        self._before[order[1:][same]] = order[:-1][same]
        self._after[order[:-1][same]] = order[1:][same]
        ends = np.append(~same, True) if len(order) else np.empty(0, np.bool_)
        self._last = dict(zip(session[order[ends]].tolist(), order[ends].tolist(), strict=True))
        self._stale = False
