"""Partners that lie, babble or fall silent: bounded work, an error in the round, and nothing of ours is harmed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ndml.crdt.digests import BUCKETS, DIGEST_BYTES
from ndml.errors import FieldInvalid, Overloaded, StaleEpoch
from ndml.internal.v1 import replication_pb2 as rpb
from services.memory_node.replication.answers import Answers
from tests.sim.loop import VirtualLoop, run
from tests.unit.memory_node.replication.harness import ALICE, BOB, Suite, to_wire, trace_id

STATE = rpb.OwnerState(tenant="t", user="alice", digest=b"\x01" * 16, records=100)


class Liar:
    """Says that everything differs, then whatever the test has it say. Counts what is read of it."""

    def __init__(self, epoch: int, **streams: Any) -> None:
        self._epoch = epoch
        self._streams = streams
        self.read = 0
        self.pushed = 0

    async def compare(self, request: rpb.CompareBucketsRequest) -> rpb.CompareBucketsResponse:
        answer: rpb.CompareBucketsResponse = self._streams.get(
            "compare", rpb.CompareBucketsResponse(differing=range(BUCKETS), epoch=self._epoch)
        )
        return answer

    def list_owners(self, request: rpb.ListOwnersRequest) -> AsyncIterator[rpb.ListOwnersResponse]:
        return self._endless(self._streams.get("owners", [rpb.ListOwnersResponse(owners=[STATE])]))

    def symbols(self, request: rpb.StreamSymbolsRequest) -> AsyncIterator[rpb.StreamSymbolsResponse]:
        return self._endless(self._streams["symbols"])

    def fetch(self, request: rpb.FetchRecordsRequest) -> AsyncIterator[rpb.FetchRecordsResponse]:
        return self._endless(self._streams.get("fetch", []))

    async def push(self, request: rpb.PushRecordsRequest) -> rpb.PushRecordsResponse:
        self.pushed += 1
        return rpb.PushRecordsResponse(changed=10**6, digest=b"nonsense")

    async def _endless(self, messages: Any) -> AsyncIterator[Any]:
        repeat = iter(messages) if isinstance(messages, list) else None
        while True:
            message = next(repeat, None) if repeat is not None else messages()
            if message is None:
                return
            self.read += 1
            yield message


def _block(suite: Suite, state: bool = True) -> rpb.StreamSymbolsResponse:
    return rpb.StreamSymbolsResponse(symbols=suite.random.randbytes(26 * 32), owner=STATE if state else None)


async def _against(suite: Suite, liar: Liar) -> Any:
    suite.nodes["n0"].replication.sweeper._partner_of = lambda node_id: liar
    return await suite.round(0)


def test_garbage_symbols_end_in_a_copy_of_the_whole_that_is_bounded_too() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(2, hub=False, sweep={"symbols": 1024})
        suite.store(0).write(ALICE, *(trace_id(n) for n in range(20)))
        record = to_wire(suite.store(0).held[ALICE][trace_id(1)])
        liar = Liar(1, symbols=lambda: _block(suite), fetch=lambda: rpb.FetchRecordsResponse(records=[record] * 10))
        done = await _against(suite, liar)
        assert not done.clean
        assert done.passes["n1"].left == 1
        assert liar.read < 1024 / 32 + (2 * 100 + 256) / 10 + 10
        assert len(suite.store(0).held[ALICE]) == 20

    run(main)


@pytest.mark.parametrize(
    "streams",
    [
        {"symbols": lambda: rpb.StreamSymbolsResponse(owner=STATE)},  # symbols without symbols, for ever
        {"symbols": []},  # nothing at all
        {"symbols": [rpb.StreamSymbolsResponse(symbols=b"x" * 25, owner=STATE)]},
        {"symbols": [rpb.StreamSymbolsResponse(symbols=b"", owner=rpb.OwnerState(digest=b"short", records=1))]},
        {"symbols": [rpb.StreamSymbolsResponse(owner=rpb.OwnerState(digest=b"\x02" * 16, records=1 << 60))]},
    ],
)
def test_nonsense_of_a_partner_is_an_error_of_that_owner(streams: dict[str, Any]) -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(2, hub=False)
        suite.store(0).write(ALICE, trace_id(1))
        liar = Liar(1, **streams)
        done = await _against(suite, liar)
        assert not done.clean
        assert liar.read <= 4
        assert suite.store(0).held[ALICE].keys() == {trace_id(1)}

    run(main)


def test_an_endless_copy_is_given_up_at_what_was_claimed_and_an_unfinished_one_brings_no_heads() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(3, hub=False, sweep={"chunk_records": 8})
        suite.store(2).write(BOB, trace_id(1))
        record = to_wire(suite.store(2).held[BOB][trace_id(1)])
        endless = Liar(1, symbols=[rpb.StreamSymbolsResponse(owner=STATE)], fetch=lambda: rpb.FetchRecordsResponse(records=[record]))
        assert not (await _against(suite, endless)).clean
        assert endless.read <= 2 + 2 * (2 * 100 + 8 + 1)
        cut = Liar(1, symbols=[rpb.StreamSymbolsResponse(owner=STATE)], fetch=[rpb.FetchRecordsResponse(records=[record])])
        assert not (await _against(suite, cut)).clean
        assert suite.store(0).known[ALICE] == {}

    run(main)


def test_endless_lists_and_buckets_that_do_not_exist_are_not_believed() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(2, hub=False, sweep={"most_records": 50, "round_owners": 5})
        equal = Liar(1, owners=lambda: rpb.ListOwnersResponse(), symbols=[])
        assert not (await _against(suite, equal)).clean
        assert equal.read <= 51
        many = Liar(1, owners=lambda: rpb.ListOwnersResponse(owners=[STATE] * 3), symbols=[])
        assert (await _against(suite, many)).passes["n1"].differed <= 5
        wrong = Liar(1, compare=rpb.CompareBucketsResponse(differing=[BUCKETS], epoch=1))
        assert (await _against(suite, wrong)).passes["n1"].error is not None

    run(main)


def test_an_owner_that_takes_too_long_is_left() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(2, hub=False, sweep={"bytes_per_s": 1 << 16, "owner_limit_s": 30.0, "symbols": 1 << 20})
        suite.store(0).write(ALICE, trace_id(1))
        big = rpb.StreamSymbolsResponse(symbols=suite.random.randbytes(26 * 4096), owner=STATE)
        liar = Liar(1, symbols=lambda: big)
        done = await _against(suite, liar)
        assert done.passes["n1"].left == 1
        assert 30 <= loop.time() < 70
        assert liar.read * 26 * 4096 < 40 * (1 << 16)

    run(main)


def test_bad_requests_are_refused_and_a_crowd_of_partners_too() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(2, hub=False, sweep={"serve_at_once": 2})
        suite.store(0).write(ALICE, *(trace_id(n) for n in range(3)))
        suite.map.serving = {BOB: ["n1"]}
        answers: Answers = suite.nodes["n0"].replication.answers
        alice: dict[str, Any] = {"tenant": "t", "user": "alice"}
        bad = [
            (answers.compare(rpb.CompareBucketsRequest(digests=b"short")), "digests"),
            (anext(answers.list_owners(rpb.ListOwnersRequest(buckets=[256]))), "buckets"),
            (anext(answers.symbols(rpb.StreamSymbolsRequest(**alice, key=b"short", limit=1))), "key"),
            (anext(answers.symbols(rpb.StreamSymbolsRequest(**alice, key=bytes(16)))), "limit"),
            (anext(answers.fetch(rpb.FetchRecordsRequest(**alice, digests=b"x" * 17))), "digests"),
            (anext(answers.fetch(rpb.FetchRecordsRequest(tenant="t", all=True))), "user"),
            (answers.push(rpb.PushRecordsRequest(**alice, records=[rpb.TraceRecord()] * 1025)), "records"),
        ]
        for call, field in bad:
            with pytest.raises(FieldInvalid) as caught:
                await call
            assert caught.value.violations[0].field == field
        with pytest.raises(StaleEpoch):
            await answers.push(rpb.PushRecordsRequest(tenant="t", user="bob", records=[rpb.TraceRecord()]))
        streams: list[Any] = [answers.symbols(rpb.StreamSymbolsRequest(**alice, key=bytes(16), limit=10**9)) for _ in range(3)]
        first = await anext(streams[0])
        assert (len(first.symbols) % 26, first.owner.records) == (0, 3)
        await anext(streams[1])
        with pytest.raises(Overloaded):
            await anext(streams[2])
        for stream in streams:
            await stream.aclose()
        zeros = rpb.CompareBucketsRequest(node_id="n1", digests=bytes(BUCKETS * DIGEST_BYTES), epoch=1)
        assert len((await answers.compare(zeros)).differing) == 1

    run(main)


def test_fetched_records_are_those_asked_for_in_chunks_with_the_state_last() -> None:
    async def main(loop: VirtualLoop) -> None:
        suite = Suite(1, hub=False, sweep={"chunk_records": 4, "chunk_bytes": 1 << 16})
        store = suite.store(0)
        store.write(ALICE, *(trace_id(n) for n in range(10)))
        store.write(ALICE, trace_id("big"), text="x" * 70_000)
        answers: Answers = suite.nodes["n0"].replication.answers
        alice: dict[str, Any] = {"tenant": "t", "user": "alice"}
        digest = store.held[ALICE][trace_id(3)].digest()
        wanted = rpb.FetchRecordsRequest(**alice, digests=digest + bytes(16), trace_ids=trace_id(5) + trace_id(3) + trace_id("unknown"))
        some = [message async for message in answers.fetch(wanted)]
        assert [record.trace_id for message in some for record in message.records] == [trace_id(3), trace_id(5)]
        everything = [message async for message in answers.fetch(rpb.FetchRecordsRequest(**alice, all=True))]
        assert len(everything[-1].owner.digest) == DIGEST_BYTES
        assert everything[-1].owner == store.owner_state(ALICE)
        assert all(len(message.records) <= 4 for message in everything)
        assert sum(len(message.records) for message in everything) == 11

    run(main)
