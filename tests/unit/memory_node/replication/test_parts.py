"""Out of a record that several authors wrote each signs its own, and together they say all of it again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.crdt import existence
from ndml.crdt.causal import CausalContext, Dot
from ndml.errors import FieldInvalid
from ndml.internal.v1 import replication_pb2 as rpb
from services.memory_node.replication.parts import check_own, own_part, own_update, without

DOTS = st.builds(Dot, st.integers(1, 4), st.integers(1, 6))
TRACE = bytes(16)


def record_of(live: set[Dot], replaced: set[Dot], authors: set[int]) -> rpb.TraceRecord:
    context = CausalContext.from_dots(live | replaced).to_bytes()
    made = rpb.TraceRecord(trace_id=TRACE, length=existence.PRESENT, context=context)
    for dot in sorted(live):
        made.versions.add(dot=rpb.Dot(replica=dot.replica, counter=dot.counter), content=repr(dot).encode())
    for author in sorted(authors):
        made.states.add(replica=author, counter=7, state=b"state")
    return made


@settings(max_examples=200, deadline=None)
@given(context=st.frozensets(DOTS), gone=st.frozensets(DOTS))
def test_exactly_these_dots_leave_a_context(context: frozenset[Dot], gone: frozenset[Dot]) -> None:
    left = without(CausalContext.from_dots(context), gone)
    assert {dot for dot in context | gone if left.covers(dot)} == context - gone


@settings(max_examples=200, deadline=None)
@given(live=st.sets(DOTS, min_size=1), replaced=st.sets(DOTS), authors=st.sets(st.integers(1, 4)))
def test_an_authors_part_is_its_own_and_hides_nobody_elses(live: set[Dot], replaced: set[Dot], authors: set[int]) -> None:
    record = record_of(live, replaced - live, authors)
    parts = {replica: own_part(record, replica) for replica in range(1, 5)}
    for replica, part in parts.items():
        if part is None:
            assert replica not in authors | {dot.replica for dot in live}
            continue
        check_own(rpb.OwnerUpdate(replica=replica, records=[part]))
        context = CausalContext.from_bytes(part.context) if part.context else CausalContext()
        assert not any(context.covers(dot) for dot in live if dot.replica != replica)
    there = [part for part in parts.values() if part is not None]
    assert sorted(str(one) for part in there for one in part.versions) == sorted(map(str, record.versions))
    assert sorted(str(one) for part in there for one in part.states) == sorted(map(str, record.states))


def test_an_erasure_is_everybodys_and_foreign_words_are_refused() -> None:
    erased = rpb.TraceRecord(trace_id=TRACE, length=existence.REMOVED)
    foreign = record_of({Dot(2, 1)}, set(), {2})
    made, missing = own_update(rpb.OwnerUpdate(replica=1, records=[erased, foreign]))
    assert (list(made.records), missing) == ([erased], [TRACE])
    with pytest.raises(FieldInvalid):
        check_own(rpb.OwnerUpdate(replica=1, records=[foreign]))
