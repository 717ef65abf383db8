"""Siblings are weighed by the trust in force: when an author is shut out, what it wrote is shown no more where there is anything else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.crdt.causal import Dot
from ndml.crdt.record import Version
from ndml.errors import Overloaded
from ndml.runtime.metrics import TRACES_WEIGHED
from ndml.v1.types_pb2 import MemoryTrace
from services.memory_node.commit import Committer
from services.memory_node.replicas import Stored
from services.memory_node.replication.weighing import Weighing
from services.memory_node.versions import shown
from services.memory_node.weighing import START, Weigh, Weighed
from tests.unit.memory_node import node_harness as harness
from tests.unit.memory_node.test_joins import Site, as_one, sites


class Trusts:
    """Trust that a test changes."""

    def __init__(self) -> None:
        self.of: dict[int, int] = {}

    def __call__(self, replica: int) -> int:
        return self.of.get(replica, 100)

    @property
    def weights(self) -> bytes:
        return repr(sorted(self.of.items())).encode()


def believe(site: Site, trusts: Trusts) -> None:
    committer: Committer = site.store.committer
    committer.author = replace(committer.author, trust=trusts)


def weigh(site: Site, trusts: Trusts, limit: int = 64) -> tuple[int, int]:
    """All pages; how many were looked at and changed."""
    looked = changed = 0
    page = Weigh(trusts.weights, START, limit)
    while True:
        result, update = site.do(page)
        assert isinstance(result, Weighed) and update is None, "nothing is replicated"
        looked, changed = looked + result.looked, changed + result.changed
        if result.done:
            return looked, changed
        page = Weigh(trusts.weights, result.after, limit)


def test_a_quarantine_changes_what_is_shown_of_siblings_that_were_there(tmp_path: Path) -> None:
    with sites(tmp_path, 3) as (a, b, c):
        trusts = Trusts()
        for site in (a, b, c):
            believe(site, trusts)
        start = a.put(*(harness.trace(n, f"start {n}") for n in range(7)))
        b.take(start), c.take(start)
        updates = [site.change(n, f"{name} says {n}") for n in range(5) for site, name in ((a, "a"), (b, "b"))]
        a.take(*updates), b.take(*updates), c.take(*updates)
        as_one(a, b, c)
        before = c.shown()
        liar = a if sum(text.startswith("a says") for text in before.values()) >= 1 else b
        name, honest = ("a", "b") if liar is a else ("b", "a")
        shown_of_liar = sum(text.startswith(f"{name} says") for text in before.values())
        assert shown_of_liar
        assert weigh(c, trusts) == (5, 0), "the same trust shows the same"
        assert weigh(c, trusts) == (0, 0), "and is not looked at twice"
        digest, conflicts = c.state().digest, c.reader.conflicts()
        trusts.of[liar.store.replica] = 0
        assert weigh(c, trusts, limit=2) == (5, shown_of_liar)
        now = c.shown()
        assert {now[harness.trace_id(n)] for n in range(5)} == {f"{honest} says {n}" for n in range(5)}
        assert {now[harness.trace_id(n)] for n in (5, 6)} == {"start 5", "start 6"}
        assert (c.state().digest, c.reader.conflicts()) == (digest, conflicts), "both contents stay"
        # Every copy that knows the same of authors shows the same, and trust given back is as before.
        assert weigh(a, trusts) == weigh(b, trusts) == (5, shown_of_liar)
        as_one(a, b, c)
        trusts.of.clear()
        assert weigh(c, trusts) == (5, shown_of_liar)
        assert c.shown() == before


def test_what_is_weighed_is_remembered_by_the_store(tmp_path: Path) -> None:
    with sites(tmp_path, 2) as (a, b):
        trusts = Trusts()
        b.take(a.put(harness.trace(1, "start")))
        left, right = a.change(1, "left"), b.change(1, "right")
        a.take(right), b.take(left)
        assert weigh(a, trusts)[0] == 1
        a.close()
        again = Site(tmp_path, "n0")
        try:
            assert weigh(again, trusts) == (0, 0)
            trusts.of[1] = 7  # another roster
            assert weigh(again, trusts)[0] == 1
        finally:
            again.close()


TRUSTS = st.lists(st.sampled_from([0, 0, 1, 100]), min_size=2, max_size=6)


@settings(max_examples=60, deadline=None)
@given(trusts=TRUSTS, salience=st.lists(st.floats(0, 1), min_size=6, max_size=6), seed=st.integers(0, 3))
def test_nobody_without_trust_is_shown_before_somebody_with_it(trusts: list[int], salience: list[float], seed: int) -> None:
    versions = {}
    for n in range(len(trusts)):
        content = MemoryTrace(text=f"{n % 4}").SerializeToString()
        versions[Dot(n + 1, 1)] = Stored(Version(n, content, harness.vector(n * seed % 3), salience[n], 0.5), bytes(16))
    it = shown(versions, lambda replica: trusts[replica - 1], harness.DIMENSION)
    assert trusts[it.dot.replica - 1] > 0 or not any(trusts)
    assert it.support.keys() == versions.keys()
    assert it.rivals == {dot for dot, one in versions.items() if one.version.content != versions[it.dot].version.content}


async def test_a_change_of_trust_is_noticed_and_a_busy_store_is_asked_again() -> None:
    weights, asked, ticks = [b"one"], [], asyncio.Semaphore(0)
    outcomes: list[Weighed | Overloaded] = [Weighed(False, 0, (1, b"x"), 64, 3), Weighed(True, 0, START, 5, 0), Overloaded("later")]

    async def page(action: Weigh) -> Weighed:
        asked.append((action.weights, action.after))
        outcome = outcomes.pop(0) if outcomes else Weighed(True)
        if isinstance(outcome, Overloaded):
            raise outcome
        return outcome

    async def sleep(_: float) -> None:
        await ticks.acquire()

    changed, same = (TRACES_WEIGHED.labels(outcome)._value for outcome in ("changed", "same"))
    before = changed.get(), same.get()
    task = Weighing(lambda: weights[0], page, 1.0, sleep)
    await task.start()
    for name in (b"one", b"two", b"two", b"two"):
        weights[0] = name
        ticks.release()
        for _ in range(5):
            await asyncio.sleep(0)
    await task.stop()
    assert asked == [(b"one", START), (b"one", (1, b"x")), (b"two", START), (b"two", START)]
    assert (changed.get() - before[0], same.get() - before[1]) == (3, 66)
