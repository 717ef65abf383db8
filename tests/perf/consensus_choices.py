"""The choices of replication beside their alternatives: who loses updates, who sends how much, and what signatures cost."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ndml.crdt.clock import HybridClock
from ndml.crdt.envelope import Envelope, check_items, items_hash, leaf
from ndml.crdt.register import MVRegister
from tests.perf.consensus_sync import edited
from tests.perf.tables import Part, Row, Table, us_each
from tests.sim.gossip import Expected, Plumtree, Tally, Zones, push, random_links

SECOND = 1_000_000_000
ROUNDS_A_TRACE = 20
EPOCH = 1_700_000_000 * SECOND

Stamped = tuple[int, int, int]
"""Clock, replica, write."""


@dataclass(slots=True)
class Copy:
    """One replica of a trace, under three policies side by side: the same writes go to all."""

    replica: int
    clock: HybridClock
    wall_ns: Callable[[], int]
    register: MVRegister[int] = field(default_factory=MVRegister)
    by_wall: Stamped = (0, 0, 0)
    by_hybrid: Stamped = (0, 0, 0)

    def write(self, number: int, seen: dict[str, set[int]]) -> None:
        """Acknowledge a write. What its author saw is replaced by right: that goes into `seen`, by policy."""
        seen["register"].update(self.register.versions.values())
        seen["wall"].add(self.by_wall[2])
        seen["hybrid"].add(self.by_hybrid[2])
        dot = self.register.context.next(self.replica)
        self.register = self.register.joined(self.register.write(dot, number, list(self.register.versions)))
        self.by_wall = max(self.by_wall, (self.wall_ns(), self.replica, number))
        self.by_hybrid = max(self.by_hybrid, (self.clock.tick(), self.replica, number))

    def read(self, other: Copy) -> None:
        """Take over the other's state."""
        self.register = self.register.joined(other.register)
        self.by_wall, self.by_hybrid = max(self.by_wall, other.by_wall), max(self.by_hybrid, other.by_hybrid)
        self.clock.observe(other.clock.last)

    def held(self) -> dict[str, set[int]]:
        """Writes that are still there."""
        return {"register": set(self.register.versions.values()), "wall": {self.by_wall[2]}, "hybrid": {self.by_hybrid[2]}}


@dataclass(slots=True)
class Losses:
    """Acknowledged writes, and by policy those that are gone though no later author saw them. Versions left standing a trace."""

    writes: int = 0
    lost: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("wall", "hybrid", "register"), 0))
    standing: int = 0

    def share(self, policy: str) -> str:
        return f"{100 * self.lost[policy] / self.writes:.1f} %"


def one_trace(meet: float, skew_s: float, busy: float, random: Random, total: Losses) -> None:
    """Two copies write with chance `busy` a round of one second, in either order, and meet after it with chance `meet`."""
    now = [EPOCH]

    def wall(ahead_ns: int) -> Callable[[], int]:
        return lambda: now[0] + ahead_ns

    copies = [Copy(n, HybridClock(wall(ahead)), wall(ahead)) for n, ahead in ((1, 0), (2, round(skew_s * SECOND)))]
    seen: dict[str, set[int]] = {policy: set() for policy in total.lost}
    number = 0
    for _ in range(ROUNDS_A_TRACE):
        for copy in random.sample(copies, 2):
            now[0] += SECOND // 2
            if random.random() < busy:
                number += 1
                copy.write(number, seen)
        if random.random() < meet:
            _meet(copies)
    _meet(copies)
    total.writes += number
    for policy, held in copies[0].held().items():
        total.lost[policy] += len(set(range(1, number + 1)) - seen[policy] - held)
    total.standing += len(copies[0].register.versions)


def _meet(copies: list[Copy]) -> None:
    copies[0].read(copies[1])
    copies[1].read(copies[0])


CASES = (
    ("both write in every round, then meet", 1.0, 0.0, 1.0),
    ("half of the time, meet after each round", 1.0, 0.0, 0.5),
    ("as before, clocks 5 s apart", 1.0, 5.0, 0.5),
    ("half of the time, meet after one round in ten", 0.1, 0.0, 0.5),
    ("as before, clocks 5 s apart", 0.1, 5.0, 0.5),
)


def lost_updates(traces: int) -> Part:
    """5.8: last writer wins against the multi-value register."""
    lines, kept = [], True
    for name, meet, skew_s, busy in CASES:
        random, total = Random(5), Losses()
        for _ in range(traces):
            one_trace(meet, skew_s, busy, random, total)
        shares = (total.share("wall"), total.share("hybrid"), f"**{total.share('register')}**")
        lines.append((name, f"{total.writes:,}", *shares, f"{total.standing / traces:.2f}"))
        kept = kept and not total.lost["register"]
    head = ("two copies", "writes", "last writer, wall clock", "last writer, hybrid clock", "**versions**", "versions at the end")
    target = Row("acknowledged edits lost, two concurrent writers", "0" if kept else "some", f"last writer wins {lines[0][2]}", "0", kept)
    note = """Lost: acknowledged, replaced by no write whose author saw it, and gone when both copies are equal. Siblings are what the
register pays; a write that sees them replaces them."""
    return Part([target], [Table(f"Lost updates, {traces} traces of {ROUNDS_A_TRACE} rounds", note, head, lines)])


