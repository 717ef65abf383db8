"""Tokens that callers carry, and trace ids."""

from __future__ import annotations

import base64
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.errors import ConsistencyTokenInvalid, FieldInvalid, PageTokenInvalid
from ndml.v1 import types_pb2
from services.gateway.answers import MAX_CITED, read_answer_id, write_answer_id
from services.gateway.ids import fresh_trace_id, request_digest, trace_id_of_request
from services.gateway.scopes import Owner
from services.gateway.tokens import fingerprint, read_consistency_token, read_page_token, write_consistency_token, write_page_token

words = st.text(max_size=20)


@given(st.dictionaries(words, st.integers(0, 2**62), max_size=5))
def test_consistency_token_round_trip(sequences: dict[str, int]) -> None:
    written = {node_id: sequence for node_id, sequence in sequences.items() if sequence}
    assert read_consistency_token(write_consistency_token(sequences)) == written
    assert bool(write_consistency_token(sequences)) == bool(written)


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


@pytest.mark.parametrize("sequence", [2**64, -1, 1.5, "1", None])
def test_a_sequence_that_no_node_counts_to_is_refused(sequence: object) -> None:
    def pack(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    with pytest.raises(ConsistencyTokenInvalid) as broken:
        read_consistency_token(pack({"c": {"n0": sequence}}), "searches[1].consistency_token")
    assert broken.value.violations[0].field == "searches[1].consistency_token"
    with pytest.raises(PageTokenInvalid):
        read_page_token(pack({"q": "q", "b": sequence}), "q")


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
