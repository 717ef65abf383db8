"""Who is let in: by how long the calls before it take, by their number and by their bytes; and what a refusal says."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ndml.errors import DeadlinePassed, Overloaded
from ndml.internal.v1 import llm_pb2
from ndml.runtime import metrics
from ndml.runtime.admission import Admission, Flow, Limits, Pace
from ndml.wire import rpc_error_to_ndml

EMBED = "/ndml.internal.v1.LlmService/Embed"


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def served(flow: Flow, clock: Clock, each_s: float, calls: int) -> None:
    """One after the other leaves, and another comes in its place."""
    for _ in range(calls):
        clock.now += each_s
        flow.leave(each_s)
        flow.enter()


def test_refusals_take_turns() -> None:
    clock = Clock()
    pace = Pace(10.0, clock)
    assert [round(pace.wait_s(60.0), 6) for _ in range(3)] == [0.0, 0.1, 0.2]
    assert pace.wait_s(0.05) == 0.05, "who has less time than that is told in time"
    clock.now += 5.0
    assert pace.wait_s(60.0) == 0.0, "no turns are saved up, and none are owed"


@settings(max_examples=60, deadline=None)
@given(each_ms=st.floats(0.1, 2000), queue=st.integers(8, 500))
def test_a_queue_lasts_as_long_as_its_calls_take(each_ms: float, queue: int) -> None:
    clock = Clock()
    flow = Flow(8, clock)
    for _ in range(queue):
        flow.enter()
    assert flow.expected_s() == 0.0, "nothing has left yet: whatever was said now would be invented"
    served(flow, clock, each_ms / 1000, 40)
    assert flow.expected_s() == pytest.approx((queue + 1) * each_ms / 1000, rel=0.1)


@settings(max_examples=60, deadline=None)
@given(before_ms=st.floats(0.2, 2000), after_ms=st.floats(0.2, 2000))
def test_a_change_of_speed_is_followed(before_ms: float, after_ms: float) -> None:
    clock = Clock()
    flow = Flow(8, clock)
    for _ in range(10):
        flow.enter()
    served(flow, clock, before_ms / 1000, 200)
    served(flow, clock, after_ms / 1000, 8000)
    assert flow.expected_s() == pytest.approx(11 * after_ms / 1000, rel=0.2)


def test_what_stands_still_is_waited_for_ever_longer_and_a_pause_is_a_new_start() -> None:
    clock = Clock()
    flow = Flow(4, clock)
    for _ in range(4):
        flow.enter()
    served(flow, clock, 0.01, 10)
    clock.now += 60.0
    assert flow.expected_s() > 10.0
    for _ in range(4):
        flow.leave()
    clock.now += 61.0
    for _ in range(100):
        flow.enter()
    assert flow.expected_s() == 0.0


def test_callers_that_give_up_together_do_not_make_room_for_as_many_more() -> None:
    clock = Clock()
    flow = Flow(4, clock)
    for _ in range(40):
        flow.enter()
    served(flow, clock, 0.5, 20)
    for _ in range(30):
        flow.leave()
    assert flow.expected_s() == pytest.approx(11 * 0.5, rel=0.1)


def test_calls_of_which_none_is_answered_in_time_are_not_let_in_for_ever() -> None:
    clock = Clock()
    admission = Admission(Limits(1000, always=4), clock)
    waiting = [admission.enter("m", 1) for _ in range(40)]
    admission.check_time("m", 2.0)
    clock.now += 2.0
    for flow in waiting[4:]:
        admission.leave(flow, 1, None)
    with pytest.raises(Overloaded):
        admission.check_time("m", 2.0)
    admission.check_time("m", 30.0)
    for _ in range(4):
        clock.now += 0.1
        admission.leave(waiting[0], 1, 2.1)
        admission.enter("m", 1)
    admission.check_time("m", 10.0)


def test_few_calls_are_let_in_however_slow_they_are() -> None:
    clock = Clock()
    admission = Admission(Limits(100, always=4), clock)
    flows = [admission.enter("m", 1) for _ in range(4)]
    for _ in range(8):
        clock.now += 9.0
        admission.leave(flows[0], 1, 9.0)
        admission.enter("m", 1)
    with pytest.raises(Overloaded, match=r"server\.wait_share"):
        admission.check_time("m", 10.0)
    admission.check_time("m", 1000.0)
    admission.check_time("other", 0.001)
    admission.leave(flows[0], 1, 9.0)
    clock.now += 1.0
    admission.check_time("m", 5.0)


def test_calls_that_run_into_their_deadlines_make_room_for_fewer_side_by_side() -> None:
    clock = Clock()
    admission = Admission(Limits(100, always=8), clock)

    def let_in(time_s: float) -> int:
        try:
            admission.check_time("m", time_s)
        except (Overloaded, DeadlinePassed):
            return 0
        admission.enter("m", 1)
        return 1

    def round_of(calls: int, takes_s: float, time_s: float) -> int:
        """So many come at once; those let in share the service: answered all together, or not."""
        entered = sum(let_in(time_s) for _ in range(calls))
        clock.now += min(time_s, entered * takes_s)
        for _ in range(entered):
            admission.leave(admission._flow("m"), 1, entered * takes_s if entered * takes_s <= time_s else None)
        return entered if entered * takes_s <= time_s else 0

    answered = [round_of(20, 0.1, 0.35) for _ in range(40)]
    assert answered[0] == 0, "all of them at once are too many"
    assert sum(answered[20:]) >= 20, "of twice as many as would have had time, in twenty rounds"


def test_who_refuses_everybody_tries_one_now_and_then() -> None:
    clock = Clock()
    admission = Admission(Limits(100), clock)
    admission.leave(admission.enter("m", 1), 1, 3.0)
    with pytest.raises(DeadlinePassed):
        admission.check_time("m", 0.5)
    clock.now += 0.3
    admission.check_time("m", 0.5)
    flow = admission.enter("m", 1)
    with pytest.raises(DeadlinePassed):
        admission.check_time("m", 0.5)
    clock.now += 0.1
    admission.leave(flow, 1, 0.1)
    admission.check_time("m", 0.5)


def test_after_a_call_that_came_too_late_one_with_less_time_than_the_fastest_took_is_refused() -> None:
    clock = Clock()
    admission = Admission(Limits(100), clock)
    admission.leave(admission.enter("m", 1), 1, 0.3)
    admission.check_time("m", 0.2)
    with pytest.raises(DeadlinePassed):
        admission.check_time("m", 0.1)
    assert admission.is_crowded("m")
    with pytest.raises(Overloaded):
        admission.check_time("m", 0.2)
    admission.check_time("m", 0.4)
    clock.now += 61.0
    admission.check_time("m", 0.1)
    assert not admission.is_crowded("m")


def test_bytes_are_bounded_and_one_large_request_passes_alone() -> None:
    admission = Admission(Limits(100, body_bytes=10))
    admission.check_bytes(50)
    flow = admission.enter("m", 50)
    with pytest.raises(Overloaded, match=r"server\.max_in_flight_bytes"):
        admission.check_bytes(1)
    admission.leave(flow, 50, None)
    admission.enter("m", 6)
    admission.check_bytes(4)


async def crowd(running: Any) -> list[asyncio.Task[Any]]:
    """Two calls that wait, after two that took a tenth of a second each: one more would take longer than that."""
    held = [asyncio.create_task(running.embed("wait")) for _ in range(2)]
    await asyncio.gather(*(running.embed("sleep 0.1", timeout=60.0) for _ in range(2)))
    return held


async def test_a_call_without_time_is_refused_before_work_and_one_with_time_is_served(serve: Any) -> None:
    running = await serve(least_in_flight=2)
    held = await crowd(running)
    began = running.servicer.attempts
    before = metrics.RPC_ERRORS.labels(EMBED, "RESOURCE_EXHAUSTED", "OVERLOADED")._value.get()
    with capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.embed("ok", timeout=0.1)
    error = rpc_error_to_ndml(caught.value)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert isinstance(error, Overloaded) and "server.wait_share" in error.message
    assert error.retry_after_s is not None and error.retry_after_s >= 0.2
    assert running.servicer.attempts == began
    assert metrics.RPC_ERRORS.labels(EMBED, "RESOURCE_EXHAUSTED", "OVERLOADED")._value.get() == before + 1
    assert [row["event"] for row in logs if row["event"].startswith("rpc")] == ["rpcs_refused"]
    assert (await running.embed("ok", timeout=600.0)).model == "ok"
    running.servicer.released.set()
    await asyncio.gather(*held)
    assert (await running.embed("ok", timeout=60.0)).model == "ok"


async def test_refusals_are_logged_in_one_line_a_second(serve: Any) -> None:
    running = await serve(max_in_flight=1)
    held = asyncio.create_task(running.embed("wait"))
    await running.servicer.began.wait()
    with capture_logs() as logs:
        found = await asyncio.gather(*(running.embed("ok") for _ in range(20)), return_exceptions=True)
    assert all(isinstance(each, grpc.aio.AioRpcError) for each in found)
    rows = [row for row in logs if row["event"] == "rpcs_refused"]
    assert rows and len(rows) < 20 and not [row for row in logs if row["event"] == "rpc_refused"]
    running.servicer.released.set()
    await held


async def test_a_request_that_is_too_large_beside_others_is_refused(serve: Any) -> None:
    running = await serve(max_in_flight_bytes=1 << 20)
    held = asyncio.create_task(running.embed("wait"))
    await running.servicer.began.wait()
    texts = ["ok"] + ["x" * 65_000] * 17
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub().Embed(llm_pb2.EmbedRequest(texts=texts))
    assert "server.max_in_flight_bytes" in rpc_error_to_ndml(caught.value).message
    running.servicer.released.set()
    await held
    assert (await running.stub().Embed(llm_pb2.EmbedRequest(texts=texts))).model == "ok"


async def test_methods_that_we_lack_leave_nothing_behind(running: Any) -> None:
    channel = running.channel()
    for i in range(5):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/ndml.internal.v1.LlmService/None{i}")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert (await running.embed("ok")).model == "ok"
    assert set(running.service.chain.admission.methods()) == {EMBED}
