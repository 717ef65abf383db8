"""Signed updates on their way between nodes: what is signed once stays as it was signed, liars are found, gaps do not stop anybody."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ndml.crdt import keys
from ndml.crdt.chain import MemoryChainStore, Row
from ndml.crdt.envelope import Envelope, items_hash, leaf, replica_number
from ndml.crdt.evidence import Vouch, vouch
from ndml.crdt.roster import Author, Roster
from ndml.errors import StoreUnavailable
from ndml.internal.v1 import replication_pb2 as rpb
from services.memory_node.replication.chains import ChainFile
from services.memory_node.replication.signing import Notary, SigningGuard
from tests.sim.loop import EPOCH_NS, VirtualLoop, run
from tests.unit.memory_node.replication.harness import ALICE, BOB, MemoryStore, Suite, trace_id

NEVER = {"least_interval_s": 1e6, "most_interval_s": 1e6}
NODES = ("n0", "n1", "n2")


class Authors:
    """A roster of three, their keys, and a guard for each."""

    def __init__(self, directory: Path) -> None:
        self.keys = {name: keys.load_or_create(directory / f"{name}.pem") for name in NODES}
        self.roster = Roster(1, {name: Author(keys.public_bytes(key)) for name, key in self.keys.items()})
        self.directory = directory
        self.guards: dict[str, SigningGuard] = {}
        self._files: list[ChainFile] = []

    def guard(self, name: str, store: Any, key: Ed25519PrivateKey | None = None) -> SigningGuard:
        chains = ChainFile(self.directory / f"{name}.db")
        self._files.append(chains)
        notary = Notary(chains, self.roster, key or self.keys[name], name, 100, lambda: EPOCH_NS // 1_000_000)
        made = SigningGuard(store, notary)
        self.guards[name] = made
        return made

    def store(self, name: str) -> MemoryStore:
        return MemoryStore(replica_number(name, 7))

    def close(self) -> None:
        for chains in self._files:
            chains.close()


@contextmanager
def authors_of(directory: Path) -> Iterator[Authors]:
    authors = Authors(directory)
    try:
        yield authors
    finally:
        authors.close()


def _updates(store: MemoryStore) -> list[rpb.OwnerUpdate]:
    return [store.update_of(row) for row in store.rows]


def test_signed_updates_reach_the_copies_and_are_the_same_after_a_new_attachment(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        with authors_of(tmp_path) as authors:
            suite = Suite(3, make_store=authors.store, make_guard=authors.guard, sweep=NEVER)
            await suite.start()
            for n in range(12):
                suite.store(n % 2).write(ALICE, trace_id(n % 4), text=str(n))
                await suite.nodes["n0"].replication._world.sleep(0.2)
            await suite.until_equal(ALICE, 30)
            assert set(suite.bytes) <= {"pushed"}  # rumours, which carry no records
            assert not any(node.replication.quarantined for node in suite.nodes.values())
            first = dict(suite.hub.log)
            assert all(update.signature for update in first.values())
            # A consensus node that knows nothing gets what was signed, though the records have changed since.
            suite.store(0).write(ALICE, trace_id(0), text="again")
            suite.hub.log, suite.hub.positions = {}, {}
            suite.network.cut("n0", "hub")
            await suite.nodes["n0"].replication._world.sleep(0.5)
            suite.network.heal()
            await suite.until(lambda: len(suite.hub.log) >= 7)
            own = {key: update for key, update in suite.hub.log.items() if key in first}
            assert len(own) == 6
            assert all(update == first[key] for key, update in own.items())
            await suite.stop()

    run(main)


def test_forged_altered_and_foreign_updates_are_settled_and_never_joined(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        with authors_of(tmp_path) as authors:
            store = authors.store("n0")
            store.write(ALICE, trace_id(1))
            store.write(ALICE, trace_id(2))
            good, other = await authors.guard("n0", store).signed(_updates(store))
            forger = authors.guard("forger", store, Ed25519PrivateKey.generate())
            (forged,) = await forger.signed(_updates(store)[:1])
            forged.node_id = "n0"
            moved, altered, unsigned = rpb.OwnerUpdate(), rpb.OwnerUpdate(), rpb.OwnerUpdate()
            for copy in (moved, altered, unsigned):
                copy.CopyFrom(good)
            moved.user = "bob"
            altered.records[0].versions[0].content = b"not what was signed"
            unsigned.ClearField("signature")
            reader = authors.guard("n1", authors.store("n1"))
            for bad in (forged, moved, altered, unsigned):
                (verdict,) = await reader.admit([bad])
                assert (verdict.join, verdict.settled) == (False, True)
            # What it builds on is not there: it waits, and comes out with it.
            (waiting,) = await reader.admit([other])
            assert (waiting.join, waiting.settled) == (False, False)
            released = await reader.admit([good])
            assert [(each.update.counter, each.join, each.settled) for each in released] == [(1, True, True), (2, True, True)]
            (again,) = await reader.admit([good])
            assert (again.join, again.settled) == (True, True)

    run(main)


def test_an_author_that_says_two_things_is_quarantined_and_shown(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        with authors_of(tmp_path) as authors:
            suite = Suite(3, make_store=authors.store, make_guard=authors.guard, hub=False)
            liar, reader = suite.store(0), suite.nodes["n1"]
            liar.write(ALICE, trace_id(1))
            (first,) = await authors.guards["n0"].signed(_updates(liar))
            envelope = Envelope.parse(first.envelope, first.signature)
            second = rpb.OwnerUpdate()
            second.CopyFrom(first)
            second.records[0].versions[0].content = b"to others I say this"
            item = second.records[0].SerializeToString(deterministic=True)
            lie = dataclasses.replace(envelope, items_hash=items_hash([leaf(item)]), signature=b"")
            signed = lie.sign(authors.keys["n0"])
            second.envelope, second.signature = signed.canonical, signed.signature
            for update in (first, second):
                (verdict,) = await authors.guards["n1"].admit([update])
                assert verdict.join
            assert list(reader.replication.quarantined) == ["n0"]
            assert authors.guards["n1"].notary.trust("n0") == 0
            liar.write(ALICE, trace_id(2))
            (third,) = await authors.guards["n0"].signed(_updates(liar)[1:])
            (verdict,) = await authors.guards["n1"].admit([third])
            assert (verdict.join, verdict.settled) == (False, True)
            # It outlives the process.
            again = Notary(ChainFile(tmp_path / "n1.db"), authors.roster, authors.keys["n1"], "n1", 100)
            assert list(again.quarantined) == ["n0"]
            again.close()

    run(main)


def _lie(authors: Authors, first: rpb.OwnerUpdate) -> rpb.OwnerUpdate:
    """Another content for the same place, signed as well."""
    second = rpb.OwnerUpdate()
    second.CopyFrom(first)
    second.records[0].versions[0].content = b"to others I say this"
    hashed = items_hash([leaf(second.records[0].SerializeToString(deterministic=True))])
    envelope = Envelope.parse(first.envelope, first.signature)
    signed = dataclasses.replace(envelope, items_hash=hashed, signature=b"").sign(authors.keys["n0"])
    second.envelope, second.signature = signed.canonical, signed.signature
    return second


def test_what_one_copy_took_of_a_liar_before_it_knew_enters_all_by_its_word(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        with authors_of(tmp_path) as authors:
            liar, early, late = authors.store("n0"), authors.store("n1"), authors.store("n2")
            liar.write(ALICE, trace_id(1))
            liar.write(ALICE, trace_id(2))
            first, more = await authors.guard("n0", liar).signed(_updates(liar))
            one, other = authors.guard("n1", early), authors.guard("n2", late)
            assert all(each.join for each in await one.admit([first, more]))
            await one.keep([first, more])
            assert all(each.join for each in await other.admit([first, _lie(authors, first)]))
            assert list(other.quarantined) == ["n0"] and not one.quarantined
            ids = [trace_id(1), trace_id(2)]
            unsaid = await one.kept(ALICE, ids)
            assert not any(update.vouch for update in unsaid), "nobody's word is needed of honest authors"
            assert [update.counter for update in await other.inspected(unsaid)] == [1], "what the proof is made of, and nothing more"
            await one.learn(other.proofs)
            said = {update.counter: update for update in await one.kept(ALICE, ids)}
            assert said[2].vouch and [u.counter for u in await one.rumours() if u.records and u.vouch] == [2, 1]
            own_word, stolen, broken = rpb.OwnerUpdate(), rpb.OwnerUpdate(), rpb.OwnerUpdate()
            for copy in (own_word, stolen, broken):
                copy.CopyFrom(said[2])
            hashed = Envelope.parse(more.envelope, more.signature).hash
            own_word.vouch = vouch(authors.keys["n0"], "n0", hashed).to_bytes()
            stolen.vouch, broken.vouch = said[1].vouch, said[2].vouch[:-1] + b"?"
            assert not await other.inspected([own_word, stolen, broken]), "the liar's own word, one for another update, and a forged name"
            (taken,) = await other.inspected([said[2]])
            await other.keep([taken])
            # Whoever took it by somebody's word can give its own, without the other's.
            (again,) = await other.kept(ALICE, [trace_id(2)])
            assert Vouch.from_bytes(again.vouch).node_id == "n2"
            assert again.records == said[2].records

    run(main)


def test_a_store_that_ran_unsigned_says_so_in_few_lines(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        with authors_of(tmp_path) as authors:
            store = authors.store("n0")
            store.write(ALICE, trace_id(0))
            guard = authors.guard("n0", store)
            await guard.signed(_updates(store))
            store.write(ALICE, trace_id(1), journal=False)  # while signing was off
            for n in range(40):
                store.write(ALICE, trace_id(n))
            with capture_logs() as lines:
                left = await guard.signed(_updates(store)[1:])
            assert len(left) == 40 and not any(update.signature for update in left)
            counts = [line["count"] for line in lines if line["event"] == "updates_not_signed"]
            assert counts == [1, 2, 4, 8, 16, 32]
            assert {line["author"] for line in lines if line["event"] == "updates_not_signed"} == {"n0"}

    run(main)


def test_an_update_whose_past_came_by_repair_waits_for_nothing(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        with authors_of(tmp_path) as authors:
            author, reader = authors.store("n0"), authors.store("n1")
            for n in range(3):
                author.write(ALICE, trace_id(n))
            updates = await authors.guard("n0", author).signed(_updates(author))
            guard = authors.guard("n1", reader)
            (waiting,) = await guard.admit([updates[2]])
            assert not waiting.join
            reader.known[ALICE] = {author.replica: 2}
            done = await guard.admit([updates[2]])
            assert [(each.update.counter, each.join, each.settled) for each in done] == [(3, True, True)]

    run(main)


def test_what_was_let_go_is_forgotten_and_a_damaged_file_is_refused(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        with authors_of(tmp_path) as authors:
            store = authors.store("n0")
            store.write(BOB, trace_id(1))
            guard = authors.guard("n0", store)
            (signed,) = await guard.signed(_updates(store))
            assert authors._files[0].own(store.replica, 1) == signed.SerializeToString()
            await guard.forget(1)
            assert authors._files[0].own(store.replica, 1) is None
        (tmp_path / "bad.db").write_bytes(b"this is no database at all, " * 100)
        with pytest.raises(StoreUnavailable):
            ChainFile(tmp_path / "bad.db")

    run(main)


ROWS = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 3), st.integers(1, 9), st.binary(min_size=2, max_size=2)), min_size=1, max_size=40
)


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, probe=st.integers(0, 10))
def test_the_file_remembers_what_memory_would(tmp_path_factory: pytest.TempPathFactory, rows: list[Any], probe: int) -> None:
    memory = MemoryChainStore(3)
    chains = ChainFile(tmp_path_factory.mktemp("chains") / "authors.db", 3)
    seen: set[tuple[str, int, int, bytes]] = set()
    with chains.turn():
        for user, replica, counter, hashed in rows:
            if (user, replica, counter, hashed) not in seen:
                seen.add((user, replica, counter, hashed))
                for store in (memory, chains):
                    store.put(Row("t", user, replica, counter, hashed, counter - 1, b"envelope"))
        for store in (memory, chains):
            store.raise_floor("t", "a", 1, probe)
            store.put_proof("n", b"first")
            store.put_proof("n", b"second")
    for user, replica in {(user, replica) for user, replica, *_ in rows} | {("a", 1), ("c", 9)}:
        place = "t", user, replica
        assert chains.above(*place, probe) == memory.above(*place, probe)
        assert chains.floor(*place) == memory.floor(*place)
        assert sorted(chains.heads("t", user)) == sorted(memory.heads("t", user))
    assert all(chains.has("t", *row) == memory.has("t", *row) for row in seen)
    assert chains.proofs() == memory.proofs()
    for user in {user for user, *_ in rows} - {"a"}:
        assert list(chains.heads("t", user)) == list(memory.heads("t", user))
    chains.close()
