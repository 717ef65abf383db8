"""Names of code as terms: one spelling for every convention, beside the words and never instead of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndml.language.identifiers import MOST_NAMES, like_code, name_terms
from ndml.language.terms import MOST_LETTERS


@pytest.mark.parametrize("name", ["maxRetries", "max_retries", "max-retries", "MAX_RETRIES", "MaxRetries"])
def test_a_name_is_the_same_in_every_convention(name: str) -> None:
    assert name_terms(f"what is {name} set to?")[0] == "max_retries"


def test_a_path_gives_its_names_of_several_parts_or_itself() -> None:
    assert name_terms("web.http.maxRetries") == ["max_retries", "max", "retri"]
    assert name_terms("std::fs::read_link") == ["read_link"]
    assert name_terms("in web/session.rs") == ["web_session_rs"]
    assert name_terms("_._ -- __") == []


def test_parts_of_camel_case_meet_the_words_of_prose_and_abbreviations_stay_whole() -> None:
    assert name_terms("parseHTTPHeaders") == ["parse_http_headers", "pars", "http", "header"]


def test_versions_and_codes_stay_whole() -> None:
    assert name_terms("tokio 1.38.0 or v2.3") == ["1_38_0", "v2_3"]
    assert name_terms("HTTP-503 and SQL-1205") == ["http_503", "sql_1205"]
    assert name_terms("E0382 ECONNRESET") == []  # words already, which no stemmer touches


def test_prose_has_no_names() -> None:
    assert name_terms("My sister Greta said: nine, at half past ten. Really?") == []


@given(st.text(max_size=300))
def test_terms_are_bounded_and_never_empty(text: str) -> None:
    found = name_terms(text)
    assert len(found) <= MOST_NAMES and all(0 < len(term) <= MOST_LETTERS for term in found)


def test_a_log_gives_no_more_than_the_bound() -> None:
    assert len(name_terms("a_b.cD " * 9000)) == MOST_NAMES


@pytest.mark.parametrize(
    "text",
    [
        "why does load_config fail", "what does maxRetries do", "LedgerWriter throws", "std::vector grows", "what is http.client.timeout",
        "who owns web/session/store", "see main.py", "what is E0382?", "ECONNRESET again", "did 2.14.3 fix it",
        "error 0x80070005", "run `make`",
    ],
)  # fmt: skip
def test_code_is_recognised(text: str) -> None:
    assert like_code(text)


@pytest.mark.parametrize(
    "text",
    [
        "When did Melanie paint a sunrise?", "What did Caroline research, and/or read?", "My well-known e.g. at 12:30 on 2025-03-03",
        "I paid 3.50",
        "He is from the USA and works for NASA in 2023", "What is Dr. McAllister's first name?", "EVERYTHING IS FINE",
    ],
)  # fmt: skip
def test_prose_is_not_code(text: str) -> None:
    assert not like_code(text)
