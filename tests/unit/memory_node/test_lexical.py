"""Lexical signal: what is found, in which order, what a query may read, and how little memory and work it takes."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from ndml.errors import FieldInvalid
from ndml.language.terms import terms
from services.memory_node.signals.lexical import LexicalOptions, Postings, counted

DAY = [
    "Ann: I adopted a black cat in Oslo",
    "Bo: what did he do there?",
    "Ann: the cat sleeps, the cat eats, the cat sleeps again",
    "Bo: my dog Rex eats everything",
    "Ann: ich wohne in einer Straße in Köln",
    "Bo: 私は猫が好きです",
]


def index_of(texts: list[str], options: LexicalOptions | None = None) -> Postings:
    index = Postings(options)
    index.append(texts)
    return index


def found(index: Postings, query: str, k: int = 10) -> list[int]:
    rows: list[int] = index.search(terms(query), k)[1].tolist()
    return rows


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("What did the cat do?", [2, 0]),
        ("CATS eating", [2, 0, 3]),
        ("Rex’s dog", [3]),
        ("STRASSE", [4]),
        ("köln", [4]),
        ("猫", []),  # a term there is a pair of characters
        ("猫が", [5]),
        ("what did he do there?", []),
        ("🙂 ... !", []),
        ("", []),
        ("zebra", []),
        ("zebra oslo", [0]),
    ],
)
def test_what_is_found(query: str, rows: list[int]) -> None:
    assert found(index_of(DAY), query) == rows


def test_an_empty_index_answers() -> None:
    index = Postings()
    index.append([])
    scores, rows = index.search(["cat"], 5)
    assert scores.shape == rows.shape == (0,) and scores.dtype == np.float32 and rows.dtype == np.int64
    assert index.scores(["cat"], np.empty(0, np.int64)).shape == (0,)
    assert index.idf("cat") == pytest.approx(math.log(2)) and index.idfs([]).shape == (0,)
    index.remove(np.empty(0, np.int64))
    index.renumber(np.empty(0, np.int64))
    assert len(index) == index.live == 0


def test_rows_without_content_count_as_rows() -> None:
    index = index_of(["the and of", "", "🙂🙂", "rain"])
    assert (len(index), index.live) == (4, 4)
    assert index.idf("rain") == pytest.approx(math.log(1 + 3.5 / 1.5), abs=1e-6)
    assert found(index, "rain") == [3]
    index.remove(np.array([3]))
    assert found(index, "rain") == []


@pytest.mark.parametrize("text", ["x" * 100_000, "rain " * 20_000, "猫" * 100_000, "🙂" * 100_000, "\ud800a\x00b" * 20_000, "é" * 100_000])
def test_texts_of_any_kind_are_indexed_and_bounded(text: str) -> None:
    index = index_of(["sunrise", text, "sunset"])
    assert found(index, "sunset") == [2] and found(index, "sunrise") == [0]
    assert found(index, text) in ([1], [])
    assert index.nbytes < 50_000


def test_a_score_is_bm25() -> None:
    index = index_of(["cat cat dog", "bird", "dog"])
    [score], [row] = index.search(["cat"], 3)
    right = math.log(1 + 2.5 / 1.5) * 2 * 1.9 / (2 + 0.9 * (0.25 + 0.75 * 3 / (5 / 3)))
    assert row == 0 and score == pytest.approx(right, rel=1e-6)
    plain = index_of(["cat cat dog", "bird", "dog"], LexicalOptions(k1=0.0, b=0.0))
    assert plain.search(["cat"], 1)[0] == pytest.approx([plain.idf("cat")])


def test_a_term_counts_255_times_at_most() -> None:
    index = index_of(["rain " * 255 + "sun", "rain " * 256, "rain " * 400])
    assert counted(["rain " * 255, "rain " * 256, "rain " * 400]).counts.tolist() == [255, 255, 255]
    assert sorted(found(index, "rain")) == [0, 1, 2]


def test_terms_may_hold_what_no_text_has() -> None:
    index = index_of(DAY)
    assert found(index, "cat") == index.search(["\ud800", "", "cat"], 9)[1].tolist()
    assert index.idf("\ud800") == index.idf("zebra")


def test_a_term_of_the_query_counts_once() -> None:
    index = index_of(DAY)
    once, twice = index.search(["cat", "eat"], 9), index.search(["cat", "eat", "cat", "cat"], 9)
    assert np.array_equal(once[0], twice[0]) and np.array_equal(once[1], twice[1])


def test_removed_rows_are_gone_at_once() -> None:
    index, fresh = index_of(DAY, LexicalOptions(tail=4)), index_of(DAY[1:], LexicalOptions(tail=4))
    index.remove(np.array([0, 0]))
    index.remove(np.array([0]))
    assert (len(index), index.live) == (6, 5)
    assert found(index, "cat") == [2]
    assert index.idf("cat") == fresh.idf("cat") and index.idf("oslo") == fresh.idf("zebra")
    assert index.search(["cat"], 1)[0] == pytest.approx(fresh.search(["cat"], 1)[0])
    assert index.scores(["cat"], np.array([0, 2, 0]))[[0, 2]].tolist() == [0, 0]
    index.remove(np.arange(6))
    assert index.live == 0 and found(index, "cat dog oslo") == []


def test_renumbered_rows_are_found_under_their_new_number() -> None:
    index = index_of(DAY, LexicalOptions(tail=4))
    index.renumber(np.array([0, -1, 1, 2, -1, 3]))
    assert len(index) == 4 and found(index, "dog") == [2] and found(index, "猫が") == [3] and found(index, "köln") == []
    index.renumber(np.array([3, 2, 1, 0]))
    assert found(index, "dog") == [1] and found(index, "猫が") == [0]
    index.append(["a new dog"])
    assert found(index, "new") == [4] and sorted(found(index, "dog")) == [1, 4]
    index.renumber(np.full(5, -1))
    assert len(index) == 0 and found(index, "dog") == []


def test_a_mask_is_kept_to() -> None:
    index = index_of(DAY)
    allowed = np.array([False, True, True, False, True, True])
    assert index.search(["cat", "dog"], 9, allowed)[1].tolist() == [2]
    assert index.search(["cat"], 9, np.zeros(6, np.bool_))[1].tolist() == []
    # What is allowed changes who is found, not what a word is worth.
    assert index.search(["cat"], 9, allowed)[0][0] == index.search(["cat"], 9)[0][0]


@pytest.mark.parametrize("options", [LexicalOptions(), LexicalOptions(tail=3, segment=8)])
def test_among_equals_the_lower_row_comes_first(options: LexicalOptions) -> None:
    index = index_of(["green tea", "tea", "green tea", "black tea", "green tea", "green tea"], options)
    assert found(index, "green tea", 3) == [0, 2, 4]
    assert found(index, "green tea") == [0, 2, 4, 5, 1, 3]
    assert found(index, "green tea", 0) == []


def test_equal_texts_score_equally_wherever_their_postings_lie() -> None:
    words = [f"word{i}" for i in range(40)]
    # Word i stands in i rows more, so a sum in the order of the terms' checksums is another sum.
    texts = [" ".join(words), *(" ".join(words[i:]) for i in range(1, 40)), "filler " * 3, " ".join(words)]
    index = index_of(texts[:-1], LexicalOptions(tail=64))
    index.append(texts[-1:])
    first, last = index._read(index._spans(counted(texts[:1]).hashes), np.arange(40)[::-1]), len(texts) - 1
    assert first.term[first.rows == 0].tolist() == first.term[first.rows == last].tolist()
    assert index.search(words, 2)[1].tolist() == [0, last]


def test_scores_are_those_of_the_search() -> None:
    index = index_of([f"word{i % 7} word{i % 11} word{i % 3}" for i in range(500)], LexicalOptions(tail=32))
    scores, rows = index.search(["word1", "word2", "word9"], 500)
    assert np.array_equal(index.scores(["word1", "word2", "word9"], rows), scores)


def test_few_postings_of_many_rows_are_summed_as_many_are() -> None:
    texts = [f"fig{i % 400} oil{i % 300} salt{i % 2}" for i in range(4000)]
    index = index_of(texts)
    every = np.arange(4000)
    # 10 and 14 postings go through the sort, 2000 through the sum for every row.
    few, many = ["fig7", "oil7"], ["fig7", "oil7", "salt1"]
    salt = index.scores(["salt1"], every)
    assert index.scores(many, every) == pytest.approx(index.scores(few, every) + salt, rel=1e-5)
    assert index.search(few, 99)[1].tolist()[:4] == [7, 1207, 2407, 3607]
    assert np.flatnonzero(index.scores(few, every)).tolist() == [i for i in range(4000) if i % 400 == 7 or i % 300 == 7]


def test_a_query_reads_no_more_than_its_budget() -> None:
    texts = ["salt oil fig", *["salt oil"] * 9, *["salt"] * 20]
    index = index_of(texts, LexicalOptions(budget=11))
    # fig and oil are 11 postings; salt would be 30 more.
    whole = index_of(texts)
    query = ["salt", "oil", "fig"]
    assert np.array_equal(index.scores(query, np.arange(30)), whole.scores(["fig", "oil"], np.arange(30)))
    assert len(index.search(query, 99)[1]) == 10
    # The rarest is read at any price.
    assert len(index.search(["salt"], 99)[1]) == 30
    assert sorted(index_of(texts, LexicalOptions(budget=1)).search(["salt", "oil"], 99)[1].tolist()) == list(range(10))
    assert index.idf("salt") == whole.idf("salt")


def test_the_rarest_terms_of_a_long_query_count() -> None:
    texts = ["alpha beta", "alpha beta", "alpha gamma"]
    index = index_of(texts, LexicalOptions(query_terms=1))
    assert found(index, "alpha beta") == [0, 1]
    # Words that no row has take no place.
    assert found(index, " ".join(f"unknown{i}" for i in range(300)) + " alpha") == [0, 1, 2]
    many = index_of([" ".join(f"term{i}" for i in range(300))])
    assert float(many.search([f"term{i}" for i in range(300)], 1)[0][0]) == pytest.approx(
        64 * float(many.search(["term1"], 1)[0][0]), rel=1e-5
    )


def test_segments_stay_few_and_small_appends_do_not_move_the_rest() -> None:
    index = Postings(LexicalOptions(tail=16, segment=2000))
    for i in range(3000):
        index.append_terms(counted([f"a{i % 50} b{i % 71} c{i % 13} d{i}"]))
    sizes = [len(segment.rows) for segment in index._segments]
    assert sum(sizes) + index._tail_size == 12_000 and max(sizes) <= 2000 and len(sizes) <= 2 * 12_000 // 2000 + 8
    before = [id(segment) for segment in index._segments]
    index.append_terms(counted(["one more"]))
    assert [id(segment) for segment in index._segments] == before
    index.remove(np.arange(0, 3000, 2))
    index.renumber(np.where(np.arange(3001) % 2, np.arange(3001) // 2, -1))
    assert len(index) == 1500 and sum(len(segment.rows) for segment in index._segments) + index._tail_size == 6000
    assert found(index, "d2999") == [1499]


def test_memory_is_told_honestly() -> None:
    random = np.random.default_rng(5)
    texts = [" ".join(f"w{word}" for word in random.zipf(1.2, 15) % 20_000) for _ in range(6000)]
    analysed = [counted(texts[at : at + 64]) for at in range(0, 6000, 64)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        index = Postings()
        for each in analysed:
            index.append_terms(each)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert index.nbytes == pytest.approx(held, rel=0.2)
    assert index.nbytes / 6000 < 130


def test_bad_input_names_the_field() -> None:
    index = index_of(DAY)
    for wrong, field in (
        (lambda: index.remove(np.array([6])), "rows"),
        (lambda: index.remove(np.array([0, -1])), "rows"),
        (lambda: index.scores(["cat"], np.array([6])), "rows"),
        (lambda: index.renumber(np.arange(5)), "new_rows"),
        (lambda: index.search(["cat"], -1), "k"),
        (lambda: index.search(["cat"], 1, np.ones(5, np.bool_)), "allowed"),
        (lambda: LexicalOptions(b=1.5), "lexical"),
        (lambda: LexicalOptions(k1=math.nan), "lexical"),
        (lambda: LexicalOptions(tail=0), "lexical"),
        (lambda: LexicalOptions(query_terms=257), "lexical"),
    ):
        with pytest.raises(FieldInvalid) as raised:
            wrong()
        assert [violation.field for violation in raised.value.violations] == [field]
    assert index.live == 6
