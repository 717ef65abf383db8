"""What happens around every call: real grpc.aio servers on loopback, one chain for gRPC and for the dispatcher of other doors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from ndml import errors
from ndml.errors import FieldInvalid, NdmlError
from ndml.internal.v1 import llm_pb2
from ndml.runtime import metrics
from ndml.runtime.server import Dispatcher, methods_of
from ndml.v1 import chat_pb2, memory_pb2, types_pb2
from ndml.wire import rpc_error_to_ndml

EMBED = "/ndml.internal.v1.LlmService/Embed"
GENERATE = "/ndml.internal.v1.LlmService/Generate"
CLIENTS_MISTAKES = ["FieldInvalid", "TraceNotFound", "VersionConflict", "RequestIdReused", "ModelNotConfigured", "CapacityReached"]


def say(*words: str) -> llm_pb2.GenerateRequest:
    return llm_pb2.GenerateRequest(messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=word) for word in words])


async def failure(call: Any) -> NdmlError:
    """The domain error of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = rpc_error_to_ndml(caught.value)
    assert caught.value.code().name == error.code.name
    return error


async def stream_failure(stream: Any) -> tuple[list[str], NdmlError]:
    got: list[str] = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for message in stream:
            got.append(message.delta)
    return got, rpc_error_to_ndml(caught.value)


def count(code: str, reason: str, method: str = EMBED) -> float:
    return float(metrics.RPC_ERRORS.labels(method, code, reason)._value.get())


def turned_away(method: str = EMBED) -> tuple[float, float]:
    """Calls that were refused before they were read, and calls whose duration was measured."""
    durations = sum(bucket.get() for bucket in metrics.RPC_DURATION.labels(method)._buckets)
    return float(metrics.RPC_TURNED_AWAY.labels(method)._value.get()), float(durations)


@pytest.mark.usefixtures("no_grpc_trace")
@pytest.mark.parametrize("name", [leaf.__name__ for leaf in errors.leaves()])
async def test_a_leaf_reaches_the_caller_whole(running: Any, name: str) -> None:
    sent = getattr(errors, name)
    error = await failure(running.embed(f"raise {name}"))
    assert type(error) is sent
    assert error.message == f"{name} it is"
    assert [v.field for v in error.violations] == ["texts[0]"]
    assert error.retry_after_s == sent.default_retry_s
    assert error.metadata == {"seen": "yes"}


@pytest.mark.usefixtures("no_grpc_trace")
@pytest.mark.parametrize("name", [leaf.__name__ for leaf in errors.leaves()])
async def test_a_stream_gives_what_it_had_and_then_the_leaf(running: Any, name: str) -> None:
    got, error = await stream_failure(running.stub().Generate(say("ok a", "ok b", f"raise {name}")))
    assert got == ["ok a", "ok b"]
    assert type(error) is getattr(errors, name)
    assert [v.field for v in error.violations] == ["texts[0]"]


@pytest.mark.usefixtures("no_grpc_trace")
async def test_a_fault_of_ours_is_internal_and_keeps_its_secrets(running: Any, sample: ModuleType) -> None:
    with capture_logs() as logs:
        error = await failure(running.embed("fault"))
        _, streamed = await stream_failure(running.stub().Generate(say("fault")))
    assert type(error) is type(streamed) is errors.InternalFault
    assert sample.SECRET not in error.message + streamed.message
    faults = [row for row in logs if row["event"] == "rpc_fault"]
    assert [row["log_level"] for row in faults] == ["error", "error"]
    assert all(str(row["exc_info"]) == sample.SECRET for row in faults)


@pytest.mark.usefixtures("no_grpc_trace")
@pytest.mark.parametrize("name", CLIENTS_MISTAKES)
async def test_a_clients_mistake_is_logged_in_one_line_without_a_stack(running: Any, name: str) -> None:
    before = count(getattr(errors, name).code.name, getattr(errors, name).reason)
    with capture_logs() as logs:
        await failure(running.embed(f"raise {name}"))
    [row] = [row for row in logs if row["event"].startswith("rpc_")]
    assert (row["event"], row["log_level"], row["reason"], row["fields"]) == (
        "rpc_refused",
        "info",
        getattr(errors, name).reason,
        ["texts[0]"],
    )
    assert "exc_info" not in row and "stack" not in row
    assert count(getattr(errors, name).code.name, getattr(errors, name).reason) == before + 1


