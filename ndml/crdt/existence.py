"""Whether an id exists, as a causal length: 0 never heard of, odd made, even removed. Join: the larger.

Each removal and each making is one step up, so a late message about an earlier step changes nothing. NDML never makes an id twice: lengths
of its traces end at REMOVED, and `record` refuses longer ones, or a liar could bring back what was erased.

Source: W. Yu, S. Rostad, "A low-cost set CRDT based on causal lengths", PaPoC 2020.
"""

from __future__ import annotations

UNKNOWN, PRESENT, REMOVED = 0, 1, 2


def present(length: int) -> bool:
    """Whether an id of this causal length exists."""
    return length % 2 == 1


def added(length: int) -> int:
    """The causal length after the id was made; of one that exists: the same."""
    return length if present(length) else length + 1


def removed(length: int) -> int:
    """The causal length after the id was removed; of one that was removed: the same. One never heard of is removed before it can come."""
    return length + 1 if present(length) else max(length, REMOVED)


def joined(ours: int, theirs: int) -> int:
    """Least upper bound."""
    return max(ours, theirs)
