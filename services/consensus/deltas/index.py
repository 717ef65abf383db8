"""What the log knows without its file: entries, positions, and who has what. Pure; belongs to one event loop.

Positions are the authors' own sequence numbers. Whoever sends an author's updates sends them in order and leaves out none that it holds,
and what it does not hold any more every copy has: so the largest counter that arrived says that everything before it did too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from services.consensus.deltas.entries import Entry, Key, Positions


@dataclass(slots=True)
class Reader:
    """What a memory node has of every author. A node with another store starts anew."""

    replica: int = 0
    positions: dict[int, int] = field(default_factory=dict)


class LogIndex:
    """Entries in the order of arrival, found by author and counter.

    positions  author -> counter up to which everything arrived
    names      author -> its node
    readers    node id -> what it has
    lost       node id -> author -> counter up to which something was dropped that the node had not got
    dropped    author -> counter up to which something is not here that somebody had not got: peers with less are told

    max_authors bounds what is remembered of each reader, and of what was dropped.
    """

    def __init__(self, max_authors: int) -> None:
        self._max_authors = max_authors
        self.positions: dict[int, int] = {}
        self.names: dict[int, str] = {}
        self.readers: dict[str, Reader] = {}
        self.lost: dict[str, dict[int, int]] = {}
        self.dropped: dict[int, int] = {}
        self.bytes = 0
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._counters: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """Oldest first."""
        return iter(self._entries.values())

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    def get(self, key: Key) -> Entry | None:
        return self._entries.get(key)

    def add(self, entry: Entry) -> None:
        """Add one past its author's position, which moves there."""
        self._entries[entry.key] = entry
        self._counters.setdefault(entry.author, []).append(entry.counter)
        self.bytes += entry.size
        self.names[entry.author] = entry.node_id
        self.positions[entry.author] = entry.counter

    def holds(self, author: int) -> bool:
        """Whether there are entries of the author."""
        return bool(self._counters.get(author))

    def after(self, author: int, counter: int, limit: int) -> Sequence[Entry]:
        """The author's entries past `counter`, oldest first."""
        counters = self._counters.get(author, [])
        begin = bisect_right(counters, counter)
        return [self._entries[author, found] for found in counters[begin : begin + limit]]

    def up_to(self, author: int, counter: int) -> Sequence[Entry]:
        """The author's entries up to `counter`, oldest first."""
        counters = self._counters.get(author, [])
        return [self._entries[author, found] for found in counters[: bisect_right(counters, counter)]]

    def remove(self, keys: Iterable[Key]) -> None:
        """Remove entries; those that are not there are passed over."""
        touched: dict[int, set[int]] = {}
        for key in keys:
            entry = self._entries.pop(key, None)
            if entry is not None:
                self.bytes -= entry.size
                touched.setdefault(entry.author, set()).add(entry.counter)
        for author, gone in touched.items():
            left = [counter for counter in self._counters[author] if counter not in gone]
            if left:
                self._counters[author] = left
            else:
                del self._counters[author]

    def forget_author(self, author: int) -> None:
        """Forget an author without entries: what it had is in the copies."""
        self.positions.pop(author, None)
        self.names.pop(author, None)
        self.dropped.pop(author, None)
        for reader in self.readers.values():
            reader.positions.pop(author, None)
        for lost in self.lost.values():
            lost.pop(author, None)

    def delivered(self, node_id: str, author: int) -> int:
        """Up to where the node has the author's updates."""
        reader = self.readers.get(node_id)
        return 0 if reader is None else reader.positions.get(author, 0)

    def deliver(self, node_id: str, replica: int, positions: Positions) -> dict[int, int]:
        """Raise what the node has; returns what is new. Another store of the node begins with nothing.

        A peer may know of it before an update of the author has come from anywhere.
        """
        reader = self.readers.get(node_id)
        if reader is None or reader.replica != replica:
            reader = self.readers[node_id] = Reader(replica)
        grown = {author: counter for author, counter in positions.items() if counter > reader.positions.get(author, 0)}
        if len(reader.positions.keys() | grown.keys()) > self._max_authors:
            grown = {author: counter for author, counter in grown.items() if author in self.positions}
        reader.positions.update(grown)
        return grown

    def mark_lost(self, node_id: str, author: int, counter: int) -> None:
        """Remember that the node has missed something."""
        lost = self.lost.setdefault(node_id, {})
        lost[author] = max(counter, lost.get(author, 0))

    def mark_dropped(self, author: int, counter: int) -> int | None:
        """Remember that not everything of the author up to `counter` can be had here; returns an author that had to make room."""
        self.dropped[author] = max(counter, self.dropped.get(author, 0))
        if len(self.dropped) <= self._max_authors:
            return None
        oldest = next(iter(self.dropped))
        del self.dropped[oldest]
        return oldest

    def clear_lost(self, node_id: str, told: Positions) -> list[int]:
        """The node knows; returns the authors of whom nothing is left to tell."""
        lost = self.lost.get(node_id, {})
        cleared = [author for author, counter in told.items() if lost.get(author, 0) <= counter and author in lost]
        for author in cleared:
            del lost[author]
        if not lost:
            self.lost.pop(node_id, None)
        return cleared
