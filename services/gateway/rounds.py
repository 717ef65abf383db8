"""Asking an owner's copies again: under a newer placement, and when none of them answers, a few times each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ndml.errors import Draining, OwnerUnavailable, StaleEpoch, StoreUnavailable
from ndml.runtime import metrics
from services.gateway.ports import Copies
from services.gateway.settings import LinkSettings

T = TypeVar("T")

ELSEWHERE = (OwnerUnavailable, Draining, StoreUnavailable)
"""What another copy may do better: this one is away, behind, going, or its disk is full."""


async def in_rounds(once: Callable[[int], Awaitable[T]], copies: Copies, links: LinkSettings, again: Callable[[], bool]) -> T:
    """What `once`, given the number of failed rounds before it, gives in the end; `again` says whether it may be repeated.

    A stale placement is refreshed, and does not count as a round: a node that refuses an epoch has done nothing. As often as there are
    rounds, since a node that leaves or joins makes several epochs within one call.
    """
    rounds = stale = 0
    while True:
        epoch = copies.epoch
        try:
            return await once(rounds)
        except StaleEpoch:
            stale += 1
            if stale > links.attempts:
                raise
            metrics.STALE_EPOCH_RETRIES.inc()
            await copies.wait_newer(epoch, links.stale_wait_s)
        except ELSEWHERE:
            rounds += 1
            if rounds >= links.attempts or not again():
                raise
            await asyncio.sleep(links.retry_backoff_s * 2 ** (rounds - 1))
