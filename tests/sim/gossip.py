"""How many messages one update costs 1,000 nodes: all-to-all push, random gossip, Plumtree, and Plumtree in zones. Counted, not timed.

Plumtree (Leitao, Pereira, Rodrigues 2007): payloads travel along eager links, ids along lazy ones. A payload that was known already turns
its link lazy, so after one flood the eager links are a spanning tree; an id whose payload does not follow makes its link eager again.
The protocol below is all of it, on a queue of events; the unit of time is the mean delay of a link.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random

PATIENCE = 60.0
"""From an id to asking for its payload. Paths in a tree of 1,000 nodes are some 20 links: who asks sooner gets payloads twice."""

SECOND_PATIENCE = 4.0
"""From asking one neighbour to asking the next: a round trip of the slowest links, and some."""

PASSIVE_VIEW = 30
"""Nodes known besides the neighbours, as in HyParView: where a replacement for a dead neighbour is taken from."""

Links = Mapping[int, Collection[int]]


@dataclass(slots=True)
class Tally:
    """What one broadcast cost. A message is counted when it is sent, whether or not its target lives."""

    payloads: int = 0
    ids: int = 0
    prunes: int = 0
    grafts: int = 0
    wide: int = 0
    """Payloads from one zone to another."""

    reached: int = 0
    """Living nodes that have it, the source too."""

    rounds: int = 0
    """Links on the longest way that a payload took."""

    def redundancy(self) -> float:
        """Payloads for every node that was reached: 1 is a tree."""
        return self.payloads / max(self.reached - 1, 1)

    def add(self, other: Tally) -> None:
        """All but the rounds, which do not add up."""
        for name in ("payloads", "ids", "prunes", "grafts", "wide", "reached"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def push(nodes: int, fanout: int, random: Random) -> Tally:
    """Everyone sends to `fanout` others, once, when it first hears. fanout = nodes - 1 is all-to-all."""
    heard, fresh, tally = {0}, [0], Tally()
    while fresh:
        told: set[int] = set()
        for node in fresh:
            # Numbers 0 .. nodes-2, those from `node` on moved up by one: everyone but itself.
            told.update(other + (other >= node) for other in random.sample(range(nodes - 1), fanout))
            tally.payloads += fanout
        fresh = sorted(told - heard)
        heard |= told
        tally.rounds += bool(fresh)
    tally.reached = len(heard)
    return tally


def random_links(nodes: Iterable[int], degree: int, random: Random) -> dict[int, set[int]]:
    """A random graph in which every node has `degree` neighbours. nodes * degree must be even, and degree well below nodes."""
    stubs = [node for node in nodes for _ in range(degree)]
    random.shuffle(stubs)
    while bad := _bad_pairs(stubs):
        for at in bad:
            other = random.randrange(len(stubs))
            stubs[at], stubs[other] = stubs[other], stubs[at]
    links: dict[int, set[int]] = {node: set() for node in stubs}
    for a, b in zip(stubs[::2], stubs[1::2], strict=True):
        links[a].add(b)
        links[b].add(a)
    return links


def _bad_pairs(stubs: list[int]) -> list[int]:
    """Where pairs begin that link a node to itself, or two nodes again."""
    seen: set[tuple[int, int]] = set()
    bad = []
    for at in range(0, len(stubs), 2):
        pair = min(stubs[at : at + 2]), max(stubs[at : at + 2])
        if pair[0] == pair[1] or pair in seen:
            bad.append(at)
        seen.add(pair)
    return bad


@dataclass(slots=True)
class _Peer:
    """One node's view: neighbours by what they are sent, payloads seen, and who announced those that are missing."""

    eager: set[int]
    lazy: set[int] = field(default_factory=set)
    seen: dict[int, int] = field(default_factory=dict)
    """Message -> links that it came over."""

    offers: dict[int, list[int]] = field(default_factory=dict)

    def turn(self, neighbour: int, *, eager: bool) -> None:
        """Unknown neighbours are left alone: the link is gone."""
        source, target = (self.lazy, self.eager) if eager else (self.eager, self.lazy)
        if neighbour in source:
            source.remove(neighbour)
            target.add(neighbour)

    def forget(self, neighbours: set[int]) -> int:
        """Drop these; how many there were."""
        before = len(self.eager) + len(self.lazy)
        self.eager -= neighbours
        self.lazy -= neighbours
        return before - len(self.eager) - len(self.lazy)


