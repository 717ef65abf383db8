"""Lexical signal: BM25 over the terms of one owner's rows, growing row by row. Derived from the store, never stored.

A term is a 32-bit checksum of its letters: two terms that share one count as one term, which 100,000 terms see once or so. Postings
(row, count) lie in a short unsorted tail and in sorted segments that never change; each segment holds the rows after those of the one
before, and segments of like size are merged, so an append costs its own terms and, spread over all appends, log(rows) moves of each.

Memory: 5 bytes a posting (a distinct term of a row), 8 bytes a term of a segment, 5 to 8 bytes a row: 90 to 130 bytes a trace of 15 terms.
"""

from __future__ import annotations

import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ndml.errors import FieldInvalid
from ndml.language.terms import terms
from services.memory_node.columns import order_of
from services.memory_node.index.ports import F32, I64, Mask, checked_k, checked_rows
from services.memory_node.index.rows import grown

U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]
I32 = NDArray[np.int32]
Scalar = TypeVar("Scalar", bound=np.generic)
Analyzer = Callable[[str], list[str]]
"""Terms of a text, in order, repeated as they are."""

_GROWTH = 1.5
_ARRAY_BYTES = 112  # of the object around an array's data
_TEXTS_AT_ONCE = 4096  # bounds what the analysis of a large load holds as Python strings
_MOST_COUNT = 255
_NOWHERE: I32 = np.empty(0, np.int32)
_FEW = 16  # postings to rows: below one in so many, sorting postings costs less than a sum for every row


@dataclass(frozen=True, slots=True)
class LexicalOptions:
    """Constants of the signal. k1, b: BM25's."""

    k1: float = 0.9
    b: float = 0.75
    query_terms: int = 64
    """Terms of a query that count: the rarest."""
    budget: int = 200_000
    """Postings that a query reads: its terms are read from the rarest to the most frequent while all of a term's postings still fit, the
    rarest always. What is left out are words that a large share of the rows has, whose idf is next to nothing."""
    tail: int = 2048
    """Postings that wait unsorted; every query looks through them."""
    segment: int = 1 << 19
    """Postings beyond which segments are not merged any more: bounds how long an append may take."""
    added: Analyzer | None = None
    """Terms of a text beside those of its words, in a memory as in a query; None: none."""

    def __post_init__(self) -> None:
        if not (self.k1 >= 0 and 0 <= self.b <= 1):
            raise FieldInvalid(f"k1 is {self.k1} and b is {self.b}: k1 must not be negative, b in 0..1", field="lexical")
        if min(self.query_terms, self.budget, self.tail, self.segment) < 1 or self.query_terms > 256:
            raise FieldInvalid("query_terms must be in 1..256; budget, tail and segment 1 or more", field="lexical")


class TermCounts(NamedTuple):
    """Analysed texts: terms of each, repeats included [n], distinct terms of each [n], and these, text by text: hashes and counts [p]."""

    lengths: U32
    distinct: U32
    hashes: U32
    counts: U8


def counted(texts: Sequence[str], analyzer: Analyzer = terms) -> TermCounts:
    """Analyse texts; touches nothing, so any thread may do it. A term counts 255 times at most."""
    hashes, counts, lengths, distinct = array("I"), bytearray(), array("I"), array("I")
    for text in texts:
        found = Counter(_checksums(analyzer(text)))
        hashes.extend(found)
        often = max(found.values(), default=0) > _MOST_COUNT
        counts.extend([min(count, _MOST_COUNT) for count in found.values()] if often else found.values())
        lengths.append(found.total())
        distinct.append(len(found))
    return TermCounts(
        np.array(lengths, np.uint32), np.array(distinct, np.uint32), np.array(hashes, np.uint32), np.frombuffer(bytes(counts), np.uint8)
    )


class _Postings(NamedTuple):
    """Postings in the order of their rows: hash, row, count [p]."""

    hashes: U32
    rows: I32
    counts: U8

    def taken(self, at: Mask | I64 | slice) -> _Postings:
        return _Postings(self.hashes[at], self.rows[at], self.counts[at])

    def put(self, start: int, others: _Postings) -> None:
        """Overwrite what stands from `start` on."""
        to = slice(start, start + len(others.rows))
        self.hashes[to], self.rows[to], self.counts[to] = others


