"""TraceRecord: writes, feedback, erasure; what its digest sees; what it refuses."""

from __future__ import annotations

import struct
from dataclasses import replace
from hashlib import blake2b
from random import Random
from typing import Any

import pytest

from ndml.btsp.record import RECORD_BYTES
from ndml.crdt.causal import NUMBER_LIMIT, CausalContext, Dot
from ndml.crdt.record import Contribution, TraceRecord, Version, check_states, digest_of, distinct, joined_all
from ndml.errors import FieldInvalid
from tests.property.kinds import RECORD_KIND, fed
from tests.property.schedules import run

ID = bytes(range(16))
A, B = 7, 1 << 62
STATE = fed(Random(1), None)


def version(content: bytes, clock: int = 1 << 57) -> Version:
    return Version(clock, content, b"\0\0\x80\x3f" * 4, 0.25, 0.5)


def made(content: bytes = b"born") -> TraceRecord:
    empty = TraceRecord(ID)
    return empty.joined(empty.written(Dot(A, 1), version(content), []))


def contents(record: TraceRecord) -> list[bytes]:
    return sorted(held.content for held in record.versions.values())


def test_concurrent_updates_are_siblings_until_resolved() -> None:
    base = made()
    at_a = base.joined(base.written(Dot(A, 2), version(b"a"), [Dot(A, 1)]))
    at_b = base.joined(base.written(Dot(B, 1), version(b"b"), [Dot(A, 1)]))
    both = at_a.joined(at_b)
    assert contents(both) == [b"a", b"b"]
    after = both.joined(both.written(both.context.next(B), version(b"c"), [Dot(A, 2)]))
    assert contents(after) == [b"b", b"c"]
    assert contents(after.joined(after.written(after.context.next(A), version(b"one"), after.versions))) == [b"one"]


def test_an_erased_trace_keeps_nothing_and_never_comes_back() -> None:
    full = made(b"secret").joined(made().contributed(A, Contribution(3, STATE)))
    erased = full.joined(full.erased())
    assert erased.is_erased
    assert erased == TraceRecord(ID, 2) == TraceRecord(ID).erased()
    assert b"secret" not in erased.canonical()
    for stale in (full, made(), full.written(Dot(B, 1), version(b"late"), [])):
        assert erased.joined(stale) == stale.joined(erased) == erased


def test_feedback_of_one_author_follows_itself_and_of_two_stands_beside() -> None:
    older, newer = Contribution(1, STATE), Contribution(2, fed(Random(2), STATE))
    base = made()
    record = base.joined(base.contributed(A, newer)).joined(base.contributed(B, older)).joined(base.contributed(A, older))
    assert record.states == {A: newer, B: older}


def test_joining_many_is_joining_each() -> None:
    ours, theirs = (
        [replace(run(RECORD_KIND, seed + offset).states[0], trace_id=bytes([seed]) * 16) for seed in range(40)] for offset in (0, 99)
    )
    together = joined_all(ours, theirs)
    assert [record.canonical() for record in together] == [one.joined(other).canonical() for one, other in zip(ours, theirs, strict=True)]
    assert joined_all([], []) == []


def test_a_dot_with_two_contents_is_decided_alike() -> None:
    one, other = made(b"\x01 said to one"), made(b"\x02 said to another")
    assert one.joined(other) == other.joined(one) == other
    assert one.digest() == other.digest()  # by design: a dot is a content; the audit of signed updates finds who gave it twice


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.written(Dot(B, 1), version(b"more"), []),
        lambda record: record.written(Dot(B, 1), version(b"other"), [Dot(A, 1)]),
        lambda record: record.contributed(A, Contribution(1, STATE)),
        lambda record: record.contributed(B, Contribution(4, STATE)),
        lambda record: record.contributed(A, Contribution(4, STATE)),
        lambda record: record.erased(),
        lambda record: TraceRecord(ID, context=CausalContext({B: 1})),
    ],
    ids=["sibling", "update", "feedback", "of another", "further feedback", "erase", "replaced by an update that was replaced"],
)
def test_every_update_changes_the_digest_once(change: Any) -> None:
    record = made()
    delta = change(record)
    after = record.joined(delta)
    assert after.digest() != record.digest()
    assert after.joined(delta).digest() == after.digest()


