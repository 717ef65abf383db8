"""Digests of owners and buckets."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndml.crdt.digests import BUCKETS, NOTHING, Buckets, bucket_of, owner_digest
from ndml.errors import FieldInvalid

DIGEST = st.binary(min_size=16, max_size=16)


@given(digests=st.lists(DIGEST, max_size=8), new=DIGEST)
def test_an_owners_digest_follows_its_records_one_by_one(digests: list[bytes], new: bytes) -> None:
    whole = owner_digest(digests)
    assert whole == owner_digest(digests[::-1])
    assert owner_digest([whole, new]) == owner_digest([*digests, new])
    assert owner_digest([whole, *digests]) == NOTHING


def test_buckets_name_what_differs_and_nothing_else() -> None:
    owners = {f"tenant/user-{i}".encode(): os.urandom(16) for i in range(2000)}
    ours, theirs = Buckets(owners), Buckets(reversed(owners.items()))
    assert ours.differing(theirs.digests()) == []
    changed, gone, came = *list(owners)[:2], b"tenant/new"
    theirs.put(changed, os.urandom(16))
    theirs.put(gone, NOTHING)
    theirs.put(came, os.urandom(16))
    assert ours.differing(theirs.digests()) == sorted({bucket_of(owner) for owner in (changed, gone, came)})
    assert gone not in theirs.owners(bucket_of(gone))
    theirs.put(changed, owners[changed])
    theirs.put(gone, owners[gone])
    theirs.put(came, NOTHING)
    assert ours.digests() == theirs.digests()


def test_two_owners_that_exchanged_their_digests_do_not_cancel_out() -> None:
    first, second = next((a, b) for a in _keys(600) for b in _keys(600) if a < b and bucket_of(a) == bucket_of(b))
    one, other = os.urandom(16), os.urandom(16)
    assert Buckets({first: one, second: other}).differing(Buckets({first: other, second: one}).digests()) == [bucket_of(first)]
    assert Buckets({first: one}).differing(Buckets({second: one}).digests()) == [bucket_of(first)]


def test_an_owner_without_a_record_is_none() -> None:
    assert Buckets({b"owner": owner_digest([])}).digests() == Buckets().digests() == [NOTHING] * BUCKETS


def test_owners_spread_over_all_buckets() -> None:
    assert {bucket_of(key) for key in _keys(4000)} == set(range(BUCKETS))


def test_digests_of_another_length() -> None:
    with pytest.raises(FieldInvalid):
        owner_digest([b"short"])
    with pytest.raises(FieldInvalid):
        Buckets({b"owner": b"short"})
    with pytest.raises(FieldInvalid):
        Buckets().differing([NOTHING])


def _keys(count: int) -> list[bytes]:
    return [b"owner-%d" % i for i in range(count)]
