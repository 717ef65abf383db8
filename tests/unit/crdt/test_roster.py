"""The roster: one form, signed by the operator if need be, and nobody on it can pass for another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.crdt import roster as rosters
from ndml.crdt.envelope import replica_number
from ndml.crdt.keys import public_bytes
from ndml.crdt.roster import Author, Roster, check_successor
from ndml.errors import FieldInvalid, RequestMalformed
from tests.unit.crdt.signed_world import key_of, roster_of

OPERATOR = key_of("operator")


def small() -> Roster:
    authors = {
        "node-2": Author(public_bytes(key_of("node-2")), 0),
        "nœud-1": Author(public_bytes(key_of("nœud-1")), 40, frozenset({12, 7})),
    }
    return Roster(3, authors)


def test_a_roster_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "roster.json"
    signed = small().sign(OPERATOR)
    path.write_bytes(signed.to_json())
    got = rosters.load(path, public_bytes(OPERATOR))
    assert got == signed
    assert got.digest == small().digest
    assert list(got.authors) == ["node-2", "nœud-1"]
    assert (got.trust("nœud-1"), got.trust("node-2"), got.trust("nobody")) == (40, 0, 0)


def test_an_operator_who_is_asked_for_must_have_signed(tmp_path: Path) -> None:
    path = tmp_path / "roster.json"
    raised = json.loads(small().sign(OPERATOR).to_json())
    raised["authors"]["node-2"]["trust"] = 100
    for data in (small().to_json(), small().sign(key_of("somebody")).to_json(), json.dumps(raised).encode()):
        path.write_bytes(data)
        rosters.load(path)
        with pytest.raises(FieldInvalid, match="not signed by this operator"):
            rosters.load(path, public_bytes(OPERATOR))


def test_who_owns_a_store() -> None:
    roster = small()
    assert roster.owns("nœud-1", 7)
    assert roster.owns("nœud-1", replica_number("nœud-1", 99))
    assert not roster.owns("node-2", 7)
    assert not roster.owns("node-2", replica_number("nœud-1", 99))
    assert not roster.owns("nobody", replica_number("nobody", 99))


def test_a_roster_only_grows() -> None:
    known, same, other = roster_of("a", version=2), roster_of("a", version=2), roster_of("a", "b", version=2)
    check_successor(known, same)
    check_successor(known, roster_of("b", version=3))
    for offered in (other, roster_of("a", version=1)):
        with pytest.raises(FieldInvalid, match="does not follow version 2"):
            check_successor(known, offered)


def twins(one: Author, other: Author) -> dict[str, Author]:
    return {"a": one, "b": other}


A, B = public_bytes(key_of("a")), public_bytes(key_of("b"))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Roster(1, twins(Author(A), Author(A))), "public_key"),
        (lambda: Roster(1, twins(Author(A, 1, frozenset({5})), Author(B, 1, frozenset({5})))), "replicas"),
        (lambda: Roster(1, twins(Author(A, 1, frozenset({replica_number("b", 1)})), Author(B))), "replicas"),
        (lambda: Roster(0, {}), "version"),
        (lambda: Roster(True, {}), "version"),
        (lambda: Roster(1, {}, b"short"), "signature"),
        (lambda: Roster(1, {"": Author(A)}), "authors"),
        (lambda: Roster(1, {"n" * 129: Author(A)}), "authors"),
        (lambda: Roster(1, {"a\nb": Author(A)}), "authors"),
        (lambda: Author(A, 101), "trust"),
        (lambda: Author(A, -1), "trust"),
        (lambda: Author(A[:31]), "public_key"),
        (lambda: Author(A, 1, frozenset({0})), "replicas"),
    ],
)
def test_a_roster_on_which_one_could_pass_for_another_is_refused(make: Any, field: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        make()
    assert caught.value.violations[0].field == field


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(roster_of("a").to_json()), **fields}).encode()


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"", "roster"),
        (b"[1, 2", "roster"),
        (b"[" * 100_000, "roster"),
        (b"\xff\xfe{}", "roster"),
        (b"[]", "format"),
        (b'{"format": "ndml-roster-2"}', "format"),
        (changed(colour="red"), "format"),
        (changed(authors=[]), "authors"),
        (changed(authors={"a": 1}), "authors[a]"),
        (changed(authors={"a": {"public_key": A.hex(), "color": 1}}), "authors[a]"),
        (changed(authors={"a": {"public_key": A.hex().upper()}}), "authors[a].public_key"),
        (changed(authors={"a": {"trust": 5}}), "authors[a].public_key"),
        (changed(authors={"a": {"public_key": A.hex(), "trust": 2.5}}), "authors[a].trust"),
        (changed(authors={"a": {"public_key": A.hex(), "replicas": [1.5]}}), "authors[a].replicas"),
        (changed(version="1"), "version"),
        (changed(version=None), "version"),
        (changed(signature="00"), "signature"),
        (b'{"format": "ndml-roster-1", "version": 1, "version": 2, "authors": {}}', "roster"),
    ],
)
def test_a_file_that_is_no_roster_says_where(data: bytes, field: str) -> None:
    with pytest.raises((RequestMalformed, FieldInvalid)) as caught:
        Roster.from_json(data)
    assert caught.value.violations[0].field == field


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["authors", "version", "a", "trust"]), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=100) | st.fixed_dictionaries({"version": JSON, "authors": JSON}).map(lambda fields: changed(**fields)))
@settings(max_examples=150, deadline=None)
def test_hostile_files_are_an_error_of_ours_or_a_roster(data: bytes) -> None:
    try:
        got = Roster.from_json(data)
    except (RequestMalformed, FieldInvalid) as error:
        assert error.violations
    else:
        assert Roster.from_json(got.to_json()) == got
