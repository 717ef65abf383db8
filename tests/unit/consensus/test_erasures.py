"""What was erased from memory does not lie on in the log of updates, in none of its files."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from ndml.internal.v1 import replication_pb2 as rpb
from services.consensus.deltas.erasures import Erasures
from services.consensus.deltas.exchange import DeltaExchange
from tests.unit.consensus.delta_harness import KEEPING, Member, eventually, exchange, placement_of, running

ALL = placement_of((1, 2), 2)
WORDS = b"the words that were said"


def told(counter: int, trace: int, user: str = "ada") -> rpb.OwnerUpdate:
    record = rpb.TraceRecord(trace_id=bytes([trace]) * 16, length=1, context=WORDS + b" of %d" % trace)
    return rpb.OwnerUpdate(tenant="acme", user=user, replica=1, previous=counter - 1, counter=counter, records=[record], node_id="m1")


def erased(counter: int, *traces: int, user: str = "ada") -> rpb.OwnerUpdate:
    records = [rpb.TraceRecord(trace_id=bytes([trace]) * 16, length=2) for trace in traces]
    return rpb.OwnerUpdate(tenant="acme", user=user, replica=1, previous=counter - 1, counter=counter, records=records, node_id="m1")


def lying(node: DeltaExchange) -> set[int]:
    return {entry.counter for entry in node.log.index}


def on_disk(directory: Path, trace: int) -> list[str]:
    """Files with what was said in the trace."""
    words = WORDS + b" of %d" % trace
    return [path.name for path in directory.rglob("*") if path.is_file() and words in path.read_bytes()]


async def test_what_was_erased_goes_and_who_lacks_it_is_told_to_reconcile(tmp_path: Path) -> None:
    node, author, away = exchange(tmp_path, lambda: ALL), Member(1), Member(2)
    async with running(node):
        await author.attach(node)
        await author.write_durably(told(1, 1), told(2, 2), told(3, 1, "bob"), told(4, 3))
        assert on_disk(tmp_path, 1) and on_disk(tmp_path, 2)
        await author.write_durably(erased(5, 1, 3))
        await eventually(lambda: lying(node) == {2, 3, 5}, "the other trace's, the other user's and the erasure stay")
        await eventually(lambda: not on_disk(tmp_path, 3), "in no file either")
        await away.attach(node)
        await eventually(lambda: away.lost == {1: 4} and away.has.get(1) == {2, 3, 5}, "told, and given what there is")
        await author.detach()
        await away.detach()


async def test_it_waits_so_that_copies_that_are_there_need_not_reconcile(tmp_path: Path) -> None:
    node, author = exchange(tmp_path, lambda: ALL, keeping=replace(KEEPING, grace_s=3600.0)), Member(1)
    async with running(node):
        await author.attach(node)
        await author.write_durably(told(1, 1), erased(2, 1))
        await eventually(lambda: not node.log.erasing, "taken up")
        await node.erasures.run()
        assert lying(node) == {1, 2}
        await author.detach()


async def test_after_a_restart_the_erasures_in_the_log_are_found(tmp_path: Path) -> None:
    patient = replace(KEEPING, grace_s=3600.0)
    node, author = exchange(tmp_path, lambda: ALL, keeping=patient), Member(1)
    async with running(node):
        await author.attach(node)
        await author.write_durably(told(1, 1), erased(2, 1))
        await author.detach()
    again = exchange(tmp_path, lambda: ALL)
    async with running(again):
        await eventually(lambda: lying(again) == {2}, "gone")
        assert again.log.index.lost == {"m2": {1: 1}}


async def test_more_than_may_wait_go_before_their_time(tmp_path: Path) -> None:
    node, author = exchange(tmp_path, lambda: ALL, keeping=replace(KEEPING, grace_s=3600.0)), Member(1)
    async with running(node):
        node.erasures = Erasures(node.log, 3600.0, max_waiting=2)
        await author.attach(node)
        await author.write_durably(*(told(counter, counter) for counter in range(1, 5)), erased(5, 1, 2, 3, 4))
        await eventually(lambda: lying(node) == {3, 4, 5}, "the oldest two")
        await asyncio.sleep(0.1)
        assert lying(node) == {3, 4, 5}
        await author.detach()
