"""llm replicas that come and go, on real gRPC servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from ndml.internal.v1 import llm_pb2, llm_pb2_grpc
from ndml.runtime.addresses import Addresses
from ndml.runtime.channel import Dialer
from services.gateway.replicas import Replicas


class Changing(Addresses):
    """`zones` by address."""

    zones: dict[str, str] = {}

    def zone_of(self, address: str) -> str:
        return self.zones.get(address, "")

    def become(self, *addresses: str) -> None:
        self._replace(addresses)


class Model(llm_pb2_grpc.LlmServiceServicer):
    """Answers when it is let."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def GetModelInfo(self, request: Any, context: Any) -> llm_pb2.GetModelInfoResponse:
        self.asked.set()
        await self.go.wait()
        return llm_pb2.GetModelInfoResponse(version=self.name)


@asynccontextmanager
async def served(*names: str) -> AsyncIterator[dict[str, tuple[str, Model]]]:
    servers, found = [], {}
    for name in names:
        server, model = grpc.aio.server(), Model(name)
        llm_pb2_grpc.add_LlmServiceServicer_to_server(model, server)
        found[name] = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", model
        await server.start()
        servers.append(server)
    yield found
    for server in servers:
        await server.stop(0)


async def ask(stub: Any) -> str:
    return str((await stub.GetModelInfo(llm_pb2.GetModelInfoRequest(), timeout=10)).version)


async def test_one_that_goes_keeps_its_calls_and_those_that_were_about_to_be_made() -> None:
    async with served("one", "two") as models:
        (one, first), (two, second) = models["one"], models["two"]
        addresses = Changing([one])
        replicas = Replicas(Dialer(), addresses)
        with replicas.in_turn() as [held]:
            under_way = asyncio.create_task(ask(held))
            await first.asked.wait()
            addresses.become(two)
            first.go.set()
            second.go.set()
            assert await under_way == "one"
            assert await ask(held) == "one", "a second attempt of the same call"
            with replicas.in_turn() as [stub]:
                assert await ask(stub) == "two"
        with replicas.in_turn() as stubs:
            assert len(stubs) == 1
        addresses.become()
        with replicas.in_turn() as stubs:
            assert stubs == []
        await replicas.close()


async def test_those_of_the_own_zone_are_asked_first_and_each_in_its_turn() -> None:
    async with served("a1", "a2", "b1") as models:
        for _, model in models.values():
            model.go.set()
        addresses = Changing([address for address, _ in models.values()])
        addresses.zones = {models["a1"][0]: "a", models["a2"][0]: "a", models["b1"][0]: "b"}
        replicas = Replicas(Dialer(), addresses, "a")
        orders = []
        for _ in range(4):
            with replicas.in_turn() as stubs:
                orders.append([await ask(stub) for stub in stubs])
        assert {order[0] for order in orders} == {"a1", "a2"} and {order[2] for order in orders} == {"b1"}
        elsewhere = Replicas(Dialer(), addresses, "c")
        firsts = set()
        for _ in range(3):
            with elsewhere.in_turn() as stubs:
                firsts.add(await ask(stubs[0]))
        assert firsts == {"a1", "a2", "b1"}, "where nobody is near all are alike"
        await replicas.close()
        await elsewhere.close()
