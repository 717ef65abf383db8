"""A suite that signs its updates: honest traffic converges, and a member with a valid key that lies is refused, shown and shut out.

Real processes and the real wire. The liar is this test: its key stands on the roster, and it says what it likes to whom it likes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence

import grpc
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ndml.client import NdmlClient
from ndml.crdt.causal import CausalContext, Dot
from ndml.crdt.clock import LOGICAL_BITS
from ndml.crdt.envelope import NO_HASH, Envelope, items_hash, leaf, replica_number
from ndml.errors import FieldInvalid, NdmlError, Overloaded
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.internal.v1.memory_node_pb2_grpc import MemoryNodeServiceStub
from ndml.internal.v1.replication_pb2_grpc import ReplicationServiceStub
from ndml.runtime.semconv import METRIC_QUARANTINED_AUTHORS, METRIC_TRACES_WEIGHED
from ndml.testing import Suite, SuiteOptions
from ndml.v1.types_pb2 import TRACE_KIND_EPISODIC, MemoryTrace, Scope
from ndml.wire import rpc_error_to_ndml, status_to_error
from tests.integration.signed_suite import signed_settings

NODES = ("memory-node-1", "memory-node-2", "memory-node-3")
DIMENSION = 384
BOUND_S = 60.0
EPOCH = 1 << 40


def vector(seed: object) -> list[float]:
    rng = random.Random(str(seed))
    return [rng.gauss(0, 1) for _ in range(DIMENSION)]


def eventually(reached: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + BOUND_S
    while not reached():
        if time.monotonic() > until:
            pytest.fail(f"never happened: {what}")
        time.sleep(0.1)


class Liar:
    """An author of the roster. `say` signs a new trace as its next update; the rest bends what it said."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self.name = name
        self.key = key
        self.replica = replica_number(name, 7)

    def record(self, user: str, seed: str, text: str, replica: int = 0, trace: bytes = b"", salience: float = 0.0) -> rpb.TraceRecord:
        number, name = replica or self.replica, trace or trace_id(seed)
        values = np.array(vector(seed), np.float32)
        blob = (values / np.linalg.norm(values)).astype("<f4").tobytes()
        said = MemoryTrace(trace_id=name.hex(), text=text, scope=Scope(tenant="t", user=user), kind=TRACE_KIND_EPISODIC)
        said.learned_at.GetCurrentTime()
        said.said_at.CopyFrom(said.learned_at)
        version = rpb.TraceVersion(dot=rpb.Dot(replica=number, counter=1), clock=time.time_ns() // 1_000_000 << LOGICAL_BITS)
        version.content, version.vector, version.content_hash = said.SerializeToString(), blob, bytes(16)
        version.salience = salience
        context = CausalContext.from_dots([Dot(number, 1)]).to_bytes()
        return rpb.TraceRecord(trace_id=name, length=1, context=context, versions=[version])

    def say(
        self, user: str, *records: rpb.TraceRecord, counter: int = 1, after: rpb.OwnerUpdate | None = None, ahead_s: float = 0.0
    ) -> rpb.OwnerUpdate:
        envelope = Envelope(
            tenant="t",
            user=user,
            node_id=self.name,
            replica=self.replica,
            previous=after.counter if after else 0,
            counter=counter,
            clock=int((time.time() + ahead_s) * 1e3) << LOGICAL_BITS,
            items_hash=items_hash([leaf(record.SerializeToString(deterministic=True)) for record in records]),
            items=len(records),
            previous_hash=Envelope.parse(after.envelope, after.signature).hash if after else NO_HASH,
        ).sign(self.key)
        return rpb.OwnerUpdate(
            tenant="t",
            user=user,
            replica=envelope.replica,
            previous=envelope.previous,
            counter=counter,
            records=records,
            envelope=envelope.canonical,
            signature=envelope.signature,
            node_id=self.name,
        )


def trace_id(seed: str) -> bytes:
    return hashlib.blake2b(seed.encode(), digest_size=16).digest()


class Signed:
    """The suite and a door to each of its memory nodes."""

    def __init__(self, suite: Suite, liars: dict[str, Liar]) -> None:
        self.suite = suite
        self.liars = liars
        self.specs = suite.layout.of_role("memory-node")
        self.channels = [grpc.insecure_channel(spec.address) for spec in self.specs]

    def merge(self, node: int, user: str, *updates: rpb.OwnerUpdate, records: Sequence[rpb.TraceRecord] = ()) -> pb.MergeResult:
        """Raises what the node answers."""
        operation = pb.Operation(tenant="t", user=user, merge=pb.MergeAction(updates=updates, records=records))
        request = pb.ExecuteRequest(batch_id=1, epoch=EPOCH, operations=[operation])
        (answer,) = list(MemoryNodeServiceStub(self.channels[node]).Execute(iter([request]), timeout=10))
        (result,) = answer.results
        if result.HasField("error"):
            raise status_to_error(result.error)
        return result.merge

    def push(self, node: int, request: rpb.PushRecordsRequest) -> int:
        try:
            (answer,) = list(ReplicationServiceStub(self.channels[node]).PushRecords(iter([request]), timeout=10))
        except grpc.RpcError as error:
            raise rpc_error_to_ndml(error) from error
        return int(answer.changed)

    def fetch(self, node: int, user: str) -> list[rpb.FetchRecordsResponse]:
        request = rpb.FetchRecordsRequest(tenant="t", user=user, all=True)
        return list(ReplicationServiceStub(self.channels[node]).FetchRecords(request, timeout=10))

    def digest(self, node: int, user: str) -> bytes:
        state = self.fetch(node, user)[-1].owner
        return bytes(state.digest) if state.records else b""

    def equal(self, user: str) -> bool:
        found = {self.digest(node, user) for node in range(3)}
        return len(found) == 1 and found != {b""}

    def texts(self, node: int, user: str) -> set[str]:
        records = [record for message in self.fetch(node, user) for record in message.records]
        return {MemoryTrace.FromString(version.content).text for record in records for version in record.versions}

    def shown(self, node: int, user: str, trace: str) -> str:
        operation = pb.Operation(tenant="t", user=user, get=pb.GetAction(trace_id=trace))
        request = pb.ExecuteRequest(batch_id=1, epoch=EPOCH, operations=[operation])
        (answer,) = list(MemoryNodeServiceStub(self.channels[node]).Execute(iter([request]), timeout=10))
        return str(answer.results[0].trace.trace.text)

    def quarantined(self, node: int) -> list[str]:
        status = MemoryNodeServiceStub(self.channels[node]).GetNodeStatus(pb.GetNodeStatusRequest(), timeout=10)
        return list(status.quarantined)

    def counter(self, node: int, sample: str) -> float:
        spec = self.specs[node]
        with urllib.request.urlopen(f"http://{spec.host}:{spec.metrics_port}/metrics", timeout=10) as answer:
            found = [float(row.split()[-1]) for row in answer.read().decode().splitlines() if row.startswith(f"{sample} ")]
        return found[0] if found else 0.0

    def client(self, user: str) -> NdmlClient:
        return NdmlClient(self.suite.grpc_address, tenant="t", user=user, timeout_s=20)


def consensus_details(client: NdmlClient) -> str:
    (row,) = [row for row in client.cluster_status().services if row.service == "ndml-consensus"]
    return row.details.get("quarantined", "")


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signed]:
    directory = tmp_path_factory.mktemp("signed")
    liars = {name: Liar(name, Ed25519PrivateKey.generate()) for name in ("liar", "forker", "worse", "fresh", "late")}
    settings = signed_settings(directory, len(NODES), {name: liar.key for name, liar in liars.items()})
    settings["memory-node"] |= {"REPLICATION__SWEEP__LEAST_INTERVAL_S": "1", "REPLICATION__SWEEP__MOST_INTERVAL_S": "2"}
    options = SuiteOptions(data_dir=directory, memory_nodes=3, consensus_nodes=1, llm=False, settings=settings)
    with Suite(options) as suite:
        made = Signed(suite, liars)
        try:
            yield made
        finally:
            for channel in made.channels:
                channel.close()


