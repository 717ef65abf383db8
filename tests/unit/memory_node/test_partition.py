"""Partitions: derived from the store, dropped when memory runs short, and the same when they come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ndml.errors import CapacityReached
from services.memory_node.columns import Columns
from services.memory_node.payloads import PayloadCache
from services.memory_node.reader import LoadedRows
from services.memory_node.records import TraceRow
from tests.unit.memory_node import node_harness as harness


def row(sequence: int, speaker: str = "ann") -> TraceRow:
    return TraceRow(
        sequence,
        1,
        sequence.to_bytes(16, "big"),
        sequence,
        1,
        10 * sequence,
        20,
        "a",
        "",
        speaker,
        b"",
        0,
        b"",
        b"p" * sequence,
        0.5,
        0.25,
        sequence % 2,
        0,
    )


def test_columns_grow_find_and_renumber() -> None:
    columns = Columns()
    for start in range(1, 100, 7):
        columns.append([row(sequence, "ann" if sequence % 2 else "bo") for sequence in range(start, start + 7)])
    assert columns.ints("sequence").tolist() == list(range(1, 106))
    assert columns.ints("payload_bytes").tolist() == list(range(1, 106))
    assert columns.rows_of([3, 50, 999]).tolist() == [2, 49]
    columns.alive[2] = False
    assert columns.rows_of([3, 50]).tolist() == [49]
    assert (columns.ints("speaker") == columns.strings.find("bo")).tolist() == [sequence % 2 == 0 for sequence in range(1, 106)]
    assert columns.strings.find("nobody") == -1
    new_rows = np.where(np.arange(105) % 3 == 0, np.cumsum(np.arange(105) % 3 == 0) - 1, -1)
    columns.renumber(new_rows)
    assert columns.ints("sequence").tolist() == list(range(1, 106, 3))
    columns.append([row(200)])
    assert columns.rows_of([200, 4]).tolist() == [1, 35]


def test_loaded_columns_equal_appended_ones() -> None:
    rows = [row(sequence, str(sequence % 3)) for sequence in range(1, 20)]
    appended, loaded = Columns(), Columns()
    appended.append(rows)
    numbers = ("sequence", "first_sequence", "kind", "said_at_us", "learned_at_us", "expires_at_us", "protected")
    columns = {name: np.array([getattr(each, name) for each in rows]) for name in numbers}
    texts = {name: [getattr(each, name) for each in rows] for name in ("agent", "session", "speaker", "salience", "encoding")}
    payloads = [each.payload for each in rows]
    nothing, ids = [None] * len(rows), b"".join(each.trace_id for each in rows)
    loaded.append_loaded(LoadedRows(**columns, **texts, payloads=payloads, vectors=(), lifecycle=nothing, states=nothing, trace_ids=ids))
    for name in ("sequence", "first_sequence", "kind", "said_at_us", "learned_at_us", "expires_at_us", "payload_bytes"):
        assert appended.ints(name).tolist() == loaded.ints(name).tolist()
    assert loaded.strings.find("2") == loaded.ints("speaker")[1]


def test_payload_cache_keeps_its_bound_and_what_is_in_use() -> None:
    cache = PayloadCache(100_000)
    for sequence in range(1000):
        cache.put(sequence, bytes(800))
        cache.get(0)
    kept = [sequence for sequence in range(1000) if cache.get(sequence) is not None]
    assert 0 in kept
    assert 999 in kept
    assert len(kept) <= 100
    cache.put(5, bytes(90_000))
    assert cache.get(5) is None
    cache.forget([0, 999])
    assert cache.get(0) is None is cache.get(999)


async def test_an_owner_that_was_dropped_answers_as_before(tmp_path: Path) -> None:
    users = [f"u{i}" for i in range(6)]
    # Room for about two of the six owners.
    config = harness.settings(tmp_path, engine={"index_memory_limit": 1 << 17})
    async with harness.running(config) as node:
        for user in users:
            await node.put(user, *(harness.trace(f"{user} {i}", session=str(i % 2)) for i in range(120)))
        await node.one(harness.operation("u0", delete={"trace_id": harness.trace_id("u0 3")}))
        asked = [(user, query, session) for user in users for query in ("u0 3", "x", "y") for session in ("", "1")]
        first = [await node.found(user, query, 5, session=session) for user, query, session in asked]
        for i in reversed(range(len(asked))):
            user, query, session = asked[i]
            assert await node.found(user, query, 5, session=session) == first[i]
        status = node.node.status()
        assert status.traces == 719
        assert status.resident_traces < 480
        assert status.index_bytes <= 1 << 17


async def test_an_owner_that_alone_is_too_large_is_refused_by_name(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", *(harness.trace(i) for i in range(600)))
    async with harness.running(harness.settings(tmp_path, engine={"index_memory_limit": 1 << 16})) as node:
        with pytest.raises(CapacityReached, match="index_memory_limit"):
            await node.search("ann", 1)
        assert len(await node.every("ann")) == 600  # what needs no index still works
        errors = harness.errors_of(await node.put("ann", harness.trace("one more")))
        assert isinstance(errors[0], CapacityReached)


async def test_deleted_rows_are_compacted_away(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", *(harness.trace(i) for i in range(800)))
        await node.found("ann", 1)
        full = node.node.status().index_bytes
        await node.batch([harness.operation("ann", delete={"trace_id": harness.trace_id(i)}) for i in range(800) if i % 8])
        for i in range(0, 800, 8):
            assert await node.found("ann", i, 1) == [f"text {i}"]
        assert len(await node.found("ann", 1, 1000)) == 100
        assert node.node.status().resident_traces == 100
        await node.put("ann", harness.trace("new"))
        assert await node.found("ann", "new", 1) == ["text new"]
        assert node.node.status().index_bytes < 0.8 * full


async def test_an_index_that_is_trained_in_the_background_keeps_answering(tmp_path: Path) -> None:
    config = harness.settings(tmp_path, index={"fast_scan_from": 600})
    async with harness.running(config) as node:
        for start in range(0, 1200, 100):
            await node.put("ann", *(harness.trace(i) for i in range(start, start + 100)))
            assert await node.found("ann", start, 1) == [f"text {start}"]
        for i in range(2000):
            stats = (await node.search("ann", i % 1200, 1)).stats
            if stats.index != "flat":
                break
        assert stats.index == "pq4fs+refine"
        hits = [(await node.found("ann", i, 1))[0] == f"text {i}" for i in range(0, 1200, 13)]
        assert sum(hits) >= 0.98 * len(hits)
