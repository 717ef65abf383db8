"""Every exchange that this consensus node answers, and the life of the log behind them."""

from __future__ import annotations

import asyncio

from ndml.crdt.rates import AuthorRates
from ndml.errors import DeadlinePassed, Draining, FieldInvalid, Overloaded, StoreUnavailable
from ndml.runtime import metrics
from ndml.runtime.log import get_logger
from services.consensus.deltas.compaction import Compaction, Keeping
from services.consensus.deltas.erasures import Erasures
from services.consensus.deltas.log import DeltaLog
from services.consensus.deltas.members import MemberSession
from services.consensus.deltas.mesh import Mesh
from services.consensus.deltas.ports import Guard, Message, Wire
from services.consensus.deltas.session import SessionBounds

log = get_logger(__name__)


class DeltaExchange:
    """Component around log, compaction and mesh. author_updates_per_s: taken of one memory node; past it its stream waits; 0: no bound."""

    def __init__(
        self,
        log: DeltaLog,
        mesh: Mesh,
        guard: Guard,
        bounds: SessionBounds,
        keeping: Keeping,
        *,
        max_attached: int = 1024,
        compact_interval_s: float = 1.0,
        hello_timeout_s: float = 5.0,
        author_updates_per_s: float = 0.0,
    ) -> None:
        self.log = log
        self.mesh = mesh
        self.guard = guard
        log.peers_have = mesh.everybody_has
        self.compaction = Compaction(log, keeping)
        self.erasures = Erasures(log, keeping.grace_s)
        self._bounds = bounds
        self._rates = AuthorRates(author_updates_per_s, log.clock)
        self._max_attached = max_attached
        self._compact_interval_s = compact_interval_s
        self._hello_timeout_s = hello_timeout_s
        self._attached: dict[str, asyncio.Task[None]] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self._draining = False
        self._task: asyncio.Task[None] | None = None

    @property
    def attached(self) -> list[str]:
        """Node ids of the memory nodes that are here."""
        return list(self._attached)

    async def start(self) -> None:
        """Raises OSError, StoreUnavailable from the log's file."""
        await self.log.start()
        await self.mesh.start()
        self._task = asyncio.create_task(self._compact(), name="delta-compaction")

    async def stop(self) -> None:
        self.drain()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self.mesh.stop()
        while self._serving:
            await asyncio.wait(set(self._serving))
        await self.log.stop()

    def drain(self) -> None:
        """End every exchange: the others go to another consensus node."""
        self._draining = True
        for task in self._serving:
            task.cancel()

    def serve(self, wire: Wire) -> asyncio.Task[None]:
        """Serve one exchange that somebody opened, as a task; it ends with the exchange and raises NdmlError."""
        task = asyncio.create_task(self._serve(wire), name="delta-exchange")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return task

    async def _serve(self, wire: Wire) -> None:
        if self._draining:
            raise Draining("this consensus node is stopping: another one takes the updates")
        first = await self._first(wire)
        if not first.hello.replica:
            await self.mesh.answer(first, wire)
            return
        await self._attach(first, wire)

    async def _first(self, wire: Wire) -> Message:
        try:
            async with asyncio.timeout(self._hello_timeout_s):
                first = await wire.receive()
        except TimeoutError:
            raise DeadlinePassed(f"no hello came within {self._hello_timeout_s} s") from None
        if first is None or not first.HasField("hello") or not first.hello.node_id:
            raise FieldInvalid("the first message of an exchange is a hello with the sender's node_id", field="hello")
        return first

    async def _attach(self, first: Message, wire: Wire) -> None:
        node_id, own = first.hello.node_id, asyncio.current_task()
        assert own is not None, "runs as a task of serve()"
        before = self._attached.get(node_id)
        if before is None and len(self._attached) >= self._max_attached:
            raise Overloaded(f"{self._max_attached} memory nodes are attached (deltas.max_attached): try another consensus node")
        self._attached[node_id] = own
        if before is not None:
            # The node knows that its old stream is dead before we do.
            before.cancel()
            await asyncio.wait({before})
        self._count()
        log.info("member_attached", node=node_id, replica=f"{first.hello.replica:x}")
        session = MemberSession(self.mesh.node_id, self.mesh.zone, first.hello, wire, self.log, self.guard, self._bounds, self._rates)
        try:
            await session.run()
        finally:
            if self._attached.get(node_id) is own:
                del self._attached[node_id]
            self._count()
            log.info("member_detached", node=node_id)

    async def _compact(self) -> None:
        while True:
            await asyncio.sleep(self._compact_interval_s)
            self.compaction.run()
            try:
                await self.erasures.run()
            except StoreUnavailable as error:
                log.warning("erasures_wait", reason=error.reason, error=str(error))

    def _count(self) -> None:
        metrics.DELTA_STREAMS.labels("member").set(len(self._attached))
