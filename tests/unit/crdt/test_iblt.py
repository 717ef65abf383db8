"""Rateless set reconciliation: bytes follow the difference, and no bytes do harm."""

from __future__ import annotations

import hashlib
import struct
from itertools import pairwise
from statistics import median

import numpy as np
import pytest
from numpy.typing import NDArray

from ndml.crdt.iblt import (
    FIRST_BATCH,
    ITEM_BYTES,
    SYMBOL_BYTES,
    Decoder,
    Encoder,
    next_batch,
    plain_list_limit,
    siphash,
)
from ndml.errors import FieldInvalid, RequestMalformed

Items = NDArray[np.uint8]


def some(count: int, seed: int = 0) -> Items:
    return np.random.default_rng(seed).integers(0, 256, (count, ITEM_BYTES), dtype=np.uint8)


def as_set(items: Items) -> list[bytes]:
    return sorted(row.tobytes() for row in items)


def reconcile(theirs: Encoder, decoder: Decoder) -> int:
    """Symbols that it took, sent in the batches that `next_batch` advises."""
    while not decoder.decoded:
        decoder.add(theirs.symbols(decoder.received, next_batch(decoder.received)))
    return decoder.received


def test_siphash_has_the_published_value() -> None:
    """Key 00..0f and message 00..0f: entry 16 of the 64 vectors that its authors give."""
    words = np.frombuffer(bytes(range(16)), "<u8").astype(np.uint64).reshape(1, 2)
    assert int(siphash(words, bytes(range(16)))[0]) == int.from_bytes(bytes.fromhex("db9bc2577fcc2a3f"), "little")


def test_the_symbols_are_the_same_on_every_machine() -> None:
    items = np.frombuffer(b"".join(hashlib.blake2b(bytes([n]), digest_size=16).digest() for n in range(200)), np.uint8)
    symbols = Encoder(items.reshape(-1, ITEM_BYTES), b"a key").symbols(0, 300)
    assert hashlib.sha256(symbols).hexdigest() == SYMBOLS


SYMBOLS = "3c9e75cb642ab5d88c850122a9169fe115fd3409971c48a51cab3ed4532d8234"


def test_a_symbol_is_26_bytes_and_symbol_0_holds_everything() -> None:
    items = some(70_000)
    symbols = Encoder(items).symbols(0, 1)
    assert len(symbols) == SYMBOL_BYTES
    total = np.bitwise_xor.reduce(items)
    assert symbols[:ITEM_BYTES] == total.tobytes()
    assert struct.unpack("<H", symbols[-2:]) == (70_000 % 65_536,)


def test_symbols_thin_out_as_the_paper_says() -> None:
    """Items in symbol i: binomial around n * 2 / (i + 2); five standard deviations for each of 400 symbols."""
    count = 30_000
    rows = np.frombuffer(Encoder(some(count)).symbols(0, 400), np.dtype([("sums", "V24"), ("count", "<u2")]))
    share = 2 / (np.arange(400) + 2)
    off = np.abs(rows["count"] - count * share)
    assert (off <= 5 * np.sqrt(count * share * (1 - share))).all()


def test_any_slice_of_the_sequence_is_the_same_sequence() -> None:
    items = some(500)
    whole = Encoder(items).symbols(0, 90)
    other = Encoder(items)
    assert other.symbols(40, 50) == whole[40 * SYMBOL_BYTES :]
    assert other.symbols(0, 40) + other.symbols(40, 0) == whole[: 40 * SYMBOL_BYTES]


def test_a_hundred_of_a_hundred_thousand_cost_less_than_seven_kilobytes() -> None:
    sizes = []
    for seed in range(5):
        items = some(100_050, seed)
        decoder = Decoder(items[50:], bytes([seed]))
        sizes.append(reconcile(Encoder(items[:-50], bytes([seed])), decoder) * SYMBOL_BYTES)
        assert decoder.missing_here() == as_set(items[:50])
        assert decoder.missing_there() == as_set(items[-50:])
    assert median(sizes) <= 7_000


@pytest.mark.parametrize(("theirs", "ours"), [(0, 0), (0, 1), (1, 0), (1, 1), (300, 300), (40, 0), (0, 40)])
def test_equal_empty_and_one_sided_sets(theirs: int, ours: int) -> None:
    items = some(300)
    decoder = Decoder(items[:ours])
    took = reconcile(Encoder(items[:theirs]), decoder)
    assert decoder.missing_here() == as_set(items[ours:theirs])
    assert decoder.missing_there() == as_set(items[theirs:ours])
    assert took <= FIRST_BATCH or theirs != ours


def test_equal_sets_are_known_equal_by_one_symbol() -> None:
    assert Decoder(some(1000)).add(Encoder(some(1000)).symbols(0, 1))


def test_repeats_count_once_and_bytes_do_for_an_array() -> None:
    items = some(20)
    twice = np.vstack((items, items[:5]))
    assert len(Encoder(twice)) == 20
    assert Encoder(twice).symbols(0, 20) == Encoder(items.tobytes()).symbols(0, 20)


