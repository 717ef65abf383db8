"""Whatever the sets, the batches and the damage: the difference, exactly, or an error; never a wrong answer."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ndml.crdt.iblt import ITEM_BYTES, SYMBOL_BYTES, Decoder, Encoder, siphash
from ndml.errors import RequestMalformed

SETS = st.frozensets(st.integers(0, 400), max_size=150)
KEYS = st.binary(max_size=40)
LIMIT = 2_000
"""Far more symbols than 300 differences ever took."""


def digests(numbers: frozenset[int]) -> list[bytes]:
    return sorted(hashlib.blake2b(n.to_bytes(2, "little"), digest_size=ITEM_BYTES).digest() for n in numbers)


def packed(numbers: frozenset[int]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(digests(numbers)), np.uint8).reshape(-1, ITEM_BYTES)


@settings(max_examples=60, deadline=None)
@given(theirs=SETS, ours=SETS, key=KEYS, batch=st.integers(1, 90))
def test_the_difference_is_found_whatever_the_batches(theirs: frozenset[int], ours: frozenset[int], key: bytes, batch: int) -> None:
    encoder, decoder = Encoder(packed(theirs), key, LIMIT), Decoder(packed(ours), key, LIMIT)
    while not decoder.decoded and not decoder.exhausted:
        decoder.add(encoder.symbols(decoder.received, min(batch, LIMIT - decoder.received)))
    assert decoder.decoded
    assert decoder.missing_here() == digests(theirs - ours)
    assert decoder.missing_there() == digests(ours - theirs)


@settings(max_examples=40, deadline=None)
@given(theirs=SETS, ours=SETS, key=KEYS, count=st.integers(1, 60))
def test_symbols_are_linear(theirs: frozenset[int], ours: frozenset[int], key: bytes, count: int) -> None:
    """The sums of two sets' symbols cancel to those of what only one has: why bytes follow the difference."""
    both, one, other = (
        np.frombuffer(Encoder(packed(numbers), key).symbols(0, count), np.uint8).reshape(count, SYMBOL_BYTES)[:, :-2]
        for numbers in (theirs ^ ours, theirs, ours)
    )
    assert np.array_equal(both, one ^ other)


@settings(max_examples=80, deadline=None)
@given(theirs=SETS, ours=SETS, damage=st.lists(st.tuples(st.integers(0, 99), st.integers(0, SYMBOL_BYTES * 8 - 1)), min_size=1, max_size=9))
def test_flipped_bits_never_give_a_wrong_answer(theirs: frozenset[int], ours: frozenset[int], damage: list[tuple[int, int]]) -> None:
    sent = Encoder(packed(theirs)).symbols(0, 100)
    symbols = np.frombuffer(sent, np.uint8).copy()
    for symbol, bit in damage:
        symbols[symbol * SYMBOL_BYTES + bit // 8] ^= 1 << bit % 8
    decoder = Decoder(packed(ours))
    try:
        decoder.add(symbols.tobytes())
    except RequestMalformed:
        return
    assert not decoder.decoded or symbols.tobytes() == sent


@settings(max_examples=60, deadline=None)
@given(ours=SETS, noise=st.lists(st.binary(max_size=200), max_size=6))
def test_noise_is_refused_or_leads_nowhere(ours: frozenset[int], noise: list[bytes]) -> None:
    decoder = Decoder(packed(ours), b"key", limit=30)
    for symbols in noise:
        try:
            decoder.add(symbols)
        except RequestMalformed:
            return
    assert decoder.received <= 30
    assert not decoder.missing_here() and decoder.missing_there() == (digests(ours) if decoder.decoded else [])


@settings(max_examples=40, deadline=None)
@given(message=st.binary(min_size=ITEM_BYTES, max_size=ITEM_BYTES), key=st.binary(min_size=16, max_size=16))
def test_siphash_agrees_with_plain_integers(message: bytes, key: bytes) -> None:
    words = np.frombuffer(message, "<u8").astype(np.uint64).reshape(1, 2)
    assert int(siphash(words, key)[0]) == plain_siphash(message, key)


def plain_siphash(message: bytes, key: bytes) -> int:
    """As its authors write it, one round at a time."""
    mask = (1 << 64) - 1
    v0, v1, v2, v3 = (
        constant ^ int.from_bytes(key[at : at + 8], "little")
        for constant, at in zip((0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573), (0, 8, 0, 8), strict=True)
    )

    def turned(x: int, left: int) -> int:
        return (x << left | x >> 64 - left) & mask

    def one_round() -> None:
        nonlocal v0, v1, v2, v3
        v0, v2 = (v0 + v1) & mask, (v2 + v3) & mask
        v1, v3 = turned(v1, 13) ^ v0, turned(v3, 16) ^ v2
        v0 = turned(v0, 32)
        v2, v0 = (v2 + v1) & mask, (v0 + v3) & mask
        v1, v3 = turned(v1, 17) ^ v2, turned(v3, 21) ^ v0
        v2 = turned(v2, 32)

    for word in (message[:8], message[8:], bytes([0] * 7 + [len(message)])):
        number = int.from_bytes(word, "little")
        v3 ^= number
        one_round()
        one_round()
        v0 ^= number
    v2 ^= 0xFF
    for _ in range(4):
        one_round()
    return v0 ^ v1 ^ v2 ^ v3