def test_honest_traffic_converges_and_every_record_has_its_authors_signature(signed: Signed) -> None:
    with signed.client("ann") as client:
        first = client.add("Ann likes tea", embedding=vector("tea"), consistency="all", request_id="one")
        again = client.add("Ann likes tea", embedding=vector("tea"), consistency="all", request_id="one")
        assert again.trace_id == first.trace_id
        client.add("Ann likes tea", embedding=vector("tea"), consistency="all")  # said again: strengthens the first
        for n in range(20):
            client.add(f"fact {n}", embedding=vector(n), consistency="all")
        client.update(first.trace_id, text="Ann likes coffee", embedding=vector("coffee"), consistency="all")
        client.reinforce(first.trace_id, 1.0, request_id="graded", consistency="all")
        client.reinforce(first.trace_id, 1.0, request_id="graded", consistency="all")
        gone = client.add("to be forgotten", embedding=vector("gone"), consistency="all")
        assert client.delete(gone.trace_id, consistency="all")
    eventually(lambda: signed.equal("ann"), "three equal copies")
    updates = [update for message in signed.fetch(0, "ann") for update in message.updates]
    records = {record.trace_id for message in signed.fetch(0, "ann") for record in message.records}
    assert {record.trace_id for update in updates for record in update.records} == records
    # What has no records and no step says only how far what shows goes past what is known: nothing that an author would sign.
    signed_ones = [update for update in updates if update.records or update.previous != update.counter]
    assert all(update.envelope and update.node_id in NODES for update in signed_ones)
    assert not any(signed.quarantined(node) for node in range(3))