def test_the_digest_needs_no_content() -> None:
    record = made().joined(made().contributed(B, Contribution(4, STATE))).joined(made().written(Dot(B, 1), version(b"x"), []))
    dots, counters = list(record.versions)[::-1], [(replica, held.counter) for replica, held in record.states.items()]
    assert record.digest() == digest_of(ID, 1, record.context.to_bytes(), dots, counters[::-1])
    assert TraceRecord(ID).digest() == digest_of(ID, 0, b"", [], [])


def test_the_digest_is_the_same_in_every_release() -> None:
    record = TraceRecord(ID, 1, {Dot(1, 2): version(b"x")}, CausalContext({1: 2}), {1: Contribution(3, STATE)})
    context, dots, counters = struct.pack("<IIIQQ", 24, 1, 0, 1, 2), struct.pack("<IQQ", 1, 1, 2), struct.pack("<QQ", 1, 3)
    assert record.digest() == blake2b(ID + b"\x01" + context + dots + counters, digest_size=16).digest()


def test_a_delta_is_what_the_other_lacks() -> None:
    old = made()
    new = old.joined(old.written(Dot(B, 1), version(b"new"), [Dot(A, 1)])).joined(old.contributed(A, Contribution(1, STATE)))
    delta = new.delta_since(old)
    assert (contents(delta), set(delta.states)) == ([b"new"], {A})
    assert new.delta_since(new).is_empty
    assert old.delta_since(new).is_empty
    assert old.delta_since(new.erased()).is_empty
    with_sibling = old.joined(old.written(Dot(B, 1), version(b"sibling"), []))
    assert contents(with_sibling.delta_since(old)) == [b"sibling"]


def test_versions_that_say_the_same_are_grouped() -> None:
    versions = {Dot(B, 1): version(b"A"), Dot(A, 2): version(b"b"), Dot(A, 1): version(b"a", clock=5)}
    assert distinct(versions, lambda content, vector: content.lower() + vector[:1]) == {
        b"a\0": (Dot(A, 1), Dot(B, 1)),
        b"b\0": (Dot(A, 2),),
    }


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: TraceRecord(b"short"), "trace_id"),
        (lambda: TraceRecord(ID, 3), "length"),
        (lambda: TraceRecord(ID, -1), "length"),
        (lambda: TraceRecord(ID, 1, {Dot(1, 2): version(b"x")}, CausalContext({1: 1})), "context"),
        (lambda: made().joined(TraceRecord(bytes(16))), "trace_id"),
        (lambda: Version(-1, b"", b"", 0.0, 0.0), "clock"),
        (lambda: Version(1, b"", b"", float("nan"), 0.0), "salience"),
        (lambda: Version(1, b"", b"", 0.0, 1.5), "encoding"),
        (lambda: Contribution(0, STATE), "counter"),
        (lambda: Contribution(NUMBER_LIMIT, STATE), "counter"),
        (lambda: Contribution(1, STATE[:-1]), "state"),
        (lambda: Contribution(1, b"\x09" + STATE[1:]), "state"),
        (lambda: check_states([made().contributed(A, Contribution(1, b"\x01" + b"\xff" * (RECORD_BYTES - 1)))]), "records[0]"),
    ],
)
def test_what_is_refused_names_its_field(make: Any, field: str) -> None:
    with pytest.raises(FieldInvalid) as refused:
        make()
    assert refused.value.violations[0].field == field


def test_a_state_of_wild_numbers_breaks_no_join() -> None:
    wild = TraceRecord(ID, 1, states={A: Contribution(1, b"\x01" + b"\xff" * (RECORD_BYTES - 1))})
    sane = made().contributed(A, Contribution(1, STATE))
    assert wild.joined(sane).canonical() == sane.joined(wild).canonical()
