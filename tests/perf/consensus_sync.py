"""What it costs two copies to find and mend their differences: bytes, rounds and time of the rateless table beside other ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.record import RECORD, encoded
from ndml.crdt.causal import CausalContext, Dot
from ndml.crdt.existence import PRESENT
from ndml.crdt.iblt import ITEM_BYTES, SYMBOL_BYTES, Decoder, Encoder, next_batch
from ndml.crdt.record import Contribution, TraceRecord, Version
from tests.perf.tables import Part, Row, Table

Items = NDArray[np.uint8]
R = TypeVar("R")

DIFFERING = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
ASYMPTOTE = 1.35
"""Symbols an item for ever more differences: the paper's figure."""

BLOOM_BITS = 10
"""An item, for some 1 % of false positives (Kleppmann and Howard 2020)."""

BRANCHES = 16
"""Of the Merkle tree that stands beside: children whose hashes one answer has."""


def some_items(count: int, seed: int) -> Items:
    """Digests are as good as random."""
    return np.random.default_rng(seed).integers(0, 256, (count, ITEM_BYTES), dtype=np.uint8)


def timed(act: Callable[[], R]) -> tuple[R, float]:
    """What it gives, and its ms."""
    began = perf_counter()
    found = act()
    return found, 1e3 * (perf_counter() - began)


@dataclass(slots=True)
class Exchange:
    """One reconciliation: bytes and batches sent, ms of each side, of which setting up, ms of sets where the whole lists are there."""

    sent: int
    batches: int
    sender_ms: float
    receiver_ms: float
    setup_ms: float
    sets_ms: float


