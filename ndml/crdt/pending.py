"""Updates that came before what they depend on, in memory and bounded: whoever sends too many loses its own oldest first."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ndml.crdt.envelope import Dep, Envelope, conflict


@dataclass(slots=True)
class Parked:
    """An update whose signature is good and whose past is not here yet. `payload`: what the caller wants back with it."""

    envelope: Envelope
    payload: bytes
    missing: dict[bytes, Dep]

    @property
    def size(self) -> int:
        return len(self.payload) + len(self.envelope.canonical)


class Pending:
    """Parked updates by hash. What is let go may be sent again."""

    def __init__(self, per_author: int, total: int, total_bytes: int) -> None:
        self._per_author = per_author
        self._total = total
        self._total_bytes = total_bytes
        self._parked: dict[bytes, Parked] = {}
        self._waiting: dict[bytes, dict[bytes, None]] = {}  # hash that is missing -> hashes that wait for it
        self._authors: dict[str, dict[bytes, None]] = {}  # author -> its hashes, oldest first
        self._bytes: dict[str, int] = {}
        self._held_bytes = 0
        self._ready: deque[Parked] = deque()

    def __len__(self) -> int:
        return len(self._parked)

    @property
    def held_bytes(self) -> int:
        """Envelopes and payloads, together."""
        return self._held_bytes

    def rival(self, envelope: Envelope) -> Envelope | None:
        """A parked envelope that contradicts this one."""
        for hashed in self._authors.get(envelope.node_id, ()):
            other = self._parked[hashed].envelope
            if conflict(other, envelope):
                return other
        return None

    def missing(self, hashed: bytes) -> tuple[Dep, ...] | None:
        """What this update waits for; None where it is not parked."""
        parked = self._parked.get(hashed)
        return tuple(parked.missing.values()) if parked else None

    def add(self, envelope: Envelope, payload: bytes, missing: Iterable[Dep]) -> None:
        """Park an update that is not parked yet; over a bound the oldest of whoever holds most goes, be it this one."""
        parked = Parked(envelope, payload, {dep.hash: dep for dep in missing})
        self._parked[envelope.hash] = parked
        self._authors.setdefault(envelope.node_id, {})[envelope.hash] = None
        self._bytes[envelope.node_id] = self._bytes.get(envelope.node_id, 0) + parked.size
        self._held_bytes += parked.size
        for hashed in parked.missing:
            self._waiting.setdefault(hashed, {})[envelope.hash] = None
        while len(self._authors.get(envelope.node_id, ())) > self._per_author:
            self._drop_oldest(envelope.node_id)
        while len(self._parked) > self._total or self._held_bytes > self._total_bytes:
            self._drop_oldest(max(self._bytes, key=lambda author: (self._bytes[author], author)))

    def arrived(self, hashed: bytes) -> None:
        """An update was admitted: those that waited for nothing else are ready."""
        for waiting in self._waiting.pop(hashed, ()):
            parked = self._parked[waiting]
            del parked.missing[hashed]
            if not parked.missing:
                self._ready.append(self._remove(waiting))

    def release(self, tenant: str, user: str) -> None:
        """Everything parked of an owner is ready, to be looked at anew."""
        for hashed in [key for key, parked in self._parked.items() if parked.envelope.owner == (tenant, user)]:
            self._ready.append(self._remove(hashed))

    def next_ready(self) -> Parked | None:
        """One that is ready, and no longer parked; in the order in which they became so."""
        return self._ready.popleft() if self._ready else None

    def _drop_oldest(self, author: str) -> None:
        self._remove(next(iter(self._authors[author])))

    def _remove(self, hashed: bytes) -> Parked:
        parked = self._parked.pop(hashed)
        author = parked.envelope.node_id
        del self._authors[author][hashed]
        self._bytes[author] -= parked.size
        self._held_bytes -= parked.size
        if not self._authors[author]:
            del self._authors[author], self._bytes[author]
        for missing in parked.missing:
            waiting = self._waiting[missing]
            del waiting[hashed]
            if not waiting:
                del self._waiting[missing]
        return parked
