"""Late interaction against a slow reference in floating point, with and without the library in C."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.errors import FieldInvalid
from services.memory_node.signals import late
from services.memory_node.signals.late import WordPool, query_words


@pytest.fixture(params=["native", "numpy"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both ways to count; the first is skipped where nothing was compiled."""
    if request.param == "native" and late.native() is None:
        pytest.skip("built without a C compiler")
    if request.param == "numpy":
        monkeypatch.setattr(late, "native", lambda: None)
    yield


def words(rng: np.random.Generator, count: int, dimension: int) -> np.ndarray:
    """Signed bytes [count, dimension], as the llm service makes them."""
    return rng.integers(-127, 128, (count, dimension), dtype=np.int8)


def blob(vectors: np.ndarray) -> bytes:
    return np.packbits(vectors >= 0, axis=1).tobytes()


def slow(query: np.ndarray, rows: list[np.ndarray]) -> np.ndarray:
    """[m, n]: cosines of one pair after the other, of a memory's word the signs alone."""
    found = np.zeros((len(query), len(rows)))
    for i, asked in enumerate(query.astype(np.float64)):
        for j, said in enumerate(rows):
            signs = np.where(said >= 0, 1.0, -1.0)
            cosines = [asked @ each / max(np.linalg.norm(asked), 1) / np.linalg.norm(each) for each in signs]
            found[i, j] = max(cosines, default=0.0)
    return found


def compare(pool: WordPool, rows: list[np.ndarray], query: np.ndarray) -> None:
    assert len(pool) == len(rows)
    every = np.arange(len(rows))
    np.testing.assert_allclose(pool.similarities(query_words(query.tobytes(), pool.dimension), every), slow(query, rows), atol=1e-5)


@pytest.mark.parametrize("dimension", [4, 7, 8, 9, 24, 100, 384])
def test_it_is_the_cosine_to_the_nearest_word_whatever_the_dimension(dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    rows = [words(rng, int(count), dimension) for count in rng.integers(0, 9, 40)]
    pool = WordPool(dimension)
    pool.append([blob(each) for each in rows[:1]])
    pool.append([])
    pool.append([blob(each) for each in rows[1:]])
    compare(pool, rows, words(rng, 6, dimension))


def test_a_row_without_words_has_nothing_and_no_query_word_asks_nothing() -> None:
    rng = np.random.default_rng(1)
    pool = WordPool(8)
    pool.append([b"", blob(words(rng, 3, 8)), b""])
    query = words(rng, 2, 8)
    found = pool.similarities(query, np.array([2, 1, 0]))
    assert (found[:, [0, 2]] == 0).all() and (found[:, 1] != 0).all()
    assert pool.similarities(query, np.array([0, 2])).tolist() == [[0, 0], [0, 0]]
    assert pool.similarities(query_words(b"", 8), np.array([0, 1])).shape == (0, 2)
    assert pool.similarities(query, np.empty(0, np.int64)).shape == (2, 0)


def test_a_word_that_no_token_covers_is_near_nothing() -> None:
    pool = WordPool(8)
    pool.append([blob(np.ones((1, 8), np.int8))])
    assert pool.similarities(query_words(bytes(8), 8), np.array([0])).tolist() == [[0.0]]


def test_rows_may_be_asked_for_in_any_order_and_twice() -> None:
    rng = np.random.default_rng(2)
    rows = [words(rng, 1 + n % 4, 16) for n in range(20)]
    pool = WordPool(16)
    pool.append([blob(each) for each in rows])
    query, asked = words(rng, 3, 16), np.array([19, 3, 3, 0, 7])
    np.testing.assert_allclose(pool.similarities(query, asked), slow(query, [rows[i] for i in asked]), atol=1e-5)


def test_more_words_than_are_unpacked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "_AT_ONCE", 10)  # rows of 7 words lie across its edges
    rng = np.random.default_rng(3)
    rows = [words(rng, 7, 12) for _ in range(30)]
    pool = WordPool(12)
    pool.append([blob(each) for each in rows])
    compare(pool, rows, words(rng, 4, 12))


def test_dropped_rows_leave_the_others_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    for least in (0, 5, 1 << 30):  # words move at once, now and then, never
        monkeypatch.setattr(late, "_LEAST_HOLES", least)
        rows = [words(rng, n % 5, 9) for n in range(30)]
        pool = WordPool(9)
        pool.append([blob(each) for each in rows])
        for step in (3, 2):
            new = np.where(np.arange(len(rows)) % step, -1, (np.arange(len(rows)) // step))
            pool.renumber(new)
            rows = rows[::step]
            rows.append(words(rng, 2, 9))
            pool.append([blob(rows[-1])])
            compare(pool, rows, words(rng, 3, 9))
        pool.renumber(np.arange(len(rows))[::-1].copy())
        rows.reverse()
        compare(pool, rows, words(rng, 3, 9))
        pool.renumber(np.full(len(rows), -1))
        assert len(pool) == 0
        pool.append([blob(rows[0])])
        compare(pool, rows[:1], words(rng, 3, 9))


def test_holes_are_given_back() -> None:
    rng = np.random.default_rng(5)
    pool = WordPool(384)
    pool.append([blob(words(rng, 128, 384)) for _ in range(100)])
    full = pool.nbytes
    pool.renumber(np.where(np.arange(100) % 10, -1, np.arange(100) // 10))
    assert pool.nbytes < full / 8


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_order_of_appends_and_renumberings_is_as_built_anew(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    rows: list[np.ndarray] = []
    pool = WordPool(11)
    for _ in range(data.draw(st.integers(1, 6))):
        if rows and data.draw(st.booleans()):
            order = data.draw(st.permutations(range(len(rows))))[: data.draw(st.integers(0, len(rows)))]
            new = np.full(len(rows), -1)
            new[order] = np.arange(len(order))
            pool.renumber(new)
            rows = [rows[i] for i in order]
        else:
            added = [words(rng, count, 11) for count in data.draw(st.lists(st.integers(0, 4), max_size=5))]
            pool.append([blob(each) for each in added])
            rows += added
    compare(pool, rows, words(rng, 2, 11))


def test_a_querys_words_have_whole_vectors() -> None:
    assert query_words(bytes(24), 8).shape == (3, 8)
    for size in (1, 7, 9):
        with pytest.raises(FieldInvalid, match=f"{size} bytes") as refused:
            query_words(bytes(size), 8)
        assert refused.value.violations[0].field == "texts.word_vectors"