def exchange(traces: int, differing: int, seed: int) -> Exchange:
    """Both sides lack half of the differing ones. Raises RuntimeError where the answer is not the right one."""
    items, half, key = some_items(traces + differing // 2, seed), differing // 2, seed.to_bytes(4, "little")
    theirs, ours = items[: len(items) - half], items[differing - half :]
    encoder, setup = timed(lambda: Encoder(theirs, key))
    decoder, set_up = timed(lambda: Decoder(ours, key))
    found = Exchange(0, 0, setup, set_up, set_up, 0.0)
    while not decoder.decoded:
        count = next_batch(decoder.received)
        symbols, made = timed(partial(encoder.symbols, decoder.received, count))
        _, read = timed(partial(decoder.add, symbols))
        found.sent, found.batches = found.sent + len(symbols), found.batches + 1
        found.sender_ms, found.receiver_ms = found.sender_ms + made, found.receiver_ms + read
    (here, there), found.sets_ms = timed(lambda: _by_sets(theirs, ours))
    if (decoder.missing_here(), decoder.missing_there()) != (here, there):
        raise RuntimeError(f"seed {seed}: reconciliation and sets disagree")
    return found


def _by_sets(theirs: Items, ours: Items) -> tuple[list[bytes], list[bytes]]:
    one, other = (set(_split(items.tobytes())) for items in (theirs, ours))
    return sorted(one - other), sorted(other - one)


def _split(data: bytes) -> Iterator[bytes]:
    return (data[at : at + ITEM_BYTES] for at in range(0, len(data), ITEM_BYTES))


def reconcile(traces: int, differing: int, seeds: int) -> Part:
    """AT-5c: the bytes, with a target; the times."""
    runs = [exchange(traces, differing, seed) for seed in range(seeds)]
    sent, most = median(run.sent for run in runs), round(2 * ASYMPTOTE * SYMBOL_BYTES * differing)
    bare = traces * ITEM_BYTES
    target = Row(
        f"bytes to find {differing} differences among {traces:,} traces",
        f"{sent:,.0f} B",
        f"bare list of digests {bare:,} B, {bare / sent:,.0f} times as many",
        f"<= {most:,} B",
        sent <= most,
    )
    lines = [
        ("symbols on the wire, median", f"{sent:,.0f} B"),
        ("most in one run", f"{max(run.sent for run in runs):,} B"),
        ("batches; in a stream they cost no round trips", f"{median(run.batches for run in runs):.0f}"),
        ("either side, setting up: checksums of all items", f"{median(run.setup_ms for run in runs):.0f} ms"),
        ("sender, set-up and symbols", f"{median(run.sender_ms for run in runs):.0f} ms"),
        ("receiver, set-up, own symbols and decoding", f"{median(run.receiver_ms for run in runs):.0f} ms"),
        ("Python sets, where the whole lists are there", f"{median(run.sets_ms for run in runs):.0f} ms"),
    ]
    return Part([target], [Table(f"{differing} differences among {traces:,} traces, {seeds} runs", _RECONCILE, ("what", "median"), lines)])


_RECONCILE = """Half of the differences on either side. The sender does not know how many there are; it sends batches that grow by a quarter
until the receiver says stop. Times of one thread."""


def fewest(differing: int, seed: int) -> int:
    """Symbols after which the difference is known, in steps of 1 % of the differences. What both have cancels, so few are enough here."""
    items, key = some_items(differing + 50, seed), seed.to_bytes(4, "little")
    encoder, decoder = Encoder(items, key), Decoder(items[differing:], key)
    step = max(1, differing // 100)
    while not decoder.add(encoder.symbols(decoder.received, step)):
        pass
    return decoder.received


def overhead(seeds: int) -> Part:
    """Symbols a difference, as it grows."""
    lines = []
    for differing in DIFFERING:
        symbols = np.array([fewest(differing, seed) for seed in range(seeds)]) / differing
        cells = (np.mean(symbols), np.median(symbols), np.quantile(symbols, 0.95))
        sent = f"{SYMBOL_BYTES * float(np.mean(symbols)) * differing:,.0f}"
        lines.append((f"{differing:,}", *(f"{cell:.2f}" for cell in cells), sent))
    head = ("differences", "symbols each, mean", "median", "95 % of runs", "bytes, mean")
    return Part([], [Table(f"Symbols a difference, {seeds} runs each", _OVERHEAD, head, lines)])


_OVERHEAD = f"""The fewest symbols that decode. The paper's figure for ever more differences is {ASYMPTOTE}. It does not matter how much
the two sides share."""


def merkle_bytes(traces: int, differing: Items) -> int:
    """Bytes of comparing 16-ary hash trees over digests' first hexadecimal digits, down to leaves of one or two items: every node
    that differs costs the 16-byte hashes of its children, every leaf that does its items."""
    levels = 1
    while BRANCHES ** (levels + 1) <= traces:
        levels += 1
    digits = np.stack([differing >> 4, differing & 15], axis=2).reshape(-1, 2 * ITEM_BYTES)[:, :levels]
    nodes = [len(np.unique(digits[:, :level], axis=0)) if level else 1 for level in range(levels + 1)]
    leaves = nodes[-1] * (1 + traces / BRANCHES**levels)
    return round(float(sum(nodes[:-1]) * BRANCHES + leaves) * ITEM_BYTES)


def bloom_bytes(traces: int, differing: int) -> float:
    """A Bloom filter of all we have, then symbols for what it hides: one difference in a hundred."""
    return traces * BLOOM_BITS / 8 + ASYMPTOTE * SYMBOL_BYTES * max(1.0, differing / 100)


def edited(dimension: int = 384) -> TraceRecord:
    """A trace of two sentences with an embedding, edited once, with feedback from two replicas."""
    number = np.random.default_rng(0)
    vector = number.standard_normal(dimension).astype(np.float32).tobytes()
    version = Version(1, number.bytes(220), vector, 0.5, 0.5)
    states = {replica: Contribution(9, encoded(np.zeros(1, RECORD))[0]) for replica in (1, 2)}
    return TraceRecord(bytes(ITEM_BYTES), PRESENT, {Dot(1, 2): version}, CausalContext({1: 2}), states)


def sync_bytes(traces: int, counts: Sequence[int] = (0, 1, 10, 100, 1_000, 10_000)) -> Part:
    """5.8: what each way of keeping two copies alike sends, by how many records differ."""
    record = edited()
    whole = len(record.canonical())
    feedback = len(TraceRecord(record.trace_id, states={1: record.states[1]}).canonical())
    lines = []
    for count in counts:
        found = (merkle_bytes(traces, some_items(count, 3)), bloom_bytes(traces, count), fewest(count, 1) * SYMBOL_BYTES)
        # Equal digests of the owner end it whatever would come next.
        ways = (traces * whole, traces * ITEM_BYTES, *(found if count else [ITEM_BYTES] * 3))
        lines.append((f"{count:,}", *(f"{way:,.0f}" for way in ways), f"{count * whole:,}", f"{count * feedback:,}"))
    head = (
        *("differ", "full state", "list of digests", "Merkle tree, 16-ary", "Bloom filter first", "**rateless table**"),
        *("records, edited (stream or fetch)", "records, feedback alone"),
    )
    note = _SYNC.format(whole=whole, feedback=feedback)
    return Part([], [Table(f"Bytes to bring two copies of {traces:,} traces together", note, head, lines)])


_SYNC = """A record with text and embedding has {whole:,} bytes, what feedback adds {feedback}. Full state is all of them. The delta stream
sends the last two columns and nothing else, as long as no update is lost. Anti-entropy compares the owner's digest (16 bytes, the
first line) and then looks for what differs, in one of the ways in the middle, before it fetches the same records. The tree needs up to five
round trips, the table one stream. Computed from formulas: list, Bloom filter; counted: table, tree. A Bloom filter pays above some 4 % of
differences, and then saves about 1 % of what the records cost: there is none."""
