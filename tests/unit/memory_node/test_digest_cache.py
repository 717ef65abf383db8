"""The cache of record digests: what it keeps, and that it never keeps more bytes than it was given."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.memory_node.digests import Digests
from services.memory_node.records import Owner
from services.memory_node.replica_reader import DigestCache

KILO = 1024


def digests(records: int, fill: int = 0) -> Digests:
    rows = np.full((records, 16), fill, np.uint8)
    return Digests(rows, rows.copy())


def owner(number: int) -> Owner:
    return Owner("t", f"u{number}")


def test_digests_are_found_as_long_as_their_owner_has_not_changed() -> None:
    cache = DigestCache(64 * KILO)
    kept = digests(10, 1)
    cache.put(owner(1), (7, 100), kept)
    assert cache.get(owner(1), (7, 100)) is kept
    assert cache.get(owner(1), (7, 101)) is None, "the owner has changed since"
    assert cache.get(owner(1), (8, 100)) is None, "another owner has this name now"
    assert cache.get(owner(2), (7, 100)) is None


def test_the_owner_that_was_used_longest_ago_goes_first() -> None:
    cache = DigestCache(3 * (KILO + 320))  # three owners of ten records
    for number in range(3):
        cache.put(owner(number), (number, 1), digests(10))
    assert cache.get(owner(0), (0, 1)) is not None
    cache.put(owner(3), (3, 1), digests(10))
    assert [cache.get(owner(number), (number, 1)) is not None for number in range(4)] == [True, False, True, True]


def test_owners_without_records_take_room_too() -> None:
    cache = DigestCache(8 * KILO)
    for number in range(1000):
        cache.put(owner(number), (number, 1), digests(0))
    assert sum(cache.get(owner(number), (number, 1)) is not None for number in range(1000)) == 8


def test_an_owner_larger_than_the_cache_pushes_nobody_out() -> None:
    cache = DigestCache(64 * KILO)
    cache.put(owner(1), (1, 1), digests(10))
    cache.put(owner(2), (2, 1), digests(4096))
    assert cache.get(owner(2), (2, 1)) is None
    assert cache.get(owner(1), (1, 1)) is not None
    cache.put(owner(1), (1, 2), digests(4096))  # what it was before is out of date, what it is now does not fit
    assert cache.get(owner(1), (1, 1)) is None
    assert cache.nbytes == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 600))), st.integers(0, 40 * KILO))
def test_never_more_bytes_than_given_whatever_is_put(puts: list[tuple[int, int, int]], most: int) -> None:
    cache = DigestCache(most)
    held: dict[int, tuple[int, Digests]] = {}
    for number, changed, records in puts:
        made = digests(records)
        cache.put(owner(number), (number, changed), made)
        held[number] = changed, made
        assert cache.nbytes <= most
    found = [(changed, made) for number, (changed, made) in held.items() if cache.get(owner(number), (number, changed)) is made]
    assert cache.nbytes == sum(KILO + 32 * len(made.digests) for _, made in found), "counts what is kept and nothing else"