@pytest.mark.usefixtures("no_grpc_trace")
@pytest.mark.parametrize(
    "body",
    [
        b"\x0a\x02\xff\xfe",  # texts[0]: two bytes that are no UTF-8
        b"\x0a\x05ab",  # texts[0] claims five bytes, two are there
        b"\xff\xff\xff",  # no tag at all
    ],
)
async def test_bytes_that_are_no_message_are_refused_politely(running: Any, body: bytes) -> None:
    with capture_logs() as logs:
        error = await failure(running.channel().unary_unary(EMBED)(body))
        _, streamed = await stream_failure(running.channel().unary_stream(GENERATE)(body))
    assert type(error) is type(streamed) is errors.RequestMalformed
    assert "UTF-8" in error.message
    assert {row["log_level"] for row in logs if row["event"].startswith("rpc_")} == {"info"}


@pytest.mark.usefixtures("no_grpc_trace")
async def test_rules_of_the_proto_name_every_field_at_fault(running: Any) -> None:
    error = await failure(running.stub().Embed(llm_pb2.EmbedRequest(texts=["ok", "", ""])))
    assert isinstance(error, FieldInvalid)
    assert {(v.field, v.rule) for v in error.violations} == {("texts[1]", "string.min_len"), ("texts[2]", "string.min_len")}
    assert running.servicer.calls == []


async def test_of_a_large_message_the_first_field_at_fault_is_named(running: Any) -> None:
    """Violations of all of it would take far more memory than it does."""
    error = await failure(running.stub().Embed(llm_pb2.EmbedRequest(texts=["ok", "x" * 65537, ""])))
    assert isinstance(error, FieldInvalid)
    assert [(v.field, v.rule) for v in error.violations] == [("texts[1]", "string.max_bytes")]
    assert running.servicer.calls == []


@pytest.mark.usefixtures("no_grpc_trace")
async def test_a_refusal_that_quotes_a_huge_input_still_arrives(serve: Any, sample: ModuleType) -> None:
    running = await serve(more=lambda service: service.expose(sample.MEMORY, MemorySample()))
    memory = memory_pb2.NewMemory(scope=types_pb2.Scope(user="ann"), text="a", metadata={"k" * 100_000: "v", "l" * 100_000: "v"})
    add = running.channel().unary_unary(
        "/ndml.v1.MemoryService/AddMemory", request_serializer=memory_pb2.AddMemoryRequest.SerializeToString, response_deserializer=None
    )
    with capture_logs() as logs:
        error = await failure(add(memory_pb2.AddMemoryRequest(memory=memory)))
    assert isinstance(error, FieldInvalid)
    assert len(str(logs)) < 4000
    assert error.violations[0].field.startswith("memory.metadata[kkk") or error.violations[0].field.startswith("memory.metadata[lll")


async def test_a_full_server_refuses_with_a_delay_instead_of_queueing(serve: Any) -> None:
    running = await serve(max_in_flight=1)
    held = asyncio.create_task(running.embed("wait"))
    await running.servicer.began.wait()
    before, measured = turned_away()
    error = await failure(running.embed("ok"))
    assert isinstance(error, errors.Overloaded)
    assert turned_away() == (before + 1, measured), "among the errors, and not among the durations: calls in all are the sum"
    assert error.retry_after_s == errors.Overloaded.default_retry_s
    assert "server.max_in_flight" in error.message
    running.servicer.released.set()
    assert (await held).model == "wait"
    assert (await running.embed("ok")).model == "ok"


@pytest.mark.usefixtures("no_grpc_trace")
async def test_the_callers_deadline_reaches_the_handler_and_ends_it(running: Any) -> None:
    await running.embed("ok", timeout=7.0)
    remaining = running.servicer.calls[0].remaining()
    assert remaining is not None and 0 < remaining < 7.5  # gRPC rounds the deadline up on its way
    with capture_logs() as logs:
        error = await failure(running.embed("wait", timeout=1.0))
    assert isinstance(error, errors.DeadlinePassed)
    while len(running.servicer.ended) < 2:
        await asyncio.sleep(0.005)
    assert running.servicer.ended == ["", "CancelledError"]
    assert not [row for row in logs if row["log_level"] == "error"]


async def test_a_call_without_a_deadline_gets_the_servers(serve: Any) -> None:
    running = await serve(default_deadline_s=0.05)
    error = await failure(running.embed("wait"))
    assert isinstance(error, errors.DeadlinePassed)
    assert "request_id" in error.message
    assert running.servicer.ended == ["CancelledError"]


