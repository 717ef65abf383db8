"""Consolidation without being asked: every so often, owner by owner, of those in memory that have learned enough since the last time."""

from __future__ import annotations

import asyncio
import contextlib

from ndml.errors import NdmlError
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.runtime.log import get_logger
from services.memory_node.node import Node
from services.memory_node.ports import PlacementView
from services.memory_node.records import Owner

log = get_logger(__name__)


class Rounds:
    """Started with the node. `least_new`: traces that an owner must have gained, so that a round over quiet owners costs nothing."""

    def __init__(self, node: Node, placement: PlacementView, interval_s: float, least_new: int) -> None:
        self._node = node
        self._placement = placement
        self._interval_s = interval_s
        self._least_new = least_new
        self._seen: dict[Owner, int] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="consolidation-rounds")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.once()
            except Exception:
                log.exception("consolidation_round_fault")  # the next round is a new try

    async def once(self) -> None:
        """One round. What fails for an owner is logged, and tried again in the next round."""
        traces = dict(self._node.engine.owners())
        # Owners that left memory are forgotten here, so that the table is bounded by what is in memory.
        self._seen = {owner: count for owner, count in self._seen.items() if owner in traces}
        for owner, count in traces.items():
            if count - self._seen.get(owner, 0) >= self._least_new and self._placement.owns(*owner):
                try:
                    await self._consolidate(owner)
                except NdmlError as error:
                    log.warning("consolidation_failed", error=error.reason, detail=error.message)
                else:
                    self._seen[owner] = count

    async def _consolidate(self, owner: Owner) -> None:
        async for progress in self._node.consolidations.stream(pb.ConsolidateRequest(tenant=owner.tenant, user=owner.user)):
            if progress.done:
                log.info("consolidated", merged=progress.merged, rejected=progress.rejected, stopped_because=progress.stopped_because)