def test_a_copy_that_was_wiped_is_mended_by_what_authors_signed(signed: Signed) -> None:
    with signed.client("bob") as client:
        for n in range(8):
            client.add(f"bob's {n}", embedding=vector(f"bob{n}"), consistency="all")
    before = signed.digest(2, "bob")
    name = signed.specs[2].name
    signed.suite.kill(name)
    for path in (signed.suite.layout.data_dir / name).glob("*.db*"):
        path.unlink()
    signed.suite.restart(name)
    eventually(lambda: signed.digest(2, "bob") == before, "the same memory on a new disk")
    with signed.client("bob") as client:
        client.add("afterwards", embedding=vector("afterwards"), consistency="all")
    eventually(lambda: signed.equal("bob"), "equal again")


def test_what_a_liar_cannot_say_is_refused(signed: Signed) -> None:
    liar, stranger = signed.liars["liar"], Liar("liar", Ed25519PrivateKey.generate())
    record = liar.record("eve", "a", "as it was said")
    flipped, moved = (liar.say("eve", record) for _ in range(2))
    flipped.records[0].versions[0].content += b" "
    moved.user = "bob"
    foreign = liar.record("eve", "b", "another's words", replica=replica_number(NODES[0], 9))
    own_number = dataclasses.replace(Envelope.parse(moved.envelope, moved.signature), replica=replica_number(NODES[0], 9), signature=b"")
    renumbered = liar.say("eve", record)
    signature = own_number.sign(liar.key)
    renumbered.replica, renumbered.envelope, renumbered.signature = own_number.replica, signature.canonical, signature.signature
    unsigned = liar.say("eve", record)
    unsigned.ClearField("signature")
    bad = [flipped, stranger.say("eve", record), liar.say("eve", record, ahead_s=3600), liar.say("eve", foreign), renumbered, unsigned]
    for update in bad:
        with pytest.raises(FieldInvalid):
            signed.merge(0, "eve", update)
    with pytest.raises(FieldInvalid):
        signed.merge(0, "bob", moved)
    with pytest.raises(FieldInvalid):
        signed.merge(0, "eve", records=[record])
    with pytest.raises(FieldInvalid):
        signed.push(0, rpb.PushRecordsRequest(tenant="t", user="eve", records=[record]))
    assert [signed.push(0, rpb.PushRecordsRequest(tenant="t", user="eve", updates=[update])) for update in bad] == [0] * len(bad)
    assert signed.digest(0, "eve") == b""


