"""Set reconciliation: what differs between two sets of digests, for bytes that follow the difference and not the sets.

The rateless invertible Bloom lookup table of Yang, Gilad and Alizadeh (SIGCOMM 2024). A set has an endless sequence of coded symbols, each
the sum of some of its items; symbol i has an item with probability 2 / (i + 2), so every item stands in symbol 0 and they thin out. The
difference of two sets' symbols is the symbol of their difference: a receiver subtracts its own, and a symbol that is left with one item
gives it up, which frees others. About 1.35 symbols an item are enough (1.45 at 100 differences, up to 2 for a few), and nobody needs to
know beforehand how many differ: the sender sends on until the receiver has decoded.

    Encoder: symbols(start, count)  ->  wire  ->  Decoder: add(symbols) until it says True, or `exhausted` (then copy whole)

A symbol on the wire, 26 bytes, little endian: XOR of items 16, XOR of their checksums 8, how many 2 (modulo 2**16: what is left after
the subtraction is only ever compared with 1 and -1, and the checksum has to agree).

Checksums are SipHash-2-4 under a key, and they choose an item's symbols too. Give each exchange a key that was not known before it:
then nobody who writes records can make items that collide. The peer knows the key and can send what it likes; for that case every item
is given up at most once and must be on the side that its sign says, and the number of symbols is bounded. All is exact integers or
correctly rounded IEEE arithmetic of single operations, so all machines make the same symbols.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ndml.errors import FieldInvalid, RequestMalformed

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

ITEM_BYTES = 16
SYMBOL_BYTES = 26
MOST_SYMBOLS = 1 << 16
"""Default bound on the symbols of one exchange: 1.7 MB, some 48,000 differences. Beyond it the records themselves are a hundred times
that, and a copy of the whole owner is the better plan."""

FIRST_BATCH = 32
"""Symbols worth sending before anything is known: 832 bytes, one packet, decodes some 20 differences."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 1 << 13
"""Items walked at once: temporaries stay below 1 MB whatever the set; larger blocks are no faster."""

_WIRE = np.dtype([("low", "<u8"), ("high", "<u8"), ("check", "<u8"), ("count", "<u2")])