class Plumtree:
    """Broadcast over `links`; `zone_of` a node only serves to count what crosses zones."""

    def __init__(self, links: Links, random: Random, zone_of: Callable[[int], int] = lambda node: 0) -> None:
        self.peers = {node: _Peer(set(neighbours)) for node, neighbours in links.items()}
        self.living = set(self.peers)
        self._dead: set[int] = set()
        self._random = random
        self._zone_of = zone_of
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._now = 0.0
        self._ticket = 0
        self._message = 0
        self._tally = Tally()

    def crash(self, gone: Collection[int]) -> None:
        """They fall silent; nobody knows yet."""
        self._dead |= set(gone)
        self.living -= self._dead

    def mend(self) -> None:
        """Broken connections are noticed: each lost neighbour is replaced by a living one of the passive view, over an eager link."""
        order = sorted(self.living)
        for node in order:
            lost = self.peers[node].forget(self._dead)
            for other in self._random.sample(order, min(PASSIVE_VIEW, len(order)))[: lost + 1]:
                if lost and other != node:
                    lost -= 1
                    self._link(node, other)

    def _link(self, one: int, other: int) -> None:
        for a, b in ((one, other), (other, one)):
            self.peers[a].lazy.discard(b)
            self.peers[a].eager.add(b)

    def broadcast(self, source: int) -> Tally:
        """One payload from `source` until the network is quiet."""
        self._message += 1
        self._tally = Tally()
        self._receive(source, source, 0)
        while self._queue:
            self._now, _, act = heapq.heappop(self._queue)
            act()
        self._tally.reached = sum(self._message in self.peers[node].seen for node in self.living)
        return self._tally

    def tree_links(self) -> int:
        """Eager links among the living, both ends agreeing: one fewer than nodes in a spanning tree."""
        peers = self.peers
        return sum(node in peers[other].eager for node in self.living for other in peers[node].eager & self.living) // 2

    def _after(self, delay: float, act: Callable[[], None]) -> None:
        self._ticket += 1
        heapq.heappush(self._queue, (self._now + delay, self._ticket, act))

    def _send(self, target: int, act: Callable[[], None]) -> None:
        delay = self._random.uniform(0.5, 1.5)
        if target in self.living:
            self._after(delay, act)

    def _send_payload(self, node: int, target: int, rounds: int) -> None:
        self._tally.payloads += 1
        self._tally.wide += self._zone_of(node) != self._zone_of(target)
        self._send(target, lambda: self._receive(target, node, rounds))

    def _receive(self, node: int, sender: int, rounds: int) -> None:
        peer = self.peers[node]
        if self._message in peer.seen:
            peer.turn(sender, eager=False)
            self._tally.prunes += 1
            self._send(sender, lambda: self.peers[sender].turn(node, eager=False))
            return
        peer.seen[self._message] = rounds
        peer.turn(sender, eager=True)
        self._tally.rounds = max(self._tally.rounds, rounds)
        for other in sorted(peer.eager - {sender}):
            self._send_payload(node, other, rounds + 1)
        for other in sorted(peer.lazy - {sender}):
            self._announce(node, other)

    def _announce(self, node: int, target: int) -> None:
        self._tally.ids += 1
        self._send(target, lambda: self._offered(target, node))

    def _offered(self, node: int, sender: int) -> None:
        peer = self.peers[node]
        if self._message in peer.seen:
            return
        offers = peer.offers.setdefault(self._message, [])
        offers.append(sender)
        if len(offers) == 1:
            self._after(PATIENCE, lambda: self._ask(node))

    def _ask(self, node: int) -> None:
        peer = self.peers[node]
        offers = peer.offers.get(self._message)
        if self._message in peer.seen or not offers:
            peer.offers.pop(self._message, None)
            return
        sender = offers.pop(0)
        peer.turn(sender, eager=True)
        self._tally.grafts += 1
        self._send(sender, lambda: self._grafted(sender, node))
        self._after(SECOND_PATIENCE, lambda: self._ask(node))

    def _grafted(self, node: int, asker: int) -> None:
        self.peers[node].turn(asker, eager=True)
        self._send_payload(node, asker, self.peers[node].seen[self._message] + 1)


class Zones:
    """Plumtree inside each zone; between zones one gateway each, the living node with the smallest number, to all other gateways."""

    def __init__(self, nodes: int, zones: int, view: int, random: Random) -> None:
        self.size = nodes // zones
        members = [range(zone * self.size, (zone + 1) * self.size) for zone in range(zones)]
        self.trees = [Plumtree(random_links(zone, view, random), random) for zone in members]

    def broadcast(self, source: int) -> Tally:
        """Into the source's zone, from its gateway to the other gateways, from each into its zone."""
        home = source // self.size
        tally = Tally()
        for zone, tree in enumerate(self.trees):
            if zone != home:
                # A gateway that does not answer costs one payload; then the next in the order is asked.
                tried = sum(node not in tree.living for node in range(zone * self.size, self._gateway(zone)))
                tally.wide += 1 + tried
                tally.payloads += 1 + tried
            inside = tree.broadcast(source if zone == home else self._gateway(zone))
            tally.add(inside)
            tally.rounds = max(tally.rounds, inside.rounds)
        return tally

    def crash(self, gone: Collection[int]) -> None:
        for zone, tree in enumerate(self.trees):
            tree.crash([node for node in gone if node // self.size == zone])

    def mend(self) -> None:
        for tree in self.trees:
            tree.mend()

    @property
    def living(self) -> set[int]:
        return set().union(*(tree.living for tree in self.trees))

    def _gateway(self, zone: int) -> int:
        return min(self.trees[zone].living)


@dataclass(frozen=True, slots=True)
class Expected:
    """The formulas, for N nodes, Z zones, fanout f, active view a."""

    nodes: int
    zones: int
    fanout: int
    view: int

    def all_to_all(self) -> int:
        return self.nodes * (self.nodes - 1)

    def gossip_payloads(self) -> int:
        return self.fanout * self.nodes

    def gossip_rounds(self) -> float:
        return math.log(self.nodes, self.fanout)

    def gossip_reaches_all(self) -> float:
        """Chance that nobody is left out: exp(-exp(-c)) at fanout ln N + c."""
        return math.exp(-math.exp(math.log(self.nodes) - self.fanout))

    def tree_payloads(self) -> int:
        return self.nodes - 1

    def tree_ids(self) -> int:
        """Ends of links that are not in the tree."""
        return self.nodes * self.view - 2 * (self.nodes - 1)

    def flat_wide(self) -> float:
        return (1 - 1 / self.zones) * (self.nodes - 1)

    def zoned_wide(self) -> int:
        return self.zones - 1
