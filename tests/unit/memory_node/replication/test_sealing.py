"""What gateways push, before it is committed: an author that writes too much is refused with a delay, by what it signed and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ndml.crdt import keys
from ndml.crdt.rates import AuthorRates
from ndml.crdt.roster import Author, Roster
from ndml.errors import NdmlError, Overloaded
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from services.memory_node.commit import WriteJob
from services.memory_node.replication.chains import ChainFile
from services.memory_node.replication.sealing import Seals
from services.memory_node.replication.signing import Notary
from tests.unit.memory_node import node_harness as harness
from tests.unit.memory_node.test_joins import ANN, Site, sites

PER_S = 10.0  # and 20 at once


class Sealed:
    """A site that signs: its commits go through screen and seal, as the writer's do."""

    def __init__(self, site: Site, directory: Path, roster: Roster, clock: list[float]) -> None:
        self.site = site
        name = site.store.identity.node_id
        key = keys.load_or_create(directory / f"{name}.pem")
        rates = AuthorRates(PER_S, lambda: clock[0])
        notary = Notary(ChainFile(directory / f"{name}.authors.db"), roster, key, name, 100, lambda: 0, rates)
        self.seals = Seals(notary)
        self.seals.open(site.store)

    def write(self, seed: int) -> rpb.OwnerUpdate:
        job = WriteJob(ANN, pb.PutAction(traces=[harness.trace(seed)]))
        job.wanted = job.journal = True
        self.seals.seal(self.site.store.committer.commit([job]))
        assert job.update is not None and job.update.signature
        return job.update

    def push(self, *updates: rpb.OwnerUpdate) -> NdmlError | None:
        job = WriteJob(ANN, pb.MergeAction(updates=updates))
        good, refused = self.seals.screen([job])
        commit = self.site.store.committer.commit(good)
        self.seals.seal(commit)
        failed = [result for result in commit.results if isinstance(result, NdmlError)]
        assert not failed
        return refused[0].error if refused else None


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[tuple[list[Sealed], list[float]]]:
    clock = [0.0]
    with sites(tmp_path, 3) as made:
        known = {f"n{i}": keys.load_or_create(tmp_path / f"n{i}.pem") for i in range(3)}
        roster = Roster(1, {name: Author(keys.public_bytes(key)) for name, key in known.items()})
        sealed = [Sealed(site, tmp_path, roster, clock) for site in made]
        yield sealed, clock
        for each in sealed:
            each.seals.close()


def test_an_author_that_writes_too_much_is_refused_for_a_while_and_nothing_is_lost(suite: tuple[list[Sealed], list[float]]) -> None:
    (busy, quiet, copy), clock = suite
    updates = [busy.write(n) for n in range(24)]
    other = quiet.write(100)
    assert copy.push(*updates[:21]) is None, "a batch passes whole"
    for _ in range(3):
        error = copy.push(updates[21])
        assert isinstance(error, Overloaded) and error.retry_after_s == pytest.approx(0.1)
    assert copy.push(other) is None, "nobody else is refused"
    clock[0] += 0.11
    assert copy.push(*updates[21:]) is None
    assert len(copy.site.shown()) == 25
    assert copy.site.state().digest != busy.site.state().digest
    assert {head.replica: head.counter for head in copy.site.state().heads} == {
        busy.site.store.replica: updates[-1].counter,
        quiet.site.store.replica: other.counter,
    }


def test_forgeries_and_replays_use_up_nothing_of_an_authors(suite: tuple[list[Sealed], list[float]]) -> None:
    (busy, _, copy), _ = suite
    first, second = busy.write(1), busy.write(2)
    forged = rpb.OwnerUpdate()
    forged.CopyFrom(second)
    forged.signature = bytes(64)
    assert copy.push(first) is None
    for _ in range(30):
        error = copy.push(forged)
        assert error is not None and not isinstance(error, Overloaded)
        assert copy.push(first) is None
    assert copy.push(second) is None


def test_what_a_read_mends_is_taken_as_signed_without_its_past_and_nothing_else_is(suite: tuple[list[Sealed], list[float]]) -> None:
    (busy, _, copy), _ = suite
    for n in range(3):
        busy.write(n)
    ids = [bytes.fromhex(harness.trace_id(n)) for n in range(3)]
    (second,) = busy.seals.mends(ANN, ids[1:2])
    assert second.leaves and second.places == [0]
    forged = rpb.OwnerUpdate()
    forged.CopyFrom(busy.seals.mends(ANN, ids[2:])[0])
    forged.records[0].versions[0].content += b" "
    assert copy.push(second, forged) is None
    assert set(copy.site.shown()) == {harness.trace_id(1)}
    assert not copy.site.state().heads, "a part says nothing of positions"
    assert [update.records for update in copy.seals.mends(ANN, ids)] == [second.records], "and can be passed on"
    assert copy.push(*busy.seals.mends(ANN, ids)) is None
    assert copy.site.state().digest == busy.site.state().digest