def test_a_replay_changes_nothing_and_what_comes_too_early_waits(signed: Signed) -> None:
    author = signed.liars["fresh"]  # honest in this test
    first = author.say("fay", author.record("fay", "f1", "first"))
    second = author.say("fay", author.record("fay", "f2", "second"), counter=2, after=first)
    with pytest.raises(Overloaded):
        signed.merge(0, "fay", second)
    assert signed.merge(0, "fay", first).changed == 1
    eventually(lambda: signed.texts(0, "fay") == {"first", "second"}, "what waited came in")
    assert signed.merge(0, "fay", first).changed == 0
    assert signed.merge(0, "fay", second).changed == 0
    eventually(lambda: signed.equal("fay"), "the others have it by repair")


@pytest.mark.parametrize("same_trace", [False, True])
def test_an_author_that_says_two_things_is_shown_everywhere_and_shut_out(signed: Signed, same_trace: bool) -> None:
    name, user = ("worse", "hal") if same_trace else ("forker", "gil")
    liar = signed.liars[name]
    told = [liar.say(user, liar.record(user, "x" if same_trace else f"x{n}", f"version {n}")) for n in range(2)]
    assert signed.merge(0, user, told[0]).changed == 1
    assert signed.merge(1, user, told[1]).changed == 1
    eventually(lambda: all(name in signed.quarantined(node) for node in range(3)), "every node knows the liar")
    eventually(lambda: signed.equal(user), "honest copies are equal")
    # Digests name versions and not what they say: where one number has two contents the copies get them by rumour.
    eventually(lambda: len({frozenset(signed.texts(node, user)) for node in range(3)}) == 1, "honest copies say the same")
    texts = [signed.texts(node, user) for node in range(3)]
    assert texts[0] <= {"version 0", "version 1"}
    assert len(texts[0]) == (1 if same_trace else 2)  # one number for two contents: the same one stays everywhere
    later = liar.say(user, liar.record(user, "later", "more"), counter=2, after=told[0])
    for node in range(3):
        with pytest.raises(NdmlError):
            signed.merge(node, user, later)
    with signed.client(user) as client:
        details = [row.details.get("quarantined", "") for row in client.cluster_status().services if row.service == "ndml-memory-node"]
        assert len(details) == 3
        eventually(lambda: name in consensus_details(client), "the consensus node has the proof")
        assert all(name in row for row in details)
        client.add("honest", embedding=vector("honest"), consistency="all")
    assert all(signed.counter(node, METRIC_QUARANTINED_AUTHORS) >= 1 for node in range(3))


def test_after_a_lie_copies_that_heard_different_things_are_equal_and_show_what_honest_authors_said(signed: Signed) -> None:
    liar, user, texts = signed.liars["late"], "ivy", {"version 0", "version 1", "more", "Ivy plays chess", "Ivy plays poker"}
    with signed.client(user) as client:
        honest = client.add("Ivy plays chess", embedding=vector("chess"), consistency="all").trace_id
        beside = liar.record(user, "poker", "Ivy plays poker", trace=bytes.fromhex(honest), salience=1.0)
        first = liar.say(user, liar.record(user, "y0", "version 0"), beside)
        more = liar.say(user, liar.record(user, "y2", "more"), counter=2, after=first)
        # One copy takes two updates before anybody can know of the lie, another one the lie.
        assert signed.merge(0, user, first).changed == 2
        assert client.get(honest, consistency="quorum").text  # whoever is shown: they are siblings
        assert signed.merge(0, user, more).changed == 1
        assert signed.merge(1, user, liar.say(user, liar.record(user, "y1", "version 1"))).changed == 1
        eventually(lambda: all("late" in signed.quarantined(node) for node in range(3)), "every node knows the liar")
        eventually(lambda: all(signed.texts(node, user) == texts for node in range(3)), "what one copy took all have")
        eventually(lambda: signed.equal(user), "honest copies are equal")
        honest_shown = {"Ivy plays chess"}
        eventually(lambda: {signed.shown(node, user, honest) for node in range(3)} == honest_shown, "the liar's content is not shown")
        assert client.get(honest).text == "Ivy plays chess"
    weighed = [
        signed.counter(node, f'{METRIC_TRACES_WEIGHED}_total{{outcome="{how}"}}') for node in range(3) for how in ("changed", "same")
    ]
    assert sum(weighed) >= 1
