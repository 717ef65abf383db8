"""AT-5: replicas that agree: the lattice under loss, liars, bytes of a reconciliation, messages of a thousand nodes.

AT-5e, that what one node puts away stays elsewhere, is a checker of whole simulated suites: `make sim`.
"""

from __future__ import annotations

from random import Random
from statistics import median

from ndml.crdt.iblt import SYMBOL_BYTES
from tests.perf.consensus_sync import ASYMPTOTE, exchange
from tests.property.test_audit import faults, run, world_of
from tests.quality.science.rows import Row
from tests.sim.gossip import Expected, Plumtree, random_links
from tests.sim.records import Records

SCHEDULES, SUITES_OF_LIARS, RECONCILIATIONS, TREES = 1000, 60, 20, 3
TRACES, DIFFERING = 100_000, 100
NODES, ZONES, VIEW, ROUNDS_AFTER = 1000, 10, 5, 3


def schedules(count: int = SCHEDULES) -> list[Row]:
    """Records of three to seven replicas under loss, repetition, reordering, partitions and lost disks, then healed."""
    bad = [seed for seed in range(count) if Records(seed).run()]
    return [Row("AT-5a", f"of {count:,} random schedules, digests that differ in the end", "0", str(len(bad)), not bad)]


def few_schedules() -> list[Row]:
    return schedules(100)


def liars() -> list[Row]:
    """Equivocators, forged signatures, missing dependencies and replays, among honest nodes that tell each other what they hold."""
    forged, apart = 0, 0
    for seed in range(SUITES_OF_LIARS):
        found = faults(world := world_of(seed), run(world))
        forged += sum("forgery" in fault or "nobody signed" in fault for fault in found)
        apart += bool(found)
    return [
        Row("AT-5b", f"of {SUITES_OF_LIARS} suites with liars, those whose honest nodes differ", "0", str(apart), not apart),
        Row("AT-5b", "forged updates that were taken", "0", str(forged), not forged),
    ]


def reconciliation() -> list[Row]:
    """Bytes until both know what each lacks; `exchange` raises where they find anything but that."""
    sent = [exchange(TRACES, DIFFERING, seed).sent for seed in range(RECONCILIATIONS)]
    most = round(2 * ASYMPTOTE * SYMBOL_BYTES * DIFFERING)
    what = f"bytes for {DIFFERING} differences of {TRACES:,} traces: median (most) of {len(sent)}"
    return [Row("AT-5c", what, f"<= {most:,}", f"{median(sent):,.0f} ({max(sent):,})", median(sent) <= most)]


def trees() -> list[Row]:
    """Plumtree of a simulation, for comparison: consensus nodes are a full mesh in each zone, with one way between two zones."""
    redundancy, missed, payloads = 0.0, 0, set()
    for seed in range(TREES):
        random = Random(seed)
        tree = Plumtree(random_links(range(NODES), VIEW, random), random)
        tree.broadcast(random.randrange(NODES))
        payloads.add(tree.broadcast(random.randrange(NODES)).payloads)
        tree.crash(random.sample(range(NODES), NODES // 10))
        tree.broadcast(random.choice(sorted(tree.living)))
        tree.mend()
        tree.broadcast(random.choice(sorted(tree.living)))
        for _ in range(ROUNDS_AFTER):
            after = tree.broadcast(random.choice(sorted(tree.living)))
            redundancy, missed = max(redundancy, after.redundancy()), missed + len(tree.living) - after.reached
    expected = Expected(NODES, ZONES, VIEW, VIEW).tree_payloads()
    return [
        Row("AT-5d", f"payloads of one update to {NODES:,} nodes", str(expected), str(sorted(payloads)), payloads == {expected}),
        Row("AT-5d", "payloads a node once the tree is mended, at most", "<= 1.05", f"{redundancy:.3f}", redundancy <= 1.05),
        Row("AT-5d", "living nodes that hear nothing, a tenth crashed, after repair", "0", str(missed), not missed),
    ]


CHECKS = (schedules, liars, reconciliation, trees)
FAST = (few_schedules,)