@pytest.mark.usefixtures("no_grpc_trace")
async def test_a_caller_that_leaves_ends_its_handler(running: Any) -> None:
    before = count("CANCELLED", "CANCELLED")
    with capture_logs() as logs:
        call = asyncio.create_task(running.embed("wait"))
        await running.servicer.began.wait()
        call.cancel()
        while not running.servicer.ended or running.service.chain.in_flight:
            await asyncio.sleep(0.005)
    assert running.servicer.ended == ["CancelledError"]
    assert count("CANCELLED", "CANCELLED") == before + 1
    assert {row["log_level"] for row in logs if row["event"].startswith("rpc_")} == {"debug"}


@pytest.mark.usefixtures("no_grpc_trace")
async def test_a_stream_that_is_left_ends_its_handler(running: Any) -> None:
    stream = running.stub().Generate(say("ok a", "wait"))
    assert (await stream.read()).delta == "ok a"
    stream.cancel()
    while len(running.servicer.ended) < 2 or running.service.chain.in_flight:
        await asyncio.sleep(0.005)
    assert running.servicer.ended == ["", "CancelledError"]


async def test_metrics_count_calls_by_method(running: Any) -> None:
    def calls() -> float:
        return float(metrics.RPC_DURATION.labels(EMBED)._sum.get())

    before = calls()
    await running.embed("ok")
    assert calls() > before
    assert metrics.RPC_IN_FLIGHT._value.get() == 0


class MemorySample:
    """Of MemoryService the client stream alone; every other method answers nothing."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if not name[:1].isupper():
            raise AttributeError(name)
        return self._nothing

    async def _nothing(self, request: Any, call: Any) -> None:
        raise errors.NotAvailable("not here")

    async def ImportMemories(
        self, requests: AsyncIterator[memory_pb2.ImportMemoriesRequest], call: Any
    ) -> memory_pb2.ImportMemoriesResponse:
        async for request in requests:
            self.texts += [trace.text for trace in request.traces]
        return memory_pb2.ImportMemoriesResponse(imported=len(self.texts))


@pytest.mark.usefixtures("no_grpc_trace")
async def test_each_message_of_a_client_stream_is_checked(serve: Any, sample: ModuleType) -> None:
    servicer = MemorySample()
    running = await serve(more=lambda service: service.expose(sample.MEMORY, servicer))
    good = memory_pb2.ImportMemoriesRequest(traces=[types_pb2.MemoryTrace(text="a")])
    bad = memory_pb2.ImportMemoriesRequest(traces=[types_pb2.MemoryTrace(text="b", salience=2)])
    send = running.channel().stream_unary(
        "/ndml.v1.MemoryService/ImportMemories",
        request_serializer=memory_pb2.ImportMemoriesRequest.SerializeToString,
        response_deserializer=memory_pb2.ImportMemoriesResponse.FromString,
    )
    assert (await send(iter([good, good]))).imported == 2
    error = await failure(send(iter([good, bad])))
    assert isinstance(error, FieldInvalid)
    assert [v.field for v in error.violations] == ["traces[0].salience"]
    assert servicer.texts == ["a", "a", "a"]


async def test_another_door_passes_the_same_chain(running: Any) -> None:
    door: Dispatcher = running.service.dispatcher()
    reply = await door.unary(EMBED, llm_pb2.EmbedRequest(texts=["ok"]), {"k": "v"}, 5.0)
    assert reply == llm_pb2.EmbedResponse(model="ok")
    call = running.servicer.calls[0]
    assert call.metadata == {"k": "v"} and call.deadline - time.monotonic() <= 5.0
    for text in ("raise VersionConflict", "fault", "raise StoreUnavailable"):
        by_grpc = await failure(running.embed(text))
        with pytest.raises(NdmlError) as caught:
            await door.unary(EMBED, llm_pb2.EmbedRequest(texts=[text]), {})
        assert type(caught.value) is type(by_grpc)
        assert (caught.value.message, caught.value.violations) == (by_grpc.message, by_grpc.violations)
    with pytest.raises(FieldInvalid):
        await door.unary(EMBED, llm_pb2.EmbedRequest(), {})
    with pytest.raises(errors.DeadlinePassed):
        await door.unary(EMBED, llm_pb2.EmbedRequest(texts=["wait"]), {}, 0.01)
    with pytest.raises(errors.NotAvailable):
        await door.unary("/a.B/C", llm_pb2.EmbedRequest(), {})
    parts = [part async for part in door.stream(GENERATE, say("ok a", "ok b"), {})]
    assert [part.delta for part in parts if isinstance(part, llm_pb2.GenerateResponse)] == ["ok a", "ok b"]


def test_a_servicer_that_lacks_a_method_is_found_at_start(sample: ModuleType) -> None:
    with pytest.raises(TypeError, match="object lacks Embed"):
        methods_of(sample.DESCRIPTOR, object())
