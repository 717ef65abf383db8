"""Recently found traces as pieces of an answer, so that a hot hit costs no read of the store."""

from __future__ import annotations

from collections.abc import Iterable

_ENTRY_OVERHEAD = 200


class PayloadCache:
    """sequence -> bytes within `limit_bytes`. Two generations instead of a queue: a hit in the young one, the usual case, moves nothing.

    A sequence number names one content for ever (records.py), so entries are never stale; `forget` is for memory that must not linger.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._half = limit_bytes // 2
        self._young: dict[int, bytes] = {}
        self._old: dict[int, bytes] = {}
        self._young_bytes = 0

    def get(self, sequence: int) -> bytes | None:
        found = self._young.get(sequence)
        if found is None:
            found = self._old.get(sequence)
            if found is not None:
                self.put(sequence, found)
        return found

    def put(self, sequence: int, piece: bytes) -> None:
        size = len(piece) + _ENTRY_OVERHEAD
        if self._young_bytes + size > self._half:
            self._old, self._young, self._young_bytes = self._young, {}, 0
        if size <= self._half and sequence not in self._young:
            self._young[sequence] = piece
            self._young_bytes += size

    def forget(self, sequences: Iterable[int]) -> None:
        for sequence in sequences:
            found = self._young.pop(sequence, None)
            if found is not None:
                self._young_bytes -= len(found) + _ENTRY_OVERHEAD
            self._old.pop(sequence, None)
