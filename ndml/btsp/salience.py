"""How much a text tells that its owner's earlier texts did not: I = sum over its distinct content words of ln((N + 1) / df), in nats.

N counts the owner's texts so far, this one included, df those that hold the word. Online: a text is judged by what came before it, never
again. Most of I is length (a long turn has more rare words); it says how much there is to lose, not how important it is to anybody.

Frequencies live in a fixed array of hashed counters, so a partition's vocabulary costs the same after a day and after ten years. Two
words that share a counter look a little more common than they are; `tests/quality/ablation.py` measures the loss against exact counts.
"""

from __future__ import annotations

import math
import re
import unicodedata
import zlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndml.errors import FieldInvalid

F64 = NDArray[np.float64]


def word_set(text: str) -> frozenset[str]:
    """The words between the spaces of `text`: how tables of words are written here."""
    return frozenset(text.split())


STOP_WORDS = word_set(
    """a about after all also am an and any are as at back be because been before being but by can could did do does doing for from get
    got had has have having he her here hers him his how i if in into is it its just me more most my myself no not of off on one or
    other our out over own really same she should so some such than that the their them then there these they this those through to too
    up us very was we were what when where which while who whom why will with would yeah yes you your ain't aren't can't couldn't didn't
    doesn't don't hadn't hasn't haven't he's i'd i'll i'm i've isn't it's let's she's that's there's they're wasn't we're we've weren't
    what's won't wouldn't you'll you're you've"""
)
"""English function words: they carry grammar, not content. Other languages rely on idf, which gives their function words little weight."""

# `\w` knows letters and digits but not the combining marks that carry vowels in Indic, Thai, Hebrew and Arabic script.
_MARKS = r"\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0900-\u0963\u0970-\u109f\u1780-\u17d3"
WORD = re.compile(rf"[^\W_]+(?:(?:[{_MARKS}]+|['’](?=[^\W_]))[^\W_]*)*")
# Scripts that put no spaces between words: their runs are cut into overlapping pairs of characters, the usual stand-in for a dictionary.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17d3\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")

CAP_NATS = 200.0
"""Information at which salience reaches 1: some 40 words that this owner never said. The richest of 2,760 dialogue turns had 168, the
median 41: a cap below would make long turns equal."""


@dataclass(frozen=True, slots=True)
class SalienceOptions:
    """Constants of salience."""

    buckets: int = 1 << 14
    """Counters of a partition, a power of two; 4 bytes each. 2^14 is 64 KiB: the rank order of exact counts to .999 at 700 texts."""
    cap_nats: float = CAP_NATS
    """Information at which salience reaches 1."""
    words: int = 512
    """Distinct words of one text that count: far past the cap, and it bounds what a 64 KiB text costs."""

    def __post_init__(self) -> None:
        if self.buckets < 2 or self.buckets & (self.buckets - 1):
            raise FieldInvalid(f"buckets is {self.buckets}: set a power of two, 2 or more", field="salience.buckets")
        if not self.cap_nats > 0 or self.words < 1:
            raise FieldInvalid("cap_nats must be above 0 and words at least 1", field="salience.cap_nats")


def words(text: str) -> list[str]:
    """The words of `text` in order, lower case; pairs of characters where the script has no spaces."""
    if text.isascii():
        return WORD.findall(text.lower())
    found: list[str] = []
    for word in WORD.findall(unicodedata.normalize("NFC", text).casefold()):
        # An ASCII word, nearly every word of most texts, needs no second look.
        found.extend((word,) if word.isascii() else _parts(word))
    return found


def content_words(text: str) -> list[str]:
    """Distinct words of `text` that carry content, in order of appearance: no stop words, no single letters (digits count)."""
    return [
        word for word in dict.fromkeys(words(text)) if word not in STOP_WORDS and (len(word) > 1 or not word.isascii() or word.isdigit())
    ]


def _parts(word: str) -> Iterable[str]:
    word = word.replace("’", "'")
    at = 0
    for run in _UNSPACED.finditer(word):
        if run.start() > at:
            yield word[at : run.start()]
        yield from _pairs(run.group())
        at = run.end()
    if at < len(word):
        yield word[at:]


def _pairs(run: str) -> Iterable[str]:
    return (run[i : i + 2] for i in range(len(run) - 1)) if len(run) > 1 else (run,)


class DocumentFrequencies:
    """How many of an owner's texts hold a word, by hashed counters. Not thread-safe: it belongs to a partition's writer."""

    def __init__(self, options: SalienceOptions | None = None) -> None:
        self.options = options or SalienceOptions()
        self.documents = 0
        self._counts = array("I", bytes(4 * self.options.buckets))

    @property
    def nbytes(self) -> int:
        return len(self._counts) * self._counts.itemsize

    def observe(self, text: str) -> float:
        """Count `text`, then its information in nats: what it adds to the texts observed before it."""
        counts, buckets = self._counts, self._buckets(text)
        self.documents += 1
        for bucket in buckets:
            counts[bucket] += 1
        return self._information(buckets)

    def observe_many(self, texts: Iterable[str]) -> F64:
        """`observe` for each text in turn, [n]."""
        return np.fromiter((self.observe(text) for text in texts), np.float64)

    def information(self, text: str) -> float:
        """What `observe` would return for `text`; counts nothing."""
        counts, buckets, total = self._counts, self._buckets(text), self.documents + 2
        return sum(math.log(total / (counts[bucket] + 1)) for bucket in buckets)

    def forget(self, text: str) -> None:
        """Take back one `observe` of a deleted text. One that was never observed leaves counters at zero, not below."""
        counts = self._counts
        self.documents = max(0, self.documents - 1)
        for bucket in self._buckets(text):
            counts[bucket] = max(0, counts[bucket] - 1)

    def _information(self, buckets: set[int]) -> float:
        counts, log = self._counts, math.log
        return len(buckets) * log(self.documents + 1) - sum([log(counts[bucket]) for bucket in buckets])

    def _buckets(self, text: str) -> set[int]:
        mask, most = self.options.buckets - 1, self.options.words
        # crc32, not hash(): the same counters in every process.
        crc32 = zlib.crc32
        if text.isascii():
            return {crc32(word.encode()) & mask for word in content_words(text)[:most]}
        return {crc32(word.encode("utf-8", "surrogatepass")) & mask for word in content_words(text)[:most]}


def salience01(information: F64 | float, cap_nats: float = CAP_NATS) -> F64:
    """Information in nats as salience 0..1: ln(1 + I) / ln(1 + cap), clipped. Monotone; NaN and negative information give 0."""
    nats = np.nan_to_num(np.asarray(information, np.float64), nan=0.0, posinf=cap_nats, neginf=0.0)
    return np.asarray(np.clip(np.log1p(np.maximum(nats, 0.0)) / math.log1p(cap_nats), 0.0, 1.0), np.float64)


def salience_of(given: float | None, information: float, cap_nats: float = CAP_NATS) -> float:
    """The writer's own salience where it gave one (0..1), else what the information says. Raises FieldInvalid."""
    if given is None:
        # One number: the way of every added trace, so not by numpy.
        return min(1.0, math.log1p(max(0.0, information)) / math.log1p(cap_nats)) if information == information else 0.0
    if not 0.0 <= given <= 1.0:
        raise FieldInvalid(f"salience is {given}: give 0 to 1, or leave it out", field="salience")
    return given
