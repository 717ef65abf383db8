"""Columns and blocks joined at once, against a join row by row in plain Python."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest

from ndml.btsp import timescales
from ndml.btsp.record import ORDER, RECORD, decoded, encoded
from ndml.btsp.state import StateBlock
from ndml.crdt.blocks import LevelBlock, StateColumns, bodies, joined_states, raised
from ndml.errors import FieldInvalid

Key = tuple[bytes, int]


def states(rng: Random, count: int) -> list[bytes]:
    rows = np.zeros(count, RECORD)
    rows["levels"] = [[rng.choice([-math.inf, rng.uniform(-9, 1e7)]) for _ in range(8)] for _ in range(count)]
    rows["stability"], rows["difficulty"] = [rng.choice([1, 2]) for _ in range(count)], 5.0
    for name in ("changes", "uses", "successes", "failures"):
        rows[name] = [rng.randrange(3) for _ in range(count)]
    rows["early"] = [rng.choice([-1, -0.5, 0.5]) for _ in range(count)]
    return encoded(rows)


def contributions(rng: Random, count: int) -> dict[Key, tuple[int, bytes]]:
    keys = {(bytes([rng.randrange(6)]) * 15 + b"\0", rng.randint(1, 4)) for _ in range(count)}
    return dict(zip(sorted(keys), zip([rng.randint(1, 3) for _ in keys], states(rng, len(keys)), strict=True), strict=True))


def columns(held: dict[Key, tuple[int, bytes]], rng: Random) -> StateColumns:
    rows = [(*key, *value) for key, value in held.items()]
    rng.shuffle(rows)
    return StateColumns.of([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows], [r[3] for r in rows])


def by_hand(one: tuple[int, bytes], other: tuple[int, bytes]) -> tuple[int, bytes]:
    ours, theirs = decoded([one[1]])[0], decoded([other[1]])[0]
    ranks = [(counter, *(row[name].item() for name in ORDER)) for counter, row in ((one[0], ours), (other[0], theirs))]
    row = (theirs if ranks[1] > ranks[0] else ours).copy()
    row["levels"] = [max(pair) for pair in zip(ours["levels"].tolist(), theirs["levels"].tolist(), strict=True)]
    for name in ("uses", "successes", "failures"):
        row[name] = max(ours[name], theirs[name])
    return max(one[0], other[0]), encoded(np.array([row]))[0]


@pytest.mark.parametrize("seed", range(20))
def test_columns_are_joined_row_by_row(seed: int) -> None:
    rng = Random(seed)
    one, other = contributions(rng, 20), contributions(rng, 20)
    expected = {**one, **other, **{key: by_hand(one[key], other[key]) for key in one.keys() & other.keys()}}
    joined = columns(one, rng).joined(columns(other, rng))
    assert joined.rows() == [(*key, *expected[key]) for key in sorted(expected)]


@pytest.mark.parametrize("seed", range(10))
def test_blocks_are_joined_cell_by_cell(seed: int) -> None:
    rng = Random(seed)
    cells = [{key: np.array([rng.uniform(-5, 5) for _ in range(8)]) for key in contributions(rng, 12)} for _ in range(2)]
    joined = block(cells[0]).joined(block(cells[1]))
    at = {
        (bytes(trace).ljust(16, b"\0"), int(replica)): (i, j)
        for i, trace in enumerate(joined.ids)
        for j, replica in enumerate(joined.replicas)
    }
    silent = timescales.silent(1)[0]
    for key, place in at.items():
        expected = np.maximum(cells[0].get(key, silent), cells[1].get(key, silent))
        assert (joined.levels[place] == expected).all()
    assert {*cells[0], *cells[1]} <= at.keys()


def block(cells: dict[Key, np.ndarray[tuple[int], np.dtype[np.float64]]]) -> LevelBlock:
    ids, replicas = sorted({key[0] for key in cells}), sorted({key[1] for key in cells})
    levels = np.full((len(ids), len(replicas), 8), -np.inf)
    for (trace, replica), values in cells.items():
        levels[ids.index(trace), replicas.index(replica)] = values
    return LevelBlock(np.array(ids, "S16"), np.array(replicas, np.uint64), levels)


def test_copies_of_one_writer_join_as_its_state_block_does() -> None:
    writer = StateBlock()
    writer.append([0.5], [0.4], [timescales.ORIGIN_S])
    early = writer.pack([0])
    writer.grade([0], [1.0], [timescales.ORIGIN_S + 1e4])
    late = writer.pack([0])
    counters = np.array([1], np.uint64), np.array([2], np.uint64)
    for one, other in ((early, late), (late, early)):
        pair = counters if one is early else counters[::-1]
        assert encoded(joined_states(pair[0], bodies(one), pair[1], bodies(other))[1]) == late


def test_numbers_that_no_writer_sends_are_joined_in_one_way() -> None:
    odd = np.array([-0.0, 0.0, np.nan, -np.nan, np.inf, -np.inf, -1.0, 5e-324])
    ours, theirs = (side.reshape(-1) for side in np.meshgrid(odd, odd))
    assert raised(ours, theirs).tobytes() == raised(theirs, ours).tobytes()
    assert raised(ours, ours).tobytes() == ours.tobytes()


def test_columns_that_do_not_fit() -> None:
    state = states(Random(0), 1)
    with pytest.raises(FieldInvalid, match="length"):
        StateColumns.of([b"i" * 16], [1, 2], [1], state)
    with pytest.raises(FieldInvalid, match="16 bytes"):
        StateColumns.of([b"i"], [1], [1], state)
    with pytest.raises(FieldInvalid, match="twice"):
        StateColumns.of([b"i" * 16] * 2, [1, 1], [1, 2], state * 2)
    with pytest.raises(FieldInvalid, match="shape"):
        LevelBlock(np.array([b"i" * 16], "S16"), np.array([1], np.uint64), np.zeros((1, 1, 7)))


def test_a_hundred_thousand_traces_are_one_call() -> None:
    rng, count = Random(5), 100_000
    few = [(1 + rng.randrange(3), state) for state in states(rng, 200)]
    ids = [number.to_bytes(16, "big") for number in range(count)]
    # Two patterns of different length, so that all pairs of states meet.
    sides = [[few[number * step % size] for number in range(count)] for step, size in ((1, 200), (7, 199))]
    ours, theirs = (StateColumns.of(ids, [1] * count, [c for c, _ in side], [state for _, state in side]) for side in sides)
    joined = ours.joined(theirs).rows()
    assert len(joined) == count
    for place in rng.sample(range(count), 500):
        assert joined[place] == (ids[place], 1, *by_hand(sides[0][place], sides[1][place]))
