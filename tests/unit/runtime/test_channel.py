"""Channels against real servers that fail and restart; hedged reads over real coroutines."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.errors import InternalFault, ModelUnavailable, NdmlError, OwnerUnavailable, TraceNotFound
from ndml.internal.v1 import llm_pb2, llm_pb2_grpc
from ndml.runtime.channel import LatencyWindow, hedged, open_channel
from ndml.wire import rpc_error_to_ndml


async def embed(channel: grpc.aio.Channel, text: str) -> llm_pb2.EmbedResponse:
    stub: llm_pb2_grpc.LlmServiceAsyncStub = llm_pb2_grpc.LlmServiceStub(channel)
    response: llm_pb2.EmbedResponse = await stub.Embed(llm_pb2.EmbedRequest(texts=[text]))
    return response


async def test_unavailable_is_tried_again_and_nothing_else(running: Any) -> None:
    async with open_channel(running.address) as channel:
        assert (await embed(channel, "down 2")).model == "down 2"
        assert running.servicer.attempts == 3
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await embed(channel, "raise InternalFault")
        assert isinstance(rpc_error_to_ndml(caught.value), InternalFault)
        assert running.servicer.attempts == 4


async def test_three_attempts_are_the_bound(running: Any) -> None:
    async with open_channel(running.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await embed(channel, "down 99")
    assert isinstance(rpc_error_to_ndml(caught.value), ModelUnavailable)
    assert running.servicer.attempts == 3


async def test_a_channel_outlives_a_restart_of_its_server(serve: Any) -> None:
    first = await serve()
    async with open_channel(first.address) as channel:
        await embed(channel, "ok")
        first.stop.set()
        await first.task
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await embed(channel, "ok")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        second = await serve(port=int(first.address.rpartition(":")[2]))
        stub: llm_pb2_grpc.LlmServiceAsyncStub = llm_pb2_grpc.LlmServiceStub(channel)
        answer = await stub.Embed(llm_pb2.EmbedRequest(texts=["ok again"]), wait_for_ready=True, timeout=30)
        assert answer.model == "ok again"
        assert second.servicer.attempts == 1


class Attempts:
    """Scripted replicas: each answers, fails, or waits for its gate. `log` says who was started and who was cancelled."""

    def __init__(self, *scripts: str | NdmlError | Exception) -> None:
        self.log: list[str] = []
        self.gates = [asyncio.Event() for _ in scripts]
        self.calls = [self._make(number, script) for number, script in enumerate(scripts)]

    def _make(self, number: int, script: str | Exception) -> Any:
        async def attempt() -> str:
            self.log.append(f"start {number}")
            try:
                if script == "wait":
                    await self.gates[number].wait()
            except asyncio.CancelledError:
                self.log.append(f"cancel {number}")
                raise
            if isinstance(script, Exception):
                raise script
            return f"answer {number}"

        return attempt


def window(p95_s: float) -> LatencyWindow:
    return LatencyWindow(start_s=p95_s)


async def test_a_quick_answer_asks_nobody_else() -> None:
    replicas = Attempts("ok", "ok")
    assert await hedged(replicas.calls, window(60)) == "answer 0"
    assert replicas.log == ["start 0"]


async def test_after_p95_the_next_replica_is_asked_and_the_slow_one_cancelled() -> None:
    replicas = Attempts("wait", "ok")
    assert await hedged(replicas.calls, window(0.01)) == "answer 1"
    await asyncio.sleep(0)
    assert replicas.log == ["start 0", "start 1", "cancel 0"]


async def test_a_dead_replica_does_not_cost_p95() -> None:
    replicas = Attempts(OwnerUnavailable("dead"), "ok")
    assert await asyncio.wait_for(hedged(replicas.calls, window(3600)), 30) == "answer 1"


async def test_the_slow_first_may_still_win() -> None:
    replicas = Attempts("wait", "wait")
    running = asyncio.ensure_future(hedged(replicas.calls, window(0.005)))
    while len(replicas.log) < 2:
        await asyncio.sleep(0.002)
    replicas.gates[0].set()
    assert await running == "answer 0"


@pytest.mark.parametrize("error", [TraceNotFound("no"), RuntimeError("fault")])
async def test_what_every_replica_would_say_is_said_at_once(error: Exception) -> None:
    replicas = Attempts(error, "ok")
    with pytest.raises((TraceNotFound, InternalFault)):
        await hedged(replicas.calls, window(60))
    assert replicas.log == ["start 0"]


async def test_all_dead_gives_the_last_error() -> None:
    with pytest.raises(OwnerUnavailable, match="second"):
        await hedged(Attempts(OwnerUnavailable("first"), OwnerUnavailable("second")).calls, window(60))


async def test_a_caller_that_leaves_cancels_every_attempt() -> None:
    replicas = Attempts("wait", "wait")
    running = asyncio.ensure_future(hedged(replicas.calls, window(0.001)))
    while len(replicas.log) < 2:
        await asyncio.sleep(0.002)
    running.cancel()
    await asyncio.wait({running})
    await asyncio.sleep(0)
    assert sorted(replicas.log[2:]) == ["cancel 0", "cancel 1"]


SCRIPT = st.sampled_from(["ok", "wait", OwnerUnavailable("dead"), ModelUnavailable("away")])


@settings(max_examples=60, deadline=None)
@given(st.lists(SCRIPT, min_size=1, max_size=4))
def test_some_living_replica_answers_whatever_the_others_do(scripts: list[str | NdmlError]) -> None:
    async def run() -> None:
        replicas = Attempts(*scripts)
        call = asyncio.ensure_future(hedged(replicas.calls, window(0.001)))
        if "ok" in scripts:
            assert await call == f"answer {scripts.index('ok')}"
        elif "wait" in scripts:
            replicas.gates[scripts.index("wait")].set()
            assert await call == f"answer {scripts.index('wait')}"
        else:
            with pytest.raises((OwnerUnavailable, ModelUnavailable)):
                await call
        assert len([row for row in replicas.log if row.startswith("start")]) <= len(scripts)

    asyncio.run(run())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 10), max_size=400))
def test_the_window_keeps_a_p95_of_its_last_samples(samples: list[float]) -> None:
    kept = LatencyWindow(size=64, floor_s=0.005, start_s=0.05)
    for sample in samples:
        kept.observe(sample)
    assert kept.p95_s >= 0.005
    if len(samples) < 16:
        assert kept.p95_s == 0.05
    else:
        assert kept.p95_s == 0.005 or kept.p95_s in samples
