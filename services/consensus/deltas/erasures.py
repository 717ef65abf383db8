"""What was erased from memory is not to lie on in older updates here, while a copy is away that lacks them.

Such updates are given up as at any bound of the log: who lacks one is told, and compares its copies with a partner, which has the erasure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Sequence

from ndml.crdt import existence
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.runtime import metrics
from ndml.runtime.log import get_logger
from services.consensus.deltas.entries import Key, erased_in
from services.consensus.deltas.log import DeltaLog

log = get_logger(__name__)

_AT_ONCE = 64
"""Updates whose bytes are in memory together."""

_Erased = tuple[str, str, bytes]
"""Tenant, user, trace id."""


class Erasures:
    """grace_s: an erasure waits so long, in which copies that are there take what came before it. max_waiting: more go before their time.

    After a start the updates that lie in the log are read once, for the erasures among them.
    """

    def __init__(self, log: DeltaLog, grace_s: float, max_waiting: int = 100_000) -> None:
        self._log = log
        self._grace_s = grace_s
        self._max_waiting = max_waiting
        self._waiting: OrderedDict[_Erased, float] = OrderedDict()
        self._has_read = False

    async def run(self) -> None:
        """One pass. Raises StoreUnavailable; the next one does what is left."""
        if not self._has_read:
            async for _, update in self._updates([entry.key for entry in self._log.index]):
                self._wait_for(update.tenant, update.user, erased_in(update))
            self._has_read = True
        while self._log.erasing:
            delta = self._log.erasing.popleft()
            self._wait_for(delta.entry.tenant, delta.entry.user, delta.erases)
        if due := self._due():
            await self._give_up(due)
            for erased in due:
                self._waiting.pop(erased, None)

    def _wait_for(self, tenant: str, user: str, trace_ids: Sequence[bytes]) -> None:
        for trace_id in trace_ids:
            self._waiting.setdefault((tenant, user, trace_id), self._log.clock())

    def _due(self) -> Collection[_Erased]:
        """The oldest, as far as their time has come or there are too many."""
        until, most = self._log.clock() - self._grace_s, len(self._waiting) - self._max_waiting
        due: dict[_Erased, None] = {}
        for at, (erased, since) in enumerate(self._waiting.items()):
            if since > until and at >= most:
                break
            due[erased] = None
        return due.keys()

    async def _give_up(self, erased: Collection[_Erased]) -> None:
        owners = {(tenant, user) for tenant, user, _ in erased}
        keys = [entry.key for entry in self._log.index if (entry.tenant, entry.user) in owners]
        gone = [key async for key, update in self._updates(keys) if _tells_of(update, erased)]
        if gone:
            log.info("deltas_of_what_was_erased", updates=len(gone))
            metrics.DELTAS_ERASED.inc(len(gone))
            self._log.give_up(gone)
            self._log.flush()

    async def _updates(self, keys: Sequence[Key]) -> AsyncIterator[tuple[Key, rpb.OwnerUpdate]]:
        for start in range(0, len(keys), _AT_ONCE):
            part = keys[start : start + _AT_ONCE]
            for key, body in zip(part, await self._log.bodies(part), strict=True):
                if body is not None:
                    yield key, rpb.OwnerUpdate.FromString(body)


def _tells_of(update: rpb.OwnerUpdate, erased: Collection[_Erased]) -> bool:
    """Whether anything but the erasure itself is in it of a trace that was erased."""
    owner = update.tenant, update.user
    return any(record.length != existence.REMOVED and (*owner, record.trace_id) in erased for record in update.records)
