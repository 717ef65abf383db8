"""What a copy says that a read has seen: never less than was shown, its own position included; and nothing where nobody asks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ndml.errors import OwnerUnavailable, TraceNotFound
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1.memory_pb2 import SearchMemoriesResponse
from ndml.wire import status_to_error
from services.memory_node.records import Owner
from tests.unit.memory_node import node_harness as harness
from tests.unit.memory_node.test_replicated_engine import change, graded, pair, passed_on, told

Known = dict[int, int]


def asking(operation: pb.Operation) -> pb.Operation:
    operation.want_heads = True
    return operation


def known(result: pb.OperationResult) -> Known:
    return {head.replica: head.counter for head in result.heads}


def reads() -> list[pb.Operation]:
    kinds: list[dict[str, Any]] = [
        {"get": pb.GetAction(trace_id=harness.trace_id(1), include_strength=True)},
        {"list": pb.ListAction(limit=5)},
        {"list": pb.ListAction(limit=5, session="s")},
        {"record": pb.RecordAction(trace_id=harness.trace_id(1))},
        {"stats": pb.StatsAction()},
    ]
    return [harness.search("u", 1, 1), *(harness.operation("u", **kind) for kind in kinds)]


async def said(driver: harness.Driver) -> Known:
    """By every kind of read, in one batch: the same."""
    found = [known(result) for result in await driver.batch([asking(operation) for operation in reads()])]
    assert all(each == found[0] for each in found)
    return found[0]


async def test_every_read_says_what_its_copy_knows_of_each_author(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b, _):
        left, right = a.node.store.replica, b.node.store.replica
        assert await said_of_nobody(a) == {}
        made = await told(a, put=pb.PutAction(traces=[harness.trace(1, session="s")]))
        assert await said(a) == {left: made.put.sequence}
        await passed_on(made, b)
        assert await said(b) == {left: made.put.sequence}
        changed = await told(b, **change(1, "other"))
        assert await said(b) == {left: made.put.sequence, right: changed.trace.sequence}
        assert await said(a) == {left: made.put.sequence}
        await passed_on(changed, a)
        await a.one(harness.put("somebody else", harness.trace(5)))
        assert await said(a) == await said(b), "what others write moves no position of this owner"
        uses = await told(a, **graded(1))
        assert (await said(a))[left] == uses.reinforce.sequence > made.put.sequence
        gone = await told(a, delete=pb.DeleteAction(trace_id=harness.trace_id(1)))
        assert (await told_of_its_end(a))[left] == gone.delete.sequence


async def said_of_nobody(driver: harness.Driver) -> Known:
    found = await driver.batch([asking(harness.search("u", 1, 1)), asking(harness.operation("u", list=pb.ListAction(limit=1)))])
    assert not SearchMemoriesResponse.FromString(found[0].search.responses[0]).hits
    return known(found[0]) | known(found[1])


async def told_of_its_end(driver: harness.Driver) -> Known:
    """By the get that does not find it."""
    [result] = await driver.batch([asking(harness.operation("u", get=pb.GetAction(trace_id=harness.trace_id(1))))])
    assert isinstance(status_to_error(result.error), TraceNotFound)
    return known(result)


async def test_nobody_who_does_not_ask_is_told(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, _, _clock):
        await told(a, put=pb.PutAction(traces=[harness.trace(1, session="s")]))
        for result in await a.batch(reads()):
            assert not result.heads
        tenant = pb.Operation(tenant="t", stats=pb.StatsAction(), want_heads=True)
        assert not (await a.one(tenant)).heads


async def test_a_position_is_as_the_store_says_after_a_restart_and_when_it_was_not_in_memory(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b, _):
        await passed_on(await told(a, put=pb.PutAction(traces=[harness.trace(1, session="s")])), b)
        await told(b, **change(1, "other"))
        before = await said(b)
    async with pair(tmp_path) as (_a, b, _):
        assert await said(b) == before
        reader = b.node.store.reader()
        assert reader.heads(Owner("t", "u")) == before
        reader.close()


async def test_what_a_read_shows_is_in_what_it_says_while_writes_go_on(tmp_path: Path) -> None:
    """Reads of the store may be ahead of the index: then, too, a copy that has less than was shown is told from one that has it."""
    async with pair(tmp_path) as (a, b, _):
        made = await told(a, put=pb.PutAction(traces=[harness.trace(1, session="s")]))
        await passed_on(made, b)
        positions = {"text 1": made.put.sequence}
        shown: list[tuple[str, int]] = []

        async def write() -> None:
            for number in range(60):
                done = await told(a, **change(1, f"text {number + 2}"))
                positions[f"text {number + 2}"] = done.trace.sequence

        writing = asyncio.ensure_future(write())
        while not writing.done():
            operations = [harness.operation("u", get=pb.GetAction(trace_id=harness.trace_id(1))), harness.search("u", 1, 1)]
            got, found = await a.batch([asking(operation) for operation in operations])
            # None in the instant in which the store has the new content and the index the old one.
            hits = SearchMemoriesResponse.FromString(found.search.responses[0]).hits
            shown += [(hit.trace.text, known(found)[a.node.store.replica]) for hit in hits]
            shown.append((got.trace.trace.text, known(got)[a.node.store.replica]))
        await writing
        assert len({text for text, _ in shown}) > 1
        assert all(positions[text] <= position for text, position in shown)
        late = asking(harness.search("u", 1, 1))
        late.seen.add(replica=a.node.store.replica, counter=shown[-1][1])
        await a.one(late)
        with pytest.raises(OwnerUnavailable):
            await b.one(late)