def test_nothing_is_known_before_the_first_symbol_and_nothing_changes_after_the_last() -> None:
    items = some(100)
    theirs, decoder = Encoder(items[:60]), Decoder(items[40:])
    assert not decoder.decoded and not decoder.add(b"")
    took = reconcile(theirs, decoder)
    found = decoder.missing_here(), decoder.missing_there()
    assert decoder.add(b"\xff" * SYMBOL_BYTES) and decoder.received == took
    assert (decoder.missing_here(), decoder.missing_there()) == found


def test_past_its_limit_a_decoder_gives_up() -> None:
    items = some(400)
    theirs, decoder = Encoder(items, limit=120), Decoder(items[300:], limit=100)
    assert not decoder.add(theirs.symbols(0, 120))
    assert decoder.exhausted and decoder.received == 100
    assert not decoder.add(theirs.symbols(0, 10)) and decoder.received == 100
    with pytest.raises(FieldInvalid, match=r"0\.\.120"):
        theirs.symbols(120, 1)


def test_a_decoder_that_ends_on_its_limit_is_not_exhausted() -> None:
    items = some(100)
    took = reconcile(Encoder(items), Decoder(items[50:]))
    exact = Decoder(items[50:], limit=took)
    assert exact.add(Encoder(items).symbols(0, took)) and not exact.exhausted


def test_under_another_key_nothing_is_found() -> None:
    items = some(50)
    decoder = Decoder(items[1:], b"one", limit=300)
    assert not decoder.add(Encoder(items, b"two").symbols(0, 300))
    assert decoder.exhausted and not decoder.missing_here() and not decoder.missing_there()


def placed(item: bytes, at: int, count: int, key_of: Items) -> bytes:
    """Symbols up to `at`, all empty but the last, which has `item` alone, with the checksum that belongs to it."""
    first = Encoder(np.frombuffer(item, np.uint8)).symbols(0, 1)
    own = bytearray(Encoder(key_of).symbols(0, at + 1))
    for offset in range(SYMBOL_BYTES - 2):
        own[at * SYMBOL_BYTES + offset] ^= first[offset]
    was = struct.unpack_from("<H", own, at * SYMBOL_BYTES + SYMBOL_BYTES - 2)[0]
    struct.pack_into("<H", own, at * SYMBOL_BYTES + SYMBOL_BYTES - 2, (was + count) % 65_536)
    return bytes(own)


def test_an_item_that_would_go_round_for_ever_is_refused() -> None:
    """Alone in symbol 9 and nowhere else: taking it out of where it belongs leaves it there, minus one, to be found again."""
    ours = some(30)
    item = next(row for row in some(500, 1) if Encoder(row).symbols(9, 1) == bytes(SYMBOL_BYTES))
    with pytest.raises(RequestMalformed, match="new key"):
        Decoder(ours).add(placed(item.tobytes(), 9, 1, ours))


@pytest.mark.parametrize(("mine", "count"), [(True, 1), (False, -1)])
def test_an_item_on_the_wrong_side_is_refused(mine: bool, count: int) -> None:
    """Said to be theirs alone while we have it, or ours alone while we do not."""
    ours = some(30)
    item = ours[3] if mine else some(1, 2)[0]
    with pytest.raises(RequestMalformed, match="not those of a set"):
        Decoder(ours).add(placed(item.tobytes(), 0, count, ours))


@pytest.mark.parametrize("length", [1, SYMBOL_BYTES - 1, SYMBOL_BYTES + 1])
def test_half_a_symbol_is_refused(length: int) -> None:
    with pytest.raises(RequestMalformed, match="whole symbols"):
        Decoder(some(3)).add(bytes(length))


@pytest.mark.parametrize(
    ("items", "limit", "field"),
    [
        (b"short", 10, "items"),
        (np.zeros((2, 15), np.uint8), 10, "items"),
        (np.zeros((2, 16), np.int16), 10, "items"),
        (np.zeros((1, 1, 16), np.uint8), 10, "items"),
        (b"", 0, "limit"),
    ],
)
def test_what_is_no_set_of_digests_is_refused(items: Items | bytes, limit: int, field: str) -> None:
    with pytest.raises(FieldInvalid) as refused:
        Encoder(items, limit=limit)
    assert refused.value.violations[0].field == field


@pytest.mark.parametrize(("start", "count"), [(-1, 1), (0, -1), (9, 2)])
def test_symbols_that_cannot_be_are_refused(start: int, count: int) -> None:
    with pytest.raises(FieldInvalid):
        Encoder(some(3), limit=10).symbols(start, count)


def test_batches_grow_by_a_quarter_and_the_bare_list_bounds_them() -> None:
    sent = [0]
    while sent[-1] < 10_000:
        sent.append(sent[-1] + next_batch(sent[-1]))
    assert len(sent) <= 25 and all(b <= max(a + FIRST_BATCH, 1.25 * a) for a, b in pairwise(sent))
    assert plain_list_limit(1_000) * SYMBOL_BYTES <= 16_000 < (plain_list_limit(1_000) + 1) * SYMBOL_BYTES
    assert plain_list_limit(0) == FIRST_BATCH
