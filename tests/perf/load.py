"""Load on a gRPC method: raw bytes in and out, so that what is measured is the servers and not the client's protobuf."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

_OPTIONS = [("grpc.max_send_message_length", 64 << 20), ("grpc.max_receive_message_length", 64 << 20)]


@dataclass(frozen=True, slots=True)
class Measured:
    """Calls a second and milliseconds; `calls` is what they rest on."""

    per_second: float
    p50_ms: float
    p99_ms: float
    calls: int


async def load(address: str, method: str, payloads: Sequence[bytes], callers: int, seconds: float) -> Measured:
    """`callers` tasks on one channel call `method` with the payloads in turn for `seconds`. A failed call raises."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        call = channel.unary_unary(method)
        turn = itertools.cycle(payloads)
        await asyncio.gather(*(call(next(turn)) for _ in range(min(8, callers))))
        times: list[float] = []
        end = time.perf_counter() + seconds

        async def caller() -> None:
            while (began := time.perf_counter()) < end:
                await call(next(turn))
                times.append(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        elapsed = time.perf_counter() - began
    times.sort()
    return Measured(len(times) / elapsed, statistics.median(times) * 1000, times[int(0.99 * (len(times) - 1))] * 1000, len(times))


def median_of(runs: Sequence[Measured]) -> Measured:
    """The run with the median rate."""
    return sorted(runs, key=lambda run: run.per_second)[len(runs) // 2]
