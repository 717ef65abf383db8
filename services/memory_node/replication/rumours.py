"""What others said to this node, told on: an author that says different things to different copies is found out where the two meet."""

from __future__ import annotations

from collections import defaultdict

from ndml.errors import NdmlError
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.runtime.log import get_logger
from services.memory_node.records import Owner
from services.memory_node.replication.ports import PartnerOf, Shares, Sleep, UpdateGuard
from services.memory_node.replication.reconcile import brief, parted

log = get_logger(__name__)

_MOST_BYTES = 1 << 20


class Rumours:
    """Run it as a task. every_s: between two rounds; each goes to all copies of the owners that something is known of."""

    def __init__(self, guard: UpdateGuard, shares: Shares, partner_of: PartnerOf, every_s: float, sleep: Sleep) -> None:
        self._guard = guard
        self._shares = shares
        self._partner_of = partner_of
        self._every_s = every_s
        self._sleep = sleep

    async def run(self) -> None:
        """Without end."""
        while True:
            await self._sleep(self._every_s)
            by_owner: dict[Owner, list[rpb.OwnerUpdate]] = defaultdict(list)
            for update in await self._guard.rumours():
                by_owner[Owner(update.tenant, update.user)].append(update)
            for owner, updates in by_owner.items():
                for node_id in self._shares.copies(*owner):
                    if node_id != self._shares.node_id:
                        await self._tell(node_id, owner, updates)

    async def _tell(self, node_id: str, owner: Owner, updates: list[rpb.OwnerUpdate]) -> None:
        """Once: a copy that is away hears of the next one, and compares records when it is back."""
        try:
            for part in parted(updates, _MOST_BYTES):
                await self._partner_of(node_id).push(rpb.PushRecordsRequest(tenant=owner.tenant, user=owner.user, updates=part))
        except NdmlError as error:
            log.info("not_told", node=node_id, updates=len(updates), **brief(error))
