"""Tokens that callers carry, and trace ids."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.errors import ConsistencyTokenInvalid, PageTokenInvalid
from ndml.v1 import types_pb2
from services.gateway.ids import fresh_trace_id, trace_id_of_request
from services.gateway.scopes import Owner
from services.gateway.tokens import fingerprint, read_consistency_token, read_page_token, write_consistency_token, write_page_token

words = st.text(max_size=20)


@given(st.dictionaries(words, st.integers(0, 2**62), max_size=5))
def test_consistency_token_round_trip(sequences: dict[str, int]) -> None:
    assert read_consistency_token(write_consistency_token(sequences)) == sequences


@given(st.one_of(st.text(min_size=1, max_size=60), st.binary(min_size=1, max_size=40).map(lambda b: b.decode("latin-1"))))
@settings(max_examples=300)
def test_a_made_up_token_is_refused_or_harmless(token: str) -> None:
    for read in (read_consistency_token, lambda t: read_page_token(t, "q")):
        try:
            found = read(token)
        except (ConsistencyTokenInvalid, PageTokenInvalid) as error:
            assert error.violations[0].field in ("consistency_token", "page_token")
        else:
            assert found == {} or isinstance(found, dict)


def test_page_token_belongs_to_its_query() -> None:
    one = fingerprint("t", "u", types_pb2.Filter(speakers=["a"]))
    other = fingerprint("t", "u", types_pb2.Filter(speakers=["b"]))
    token = write_page_token(one, 17)
    assert read_page_token(token, one) == 17
    with pytest.raises(PageTokenInvalid):
        read_page_token(token, other)
    assert write_page_token(one, 0) == ""


@given(words, words, words, words)
def test_fingerprint_tells_where_a_part_ends(a: str, b: str, c: str, d: str) -> None:
    assert (fingerprint(a, b) == fingerprint(c, d)) == ((a, b) == (c, d))


def test_fresh_ids_are_ordered_by_time_and_unique() -> None:
    ids = [fresh_trace_id(1_700_000_000_000 + i, os.urandom(10)) for i in range(500)]
    assert ids == sorted(ids)
    assert len({fresh_trace_id(1, os.urandom(10)) for _ in range(1000)}) == 1000
    assert all(len(i) == 32 and i[12] == "7" and i[16] in "89ab" for i in ids)


@given(words, words, words, st.integers(0, 255), words, words, words, st.integers(0, 255))
def test_request_ids_collide_only_when_equal(t1: str, u1: str, r1: str, i1: int, t2: str, u2: str, r2: str, i2: int) -> None:
    one, two = trace_id_of_request(Owner(t1, u1), r1, i1), trace_id_of_request(Owner(t2, u2), r2, i2)
    assert (one == two) == ((t1, u1, r1, i1) == (t2, u2, r2, i2))
