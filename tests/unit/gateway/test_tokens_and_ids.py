"""Tokens that callers carry, and trace ids."""

from __future__ import annotations

import base64
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.errors import ConsistencyTokenInvalid, FieldInvalid, PageTokenInvalid
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.seen import MAX_ENTRIES, joined_seen, read_seen
from ndml.v1 import types_pb2
from services.gateway.answers import MAX_CITED, read_answer_id, write_answer_id
from services.gateway.ids import fresh_trace_id, request_digest, trace_id_of_request
from services.gateway.scopes import Owner
from services.gateway.tokens import fingerprint, read_consistency_token, read_page_token, write_consistency_token, write_page_token

words = st.text(max_size=20)


numbers = st.integers(1, 2**63 - 1)
stores = st.dictionaries(numbers, numbers, max_size=5)
OWNER = Owner("t", "ann")
PLACE = pb.ListPlace(learned_us=1_700_000_000_123_456, trace_id=bytes(range(16)))


@given(st.dictionaries(words, stores, max_size=5))
@settings(deadline=None)
def test_a_consistency_token_says_to_each_owner_what_is_theirs(seen: dict[str, dict[int, int]]) -> None:
    token = write_consistency_token({Owner("t", user): found for user, found in seen.items()})
    assert {user: read_consistency_token(token, Owner("t", user)) for user in seen} == seen
    assert bool(token) == any(seen.values())


def test_a_consistency_token_of_a_whole_batch_fits_into_a_request() -> None:
    many = {Owner("t", f"user {i}"): {2**63 - 1 - i: 2**63 - 1 - i} for i in range(MAX_ENTRIES + 9)}
    token = write_consistency_token(many)
    assert len(token) <= 8192 and len(read_seen(token)) == MAX_ENTRIES
    assert read_consistency_token(token, Owner("t", "user 0")) == {2**63 - 1: 2**63 - 1}


@given(st.lists(stores, min_size=1, max_size=4), stores)
@settings(deadline=None)
def test_joined_tokens_are_the_least_that_covers_both(mine: list[dict[int, int]], others: dict[int, int]) -> None:
    tokens = [write_consistency_token({OWNER: found, Owner("t", "bob"): others}) for found in mine]
    joined = joined_seen("ann", *tokens)
    expected = {store: max(found.get(store, 0) for found in mine) for found in mine for store in found}
    assert read_consistency_token(joined, OWNER) == expected
    assert joined == joined_seen("ann", *reversed(tokens)) == joined_seen("ann", joined, *tokens)
    assert read_consistency_token(joined, Owner("t", "bob")) == {}


@given(st.one_of(st.text(min_size=1, max_size=60), st.binary(min_size=1, max_size=40).map(lambda b: b.decode("latin-1"))))
@settings(max_examples=300)
def test_a_made_up_token_is_refused_or_harmless(token: str) -> None:
    for read in (lambda t: read_consistency_token(t, OWNER), lambda t: read_page_token(t, "q")):
        try:
            read(token)
        except (ConsistencyTokenInvalid, PageTokenInvalid) as error:
            assert error.violations[0].field in ("consistency_token", "page_token")


def packed(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "token",
    [
        packed({"c": {"n0": 7}}),  # of the release before
        write_consistency_token({OWNER: {1: 1}})[:-2],
        write_consistency_token({OWNER: {1: 1}}) + "AA",
        base64.urlsafe_b64encode(b"\x02" + bytes(20)).decode().rstrip("="),
    ],
)
def test_a_consistency_token_of_another_layout_says_what_to_do(token: str) -> None:
    with pytest.raises(ConsistencyTokenInvalid, match="leave it out") as broken:
        read_consistency_token(token, OWNER, "searches[1].consistency_token")
    assert broken.value.violations[0].field == "searches[1].consistency_token"


@pytest.mark.parametrize("changed", [{"t": 2**63}, {"t": 1.5}, {"t": None}, {"i": "00"}, {"i": "x" * 32}, {"i": 1}, {"b": 5, "t": "1"}])
def test_a_place_that_no_list_has_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(PageTokenInvalid):
        read_page_token(packed({"q": "q", "t": 1, "i": "0" * 32} | changed), "q")


def test_page_token_belongs_to_its_query() -> None:
    one = fingerprint("t", "u", types_pb2.Filter(speakers=["a"]))
    other = fingerprint("t", "u", types_pb2.Filter(speakers=["b"]))
    token = write_page_token(one, PLACE)
    assert read_page_token(token, one) == PLACE
    with pytest.raises(PageTokenInvalid):
        read_page_token(token, other)
    assert write_page_token(one, None) == "" and read_page_token("", one) is None


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


trace_ids = st.binary(min_size=16, max_size=16).map(bytes.hex)


@given(st.lists(trace_ids, max_size=MAX_CITED))
def test_an_answer_id_carries_what_was_cited(cited: list[str]) -> None:
    token = write_answer_id(cited)
    assert bool(token) == bool(cited) and len(token) <= 4096
    assert len(token) != 32  # so that a client can tell it from a trace id
    assert not cited or read_answer_id(token, "f") == cited


@given(st.lists(trace_ids, min_size=1, max_size=3), st.data())
@settings(max_examples=200)
def test_an_answer_id_that_was_changed_is_refused(cited: list[str], data: st.DataObject) -> None:
    token = write_answer_id(cited)
    at = data.draw(st.integers(0, len(token) - 1))
    changed = data.draw(
        st.sampled_from([token[:at] + char + token[at + 1 :] for char in "Aa-0_=é"] + [token[:at], token + "A", "=" + token])
    )
    if changed == token:
        return
    with pytest.raises(FieldInvalid) as refused:
        read_answer_id(changed, "feedback[2].answer_id")
    assert refused.value.violations[0].field == "feedback[2].answer_id"


def test_more_than_an_answer_can_cite_is_no_answer_id() -> None:
    with pytest.raises(ValueError, match="at most 50"):
        write_answer_id(["0" * 32] * (MAX_CITED + 1))


@given(words, words, words, words, words, words)
def test_feedback_is_known_by_owner_and_request(t1: str, u1: str, r1: str, t2: str, u2: str, r2: str) -> None:
    one, two = request_digest(Owner(t1, u1), r1), request_digest(Owner(t2, u2), r2)
    assert (len(one), len(two)) == (16 * bool(r1), 16 * bool(r2))
    assert (one == two) == ((t1, u1, r1) == (t2, u2, r2) or r1 == r2 == "")
