"""What travels between the processes of a simulation: calls, streams of messages, and the production ports over both."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from itertools import count
from typing import Any, Protocol, TypeVar

from ndml.errors import DeadlinePassed, OwnerUnavailable
from ndml.internal.v1 import consensus_pb2 as cpb
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.placement import PlacementNode
from ndml.wire import status_to_error
from services.gateway.liveness import Liveness
from services.gateway.ports import Sent
from services.gateway.scopes import Owner
from services.gateway.tokens import tell_seen
from services.memory_node.replication.answers import Answers
from tests.sim.network import Lost, Network
from tests.sim.processes import Process
from tests.sim.stores import SimStore

R = TypeVar("R")
M = TypeVar("M", cpb.ExchangeDeltasRequest, cpb.ExchangeDeltasResponse)

_KEEP_ALIVE_S = 3.0
_IN_FLIGHT = 64
"""Messages of a stream that wait to be read; then its sender waits, as flow control has it."""


class Server(Protocol):
    """A memory node, while it runs."""

    @property
    def process(self) -> Process: ...

    @property
    def store(self) -> SimStore: ...

    @property
    def answers(self) -> Answers: ...


ServerOf = Callable[[str], Server]
"""The node of a name. Raises Lost where it does not run."""


class Connection:
    """A stream between two places, each message of which may be lost: then all of it breaks, for both, at the next thing they do."""

    def __init__(self, network: Network, caller: str, target: str) -> None:
        self.network = network
        self.broken = False
        self.calling = End(self, caller, target, cpb.ExchangeDeltasRequest)
        self.answering = End(self, target, caller, cpb.ExchangeDeltasResponse)
        self.calling.other, self.answering.other = self.answering, self.calling

    def break_(self) -> None:
        self.broken = True
        for end in (self.calling, self.answering):
            end.news.set()


class End:
    """One end: a DeltaSession, a Wire, a DialedWire."""

    other: End

    def __init__(self, connection: Connection, here: str, there: str, kind: Callable[[], Any]) -> None:
        self._connection = connection
        self._here, self._there = here, there
        self._kind = kind
        self._inbox: deque[Any] = deque()
        self._last_at = 0.0
        self.news = asyncio.Event()
        self.room = asyncio.Event()

    def message(self) -> Any:
        return self._kind()

    async def send(self, message: Any) -> None:
        """Raises OwnerUnavailable once it is broken."""
        self._check()
        twin = type(message)()
        twin.CopyFrom(message)
        self._deliver(twin)
        await asyncio.sleep(0)
        while len(self.other._inbox) > _IN_FLIGHT:
            self._check()
            self.other.room.clear()
            await self._patiently(self.other.room)

    async def receive(self) -> Any:
        """None: the other end was closed. Raises OwnerUnavailable once it is broken."""
        while not self._inbox:
            self._check()
            self.news.clear()
            await self._patiently(self.news)
        message = self._inbox.popleft()
        self.room.set()
        if message is None:
            self._inbox.append(None)
        return message

    async def close(self) -> None:
        if not self._connection.broken:
            self._deliver(None)

    def _deliver(self, message: Any) -> None:
        loop, network = asyncio.get_running_loop(), self._connection.network
        self._last_at = max(self._last_at, loop.time() + network.delay())
        loop.call_at(self._last_at, self._arrive, message)

    def _arrive(self, message: Any) -> None:
        network = self._connection.network
        if network.arrives(self._here, self._there):
            self.other._inbox.append(message)
            self.other.news.set()
        else:
            asyncio.get_running_loop().call_later(network.weather.give_up_s, self._connection.break_)

    async def _patiently(self, event: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(_KEEP_ALIVE_S):
                await event.wait()
        except TimeoutError:
            network = self._connection.network
            if not (network.passes(self._here, self._there) and network.passes(self._there, self._here)):
                self._connection.break_()

    def _check(self) -> None:
        if self._connection.broken:
            raise OwnerUnavailable("the stream broke")


async def _ask(network: Network, source: str, target: str, serve: Callable[[], Awaitable[R]]) -> R:
    try:
        return await network.call(source, target, serve)
    except Lost as lost:
        raise OwnerUnavailable(f"lost: {lost}") from None


def _leave(messages: AsyncIterator[Any]) -> None:
    """The caller is gone: the server's part ends."""
    assert isinstance(messages, AsyncGenerator)
    ended = asyncio.ensure_future(messages.aclose())
    ended.add_done_callback(lambda done: done.cancelled() or done.exception())