class _Segment(NamedTuple):
    """Postings of a range of rows, term by term: terms [t] ascending, offsets [t + 1]; rows [p], ascending in each term, counts [p]."""

    terms: U32
    offsets: I32
    rows: I32
    counts: U8

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes + _ARRAY_BYTES for array in self)

    def extents(self, hashes: U32) -> tuple[I32, I32]:
        """Where postings of each hash start and end; equal where the segment has none."""
        at = np.minimum(np.searchsorted(self.terms, hashes), len(self.terms) - 1)
        starts = self.offsets[at]
        return starts, np.where(self.terms[at] == hashes, self.offsets[at + 1], starts)

    def postings(self) -> _Postings:
        """By term, not by row."""
        return _Postings(np.repeat(self.terms, np.diff(self.offsets)), self.rows, self.counts)


class _Read(NamedTuple):
    """Postings that a query read, live rows only: idf of its terms [t], position of the term of each, its row and count [p]."""

    idf: F32
    term: U8
    rows: I32
    counts: U8


class Matches:
    """Rows with any of a query's terms, ascending, and their scores; `size`: rows of the index."""

    def __init__(self, scores: F32, rows: I64, size: int) -> None:
        self._scores, self._rows, self._size = scores, rows, size

    def best(self, k: int, allowed: Mask | None = None) -> tuple[F32, I64]:
        """As `Postings.search`."""
        checked_k(k)
        if allowed is None:
            return _best(self._scores, self._rows, k)
        if allowed.shape != (self._size,):
            raise FieldInvalid(f"filter mask has shape {allowed.shape}, there are {self._size} rows", field="allowed")
        keep = allowed[self._rows]
        return _best(self._scores[keep], self._rows[keep], k)

    def of(self, rows: I64) -> F32:
        """As `Postings.scores`."""
        numbers = checked_rows(rows, self._size)
        if not len(self._rows):
            return np.zeros(len(numbers), np.float32)
        at = np.minimum(np.searchsorted(self._rows, numbers), len(self._rows) - 1)
        return np.where(self._rows[at] == numbers, self._scores[at], np.float32(0))


