"""The exchange with a consensus node: one stream, on which this node's updates go out and others' come in. The others are in reserve."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from ndml.errors import NdmlError, OwnerUnavailable
from ndml.internal.v1 import consensus_pb2 as cpb
from ndml.runtime.log import get_logger
from services.memory_node.replication.ports import Clock, DeltaSession, LocalStore, OpenSession, Sleep, UpdateGuard
from services.memory_node.replication.publisher import Publisher
from services.memory_node.replication.reconcile import brief
from services.memory_node.replication.settings import StreamSection
from services.memory_node.replication.subscriber import Subscriber

log = get_logger(__name__)

PROOFS_AT_ONCE = 64
"""Some kilobytes each."""

_Send = Callable[[cpb.ExchangeDeltasRequest], Awaitable[None]]


class Attachment:
    """Run it as a task; cancel it to end. It never gives up: a suite whose consensus nodes are all gone still serves."""

    def __init__(
        self,
        store: LocalStore,
        addresses: Sequence[str],
        open_session: OpenSession,
        publisher: Publisher,
        subscriber: Subscriber,
        hello: cpb.DeltaHello,
        settings: StreamSection,
        *,
        clock: Clock,
        sleep: Sleep,
        rng: random.Random | None = None,
        guard: UpdateGuard | None = None,
    ) -> None:
        self._guard = guard
        self._rng = rng or random.Random()
        self._consensus = addresses
        self._round: list[str] = []
        self._store = store
        self._open = open_session
        self._publisher = publisher
        self._subscriber = subscriber
        self._hello = hello
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self.attached_to = ""
        """Address of the consensus node, "" while there is none."""

    async def run(self) -> None:
        """Attach, and attach again, without end."""
        failures = 0
        while True:
            began = self._clock()
            if not self._round:
                # By chance, so that not all turn to the same; anew each time, since the list may change.
                self._round = self._rng.sample(list(self._consensus), len(self._consensus))
            if self._round:
                await self._session(self._round.pop())
            failures = 0 if self._clock() - began > self._settings.backoff_max_s else failures + 1
            longest = min(self._settings.backoff_max_s, self._settings.backoff_min_s * 2 ** min(failures, 16))
            await self._sleep(self._rng.uniform(longest / 2, longest))

    async def _session(self, address: str) -> None:
        session: DeltaSession | None = None
        try:
            session = await self._open(address)
            greeting = await self._greet(session)
            self.attached_to = address
            log.info("attached", consensus=address, position=self._publisher.durable)
            await self._exchange(session, greeting)
            log.info("detached", consensus=address)
        except NdmlError as error:
            log.info("detached" if self.attached_to else "not_attached", consensus=address, **brief(error))
        finally:
            self.attached_to = ""
            if session is not None:
                await session.close()

    async def _greet(self, session: DeltaSession) -> cpb.ExchangeDeltasResponse:
        hello = cpb.DeltaHello()
        hello.CopyFrom(self._hello)
        if let_go := await self._publisher.let_go():
            # A consensus node that has less than this lets the other copies compare.
            hello.positions.add(replica=self._store.replica, counter=let_go)
        await session.send(cpb.ExchangeDeltasRequest(hello=hello))
        try:
            async with asyncio.timeout(self._settings.hello_s):
                answer = await session.receive()
        except TimeoutError:
            raise OwnerUnavailable("the consensus node does not answer the greeting (replication.stream.hello_s)") from None
        if answer is None or not answer.HasField("hello"):
            raise OwnerUnavailable("the consensus node did not greet: it may be of another release")
        own = [head.counter for head in answer.hello.positions if head.replica == self._store.replica]
        self._publisher.begin(max(own, default=0))
        return answer

    async def _exchange(self, session: DeltaSession, greeting: cpb.ExchangeDeltasResponse) -> None:
        """Until one way ends or fails. The greeting may have brought more than itself."""
        turn = asyncio.Lock()

        async def send(message: cpb.ExchangeDeltasRequest) -> None:
            async with turn:
                await session.send(message)

        works = [self._publish(send), self._subscribe(session, greeting, send), self._watch()]
        await first_of(*works, *([] if self._guard is None else [self._tell(send, self._guard)]))

    async def _publish(self, send: _Send) -> None:
        async for updates in self._publisher.batches():
            await send(cpb.ExchangeDeltasRequest(updates=updates))

    async def _subscribe(self, session: DeltaSession, greeting: cpb.ExchangeDeltasResponse, send: _Send) -> None:
        message: cpb.ExchangeDeltasResponse | None = greeting
        while message is not None:
            for head in message.acked:
                if head.replica == self._store.replica:
                    self._publisher.acked(head.counter)
            answers = await self._subscriber.take(message)
            if answers:
                await send(cpb.ExchangeDeltasRequest(answers=answers))
            message = await session.receive()

    async def _tell(self, send: _Send, guard: UpdateGuard) -> None:
        """Proofs against authors, each once to each consensus node; what it has it takes again."""
        told: set[bytes] = set()
        while True:
            news = [proof for proof in guard.proofs if proof not in told]
            for start in range(0, len(news), PROOFS_AT_ONCE):
                await send(cpb.ExchangeDeltasRequest(proofs=news[start : start + PROOFS_AT_ONCE]))
            told.update(news)
            await self._sleep(self._settings.tend_s)

    async def _watch(self) -> None:
        """Ends when updates stay unanswered for too long."""
        limit = self._settings.silence_s
        while self._publisher.silent_s < limit:
            await self._sleep(limit / 4)
        raise OwnerUnavailable(f"updates are unanswered for {limit} s (replication.stream.silence_s)")


async def first_of(*works: Awaitable[None]) -> None:
    """Run side by side until one ends; the others are cancelled. Raises what it raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            # A second failure of the same break says nothing new.
            with suppress(asyncio.CancelledError, NdmlError):
                await task
