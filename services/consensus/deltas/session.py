"""What every session has: two sides that end together, and a bound on what is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ndml.internal.v1 import replication_pb2 as rpb
from services.consensus.deltas.ports import Guard, Wire

_PROOFS = 64  # in one message, some kilobytes each


@dataclass(frozen=True, slots=True)
class SessionBounds:
    """The settings of DeltasSection that bound a session, under the same names."""

    offers_in_flight: int = 1024
    offer_after_s: float = 0.05
    answer_timeout_s: float = 10.0
    peer_in_flight: int = 1024
    relay_after_s: float = 2.0
    gossip_interval_s: float = 0.25
    message_bytes: int = 4 << 20
    max_update_bytes: int = 24 << 20
    max_authors: int = 4096


async def first_of(*parts: Coroutine[Any, Any, None]) -> None:
    """Run all until one ends, then end the others. Raises what that one raised."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        done = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()


async def within(event: asyncio.Event, timeout_s: float | None) -> None:
    """Wait for the event, at most so long, and clear it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
    event.clear()


def chunks(bodies: Iterable[bytes], limit: int) -> Iterator[Sequence[rpb.OwnerUpdate]]:
    """Updates in messages of at most `limit` bytes; one that is larger goes alone."""
    part: list[rpb.OwnerUpdate] = []
    size = 0
    for body in bodies:
        if part and size + len(body) > limit:
            yield part
            part, size = [], 0
        part.append(rpb.OwnerUpdate.FromString(body))
        size += len(body)
    if part:
        yield part


async def send_proofs(wire: Wire, guard: Guard, told: set[bytes]) -> None:
    """Send the proofs against authors that the other side has not sent or been sent: `told`, which grows."""
    news = [proof for proof in guard.proofs if proof not in told]
    for start in range(0, len(news), _PROOFS):
        message = wire.message()
        message.proofs.extend(news[start : start + _PROOFS])
        await wire.send(message)
    told.update(news)
