"""Offers load to a gateway from a process of its own and counts what became of it: `python -m tests.crash.offered HOST:PORT --rate 500`.

With --callers a closed loop (each caller waits for its answer), with --rate an open one (calls come whether answers do or not). JSON.
Calls are batches with vectors given, serialised beforehand, so that offering one costs this process much less than serving it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

from ndml.v1 import memory_pb2, types_pb2
from tests.crash.clients import vector_of

READER = "reader"
_SEARCH, _ADD = "/ndml.v1.MemoryService/BatchSearchMemories", "/ndml.v1.MemoryService/BatchAddMemories"
_OPTIONS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.enable_retries", 0)]
_DIFFERENT = 16
"""Requests of each kind; offered in turn."""
_WRITES_ONE_IN = 8
_TICK_S = 0.002


@dataclass
class Counted:
    """What became of the calls: `good` were answered without an error within their deadline."""

    offered: int = 0
    good: int = 0
    seconds: float = 0.0
    codes: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    with_retry_info: int = 0
    refused: int = 0


class Request(NamedTuple):
    """One call as bytes."""

    method: str
    body: bytes
    response: type[memory_pb2.BatchSearchMemoriesResponse] | type[memory_pb2.BatchAddMemoriesResponse]


def searches(size: int, number: int) -> Request:
    """A batch of queries over what `fill` wrote."""
    made = memory_pb2.BatchSearchMemoriesRequest()
    for i in range(size):
        one = made.searches.add(scope=types_pb2.Scope(user=READER), k=3)
        one.embedding.vector = vector_of(f"query {number} {i}").tobytes()
    return Request(_SEARCH, made.SerializeToString(), memory_pb2.BatchSearchMemoriesResponse)


def adds(size: int, number: int, user: str = "") -> Request:
    """A batch of memories of a user of its own."""
    made = memory_pb2.BatchAddMemoriesRequest()
    for i in range(size):
        one = made.memories.add(scope=types_pb2.Scope(user=user or f"writer-{number}"), text=f"memory {number} {i}")
        one.embedding.vector = vector_of(one.text).tobytes()
    return Request(_ADD, made.SerializeToString(), memory_pb2.BatchAddMemoriesResponse)


def requests(size: int) -> Iterator[Request]:
    """Mostly searches, one in eight a write, for ever."""
    reads, writes = [searches(size, i) for i in range(_DIFFERENT)], [adds(size, i) for i in range(_DIFFERENT)]
    for turn in itertools.count():
        yield (writes if turn % _WRITES_ONE_IN == 0 else reads)[turn // _WRITES_ONE_IN % _DIFFERENT]


def _raw(channel: grpc.aio.Channel, method: str) -> Callable[..., Any]:
    """Bytes in, bytes out."""
    unary: Callable[..., Any] = channel.unary_unary
    made: Callable[..., Any] = unary(method)
    return made


def _status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """Without details where grpc itself refused."""
    trailing: Any = error.trailing_metadata() or ()
    details = [value for key, value in trailing if key == "grpc-status-details-bin"]
    return status_pb2.Status.FromString(details[0]) if details else status_pb2.Status()


class Offer:
    """Calls on one channel, and the count of them."""

    def __init__(self, channel: grpc.aio.Channel, deadline_s: float, size: int) -> None:
        self._calls = {method: _raw(channel, method) for method in (_SEARCH, _ADD)}
        self._deadline_s = deadline_s
        self._requests = requests(size)
        self._codes: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self.counted = Counted()
        self._until = math.inf

    async def one(self) -> None:
        """The next call, to its end."""
        request = next(self._requests)
        self.counted.offered += 1
        try:
            answer: Any = await self._calls[request.method](request.body, timeout=self._deadline_s)
        except grpc.aio.AioRpcError as error:
            self._failed(error.code().name, _status_of(error))
            return
        results = request.response.FromString(answer).results
        broken = {result.error.code: result.error for result in results if result.HasField("error")}
        if broken:
            # What is too late or too much for a whole batch stands at each of its items, where the answer still comes in time.
            code, status = broken.popitem()
            self._failed("OK with errors of several kinds" if broken else code_pb2.Code.Name(code), status)
            return
        # What is served after the measured time is not of it: an open loop leaves a queue behind.
        self.counted.good += time.monotonic() <= self._until
        self._codes["OK"] += 1

    def _failed(self, code: str, status: status_pb2.Status) -> None:
        self._codes[code] += 1
        if code != "RESOURCE_EXHAUSTED":
            return
        self.counted.refused += 1
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        found = {kind.DESCRIPTOR.name for kind in (info, retry) for detail in status.details if detail.Unpack(kind)}
        self.counted.with_retry_info += "RetryInfo" in found
        self._reasons[info.reason or "grpc's own"] += 1

    async def closed(self, callers: int, seconds: float) -> None:
        """So many at once, each offering the next when its last is answered."""
        end = time.monotonic() + seconds

        async def caller() -> None:
            while time.monotonic() < end:
                await self.one()

        await asyncio.gather(*(caller() for _ in range(callers)))

    async def open(self, rate: float, seconds: float) -> None:
        """So many a second. What was offered in time is waited for, for its deadline at most."""
        began, under_way = time.monotonic(), set[asyncio.Task[None]]()
        self._until = began + seconds
        while (passed := time.monotonic() - began) < seconds:
            # Behind, it offers at most what a tick would bring twenty times over: it must go on reading answers.
            for _ in range(min(int(rate * passed) - self.counted.offered, max(1, int(20 * rate * _TICK_S)))):
                task = asyncio.create_task(self.one())
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                await asyncio.sleep(0)
            await asyncio.sleep(_TICK_S)
        if under_way:
            await asyncio.wait(under_way)

    def result(self, seconds: float) -> Counted:
        self.counted.seconds = seconds
        self.counted.codes, self.counted.reasons = dict(self._codes), dict(self._reasons)
        return self.counted


async def fill(address: str, rows: int) -> None:
    """So many memories of the user whose memory is searched."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        for number in range(rows // 100):
            request = adds(100, number, READER)
            await _raw(channel, request.method)(request.body, timeout=60.0)


async def offer(address: str, given: argparse.Namespace) -> Counted:
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        await channel.channel_ready()
        made = Offer(channel, given.deadline_s, given.size)
        began = time.monotonic()
        if given.rate:
            await made.open(given.rate, given.seconds)
            return made.result(given.seconds)
        await made.closed(given.callers, given.seconds)
        return made.result(time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--deadline-s", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=32, help="queries or memories in a call")
    given = parser.parse_args()
    print(json.dumps(asdict(asyncio.run(offer(given.address, given)))))


if __name__ == "__main__":
    main()
