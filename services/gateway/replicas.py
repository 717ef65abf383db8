"""The llm service's replicas as channels: new ones get calls at once, those that are gone keep the calls they have until these end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from ndml.internal.v1 import llm_pb2_grpc
from ndml.runtime.addresses import Addresses, follow
from ndml.runtime.channel import Dialer


@dataclass(slots=True)
class _Replica:
    channel: grpc.aio.Channel
    stub: llm_pb2_grpc.LlmServiceAsyncStub
    users: int = 0
    gone: bool = False


class Replicas:
    """Everything belongs to the event loop."""

    def __init__(self, dialer: Dialer, addresses: Addresses, zone: str = "") -> None:
        """zone: replicas there are asked first."""
        self._dialer = dialer
        self._addresses = addresses
        self._zone = zone
        self._open: dict[str, _Replica] = {}
        self._turn = 0
        self._closing: set[asyncio.Task[None]] = set()
        follow(addresses, self._add, self._drop)

    @contextmanager
    def in_turn(self) -> Iterator[list[llm_pb2_grpc.LlmServiceAsyncStub]]:
        """Stubs of all that there are, each time another one first; usable within the block even if their replica goes meanwhile."""
        near = [a for a in self._addresses if not self._zone or self._addresses.zone_of(a) == self._zone]
        far = [a for a in self._addresses if a not in near]
        self._turn += 1
        chosen = [self._open[address] for address in (*_turned(near, self._turn), *_turned(far, self._turn))]
        for replica in chosen:
            replica.users += 1
        try:
            yield [replica.stub for replica in chosen]
        finally:
            for replica in chosen:
                replica.users -= 1
                self._let_go(replica)

    async def close(self) -> None:
        """End every call."""
        await asyncio.gather(*(replica.channel.close(None) for replica in self._open.values()), *self._closing)

    def _add(self, address: str) -> None:
        channel = self._dialer.open(address)
        self._open[address] = _Replica(channel, llm_pb2_grpc.LlmServiceStub(channel))

    def _drop(self, address: str) -> None:
        replica = self._open.pop(address)
        replica.gone = True
        self._let_go(replica)

    def _let_go(self, replica: _Replica) -> None:
        if replica.gone and not replica.users:
            task = asyncio.get_running_loop().create_task(replica.channel.close(None))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def _turned(addresses: list[str], turn: int) -> list[str]:
    start = turn % len(addresses) if addresses else 0
    return addresses[start:] + addresses[:start]