class Postings:
    """BM25 index of rows 0..n-1 in the order of appends; removed rows keep theirs until `renumber`. Belongs to the engine's thread."""

    def __init__(self, options: LexicalOptions | None = None) -> None:
        self._options = options or LexicalOptions()
        self._lengths: U32 = np.empty(0, np.uint32)
        self._alive: Mask = np.empty(0, np.bool_)
        self._size = 0
        self._live = 0
        self._live_terms = 0
        self._segments: list[_Segment] = []
        self._tail = _no_postings(0)
        self._tail_size = 0

    def __len__(self) -> int:
        """Rows, removed ones included."""
        return self._size

    @property
    def live(self) -> int:
        return self._live

    @property
    def nbytes(self) -> int:
        """Bytes held, growth reserve included."""
        arrays = (self._lengths, self._alive, *self._tail)
        return sum(array.nbytes + _ARRAY_BYTES for array in arrays) + sum(segment.nbytes for segment in self._segments)

    def append(self, texts: Sequence[str]) -> None:
        """Texts as rows len .. len+n-1."""
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            self.append_terms(counted(texts[start : start + _TEXTS_AT_ONCE], self._analyzed))

    def added(self, text: str) -> list[str]:
        """Terms that a text has here beside those of its words."""
        return [] if self._options.added is None else self._options.added(text)

    def _analyzed(self, text: str) -> list[str]:
        return terms(text) + self.added(text)

    def append_terms(self, added: TermCounts) -> None:
        """Texts that `counted` analysed, as rows len .. len+n-1. A batch beyond `options.segment` postings becomes one segment."""
        first, end = self._size, self._size + len(added.lengths)
        room = grown(len(self._alive), end, _GROWTH)
        self._lengths, self._alive = _roomy(self._lengths, first, room), _roomy(self._alive, first, room)
        self._lengths[first:end] = added.lengths
        self._alive[first:end] = True
        self._size = end
        self._live += end - first
        self._live_terms += int(added.lengths.sum(dtype=np.int64))
        self._store(_Postings(added.hashes, np.repeat(np.arange(first, end, dtype=np.int32), added.distinct), added.counts))

    def worded(self, rows: I64) -> Mask:
        """[m] True where the row's text has terms."""
        worded: Mask = self._lengths[rows] > 0
        return worded

    def remove(self, rows: I64) -> None:
        """Take rows out of results, frequencies and lengths; once more is no error. FieldInvalid: no such row, nothing was removed."""
        numbers = np.unique(checked_rows(rows, self._size))
        numbers = numbers[self._alive[numbers]]
        self._alive[numbers] = False
        self._live -= len(numbers)
        self._live_terms -= int(self._lengths[numbers].sum(dtype=np.int64))

    def renumber(self, new_rows: I64) -> None:
        """Move row i to new_rows[i], drop it where that is negative. Linear; where the order changes, one sort. FieldInvalid: not [len]."""
        if new_rows.shape != (self._size,):
            raise FieldInvalid(f"new rows have shape {new_rows.shape}, there are {self._size} rows", field="new_rows")
        order = order_of(new_rows)
        moved = np.full(self._size, -1, np.int32)
        moved[order] = np.arange(len(order))
        tail = self._tail_postings()
        segments, self._segments, self._tail, self._tail_size = self._segments, [], _no_postings(0), 0
        if (np.diff(order) > 0).all():
            for segment in segments:
                self._push(_shrunk(segment, moved))
            self._store(_moved(tail, moved))
        else:
            parts = [_moved(part, moved) for part in (*(segment.postings() for segment in segments), tail)]
            joined = _joined(parts)
            self._push(_sorted(joined.taken(np.argsort(joined.rows, kind="stable"))))
        self._lengths, self._alive, self._size = self._lengths[order], self._alive[order], len(order)
        self._live = int(np.count_nonzero(self._alive))
        self._live_terms = int(self._lengths[self._alive].sum(dtype=np.int64))

    def idf(self, term: str) -> float:
        """ln(1 + (n - df + 1/2) / (df + 1/2)) over the live rows; the highest for a term that none has."""
        return float(self.idfs([term])[0])

    def idfs(self, terms_: Sequence[str]) -> F32:
        """`idf` of each term [m]. Where rows were removed since the last `renumber`, all postings of the terms are read."""
        hashes, inverse = np.unique(_hashed(terms_), return_inverse=True)
        spans = self._spans(hashes)
        if self._live == self._size:
            return self._idf_of(spans.sizes)[inverse]
        return np.concatenate([self._read(spans, np.array([i])).idf for i in range(len(hashes))] or [np.empty(0, np.float32)])[inverse]

    def search(self, query_terms: Sequence[str], k: int, allowed: Mask | None = None) -> tuple[F32, I64]:
        """The live rows with the highest scores, k at most, among `allowed` [len] when given: scores [m] descending, rows [m], the lower
        row first among equals. Rows with none of the terms are not found. Terms that repeat count once. FieldInvalid: k, mask."""
        return self.match(query_terms).best(k, allowed)

    def scores(self, query_terms: Sequence[str], rows: I64) -> F32:
        """Scores [m] of rows as `search` would give them; 0 for removed rows and those without the terms. FieldInvalid: no such row."""
        return self.match(query_terms).of(rows)

    def match(self, query_terms: Sequence[str]) -> Matches:
        """All that a query's terms find, to be asked several times."""
        return Matches(*self._scored(query_terms), self._size)

    def _scored(self, query_terms: Sequence[str]) -> tuple[F32, I64]:
        """Scores of the live rows with any of the terms, and these rows, ascending."""
        spans = self._spans(np.unique(_hashed(query_terms)))
        idf, term, rows, counts = self._read(spans, self._chosen(spans.sizes))
        k1, b = self._options.k1, self._options.b
        # Only a text with terms has postings: the mean is above 0 wherever it is used.
        mean = max(self._live_terms, 1) / max(self._live, 1)
        often = counts.astype(np.float32)
        damping = np.float32(k1 * (1 - b)) + np.float32(k1 * b / mean) * self._lengths[rows].astype(np.float32)
        parts: F32 = (idf[term] * often * np.float32(k1 + 1) / (often + damping)).astype(np.float32, copy=False)
        return _summed(rows, parts, self._size)

    def _spans(self, hashes: U32) -> _Spans:
        return _Spans(self._segments, self._tail_postings(), hashes)

    def _chosen(self, sizes: I64) -> I64:
        """Which terms a query reads, the rarest first. Removed rows count here: they are read too."""
        known = np.flatnonzero(sizes)
        rarest = known[np.argsort(sizes[known], kind="stable")][: self._options.query_terms]
        fitting = int(np.count_nonzero(np.cumsum(sizes[rarest]) <= self._options.budget))
        return rarest[: max(1, fitting)]

    def _read(self, spans: _Spans, chosen: I64) -> _Read:
        term, rows, counts = spans.read(chosen)
        if self._live < self._size:
            keep = self._alive[rows]
            term, rows, counts = term[keep], rows[keep], counts[keep]
        return _Read(self._idf_of(np.bincount(term, minlength=len(chosen))), term, rows, counts)

    def _idf_of(self, frequencies: I64) -> F32:
        return np.log1p((self._live - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)

    def _tail_postings(self) -> _Postings:
        return self._tail.taken(slice(self._tail_size))

    def _store(self, added: _Postings) -> None:
        """Postings of rows after all others: into the tail, or with it into a segment."""
        end = self._tail_size + len(added.rows)
        if end > self._options.tail:
            self._push(_sorted(_joined([self._tail_postings(), added])))
            self._tail_size = 0
            return
        if end > len(self._tail.rows):
            room = min(grown(len(self._tail.rows), end, 2), self._options.tail)
            tail = _no_postings(room)
            tail.put(0, self._tail_postings())
            self._tail = tail
        self._tail.put(self._tail_size, added)
        self._tail_size = end

    def _push(self, segment: _Segment) -> None:
        """A segment behind the others, merged with those before it that are not more than twice as large as what is merged so far."""
        if not len(segment.rows):
            return
        self._segments.append(segment)
        count, size = 1, len(segment.rows)
        for before in reversed([len(other.rows) for other in self._segments[:-1]]):
            if before > 2 * size or before + size > self._options.segment:
                break
            count, size = count + 1, size + before
        if count > 1:
            self._segments[-count:] = [_merged(self._segments[-count:])]


class _Spans:
    """Where the postings of some terms lie in the segments and in the tail; `sizes`: how many each term has [t], removed rows included."""

    def __init__(self, segments: Sequence[_Segment], tail: _Postings, hashes: U32) -> None:
        self._segments = segments
        self._tail = tail
        extents = [segment.extents(hashes) for segment in segments] or [(_NOWHERE, _NOWHERE)]
        shape = (len(segments), len(hashes))
        self._starts = np.concatenate([starts for starts, _ in extents]).reshape(shape)
        self._lengths = np.concatenate([ends for _, ends in extents]).reshape(shape) - self._starts
        self._term_in_tail, self._at = np.nonzero(tail.hashes == hashes[:, None])
        self.sizes: I64 = self._lengths.sum(axis=0, dtype=np.int64) + np.bincount(self._term_in_tail, minlength=len(hashes))

    def read(self, chosen: I64) -> tuple[U8, I32, U8]:
        """Position in `chosen`, row and count of the postings of these terms; those of one row in the order of `chosen`."""
        number, term = np.nonzero(self._lengths[:, chosen])
        starts, lengths = self._starts[number, chosen[term]], self._lengths[number, chosen[term]]
        pieces = [
            (self._segments[i], slice(start, end))
            for i, start, end in zip(number.tolist(), starts.tolist(), (starts + lengths).tolist(), strict=True)
        ]
        place = np.full(len(self.sizes), -1)
        place[chosen] = np.arange(len(chosen))
        late = place[self._term_in_tail]
        order = np.argsort(late, kind="stable")[np.count_nonzero(late < 0) :]
        at = self._at[order]
        return (
            np.concatenate((np.repeat(term, lengths), late[order])).astype(np.uint8),
            np.concatenate([*(segment.rows[piece] for segment, piece in pieces), self._tail.rows[at]]),
            np.concatenate([*(segment.counts[piece] for segment, piece in pieces), self._tail.counts[at]]),
        )


def _checksums(found: Sequence[str]) -> list[int]:
    # crc32, not hash(): the same in every process, so that the analysis may run in another. Terms hold no lone surrogates; what a caller
    # gives as one may.
    crc32 = zlib.crc32
    try:
        return [crc32(term.encode()) for term in found]
    except UnicodeEncodeError:
        return [crc32(term.encode("utf-8", "surrogatepass")) for term in found]


def _hashed(found: Sequence[str]) -> U32:
    return np.array(_checksums(found), np.uint32)


def _paired(high: NDArray[np.integer], low: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Keys that sort by `high`, then by `low`."""
    return (high.astype(np.uint64) << np.uint64(32)) | low.astype(np.uint64)


def _no_postings(room: int) -> _Postings:
    return _Postings(np.empty(room, np.uint32), np.empty(room, np.int32), np.empty(room, np.uint8))


def _roomy(array: NDArray[Scalar], size: int, room: int) -> NDArray[Scalar]:
    """The array itself, or a longer one that begins with its first `size` values."""
    if room <= len(array):
        return array
    longer = np.empty(room, array.dtype)
    longer[:size] = array[:size]
    return longer


def _joined(parts: Sequence[_Postings]) -> _Postings:
    return _Postings(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _sorted(postings: _Postings) -> _Segment:
    """A segment of postings that are in the order of their rows."""
    keys = _paired(postings.hashes, np.arange(len(postings.rows)))
    keys.sort()
    at = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    hashes = (keys >> np.uint64(32)).astype(np.uint32)
    starts = np.flatnonzero(np.diff(hashes, prepend=hashes[:1] ^ np.uint32(1)))
    offsets = np.append(starts, len(keys)).astype(np.int32)
    return _Segment(hashes[starts], offsets, postings.rows[at], postings.counts[at])


def _merged(segments: Sequence[_Segment]) -> _Segment:
    """One segment of several that follow each other."""
    every = np.unique(np.concatenate([segment.terms for segment in segments]))
    places = [np.searchsorted(every, segment.terms) for segment in segments]
    sizes = np.zeros(len(every), np.int64)
    for segment, place in zip(segments, places, strict=True):
        sizes[place] += np.diff(segment.offsets)
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    rows, counts = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.uint8)
    free = offsets[:-1].copy()
    for segment, place in zip(segments, places, strict=True):
        lengths = np.diff(segment.offsets)
        to = np.repeat((free[place] - segment.offsets[:-1]).astype(np.int32), lengths)
        to += np.arange(len(to), dtype=np.int32)
        rows[to], counts[to] = segment.rows, segment.counts
        free[place] += lengths
    return _Segment(every, offsets.astype(np.int32), rows, counts)


def _shrunk(segment: _Segment, moved: I32) -> _Segment:
    """With row i at moved[i], dropped where that is -1; the order of rows stays."""
    rows = moved[segment.rows]
    keep = rows >= 0
    offsets = np.concatenate(([0], np.cumsum(keep)))[segment.offsets]
    filled = np.diff(offsets) > 0
    kept = np.append(offsets[:-1][filled], offsets[-1]).astype(np.int32)
    return _Segment(segment.terms[filled], kept, rows[keep], segment.counts[keep])


def _moved(postings: _Postings, moved: I32) -> _Postings:
    rows = moved[postings.rows]
    return _Postings(postings.hashes, rows, postings.counts).taken(rows >= 0)


def _summed(rows: I32, parts: F32, size: int) -> tuple[F32, I64]:
    """Sums of the parts by row, and the rows, ascending. Equal parts in equal order give equal sums, to the last bit."""
    if len(rows) * _FEW >= size:
        totals = np.bincount(rows, parts, minlength=size)
        found = np.flatnonzero(totals)
        return totals[found].astype(np.float32), found
    keys = _paired(rows, np.arange(len(rows)))
    keys.sort()
    ordered = (keys >> np.uint64(32)).astype(np.int64)
    first = np.diff(ordered, prepend=-1) > 0
    sums = np.bincount(np.cumsum(first) - 1, parts[(keys & np.uint64(0xFFFFFFFF)).astype(np.int64)])
    return sums.astype(np.float32), ordered[first]


def _best(scores: F32, rows: I64, k: int) -> tuple[F32, I64]:
    """The k highest scores and their rows; the lower row first among equals."""
    if 0 < k < len(scores):
        bound = np.partition(scores, len(scores) - k)[len(scores) - k]
        above = np.flatnonzero(scores > bound)
        equal = np.flatnonzero(scores == bound)
        equal = equal[np.argsort(rows[equal])][: k - len(above)]
        chosen = np.concatenate((above, equal))
        scores, rows = scores[chosen], rows[chosen]
    order = np.lexsort((rows, -scores))[:k]
    return scores[order], rows[order]
