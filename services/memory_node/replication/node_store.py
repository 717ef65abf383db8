"""This node's store behind the LocalStore of the ports: reads on threads with readers of their own, writes through the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from ndml.errors import Draining, InternalFault, NdmlError
from ndml.internal.v1 import memory_node_pb2 as pb
from services.memory_node.commit import WriteResult
from services.memory_node.housekeeping import DropOwner, JournalPrune, Kept, SettleOwner
from services.memory_node.node import Node
from services.memory_node.reader import Reader
from services.memory_node.records import Owner
from services.memory_node.replication.ports import ReplicaReader
from services.memory_node.weighing import Weigh, Weighed

T = TypeVar("T")


class NodeStore:
    """Component between the node and what replicates it: start it after the node, stop it before. `readers`: blocking reads at once."""

    def __init__(self, node: Node, readers: int) -> None:
        self._node = node
        self._most = readers
        self._free: list[Reader] = []
        self._room = asyncio.Semaphore(readers)
        self._stopped = False

    @property
    def replica(self) -> int:
        return self._node.store.replica

    @property
    def last_sequence(self) -> int:
        return self._node.store.committer.last_sequence

    async def start(self) -> None:
        """Readers are opened when they are needed first."""

    async def stop(self) -> None:
        self._stopped = True
        for _ in range(self._most):  # those at work give theirs back first
            await self._room.acquire()
        for reader in self._free:
            await asyncio.to_thread(reader.close)
        self._free.clear()

    async def call(self, work: Callable[[ReplicaReader], T]) -> T:
        """Raises what `work` raises, Draining after stop()."""
        async with self._room:
            if self._stopped:
                raise Draining("this node is stopping: ask another copy")
            # A thread cannot be interrupted: whoever goes away before it is done must not leave its reader in use.
            done = asyncio.ensure_future(asyncio.to_thread(self._call, work))
            try:
                return await asyncio.shield(done)
            finally:
                if not done.done():
                    await asyncio.wait([done])

    def _call(self, work: Callable[[ReplicaReader], T]) -> T:
        reader = self._free.pop() if self._free else self._node.store.reader()
        try:
            return work(reader)
        finally:
            self._free.append(reader)

    async def join(self, owner: Owner, action: pb.MergeAction) -> pb.MergeResult:
        result = await self._write(owner, action)
        if not isinstance(result, pb.MergeResult):
            raise InternalFault("the engine answered a merge with something else: its log has the details")
        return result

    async def written(self) -> None:
        await self.prune(0)  # writes are committed in order, and this one changes nothing

    async def prune(self, up_to: int) -> None:
        await self._write(Owner("", ""), JournalPrune(up_to))

    async def drop(self, owner: Owner, digest: bytes) -> bool:
        result = await self._write(owner, DropOwner(digest))
        return isinstance(result, Kept) and result.done

    async def settle(self, owner: Owner, digest: bytes, absent: str) -> bool:
        result = await self._write(owner, SettleOwner(digest, absent))
        return isinstance(result, Kept) and result.done

    async def weigh(self, page: Weigh) -> Weighed:
        """Have siblings weighed anew. Raises Overloaded, StoreUnavailable, Draining."""
        result = await self._write(Owner("", ""), page)
        if not isinstance(result, Weighed):
            raise InternalFault("the engine answered with something else: its log has the details")
        return result

    async def _write(self, owner: Owner, action: pb.MergeAction | JournalPrune | DropOwner | SettleOwner | Weigh) -> WriteResult:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[WriteResult | NdmlError] = loop.create_future()

        def settle(result: WriteResult | NdmlError) -> None:
            if not answer.done():
                answer.set_result(result)

        # `done` comes on the engine's thread, or at once where it refuses.
        def done(result: WriteResult | NdmlError) -> None:
            loop.call_soon_threadsafe(settle, result)

        self._node.engine.join(owner, action, done)
        result = await answer
        if isinstance(result, NdmlError):
            raise result
        return result
