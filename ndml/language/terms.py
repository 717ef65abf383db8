"""Content words of a text as search compares them: where they stand, and their terms. One analysis for memories and queries alike.

A term is a word's stem: the Snowball stemmer for English where the word is ASCII, the case-folded word elsewhere. Scripts that put no
spaces between words give a term for each pair of characters. Function words and question words are no content, in a memory as in a query:
they tell how something is asked, not what about.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, islice
from typing import NamedTuple

import Stemmer

from ndml.btsp.salience import WORD, word_set, words

MOST_WORDS = 512
"""Content words of one text that count: a text may have 64 KiB."""

MOST_TERMS = 1024
"""Terms of one text that count. It binds where a script has no spaces: there a sentence is one word of many terms."""

MOST_LETTERS = 64
"""Letters of a term that count: keys and encoded files in a text are "words" of any length."""

NO_CONTENT = word_set(
    """a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to was will with
    what when where who whom whose which why how did does do done has have had were would will can could should may might much many long
    often kind type some any s t her his him she he them its about after before during from so than also been being those likely
    don't doesn't didn't can't couldn't won't wouldn't isn't aren't wasn't weren't hasn't haven't hadn't shouldn't"""
)
"""Words that tie others together, and those that say what kind of answer a question wants: a memory is not nearer to it for them. Fewer
than `ndml.btsp.salience.STOP_WORDS`: "all", "back" or "you" carry little, which idf knows, but they tell short turns apart."""

# What English writes behind an apostrophe; the word before it carries the content.
_CLITICS = frozenset({"s", "ll", "re", "ve", "d", "m"})
_CACHED_STEMS = 1 << 16
# A cut word still has all the terms that count.
_MOST_CHARACTERS = 2 * MOST_TERMS
_local = threading.local()


class Word(NamedTuple):
    """`text[start:end]` and what it counts as: one term, or several where the script has no spaces."""

    start: int
    end: int
    terms: tuple[str, ...]


def content_words(text: str) -> list[Word]:
    """The words of `text` that carry content, in order, MOST_WORDS and MOST_TERMS at most; linear in its length."""
    return list(_content(text))


def terms(text: str) -> list[str]:
    """Terms of `content_words(text)`, in order, repeated as they are."""
    found = WORD.findall(text)
    # Every turn of a load comes through here: nearly all have short words only, and then no step of this is Python's.
    read = _terms_of_short if max(map(len, found), default=0) <= MOST_LETTERS else _terms_of
    content = islice(filter(None, map(read, found)), MOST_WORDS)
    return list(islice(chain.from_iterable(content), MOST_TERMS))


def _content(text: str) -> Iterator[Word]:
    number, room = 0, MOST_TERMS
    for match in WORD.finditer(text):
        found = _terms_of(match.group())
        if found:
            yield Word(match.start(), match.end(), found[:room])
            number, room = number + 1, room - len(found)
            if number == MOST_WORDS or room <= 0:
                return


def _terms_of(word: str) -> tuple[str, ...]:
    """Empty for a word without content: NO_CONTENT, a single ASCII letter."""
    # Long words are not kept: the cache would have no bound in bytes.
    return _terms_of_short(word) if len(word) <= MOST_LETTERS else _analysed(word[:_MOST_CHARACTERS])


@lru_cache(_CACHED_STEMS)
def _terms_of_short(word: str) -> tuple[str, ...]:
    return _analysed(word)


def _analysed(word: str) -> tuple[str, ...]:
    if word.isascii():
        term = _term(word.lower())
        return (term,) if term else ()
    folded = unicodedata.normalize("NFC", word).casefold().replace("’", "'")
    return tuple(term for part in words(folded) if (term := _term(part)))


def _term(word: str) -> str:
    """Of a case-folded word or a pair of characters; "" where it has no content."""
    if word in NO_CONTENT:
        return ""
    before, _, after = word.rpartition("'")
    if before and after in _CLITICS:
        word = before
    if word in NO_CONTENT or (len(word) == 1 and word.isascii() and not word.isdigit()):
        return ""
    return _stem(word[:MOST_LETTERS]) if word.isascii() else word[:MOST_LETTERS]


def _stem(word: str) -> str:
    # A Stemmer is not to be shared by threads.
    stemmer = getattr(_local, "stemmer", None)
    if stemmer is None:
        stemmer = _local.stemmer = Stemmer.Stemmer("english", 0)
    return str(stemmer.stemWord(word))
