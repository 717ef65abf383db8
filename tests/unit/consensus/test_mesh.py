"""Consensus nodes pass on what the others lack: once along a mesh, once into a zone, around a cut, and after a restart."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ndml.internal.v1 import consensus_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from services.consensus.deltas.entries import Via
from services.consensus.deltas.exchange import DeltaExchange
from services.consensus.deltas.session import SessionBounds
from tests.unit.consensus.delta_harness import (
    SESSION,
    AnsweringEnd,
    CallingEnd,
    Member,
    Net,
    Pipe,
    eventually,
    exchange,
    placement_of,
    running,
    update,
)

ALL = placement_of((1, 2, 3), 3)
# Long enough for the slowest disk to say that it has something before a third node is to bring it.
PATIENT = replace(SESSION, relay_after_s=1.5)
ZONES = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "b2": "b", "c1": "c", "c2": "c"}


def net_of(path: Path, zones: dict[str, str], session: SessionBounds = SESSION) -> tuple[Net, dict[str, DeltaExchange]]:
    net = Net()
    return net, {
        name: exchange(path, lambda: ALL, name, zone=zone, net=net, peers=[other for other in zones if other != name], session=session)
        for name, zone in zones.items()
    }


def meshed(nodes: dict[str, DeltaExchange], zones: dict[str, str]) -> bool:
    """Every node is linked to all of its zone, and the smallest of each zone to those of the others."""
    speakers = {min(name for name in zones if zones[name] == zone) for zone in set(zones.values())}
    return all(
        set(node.mesh.linked) == {other for other in zones if other != name and (zones[other] == zones[name] or {name, other} <= speakers)}
        # Whoever has called everybody once calls nobody again who is linked to him.
        and node.mesh._known.keys() >= zones.keys() - {name}
        for name, node in nodes.items()
    )


def everywhere(nodes: dict[str, DeltaExchange], author: int, counter: int) -> bool:
    return all(node.log.index.positions.get(author) == counter for node in nodes.values())


def has_all(member: Member, author: int, last: int) -> bool:
    return member.has.get(author, set()) >= set(range(1, last + 1))


def passed_on(nodes: dict[str, DeltaExchange]) -> int:
    return sum(node.mesh.sent(via) for node in nodes.values() for via in (Via.ZONE, Via.WIDE))


async def test_in_a_zone_every_update_goes_to_every_node_once(tmp_path: Path) -> None:
    zones = {"a1": "a", "a2": "a", "a3": "a"}
    net, nodes = net_of(tmp_path, zones, PATIENT)
    author, reader, third = Member(1), Member(2), Member(3)
    async with running(*nodes.values(), net=net):
        await eventually(lambda: meshed(nodes, zones), "a full mesh")
        for member, name in ((author, "a1"), (reader, "a2"), (third, "a3")):
            await member.attach(nodes[name])
        for counter in range(1, 101):
            await author.write_durably(update(1, counter, previous=counter - 1))
        await eventually(lambda: len(reader.has.get(1, ())) == len(third.has.get(1, ())) == 100, "delivered at the other nodes")
        await eventually(lambda: not any(len(node.log.index) for node in nodes.values()), "and then forgotten at all of them")
        assert passed_on(nodes) == 200, "from the author's node to each of the others, and from nobody else"
        assert everywhere(nodes, 1, 100)
        for member in (author, reader, third):
            await member.detach()


async def test_between_zones_an_update_crosses_once_for_each_zone(tmp_path: Path) -> None:
    net, nodes = net_of(tmp_path, ZONES, PATIENT)
    author, reader = Member(1), Member(2)
    async with running(*nodes.values(), net=net):
        await eventually(lambda: meshed(nodes, ZONES), "meshes, and gateways between them")
        assert {name for name, node in nodes.items() if node.mesh.leads} == {"a1", "b1", "c1"}
        await author.attach(nodes["a3"])  # no gateway itself
        await reader.attach(nodes["c2"])
        for counter in range(1, 51):
            await author.write_durably(update(1, counter, previous=counter - 1))
        await eventually(lambda: len(reader.has.get(1, ())) == 50, "delivered two zones away")
        await eventually(lambda: everywhere(nodes, 1, 50), "known everywhere")
        await asyncio.sleep(1.7)  # past relay_after_s: what is sent twice would be sent by now
        crossed = sum(node.mesh.sent(Via.WIDE) for node in nodes.values())
        assert crossed == 50 * 2, "once into each other zone"
        assert passed_on(nodes) == 50 * 6, "and once to each node in all"
        await author.detach()
        await reader.detach()


async def test_another_node_speaks_for_a_zone_whose_gateway_died(tmp_path: Path) -> None:
    net, nodes = net_of(tmp_path, ZONES)
    author = Member(1)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(*(node for name, node in nodes.items() if name != "b1"), net=net))
        lost = nodes.pop("b1")
        async with running(lost, net=net):
            await eventually(lambda: meshed(nodes | {"b1": lost}, ZONES), "meshed")
            await author.attach(nodes["a2"])
            await author.write_durably(update(1, 1))
        del net.nodes["b1"]
        left = {name: zone for name, zone in ZONES.items() if name != "b1"}
        await author.write_durably(update(1, 2, previous=1))
        await eventually(lambda: meshed(nodes, left) and nodes["b2"].mesh.leads, "b2 speaks for its zone")
        await eventually(lambda: everywhere(nodes, 1, 2), "what was written meanwhile has crossed")
        back = exchange(tmp_path, lambda: ALL, "b1", zone="b", net=net, peers=[*left])
        async with running(back, net=net):
            await author.write_durably(update(1, 3, previous=2))
            await eventually(lambda: everywhere(nodes | {"b1": back}, 1, 3), "the one that came back catches up")
            await eventually(lambda: meshed(nodes | {"b1": back}, ZONES), "and speaks for its zone again")
        await author.detach()


async def test_around_a_cut_link_neighbours_pass_on(tmp_path: Path) -> None:
    zones = {"a1": "a", "a2": "a", "a3": "a"}
    net, nodes = net_of(tmp_path, zones)
    author, reader = Member(1), Member(2)
    async with running(*nodes.values(), net=net):
        await eventually(lambda: meshed(nodes, zones), "a full mesh")
        await net.separate(["a1"], ["a3"])
        await eventually(lambda: "a3" not in nodes["a1"].mesh.linked, "the cut is noticed")
        await author.attach(nodes["a1"])
        await reader.attach(nodes["a3"])
        await author.write_durably(*(update(1, counter) for counter in range(1, 21)))
        await eventually(lambda: len(reader.has.get(1, ())) == 20, "by way of the third node")
        await author.detach()
        await reader.detach()


async def test_a_reader_and_an_author_that_move_lose_and_repeat_nothing(tmp_path: Path) -> None:
    """A random walk: nodes are killed and come back, memory nodes attach wherever one runs. In the end everybody has everything."""
    rng = random.Random(7)
    zones = {"a1": "a", "a2": "a", "b1": "b"}
    net, nodes = net_of(tmp_path, zones)
    members = {n: Member(n) for n in (1, 2, 3)}
    written = dict.fromkeys(members, 0)
    up: dict[str, AsyncExitStack] = {}

    async def start(name: str) -> None:
        nodes[name] = exchange(tmp_path, lambda: ALL, name, zone=zones[name], net=net, peers=[o for o in zones if o != name])
        up[name] = AsyncExitStack()
        await up[name].enter_async_context(running(nodes[name], net=net))

    async def stop(name: str) -> None:
        net.nodes.pop(name)
        await up.pop(name).aclose()

    for name in zones:
        await start(name)
    for _ in range(25):
        if rng.random() < 0.3 and len(up) > 1:
            await stop(rng.choice(sorted(up)))
        elif len(up) < len(zones) and rng.random() < 0.5:
            await start(rng.choice(sorted(zones.keys() - up.keys())))
        for n, member in members.items():
            if not member.attached or rng.random() < 0.3:
                await member.attach(nodes[rng.choice(sorted(up))])
            fresh = [update(n, c, previous=c - 1) for c in range(written[n] + 1, written[n] + 1 + rng.randint(0, 5))]
            # As a memory node's journal: everything past what this consensus node has, old or new.
            written[n] += len(fresh)
            again = [update(n, c, previous=c - 1) for c in range(member.position + 1, written[n] + 1)]
            if again:
                await member.write_durably(*again)
                member.position = written[n]
    for name in sorted(zones.keys() - up.keys()):
        await start(name)
    for n, member in members.items():
        await member.attach(nodes[rng.choice(sorted(up))])
        missing = [update(n, c, previous=c - 1) for c in range(member.position + 1, written[n] + 1)]
        if missing:
            await member.write_durably(*missing)
    for n, member in members.items():
        for author, last in written.items():
            if author != n:
                await eventually(partial(has_all, member, author, last), f"m{n} has all of m{author}")
    await eventually(lambda: not any(len(node.log.index) for node in nodes.values()), "and nothing is left to do")
    for member in members.values():
        assert member.lost == {}
        await member.detach()
    for name in list(up):
        await stop(name)


async def test_what_nodes_have_is_known_at_every_consensus_node(tmp_path: Path) -> None:
    zones = {"a1": "a", "b1": "b"}
    net, nodes = net_of(tmp_path, zones)
    author, reader = Member(1), Member(2)
    async with running(*nodes.values(), net=net):
        await eventually(lambda: meshed(nodes, zones), "linked")
        await author.attach(nodes["a1"])
        await reader.attach(nodes["a1"])
        await author.write_durably(update(1, 1))
        await eventually(lambda: nodes["b1"].log.index.delivered("m2", 1) == 1, "the other one hears of it")
        await reader.detach()
        reader.offers.clear()
        await reader.attach(nodes["b1"])
        await author.write_durably(update(1, 2, previous=1))
        await eventually(lambda: reader.has.get(1) == {1, 2}, "and goes on there")
        assert reader.offers == [(1, 2)], "from where it was"
        await author.detach()
        await reader.detach()


@pytest.mark.parametrize(
    "hello",
    [
        pb.DeltaHello(),
        pb.DeltaHello(node_id="c1"),
        pb.DeltaHello(node_id="evil", zone="z", positions=[rpb.Head(replica=0, counter=1)]),
        pb.DeltaHello(node_id="evil", zone="z", positions=[rpb.Head(replica=1, counter=1 << 63)]),
        pb.DeltaHello(node_id="evil", zone="z", positions=[rpb.Head(replica=n, counter=1) for n in range(1, 5000)]),
        pb.DeltaHello(node_id="m1", replica=1 << 63),
    ],
)
async def test_a_hello_that_cannot_be_is_refused(tmp_path: Path, hello: pb.DeltaHello) -> None:
    node = exchange(tmp_path, lambda: ALL)
    async with running(node):
        pipe = Pipe()
        served = node.serve(AnsweringEnd(pipe))
        await CallingEnd(pipe).send(pb.ExchangeDeltasRequest(hello=hello))
        with pytest.raises(Exception, match=r"hello|positions|must name|replica"):
            await served
        assert node.attached == [] and node.mesh.linked == []


async def test_a_peer_cannot_say_what_a_stranger_or_another_store_has(tmp_path: Path) -> None:
    node = exchange(tmp_path, lambda: ALL, zone="z")
    async with running(node):
        pipe = Pipe()
        served = node.serve(AnsweringEnd(pipe))
        end = CallingEnd(pipe)
        await end.send(pb.ExchangeDeltasRequest(hello=pb.DeltaHello(node_id="peer", zone="z")))
        rows = [
            pb.NodePositions(node_id="stranger", replica=9, positions=[rpb.Head(replica=1, counter=5)]),
            pb.NodePositions(node_id="m2", replica=99, positions=[rpb.Head(replica=1, counter=5)]),
            pb.NodePositions(node_id="m3", replica=3, positions=[rpb.Head(replica=1, counter=5), rpb.Head(replica=8, counter=6)]),
        ]
        await end.send(pb.ExchangeDeltasRequest(updates=[update(1, 5)], delivered=rows))
        await eventually(lambda: node.log.index.delivered("m3", 1) == 5, "what is right is taken")
        assert node.log.index.readers.keys() == {"m3"} and node.log.index.readers["m3"].positions == {1: 5, 8: 6}
        await end.close()
        await asyncio.wait({served})