class SimPartner:
    """Another memory node."""

    def __init__(self, network: Network, source: str, target: str, server_of: ServerOf) -> None:
        self._network, self._source, self._target, self._server_of = network, source, target, server_of

    async def compare(self, request: rpb.CompareBucketsRequest) -> rpb.CompareBucketsResponse:
        return await self._call(lambda answers: answers.compare(request))

    async def push(self, request: rpb.PushRecordsRequest) -> rpb.PushRecordsResponse:
        return await self._call(lambda answers: answers.push(request))

    def list_owners(self, request: rpb.ListOwnersRequest) -> AsyncIterator[rpb.ListOwnersResponse]:
        return self._stream(lambda answers: answers.list_owners(request))

    def symbols(self, request: rpb.StreamSymbolsRequest) -> AsyncIterator[rpb.StreamSymbolsResponse]:
        return self._stream(lambda answers: answers.symbols(request))

    def fetch(self, request: rpb.FetchRecordsRequest) -> AsyncIterator[rpb.FetchRecordsResponse]:
        return self._stream(lambda answers: answers.fetch(request))

    async def _call(self, ask: Callable[[Answers], Awaitable[R]]) -> R:
        def serve() -> Awaitable[R]:
            server = self._server_of(self._target)
            return server.process.run(lambda: ask(server.answers))

        return await _ask(self._network, self._source, self._target, serve)

    async def _stream(self, ask: Callable[[Answers], AsyncIterator[R]]) -> AsyncIterator[R]:
        """A message a call: each may be lost, and one that is repeated says the same."""
        opened: list[tuple[Process, AsyncIterator[R]]] = []
        said: list[R | None] = []

        async def following(at: int) -> R | None:
            if not opened:
                server = self._server_of(self._target)
                opened.append((server.process, server.process.do(lambda: ask(server.answers))))
            process, messages = opened[0]
            if at == len(said):
                said.append(await process.run(lambda: anext(messages, None)))
            return said[at]

        try:
            for at in count():
                message = await _ask(self._network, self._source, self._target, partial(following, at))
                if message is None:
                    return
                yield message
        finally:
            for process, messages in opened:
                if process.alive:
                    process.do(partial(_leave, messages))


class SimLanes:
    """A gateway's way to the memory nodes."""

    def __init__(self, network: Network, name: str, server_of: ServerOf, epoch: Callable[[], int], liveness: Liveness) -> None:
        self._network, self._name, self._server_of, self._epoch = network, name, server_of, epoch
        self._liveness = liveness

    async def send(self, node: PlacementNode, operation: pb.Operation, deadline: float | None, *, write: bool) -> Sent:
        twin = pb.Operation()
        twin.CopyFrom(operation)

        async def serve() -> Sent:
            server = self._server_of(node.node_id)
            return Sent(server.store.replica, await server.process.run(lambda: server.store.execute(twin, self._epoch())))

        try:
            async with asyncio.timeout_at(deadline):
                # A merge says the same however often it is heard; of what else a lane brings the caller repeats what may be repeated.
                sent = await self._network.call(self._name, node.node_id, serve)
        except Lost as lost:
            self._liveness.failed(node.node_id)
            raise OwnerUnavailable(f"lost: {lost}") from None
        except TimeoutError:
            raise DeadlinePassed("the answer did not come in time") from None
        if sent.result.HasField("error"):
            error = status_to_error(sent.result.error)
            tell_seen(error, Owner(twin.tenant, twin.user), {head.replica: head.counter for head in sent.result.heads})
            raise error
        return sent

    async def known(
        self, node: PlacementNode, owner: tuple[str, str], trace_ids: Any, deadline: float | None
    ) -> tuple[list[rpb.TraceRecord], dict[int, int]]:
        tenant, user = owner
        records: list[rpb.TraceRecord] = []
        heads: dict[int, int] = {}
        partner = SimPartner(self._network, self._name, node.node_id, self._server_of)
        request = rpb.FetchRecordsRequest(tenant=tenant, user=user, trace_ids=b"".join(trace_ids))
        async for part in partner.fetch(request):
            records += part.records
            heads |= {head.replica: head.counter for head in part.owner.heads}
        return records, heads
