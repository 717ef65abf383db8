"""What shows before it is complete: how far it goes is known, survives a restart, is said with every read, and ends with the gap."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.errors import OwnerUnavailable
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from services.memory_node.housekeeping import SettleOwner
from services.memory_node.positions import Standing, noted, notes_in, peaked
from tests.unit.memory_node import node_harness as harness
from tests.unit.memory_node.test_heads import asking, said
from tests.unit.memory_node.test_joins import ANN, Site, sites
from tests.unit.memory_node.test_replicated_engine import change, pair, passed_on, told

SELF, AUTHOR = 1, 7


def chain(site: Site, length: int) -> list[rpb.OwnerUpdate]:
    """Updates of one author that follow on each other: new traces, changes, feedback, an erasure."""
    made: list[rpb.OwnerUpdate | None] = [site.put(harness.trace(1), harness.trace(2))]
    for number in range(length - 3):
        made.append(site.grade(2, number + 1) if number % 3 == 2 else site.change(1 + number % 2, f"text {number}"))
    made += [site.put(harness.trace(3)), site.delete(2)]
    return [update for update in made if update is not None]


def test_whatever_order_updates_come_in_what_shows_is_within_the_peak_and_in_the_end_there_is_none(tmp_path: Path) -> None:
    for seed in range(12):
        with sites(tmp_path / str(seed), 2) as (a, b):
            author, updates = a.store.replica, chain(a, 9)
            arrived: list[int] = []
            joined: list[int] = []
            for update in Random(seed).sample(updates, len(updates)):
                arrived.append(update.counter)
                if b.take(update).changed:  # feedback on what has not come shows nowhere
                    joined.append(update.counter)
                standing = b.reader.standing(ANN)
                assert max(joined, default=0) <= b.reader.shown(ANN).get(author, 0) <= max(arrived)
                assert all(peak > standing.heads.get(replica, 0) for replica, peak in standing.peaks.items())
            b.take(heads=a.state().heads)
            assert b.reader.standing(ANN) == Standing({author: updates[-1].counter}, {})


def test_a_store_without_peaks_is_brought_up_to_date(tmp_path: Path) -> None:
    with sites(tmp_path, 2) as (a, b):
        updates = chain(a, 6)
        b.take(updates[0])
        b.close()
        [file] = (tmp_path / "n1").glob("**/*.db")
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as raw:
            harness.without_peaks(raw)
        again = Site(tmp_path, "n1")
        again.take(updates[2])
        assert again.reader.standing(ANN) == Standing({a.store.replica: updates[0].counter}, {a.store.replica: updates[2].counter})
        again.close()


def test_a_peak_outlives_the_process_and_goes_with_a_reconciliation_or_the_owner(tmp_path: Path) -> None:
    with sites(tmp_path, 2) as (a, b):
        author, updates = a.store.replica, chain(a, 6)
        b.take(updates[0], updates[2])
        held = {author: updates[0].counter}, {author: updates[2].counter}
        assert tuple(b.reader.standing(ANN)) == held
        b.close()
        again = Site(tmp_path, "n1")
        assert tuple(again.reader.standing(ANN)) == held
        assert [(head.replica, head.counter) for head in again.state().heads] == [(author, updates[0].counter)], "told to nobody as known"
        again.take(records=list(a.records().values()), heads=a.state().heads)
        assert again.reader.shown(ANN) == again.reader.heads(ANN) == {author: updates[-1].counter}
        again.close()


def test_records_without_positions_go_as_far_as_their_sender_shows_and_only_of_their_authors(tmp_path: Path) -> None:
    with sites(tmp_path, 3) as (a, b, c):
        first = a.put(harness.trace(1), harness.trace(2))
        for site in (b, c):
            site.take(first)
        b.take(a.change(1, "newer"))
        b.take(c.change(2, "by another author"))
        shown, record = b.reader.shown(ANN), b.records()[bytes.fromhex(harness.trace_id(1))]
        c.take(*noted(ANN, shown), records=[record])
        assert c.shown()[harness.trace_id(1)] == "newer"
        assert c.reader.standing(ANN).peaks == {a.store.replica: shown[a.store.replica]}
        again = c.take(*noted(ANN, {a.store.replica: shown[a.store.replica] + 50}), records=[record])
        assert not again.changed and c.reader.shown(ANN)[a.store.replica] == shown[a.store.replica], "nothing new was shown"


def test_a_gap_that_nobody_can_close_is_settled_only_as_it_was_seen_and_only_for_the_node_that_is_away(tmp_path: Path) -> None:
    with sites(tmp_path, 3) as (a, b, c):
        first, _lost, third = a.put(harness.trace(1), harness.trace(2)), a.change(2, "lost with its disk"), a.change(1, "newer")
        for site in (b, c):
            site.take(first, third)
        digest, standing = b.state().digest, b.reader.standing(ANN)
        assert digest == c.state().digest and standing.peaks == {a.store.replica: third.counter if third else 0}
        assert b.reader.unsettled(9) == [ANN]
        for refused in (SettleOwner(a.state().digest, "n0"), SettleOwner(digest, "n2")):
            assert not b.do(refused)[0].done and b.reader.standing(ANN) == standing
        assert b.do(SettleOwner(digest, "n0"))[0].done
        assert b.reader.standing(ANN) == Standing(standing.heads, {}) and not b.reader.unsettled(9)
        assert c.do(SettleOwner(digest))[0].done and b.take(heads=a.state().heads).heads[0].counter == a.reader.heads(ANN)[a.store.replica]


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers(1, 9), st.integers(0, 40)), st.lists(st.tuples(st.integers(1, 9), st.integers(0, 40)), max_size=8))
def test_a_peak_is_always_past_its_head_and_never_an_own_one(heads: dict[int, int], claims: list[tuple[int, int]]) -> None:
    known = Standing({replica: at for replica, at in heads.items() if at}, {})
    known.take({}, peaked(known, {}, claims, SELF))
    most = notes_in(rpb.OwnerUpdate(replica=replica, counter=at) for replica, at in claims)
    assert known.peaks == {replica: at for replica, at in most.items() if at > heads.get(replica, 0) and replica != SELF}
    grown = {replica: at + 1 for replica, at in known.peaks.items()}
    known.take(grown, peaked(known, grown, (), SELF))
    assert not known.peaks


async def test_every_read_over_a_gap_says_how_far_it_shows_until_the_gap_is_closed(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b, _):
        author = a.node.store.replica
        await passed_on(await told(a, put=pb.PutAction(traces=[harness.trace(1, session="s"), harness.trace(2)])), b)
        before = await said(b)
        missing = await told(a, **change(2, "first"))
        early = await told(a, **change(1, "second"))
        await passed_on(early, b)
        assert await b.found("u", "second", 1) == ["second"], "it shows"
        assert before[author] < early.trace.sequence == (await said(b))[author]
        later = asking(harness.search("u", 1, 1))
        later.seen.add(replica=author, counter=early.trace.sequence)
        await a.one(later)
        with pytest.raises(OwnerUnavailable):
            await b.one(later)
        await passed_on(missing, b)
        result = await b.one(later)
        assert [(head.replica, head.counter) for head in result.heads] == [(author, early.trace.sequence)]


async def test_a_delete_that_came_early_is_in_what_the_read_that_misses_the_trace_says(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b, _):
        await passed_on(await told(a, put=pb.PutAction(traces=[harness.trace(1), harness.trace(2)])), b)
        missing = await told(a, **change(2, "first"))
        gone = await told(a, delete=pb.DeleteAction(trace_id=harness.trace_id(1)))
        await passed_on(gone, b)
        [result] = await b.batch([asking(harness.operation("u", get=pb.GetAction(trace_id=harness.trace_id(1))))])
        assert result.HasField("error")
        assert max(head.counter for head in result.heads) == gone.delete.sequence
        await passed_on(missing, b)
        assert (await said_of_a_list(b)) == [(a.node.store.replica, gone.delete.sequence)]


async def said_of_a_list(driver: harness.Driver) -> list[tuple[int, int]]:
    result = await driver.one(asking(harness.operation("u", list=pb.ListAction(limit=1))))
    return [(head.replica, head.counter) for head in result.heads]