def gossip(nodes: int, zones: int, view: int, seed: int = 1) -> Part:
    """5.5 and AT-5d: counted messages beside the formulas."""
    random, expected = Random(seed), Expected(nodes, zones, 10, view)
    tree = Plumtree(random_links(range(nodes), view, random), random, lambda node: node * zones // nodes)
    flood, steady = tree.broadcast(0), tree.broadcast(nodes // 2)
    grouped = Zones(nodes, zones, view, random)
    grouped.broadcast(0)
    zoned = grouped.broadcast(nodes // 2)
    lines = [
        _line("push to everybody by everybody", push(nodes, nodes - 1, random), f"{expected.all_to_all():,}"),
        _line(f"random gossip, fanout {expected.fanout}", push(nodes, expected.fanout, random), f"{expected.gossip_payloads():,}"),
        _line("Plumtree, first flood", flood, f"{nodes * view - nodes + 1:,}"),
        _line("Plumtree, from then on", steady, f"{expected.tree_payloads():,} + {expected.tree_ids():,} ids", expected.flat_wide()),
        _line(f"Plumtree in {zones} zones", zoned, f"{expected.tree_payloads():,}", expected.zoned_wide()),
    ]
    gone = random.sample(range(nodes), nodes // 10)
    tree.crash(gone)
    lines.append(_line("a tenth crashed, nobody knows yet", tree.broadcast(min(tree.living)), ""))
    tree.mend()
    lines.append(_line("dead neighbours replaced", tree.broadcast(min(tree.living)), ""))
    healed = [tree.broadcast(random.choice(sorted(tree.living))) for _ in range(5)]
    lines.append(_line("from then on", healed[-1], f"{len(tree.living) - 1:,}"))
    head = ("one update", "payloads", "by formula", "ids", "between zones", "by formula", "nodes reached", "payloads a node", "rounds")
    title = f"Messages of {nodes:,} simulated nodes, {view} neighbours each"
    return Part(_delivery(steady, healed, len(tree.living)), [Table(title, _GOSSIP, head, lines)])


_GOSSIP = """\
Counted by a simulation of the whole protocol on a queue of events, random delays (tests/sim/gossip.py), one run, for comparison:
the suite's consensus nodes are few, a full mesh in each zone with one of them between zones. Ids are short and batched. Random gossip
at this fanout leaves nobody out in 96 of 100 runs; in a tree whoever hears of a payload asks for it."""


def _line(name: str, tally: Tally, formula: str, wide: float | None = None) -> tuple[str, ...]:
    crossed = ("", "") if wide is None else (f"{tally.wide:,}", f"{wide:,.0f}")
    return (
        *(name, f"{tally.payloads:,}", formula, f"{tally.ids:,}"),
        *(*crossed, f"{tally.reached:,}", f"{tally.redundancy():.3f}", f"{tally.rounds}"),
    )


def _delivery(steady: Tally, healed: list[Tally], living: int) -> list[Row]:
    worst = max(tally.redundancy() for tally in (steady, *healed))
    least = min(tally.reached for tally in healed)
    return [
        Row("payloads for every node reached, tree converged", f"{worst:.3f}", "a tree 1", "<= 1.05", worst <= 1.05),
        Row("nodes reached, a tenth crashed, after repair", f"{least:,}", f"living {living:,}", "all", least == living),
    ]


@contextmanager
def durable_writes() -> Iterator[Callable[[list[bytes]], None]]:
    """What an update costs anyway: its records, committed as the memory node's store does, on this machine's disk."""
    with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(Path(folder) / "store.db", isolation_level=None)) as store:
        store.execute("PRAGMA journal_mode=WAL")
        store.execute("PRAGMA synchronous=FULL")
        store.execute("CREATE TABLE records (id INTEGER PRIMARY KEY, record BLOB)")

        def write(records: list[bytes]) -> None:
            store.execute("BEGIN")
            store.executemany("INSERT INTO records (record) VALUES (?)", [(record,) for record in records])
            store.execute("COMMIT")

        yield write


def signing(updates: int, sizes: tuple[int, ...] = (1, 8, 64)) -> Part:
    """What an author and a reader of signed updates pay, by how many records one job changed."""
    key, record = Ed25519PrivateKey.generate(), edited().canonical()
    lines = []
    with durable_writes() as write:
        for size in sizes:
            records = [record] * size
            signed = sign(key, records)

            acts = (partial(sign, key, records), partial(check, key, records, signed), partial(write, records))
            each = [us_each(_whatever(act), range(updates), 1) for act in acts]
            more = len(signed.to_bytes())
            share = f"{100 * more / (len(record) * size):.1f} %"
            lines.append((f"{size}", *(f"{us:,.0f} us" for us in each), f"{100 * each[0] / each[2]:.0f} %", f"{more} B", share))
    head = ("records an update", "sign", "check", "durable commit of them", "signing to commit", "bytes more", "of the records")
    return Part([], [Table(f"Signing, median of {updates} updates", _SIGNING, head, lines)])


_SIGNING = """One signature an update, whatever it holds: hashes of the records, envelope, Ed25519. Off, all of this is gone. Checking is
what each other copy and each consensus node pays once. The commit is SQLite's, WAL and FULL, alone on a connection; it is the reference."""


def _whatever(act: Callable[[], object]) -> Callable[[object], object]:
    """`act` as `us_each` calls it: once for every item, which it does not look at."""
    return lambda _: act()


def sign(key: Ed25519PrivateKey, records: list[bytes]) -> Envelope:
    """As the publisher of updates does."""
    leaves = [leaf(record) for record in records]
    return Envelope("tenant", "user", "node-1", 7, 1, 2, EPOCH, items_hash(leaves), len(leaves)).sign(key)


def check(key: Ed25519PrivateKey, records: list[bytes], signed: Envelope) -> None:
    """As a reader does, from the bytes on the wire. Raises RuntimeError where it does not hold."""
    envelope = Envelope.parse(signed.canonical, signed.signature)
    check_items(envelope, records)
    if not envelope.verify(key.public_key()):
        raise RuntimeError("a signature that was just made does not hold")
