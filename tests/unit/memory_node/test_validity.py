"""When what a trace says holds: filters by valid_at, through changes, compaction and a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndml.errors import FieldInvalid
from ndml.v1.memory_pb2 import SearchMemoriesResponse
from ndml.v1.types_pb2 import Filter, MemoryTrace
from services.memory_node.records import timestamp
from services.memory_node.validity import Validity
from tests.unit.memory_node import node_harness as harness

DAY = 86_400_000_000


def day(number: int) -> int:
    return 1_700_000_000_000_000 + number * DAY


def turn(name: str, said: int, start: int | None = None, end: int | None = None) -> MemoryTrace:
    made = harness.trace(name, name, said_at_us=day(said))
    if start is not None:
        made.valid_from.CopyFrom(timestamp(day(start)))
    if end is not None:
        made.valid_until.CopyFrom(timestamp(day(end)))
    return made


async def held(node: harness.Driver, at: int) -> set[str]:
    wanted = harness.search("ann", "x", 50, filter=Filter(valid_at=timestamp(day(at))))
    result = await node.one(wanted)
    return {hit.trace.text for hit in SearchMemoriesResponse.FromString(result.search.responses[0]).hits}


TURNS = [turn("porto", 100, start=0, end=50), turn("turin", 60), turn("oslo", 10, end=40), turn("later", 0, start=90)]
HELD = {-1: set(), 5: {"porto"}, 20: {"porto", "oslo"}, 45: {"porto"}, 50: set(), 60: {"turin"}, 95: {"turin", "later"}}


async def test_a_trace_holds_from_its_beginning_else_from_when_it_was_said_until_its_end(tmp_path: Path) -> None:
    config = harness.settings(tmp_path)
    async with harness.running(config) as node:
        await node.put("ann", *TURNS)
        assert {at: await held(node, at) for at in HELD} == HELD
        everything = await node.search("ann", "x", 50)
        assert len(everything.hits) == 4, "without the filter all are found"
    async with harness.running(config) as node:
        assert {at: await held(node, at) for at in HELD} == HELD, "after a restart"


async def test_a_change_of_the_interval_counts_at_once_and_may_not_end_before_it_begins(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", *TURNS)

        async def change(fields: list[str], **times: int) -> Any:
            trace = MemoryTrace(trace_id=harness.trace_id("later"))
            for name, number in times.items():
                getattr(trace, name).CopyFrom(timestamp(day(number)))
            return await node.one(harness.operation("ann", update={"trace": trace, "fields": fields}))

        await change(["valid_from", "valid_until"], valid_from=10, valid_until=30)
        assert (await held(node, 20)) == {"porto", "oslo", "later"} and (await held(node, 95)) == {"turin"}
        with pytest.raises(FieldInvalid) as refused:
            await change(["valid_until"], valid_until=5)
        assert refused.value.violations[0].field == "valid_until"
        await change(["valid_until"])
        assert (await held(node, 95)) == {"turin", "later"}, "an end is taken back"


def test_rows_keep_their_intervals_under_new_numbers() -> None:
    validity = Validity()
    validity.append(0, TURNS[:2])
    validity.append(2, TURNS[2:])
    said = np.array([day(100), day(60), day(10), day(0)])
    assert validity.holds(day(20), said).tolist() == [True, False, True, False]
    validity.renumber(np.array([-1, 2, 0, 1]))
    assert validity.holds(day(20), said[[2, 3, 1]]).tolist() == [True, False, False]
    assert validity.nbytes > 0
