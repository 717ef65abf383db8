"""A profile as the gateway reads it off an owner's pages."""

from __future__ import annotations

from collections.abc import Sequence

from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1 import memory_pb2, types_pb2
from services.gateway import profile as core
from tests.unit.gateway.test_memory_service import CALL, IDS, NOW_S, PLACE, SCOPE, Nodes, service


def said(number: int, text: str, speaker: str = "user", valid_from_s: int = 0) -> types_pb2.MemoryTrace:
    trace = types_pb2.MemoryTrace(trace_id=IDS[number], scope=SCOPE, text=text, speaker=speaker)
    trace.said_at.seconds = NOW_S + number
    if valid_from_s:
        trace.valid_from.seconds = valid_from_s
    return trace


def pages(*found: Sequence[types_pb2.MemoryTrace]) -> Nodes:
    """Nodes that give one page after the other."""
    left = list(found)

    def answer(operation: pb.Operation) -> pb.OperationResult:
        page = pb.ListResult(traces=left.pop(0))
        if left:
            page.next.CopyFrom(PLACE)
        return pb.OperationResult(list=page)

    return Nodes(answer)


async def test_the_last_said_holds_over_all_pages_and_an_assistant_tells_nothing_of_itself() -> None:
    nodes = pages(
        [said(9, "I live in the cloud.", "assistant"), said(5, "I moved to Rome.")], [said(2, "I live in Berlin."), said(1, "Hm.")]
    )
    scope = types_pb2.Scope(user="ann", session="s")
    wanted = types_pb2.Filter(speakers=["user", "assistant"])
    found = await service(nodes).GetProfile(memory_pb2.GetProfileRequest(scope=scope, filter=wanted), CALL)
    [home] = found.properties
    assert (home.kind, home.trace.text, list(home.replaced_trace_ids)) == ("residence", "I moved to Rome.", [IDS[2]])
    assert home.since.seconds == NOW_S + 5 and (found.traces_read, found.partial) == (4, False)
    first, second = (operation.list for operation in nodes.operations)
    assert not first.HasField("before") and second.before == PLACE
    assert (first.session, first.filter) == ("s", wanted)


async def test_what_began_to_hold_earlier_than_it_was_said_is_counted_from_then() -> None:
    nodes = pages([said(1, "I moved to Rome."), said(5, "I live in Berlin.", valid_from_s=NOW_S - 99)])
    [home] = (await service(nodes).GetProfile(memory_pb2.GetProfileRequest(scope=SCOPE), CALL)).properties
    assert home.trace.text == "I moved to Rome." and list(home.replaced_trace_ids) == [IDS[5]]


async def test_it_reads_so_many_and_says_that_there_are_more() -> None:
    page = [said(i % 100, "Hm.") for i in range(1000)]
    nodes = pages(*[page] * 6)
    found = await service(nodes).GetProfile(memory_pb2.GetProfileRequest(scope=SCOPE), CALL)
    assert (found.traces_read, found.partial, len(nodes.operations)) == (core.MOST_TRACES, True, 5)
