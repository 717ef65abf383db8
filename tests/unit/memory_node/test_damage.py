"""Bits that change on the disk: found, told, never shown; and a store that copies fill again."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from ndml.errors import StoreUnavailable
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1.types_pb2 import MemoryTrace
from services.memory_node.reader import NEWEST
from services.memory_node.schema import StoreRefused
from tests.unit.memory_node import node_harness as harness
from tests.unit.memory_node.test_joins import ANN, Site, as_one, sites


def filled(directory: Path, name: str) -> None:
    site = Site(directory, name)
    site.put(*(harness.trace(i, f"text {i} " + "x" * 300, metadata={"k": str(i)}) for i in range(60)))
    site.change(3, "changed")
    site.grade(4)
    site.delete(5)
    site.close()


def flipped(path: Path, dice: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(dice.choice([1, 1, 8])):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


@pytest.mark.parametrize("seed", range(30))
def test_a_flipped_bit_in_a_store_at_rest_is_found_whatever_it_is_part_of(tmp_path: Path, seed: int) -> None:
    filled(tmp_path, "n0")
    path = tmp_path / "n0" / "ndml.db"
    flipped(path, random.Random(seed))
    before = path.read_bytes()
    with pytest.raises(StoreRefused, match="damaged"):
        Site(tmp_path, "n0")
    assert path.read_bytes() == before


def test_a_damaged_store_is_set_aside_and_filled_again_by_its_copy(tmp_path: Path) -> None:
    with sites(tmp_path, 1) as (a,):
        filled(tmp_path, "n1")
        b = Site(tmp_path, "n1")
        a.take(records=list(b.records().values()), heads=b.state().heads)
        former = b.store.replica
        b.close()
        flipped(tmp_path / "n1" / "ndml.db", random.Random(1))
        damaged = (tmp_path / "n1" / "ndml.db").read_bytes()
        b = Site(tmp_path, "n1", on_damage="set_aside")
        assert b.store.set_aside is not None and b.store.set_aside.read_bytes() == damaged
        assert b.store.replica != former and b.shown() == {}
        b.take(records=list(a.records().values()), heads=a.state().heads)
        as_one(a, b)
        b.close()
        again = Site(tmp_path, "n1", on_damage="set_aside")
        assert again.store.set_aside is None
        as_one(a, again)
        again.close()


def no_database(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to look at " * 100)


def no_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for page in range(2, len(data) // 4096, 3):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [no_database, no_pages])
def test_a_store_that_was_killed_and_is_damaged_is_set_aside_too(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    filled(tmp_path, "n0")
    path = tmp_path / "n0" / "ndml.db"
    harness.unseal(path)
    damage(path)
    site = Site(tmp_path, "n0", on_damage="set_aside", check="always")
    assert site.store.set_aside is not None and site.shown() == {}
    site.close()


def test_of_stores_that_were_set_aside_the_newest_stay(tmp_path: Path) -> None:
    kept = []
    for time in range(4):
        filled(tmp_path, "n0")
        path = tmp_path / "n0" / "ndml.db"
        flipped(path, random.Random(1))
        site = Site(tmp_path, "n0", on_damage="set_aside", later_us=time)
        kept.append(site.store.set_aside)
        site.close()
        path.unlink()
    assert [path is not None and path.exists() for path in kept] == [False, False, True, True]


def test_a_store_that_cannot_be_opened_now_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    filled(tmp_path, "n0")
    log = tmp_path / "n0" / "ndml.db-wal"
    log.unlink(missing_ok=True)
    log.mkdir()
    with pytest.raises(StoreRefused):
        Site(tmp_path, "n0", on_damage="set_aside")
    log.rmdir()
    site = Site(tmp_path, "n0", on_damage="set_aside")
    assert site.store.set_aside is None and site.shown()
    site.close()


COLUMNS = ["payload", "vector", "speaker", "learned_at_us", "content_hash", "salience", "clock"]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_row_that_changed_under_an_open_store_is_told_and_healed_by_a_copy(tmp_path: Path, column: str) -> None:
    with sites(tmp_path, 2) as (a, b):
        b.take(a.put(*(harness.trace(i, metadata={"k": "v"}) for i in range(3))), a.grade(1))
        trace_id = bytes.fromhex(harness.trace_id(1))
        value = {"payload": "CAST(payload || x'00' AS BLOB)", "vector": "zeroblob(64)", "speaker": "'x'", "content_hash": "zeroblob(16)"}
        changed = value.get(column, f"{column} + 1")
        b.store.committer.connection.execute(f"UPDATE traces SET {column} = {changed} WHERE trace_id = ?", (trace_id,))
        row = b.reader.owner(ANN)
        assert row is not None
        with pytest.raises(StoreUnavailable, match="not as it was written"):
            b.reader.stored(row.owner_id, trace_id)
        with pytest.raises(StoreUnavailable, match="not as it was written"):
            b.reader.page(row.owner_id, NEWEST, 10, 1 << 20)
        with pytest.raises(StoreUnavailable, match="not as it was written"):
            b.records()
        if column in ("payload", "vector"):
            with pytest.raises(StoreUnavailable, match="not as it was written"):
                b.reader.payloads(row.owner_id, [1, 2, 3])
        if column == "vector":
            with pytest.raises(StoreUnavailable, match="not as it was written"):
                list(b.reader.load(row.owner_id))
        with pytest.raises(StoreUnavailable, match="set_aside"):
            b.change(1, "changed")
        b.take(records=[a.records()[trace_id]])
        as_one(a, b)
        assert b.uses(1) == 1
        b.store.committer.connection.execute("UPDATE traces SET payload = x'ff' WHERE trace_id = ?", (trace_id,))
        b.delete(1)
        assert harness.trace_id(1) not in b.shown(), "what is damaged can be deleted"


def test_damaged_rows_are_found_by_a_thorough_check(tmp_path: Path) -> None:
    filled(tmp_path, "n0")
    path = tmp_path / "n0" / "ndml.db"
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("UPDATE traces SET speaker = 'somebody else' WHERE sequence = 9")
    raw.close()
    harness.unseal(path)
    with pytest.raises(StoreRefused, match="not as it was written"):
        Site(tmp_path, "n0", check="always")
    Site(tmp_path, "n0").close()


async def test_a_node_answers_that_it_cannot_read_and_serves_the_rest(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("u", *(harness.trace(i) for i in range(3)))
        connection = node.node.store.committer.connection
        connection.execute("UPDATE traces SET payload = ? WHERE sequence = 2", (MemoryTrace(text="a lie").SerializeToString(),))
        with pytest.raises(StoreUnavailable):
            await node.found("u", 1, 1)
        with pytest.raises(StoreUnavailable):
            await node.one(harness.operation("u", get=pb.GetAction(trace_id=harness.trace_id(1))))
        assert await node.found("u", 0, 1) == ["text 0"]
        got = await node.one(harness.operation("u", get=pb.GetAction(trace_id=harness.trace_id(2))))
        assert got.trace.trace.text == "text 2"