def next_batch(received: int) -> int:
    """How many symbols to send after `received`: a quarter as many again, so that few are wasted and batches grow with the logarithm."""
    return max(FIRST_BATCH, received // 4)


def plain_list_limit(items: int) -> int:
    """Symbols that cost as much as the bare list of `items` digests: whoever has read so many should have asked for the list."""
    return max(FIRST_BATCH, items * ITEM_BYTES // SYMBOL_BYTES)


def siphash(words: U64, key: bytes) -> U64:
    """SipHash-2-4 [n] of 16-byte messages [n, 2] (little-endian words) under a key of 16 bytes."""
    k0, k1 = (np.uint64(int.from_bytes(key[at : at + 8], "little")) for at in (0, 8))
    start = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
    v = [np.full(len(words), np.uint64(constant) ^ half) for constant, half in zip(start, (k0, k1, k0, k1), strict=True)]
    length = np.uint64(ITEM_BYTES << 56)
    for word in (words[:, 0], words[:, 1], length):
        v[3] ^= word
        _sip_rounds(v, 2)
        v[0] ^= word
    v[2] ^= np.uint64(0xFF)
    _sip_rounds(v, 4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def _sip_rounds(v: list[U64], rounds: int) -> None:
    for _ in range(rounds):
        for a, b, turn in ((0, 1, 13), (2, 3, 16)):
            v[a] += v[b]
            v[b] = _rotate(v[b], turn) ^ v[a]
        v[0] = _rotate(v[0], 32)
        for a, b, turn in ((2, 1, 17), (0, 3, 21)):
            v[a] += v[b]
            v[b] = _rotate(v[b], turn) ^ v[a]
        v[2] = _rotate(v[2], 32)


def _rotate(x: U64, left: int) -> U64:
    return (x << np.uint64(left)) | (x >> np.uint64(64 - left))


def _mixed(x: U64) -> U64:
    """splitmix64's finalizer."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _following(at: I64, drawn: U64) -> I64:
    """The next symbol of items that stand in symbol `at`, by 64 random bits each.

    Symbol n is skipped with probability 1 - 2/(n+2) = n/(n+2), so all of at+1 .. j with (at+1)(at+2) / ((j+1)(j+2)): the next is the
    smallest j for which that is at most u, uniform in (0, 1]. At most 2**27 times as far as `at`, so nothing overflows.
    """
    here = at.astype(np.float64)
    u = ((drawn >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53
    root = np.sqrt((here + 1.0) * (here + 2.0) / u + 0.25)
    return np.maximum(np.ceil(root - 1.5).astype(np.int64), at + 1)


@dataclass(slots=True)
class _Symbols:
    """Consecutive coded symbols from the first on: sums [3, n] (item low, item high, checksum) and counts [n]."""

    sums: U64 = field(default_factory=lambda: np.zeros((3, 0), np.uint64))
    counts: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))

    def __len__(self) -> int:
        return len(self.counts)

    def extend(self, sums: U64, counts: NDArray[np.int16]) -> None:
        self.sums, self.counts = np.hstack((self.sums, sums)), np.hstack((self.counts, counts))

    def extend_empty(self, count: int) -> None:
        self.extend(np.zeros((3, count), np.uint64), np.zeros(count, np.int16))

    def fold(self, items: _Walk) -> None:
        """Items into the symbols where they stand; a symbol may have several. Counts wrap."""
        for column, values in enumerate((items.words[:, 0], items.words[:, 1], items.checks)):
            np.bitwise_xor.at(self.sums[column], items.at, values)
        np.add.at(self.counts, items.at, items.signs)


@dataclass(slots=True)
class _Walk:
    """Items on their way through the sequence: words [n, 2], checksums, signs, the next symbol of each, the state of its randomness."""

    words: U64
    checks: U64
    signs: NDArray[np.int16]
    at: I64
    drawn: U64

    @classmethod
    def of(cls, words: U64, checks: U64, signs: NDArray[np.int16]) -> _Walk:
        return cls(words, checks, signs, np.zeros(len(words), np.int64), checks.copy())

    def __len__(self) -> int:
        return len(self.at)

    @classmethod
    def joined(cls, walks: list[_Walk]) -> _Walk:
        """All of them, in order."""
        columns = ((w.words, w.checks, w.signs, w.at, w.drawn) for w in walks)
        return cls(*(np.concatenate(column) for column in zip(*columns, strict=True)))

    def part(self, rows: I64) -> _Walk:
        """Copies of some."""
        return _Walk(self.words.take(rows, 0), self.checks[rows], self.signs[rows], self.at[rows], self.drawn[rows])

    def advance(self, symbols: _Symbols) -> I64:
        """Folds the items into every one of `symbols` that they have not been to; returns which these were, with repeats."""
        visited = [np.zeros(0, np.int64)]
        for low in range(0, len(self), _BLOCK):
            rows = low + np.flatnonzero(self.at[low : low + _BLOCK] < len(symbols))
            going = self.part(rows)
            while len(going):
                symbols.fold(going)
                visited.append(going.at)
                going.drawn += _GOLDEN
                going.at = _following(going.at, _mixed(going.drawn))
                self.at[rows], self.drawn[rows] = going.at, going.drawn
                stay = np.flatnonzero(going.at < len(symbols))
                rows, going = rows[stay], going.part(stay)
        return np.concatenate(visited)


class Encoder:
    """The coded symbols of a set of items, made as far as they are asked for and kept (26 bytes each, at most `limit`).

    items: [n, 16] uint8 or their bytes; repeats count once. key: both sides' of one exchange, any length. Raises FieldInvalid.
    100,000 items: some 15 ms to set up, 80 ms for the first 160 symbols, on one core.
    """

    def __init__(self, items: NDArray[np.uint8] | bytes, key: bytes = b"", limit: int = MOST_SYMBOLS) -> None:
        if limit < 1:
            raise FieldInvalid("limit must be at least 1 symbol", field="limit")
        self.limit = limit
        self._key = hashlib.blake2b(key, digest_size=16, person=b"ndml.iblt").digest()
        words, checks = _distinct(_words(items), self._key)
        self._checks = np.sort(checks)
        self._walk = _Walk.of(words, checks, np.ones(len(words), np.int16))
        self._made = _Symbols()

    def __len__(self) -> int:
        return len(self._checks)

    def symbols(self, start: int, count: int) -> bytes:
        """Symbols start .. start+count, 26 bytes each. Raises FieldInvalid beyond the limit."""
        sums, counts = self.raw(start, count)
        rows = np.empty(count, _WIRE)
        rows["low"], rows["high"], rows["check"] = sums
        rows["count"] = counts.view(np.uint16)
        return rows.tobytes()

    def raw(self, start: int, count: int) -> tuple[U64, NDArray[np.int16]]:
        """As `symbols`, in arrays: sums [3, count] of items' low and high words and of checksums, and counts [count]."""
        end = start + count
        if start < 0 or count < 0 or end > self.limit:
            raise FieldInvalid(f"symbols {start}..{end} asked for, 0..{self.limit} can be: copy the whole set instead", field="start")
        if end > len(self._made):
            self._made.extend_empty(end - len(self._made))
            self._walk.advance(self._made)
        return self._made.sums[:, start:end], self._made.counts[start:end]

    def checksums(self, words: U64) -> U64:
        """[n] of items as words [n, 2], under this set's key."""
        return _checksums(words, self._key)

    def has(self, checks: U64) -> NDArray[np.bool_]:
        """[n]: whether an item of that checksum is in the set."""
        if not len(self):
            return np.zeros(len(checks), np.bool_)
        nearest = self._checks[np.minimum(np.searchsorted(self._checks, checks), len(self) - 1)]
        return np.equal(nearest, checks)


def _words(items: NDArray[np.uint8] | bytes) -> U64:
    """Items as little-endian words [n, 2]. Raises FieldInvalid."""
    flat = np.frombuffer(items, np.uint8) if isinstance(items, bytes) else np.ascontiguousarray(items)
    shaped = flat.ndim == 1 or (flat.ndim == 2 and flat.shape[1] == ITEM_BYTES)
    if flat.dtype != np.uint8 or not shaped or flat.size % ITEM_BYTES:
        raise FieldInvalid(f"items must be whole digests of {ITEM_BYTES} bytes, uint8 [n, {ITEM_BYTES}] or bytes", field="items")
    return flat.reshape(-1).view("<u8").astype(np.uint64, copy=False).reshape(-1, 2)


def _checksums(words: U64, key: bytes) -> U64:
    blocks = [siphash(words[low : low + _BLOCK], key) for low in range(0, len(words), _BLOCK)]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.uint64)


def _distinct(words: U64, key: bytes) -> tuple[U64, U64]:
    """The items without repeats, and their checksums. Sorting items is dear, so it is done only when two checksums are alike."""
    checks = _checksums(words, key)
    ordered = np.sort(checks)
    if (ordered[1:] == ordered[:-1]).any():
        words = np.unique(words, axis=0)
        checks = _checksums(words, key)
    return words, checks


class Decoder:
    """Finds what differs between our items and those whose symbols come in.

    items, key, limit: as the Encoder's; the key must be the other side's. A decoder that has read `limit` symbols without a result is
    `exhausted` and takes no more: the caller copies the whole set.
    """

    def __init__(self, items: NDArray[np.uint8] | bytes, key: bytes = b"", limit: int = MOST_SYMBOLS) -> None:
        self._ours = Encoder(items, key, limit)
        self._left = _Symbols()
        self._known: set[int] = set()
        none = np.zeros(0, np.uint64)
        # With the sign that takes them out: 1 for what only we have, whose count was -1.
        self._found = _Walk.of(none.reshape(0, 2), none, np.zeros(0, np.int16))

    @property
    def received(self) -> int:
        """Symbols read: where the next ones must start."""
        return len(self._left)

    @property
    def decoded(self) -> bool:
        """Everything that was sent is accounted for: the difference is known, whole."""
        return self.received > 0 and not (self._left.counts.any() or self._left.sums.any())

    @property
    def exhausted(self) -> bool:
        """The limit is reached and the sets still differ in ways unknown: copy the whole set."""
        return self.received >= self._ours.limit and not self.decoded

    def add(self, symbols: bytes) -> bool:
        """The next symbols, in order (those beyond the limit are left out). Whether the difference is known now.

        Raises RequestMalformed for bytes that no two sets can give, whatever they hold; the decoder is of no use then. Work is in
        proportion to the symbols: an item is found once, and there are at most as many as symbols.
        """
        if len(symbols) % SYMBOL_BYTES:
            raise RequestMalformed(f"{len(symbols)} bytes are not whole symbols of {SYMBOL_BYTES}: send the symbols again", field="symbols")
        room = min(len(symbols) // SYMBOL_BYTES, self._ours.limit - self.received)
        if room and not self.decoded:
            start = self.received
            self._subtract_ours(np.frombuffer(symbols, _WIRE, room))
            self._found.advance(self._left)
            self._peel(np.arange(start, self.received))
        return self.decoded

    def missing_here(self) -> list[bytes]:
        """Digests that only they have, sorted. None before it is decoded: under a wrong key, what was found by then is not so."""
        return self._taken_out(-1)

    def missing_there(self) -> list[bytes]:
        """Digests that only we have, sorted. None before it is decoded: under a wrong key, what was found by then is not so."""
        return self._taken_out(1)

    def _taken_out(self, sign: int) -> list[bytes]:
        rows = self._found.words[(self._found.signs == sign) & self.decoded].astype("<u8")
        return sorted(row.tobytes() for row in rows)

    def _subtract_ours(self, theirs: NDArray[np.void]) -> None:
        sums, counts = self._ours.raw(self.received, len(theirs))
        columns = np.stack([theirs[name].astype(np.uint64) for name in ("low", "high", "check")])
        self._left.extend(columns ^ sums, theirs["count"].astype(np.uint16).view(np.int16) - counts)

    def _peel(self, suspects: I64) -> None:
        """Takes out items that stand alone in a symbol, wave by wave, until a wave finds none."""
        waves = [self._found]
        while len(wave := self._alone(suspects)):
            suspects = np.unique(wave.advance(self._left))
            waves.append(wave)
        self._found = _Walk.joined(waves)

    def _alone(self, suspects: I64) -> _Walk:
        """The items that are alone in one of the symbols, at the start of a walk that takes them out of all."""
        at = suspects[np.abs(self._left.counts[suspects]) == 1]
        words, checks = self._left.sums[:2, at].T.copy(), self._left.sums[2, at]
        true = np.flatnonzero(self._ours.checksums(words) == checks)
        checks, first = np.unique(checks[true], return_index=True)
        signs = self._left.counts[at[true[first]]]
        self._claim(checks, signs)
        return _Walk.of(words[true[first]], checks, -signs)

    def _claim(self, checks: U64, signs: NDArray[np.int16]) -> None:
        """An item is found once, is ours exactly when its sign says so, and symbols yield at most one each: else peeling need not end."""
        again = not self._known.isdisjoint(checks.tolist())
        self._known.update(checks.tolist())
        if again or len(self._known) > self.received or (self._ours.has(checks) != (signs < 0)).any():
            raise RequestMalformed("the symbols are not those of a set under this key: begin again with a new key", field="symbols")
