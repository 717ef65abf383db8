"""Terms: one analysis for memories and queries, bounded, in any script and from any thread."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.language.terms import MOST_LETTERS, MOST_TERMS, MOST_WORDS, Word, content_words, terms
from ndml.language.terms import _terms_of_short as cached_terms

_PIECES = """the cats Ann's Ann’s who's naïve STRAẞE 猫が好き ภาษาไทย हिन्दी \ud800 🙂 \u0301 İ ﬁ \u212a 2026年 iPhone手机 a 7 _ ' ’ ."""
PIECES = st.sampled_from(_PIECES.split())
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=40).map("".join), st.lists(PIECES, max_size=40).map(" ".join))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Maria adopted two puppies", ["maria", "adopt", "two", "puppi"]),
        ("running runs RUN", ["run", "run", "run"]),
        ("What did she do, and when would they have been there?", []),
        ("I don't, he won't; it’s, they’re, who's, WHAT’S, where'd, how'll", []),
        ("Ann's, Ann’s, ANN'S, Ann'll, Ann", ["ann"] * 5),
        ("the dogs' bowls", ["dog", "bowl"]),
        ("rock'n'roll at o'clock", ["rock'n'rol", "o'clock"]),
        ("a b c 1 2 x's", ["1", "2"]),
        ("3.50 snake_case well-known e-mail", ["3", "50", "snake", "case", "well", "known", "mail"]),
        ("Straße STRASSE", ["strass", "strass"]),
        ("café cafe\u0301 CAFÉ", ["café", "café", "café"]),
        ("Москва МОСКВА", ["москва", "москва"]),
        ("私は猫", ["私は", "は猫"]),
        ("猫", ["猫"]),
        ("iPhone手机 2026年", ["iphon", "手机", "2026", "年"]),
        ("the猫", ["猫"]),
        ("ภาษา", ["ภา", "าษ", "ษา"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("한국어", ["한국어"]),
        ("🙂 👩‍👩‍👧 ❤️ !?", []),
        ("", []),
        ("\ud800 \x00", []),
    ],
)
def test_terms(text: str, found: list[str]) -> None:
    assert terms(text) == found


def test_words_stand_where_they_are_said() -> None:
    text = "Well, Ann’s CATS sleep in the 猫カフェ; ok?"
    assert [text[word.start : word.end] for word in content_words(text)] == ["Well", "Ann’s", "CATS", "sleep", "猫カフェ", "ok"]
    assert content_words("the cats") == [Word(4, 8, ("cat",))]
    assert content_words("the 猫カフェ")[0].terms == ("猫カ", "カフ", "フェ")


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_spans_and_terms_agree_on_any_text(text: str) -> None:
    words, at = content_words(text), 0
    for word in words:
        assert at <= word.start < word.end <= len(text) and word.terms and all(word.terms)
        at = word.end
    assert [term for word in words for term in word.terms] == terms(text)
    assert len(words) <= MOST_WORDS and len(terms(text)) <= MOST_TERMS


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_case_does_not_matter_to_ascii(text: str) -> None:
    plain = text.encode("ascii", "ignore").decode()
    assert terms(plain) == terms(plain.upper()) == terms(plain.lower())


@pytest.mark.parametrize("seed", ["rain ", "the ", "x", "猫", "猫。", "é", "e\u0301", "a'", "🙂", "'", "ก็", "\u0301", "ﷺ", "12,"])
def test_a_megabyte_is_capped(seed: str) -> None:
    text = seed * (1_000_000 // len(seed))
    found = terms(text)
    assert len(found) <= MOST_TERMS and all(len(term) <= MOST_LETTERS for term in found)
    assert len(content_words(text)) <= MOST_WORDS
    assert found == [term for word in content_words(text) for term in word.terms]


def steps_of(text: str) -> int:
    """Calls that the analysis makes: work that no clock has to measure."""
    count = 0

    def step(*_: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(step)
    try:
        terms(text)
        content_words(text)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("seed", ["the ", "x", "猫", "e\u0301 ", "who's "])
def test_work_grows_no_faster_than_the_text(seed: str) -> None:
    terms(seed * 20_000)
    assert steps_of(seed * 20_000) <= 2.5 * steps_of(seed * 10_000) + 50


def test_long_words_do_not_fill_the_cache() -> None:
    before = cached_terms.cache_info().currsize
    for i in range(100):
        assert len(terms(f"{i}{'q' * 1000}")) == 1
    assert cached_terms.cache_info().currsize == before
    assert terms("q" * 1000) == terms("q" * 2000)


def test_threads_agree() -> None:
    texts = [f"running number{i} Ann’s puppies 猫が{i} naïvely" for i in range(300)]
    alone = [terms(text) for text in texts]
    cached_terms.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(terms, texts * 4))
    assert together == alone * 4
