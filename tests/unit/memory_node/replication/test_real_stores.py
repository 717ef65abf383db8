"""The same cores on real stores: SQLite files, the node's own joins, readers and digests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ndml.errors import NdmlError
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1.types_pb2 import MemoryTrace
from services.memory_node.commit import WriteAction, WriteJob, WriteResult
from services.memory_node.housekeeping import DropOwner, JournalPrune, Kept, SettleOwner
from services.memory_node.records import Owner
from services.memory_node.settings import StoreSection
from services.memory_node.store import Store
from tests.sim.loop import EPOCH_NS, VirtualLoop, run
from tests.sim.network import Weather
from tests.unit.memory_node import node_harness as node
from tests.unit.memory_node.replication.harness import ALICE, BOB, Suite

T = TypeVar("T")


class DiskStore:
    """A LocalStore on a store in `directory`, without an engine before it: every job is its own group commit."""

    def __init__(self, directory: Path) -> None:
        self._store = Store(StoreSection(data_dir=directory), node.identity(), 100_000, lambda: EPOCH_NS)
        self._store.open()
        self.reader = self._store.reader()
        self.replica = self._store.replica

    @property
    def last_sequence(self) -> int:
        return self._store.committer.last_sequence

    def commit(self, owner: Owner, action: WriteAction, *, journal: bool = False) -> WriteResult:
        job = WriteJob(owner, action)
        job.journal = journal
        result = self._store.committer.commit([job]).results[0]
        if isinstance(result, NdmlError):
            raise result
        return result

    def put(self, owner: Owner, *seeds: object, text: str = "") -> None:
        traces = [node.trace(str(seed), text) for seed in seeds]
        outcome = self.commit(owner, pb.PutAction(traces=traces), journal=True)
        assert isinstance(outcome, pb.PutResult)
        assert not any(each.HasField("error") for each in outcome.outcomes)

    def update(self, owner: Owner, seed: object, text: str) -> None:
        changed = node.trace(str(seed), text)
        self.commit(owner, pb.UpdateAction(trace=changed, fields=["text"]), journal=True)

    def delete(self, owner: Owner, seed: object) -> None:
        self.commit(owner, pb.DeleteAction(trace_id=node.trace_id(str(seed))), journal=True)

    def texts(self, owner: Owner) -> dict[str, str]:
        row = self.reader.owner(owner)
        traces = [] if row is None else self.reader.export(row.owner_id, "", "", 0)
        decoded = [MemoryTrace.FromString(payload) for payload, _ in traces]
        return {trace.trace_id: trace.text for trace in decoded}

    async def call(self, work: Callable[[Any], T]) -> T:
        return work(self.reader)

    async def join(self, owner: Owner, action: pb.MergeAction) -> pb.MergeResult:
        result = self.commit(owner, action)
        assert isinstance(result, pb.MergeResult)
        return result

    async def written(self) -> None:
        """A commit here is on disk at once."""

    async def prune(self, up_to: int) -> None:
        self.commit(Owner("", ""), JournalPrune(up_to))

    async def drop(self, owner: Owner, digest: bytes) -> bool:
        result = self.commit(owner, DropOwner(digest))
        return isinstance(result, Kept) and result.done

    async def settle(self, owner: Owner, digest: bytes, absent: str) -> bool:
        result = self.commit(owner, SettleOwner(digest, absent))
        return isinstance(result, Kept) and result.done

    def owner_state(self, owner: Owner) -> Any:
        return self.reader.owner_state(owner)

    def close(self) -> None:
        self.reader.close()
        self._store.close()


@contextmanager
def suite_of(tmp_path: Path, nodes: int, **options: Any) -> Iterator[Suite]:
    """Nodes n0, … whose stores are files."""
    suite = Suite(nodes, make_store=lambda name: DiskStore(tmp_path / name), **options)
    try:
        yield suite
    finally:
        for each in suite.nodes.values():
            each.store.close()


def test_edits_deletes_and_new_traces_of_three_stores_come_together(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        with suite_of(tmp_path, 3, hub=False) as suite:
            a, b, c = (suite.store(i) for i in range(3))
            a.put(ALICE, *range(60))
            await suite.round(1)
            await suite.round(2)
            assert a.texts(ALICE) == b.texts(ALICE) == c.texts(ALICE)
            a.update(ALICE, 1, "from a")
            b.update(ALICE, 1, "from b")
            b.delete(ALICE, 2)
            c.update(ALICE, 2, "too late")
            c.put(ALICE, "new")
            b.put(BOB, "bob")
            for i in (0, 1, 2, 0):
                assert not [each.error for each in (await suite.round(i)).passes.values() if each.error]
            assert len(suite.digests(ALICE)) == len(suite.digests(BOB)) == 1
            assert a.texts(ALICE) == b.texts(ALICE) == c.texts(ALICE)
            assert a.texts(ALICE)[node.trace_id("1")] in ("from a", "from b")
            assert node.trace_id("2") not in a.texts(ALICE)
            assert len(a.texts(ALICE)) == 60
            assert a.reader.heads(ALICE) == b.reader.heads(ALICE) == c.reader.heads(ALICE)
            before = [store.last_sequence for store in (a, b, c)]
            assert (await suite.round(1)).clean
            assert [store.last_sequence for store in (a, b, c)] == before

    run(main)


def test_a_wiped_store_copies_all_and_a_hundred_differences_cost_kilobytes(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        with suite_of(tmp_path, 2, hub=False) as suite:
            a, b = suite.store(0), suite.store(1)
            for start in range(0, 3000, 250):
                a.put(ALICE, *range(start, start + 250))
            assert (await suite.round(1)).clean
            assert b.texts(ALICE) == a.texts(ALICE)
            assert len(suite.digests()) == 1
            assert suite.bytes["symbols"] < 2000
            suite.bytes.clear()
            b.put(ALICE, *(f"b{n}" for n in range(50)))
            for n in range(50):
                a.delete(ALICE, n)
            assert (await suite.round(0)).clean
            assert len(suite.digests()) == 1
            assert suite.bytes["symbols"] < 2 * 1.35 * 26 * 150  # an erased record differs twice
            assert len(a.texts(ALICE)) == 3000

    run(main)


def test_updates_stream_from_the_journal_and_what_it_let_go_is_swept(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        stream = {"journal_rows": 20, "journal_kept": 4, "prune_every": 1}
        with suite_of(tmp_path, 2, sweep={"least_interval_s": 1e6, "most_interval_s": 1e6}, stream=stream) as suite:
            a, b = suite.store(0), suite.store(1)
            await suite.start()
            for n in range(10):
                a.put(ALICE, n, f"also {n}")
            await suite.until(lambda: len(suite.digests()) == 1, 30)
            assert b.texts(ALICE) == a.texts(ALICE)
            assert suite.bytes["fetched"] == suite.bytes["pushed"] == 0
            assert b.reader.heads(ALICE)[a.replica] == a.reader.heads(ALICE)[a.replica]
            suite.network.cut("n0", "hub")
            await suite.nodes["n0"].replication._world.sleep(1)
            for n in range(100, 150):
                a.put(ALICE, n)
            await suite.until(lambda: a.reader.journal_size(0) == 20, 30)
            suite.network.heal()
            await suite.until(lambda: len(suite.digests()) == 1, 60)
            await suite.until(lambda: b.reader.heads(ALICE)[a.replica] == a.reader.heads(ALICE)[a.replica], 30)
            await suite.until(lambda: a.reader.journal_size(0) <= 5, 30)
            await suite.stop()

    run(main)


def test_what_belongs_to_others_is_handed_over_and_gone_from_the_file(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        with suite_of(tmp_path, 2, hub=False) as suite:
            a, b = suite.store(0), suite.store(1)
            a.put(ALICE, *range(30))
            a.delete(ALICE, 3)
            a.put(BOB, 1)
            suite.map.serving = {ALICE: ["n1"]}
            assert (await suite.round(0)).dropped == 1
            assert a.reader.owners(None, 10) == [BOB]
            assert len(b.texts(ALICE)) == 29
            assert b.reader.heads(ALICE)[a.replica] > 0
            # It comes back with all that was, the erased one stays erased.
            suite.map.serving = {ALICE: ["n0"]}
            suite.map.change()
            b.put(ALICE, "while away")
            assert (await suite.round(1)).dropped == 1
            assert len(a.texts(ALICE)) == 30
            assert node.trace_id("3") not in a.texts(ALICE)

    run(main)


@pytest.mark.parametrize("seed", range(2))
def test_real_stores_converge_through_a_bad_network(tmp_path: Path, seed: int) -> None:
    async def main(loop: VirtualLoop) -> None:
        weather, sweep = Weather(drop=0.1, repeat=0.2, delay_s=0.01), {"least_interval_s": 2.0, "most_interval_s": 4.0}
        with suite_of(tmp_path, 3, seed=seed, weather=weather, sweep=sweep) as suite:
            await suite.start()
            for step in range(60):
                store, n = suite.store(suite.random.randrange(3)), suite.random.randrange(20)
                known = node.trace_id(str(n)) in store.texts(ALICE)
                if not known and not _is_erased(store, n):
                    store.put(ALICE, n)
                elif known and suite.random.random() < 0.2:
                    store.delete(ALICE, n)
                elif known:
                    store.update(ALICE, n, f"{step}")
                if step % 20 == 5:
                    suite.network.cut(*suite.random.sample(["n0", "n1", "n2", "hub"], 2))
                if step % 20 == 15:
                    suite.network.heal()
                await suite.nodes["n0"].replication._world.sleep(suite.random.random())
            suite.network.heal()
            await suite.until(lambda: len(suite.digests()) == 1, 120)
            await suite.stop()
            assert suite.store(0).texts(ALICE) == suite.store(1).texts(ALICE) == suite.store(2).texts(ALICE)

    run(main)


def _is_erased(store: DiskStore, n: int) -> bool:
    row = store.reader.owner(ALICE)
    return row is not None and store.reader.erased(row.owner_id, bytes.fromhex(node.trace_id(str(n))))
