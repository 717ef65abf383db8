"""Arithmetic for suites that no machine of ours holds: bytes, moves at scale-out, messages, cost. Writes docs/operations/capacity.md:

    python -m tests.perf.capacity --markdown docs/operations/capacity.md

Nothing is timed. Bytes a trace come from the benchmarks' JSON files, intervals and bounds from the settings classes, message
sizes from the
protos, moves from ndml/placement with made-up owners, gossip from the simulation in tests/sim. Equal input, equal page.
"""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from collections import Counter
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

from ndml.crdt.digests import BUCKETS, DIGEST_BYTES
from ndml.internal.v1 import consensus_pb2 as cpb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.placement import MemberState, NodeRecord, Placement, PlacementNode, Ring
from ndml.runtime.placement import placement_to_proto, record_to_proto
from services.consensus.settings import ConsensusSettings
from services.memory_node.settings import NodeSettings
from tests.perf import consensus_choices
from tests.perf.tables import Table

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GIB = 1 << 30
MONTH_H = 730
BUCKET_DIGESTS = BUCKETS * DIGEST_BYTES
VIEW = 6  # neighbours in the gossip: nodes of a zone x neighbours must be even


@dataclass(frozen=True, slots=True)
class Plan:
    """The suite that is asked about. `active`: share of the traces whose users are in memory. writes_s, by text, of the whole suite."""

    traces: int = 1_000_000_000
    nodes: int = 100
    copies: int = 3
    zones: int = 4
    consensus: int = 8
    gateways: int = 20
    writes_s: int = 1_000
    active: float = 0.1
    owners: int = 10_000

    @property
    def held(self) -> float:
        """Traces on one node, copies counted."""
        return self.traces * self.copies / self.nodes


@dataclass(frozen=True, slots=True)
class Prices:
    """Of a month, in one currency; an assumption of who runs it."""

    core: float = 25.0
    memory_gib: float = 3.0
    disk_gib: float = 0.1
    zone_gib: float = 0.02


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes of a trace, as our own benchmarks found them, and texts embedded a second by a core."""

    index: int
    store: int
    grown: int
    record: int
    plain: int
    texts_core: float


def number(text: str) -> float:
    """The first number of a text like "3,357 B a trace". Raises ValueError."""
    found = re.search(r"[\d,]*\.?\d+", text)
    if found is None:
        raise ValueError(f"no number in {text!r}")
    return float(found[0].replace(",", ""))


def flow(text: str) -> str:
    """The text in lines of the length that our pages have."""
    return "\n\n".join(textwrap.fill(part, 160, break_long_words=False, break_on_hyphens=False) for part in text.split("\n\n"))


def measured(docs: Path = DOCS) -> Measured:
    """From docs/benchmarks.json, docs/benchmarks-consensus.json and docs/science/recall.json."""
    suite = {row["path"]: row for row in json.loads((docs / "benchmarks.json").read_text())["rows"]}
    replication = {t["title"]: t for t in json.loads((docs / "benchmarks-consensus.json").read_text())["tables"]}
    recall = {t["title"]: t for t in json.loads((docs / "science/recall.json").read_text())["tables"]}
    memory = {row[0]: number(row[1]) for row in recall["Memory"]["rows"]}
    record = number(replication["Bytes to bring two copies of 100,000 traces together"]["note"])
    cores = json.loads((docs / "benchmarks.json").read_text())["machine"]["cores"]
    return Measured(
        index=int(memory["index_bytes of the node's status"]),
        store=int(memory["store_bytes of the node's status"]),
        grown=int(memory["the memory node's growth in memory"]),
        record=int(record),
        plain=int(number(suite["memory, 100,000 traces"]["ours"])),
        texts_core=number(suite["add, text (embedded by llm)"]["reference"]) / cores,
    )


# Bytes


def bytes_table(plan: Plan, m: Measured) -> Table:
    """What traces take, on a node and in all."""
    kept = NodeSettings().store.snapshots_kept
    copies = plan.traces * plan.copies

    def line(what: str, each: float, share: float = 1.0) -> tuple[str, ...]:
        return (what, f"{each:,.0f}", f"{each * plan.held * share / GIB:,.0f}", f"{each * copies * share / GIB / 1024:,.1f}")

    rows = [
        line("on disk, all signals", m.store),
        line(f"on disk with {kept} snapshots", m.store * (1 + kept)),
        line("on the wire: text and vector", m.record),
        line("index in memory, every user active", m.index),
        line(f"index in memory, {plan.active:.0%} active", m.index, plan.active),
        line(f"the node's whole memory as it grew, {plan.active:.0%} active", m.grown, plan.active),
        line(f"the suite's memory with vectors given, {plan.active:.0%} active", m.plain, plan.active),
    ]
    note = flow(f"""{plan.held / 1e6:,.0f} million traces on a node. Traces with text, embedded by the suite, 10,000 to a user,
as `make eval-recall` found them: index and
store as the node's own status tells, "as it grew" with states, familiarity and the allocator's slack. Without text's signals
less: `make bench`,
last line. The wire's line is what a copy costs to move (`make bench-consensus`).""")
    return Table("Bytes", note, ("what", "B a trace", "GiB a node", "TiB in all"), rows)


def bounds_table(plan: Plan, m: Measured) -> Table:
    """What has to be set, or what else the nodes would be."""
    settings = NodeSettings()
    most = settings.store.max_traces
    copies = plan.traces * plan.copies
    ceil = -(-copies // most)
    index = m.index * plan.held * plan.active
    rows = [
        ("`store.max_traces`", f"{most:,}", f"{plan.held:,.0f}", f"{ceil:,} at the default"),
        (
            "`engine.index_memory_limit`",
            f"{settings.engine.index_memory_limit / GIB:.0f} GiB",
            f"{index / GIB:,.0f} GiB",
            f"{-(-int(m.index * copies * plan.active) // settings.engine.index_memory_limit):,} at the default",
        ),
    ]
    note = flow(f"""What {plan.nodes} nodes need and the defaults do not give, for {plan.active:.0%} active; and how many nodes
it takes without touching them. Nobody has run a node with as
many traces: the most that we measured is a million rows in an index (`make bench-index`) and 100,000 traces in a suite (`make
bench`). A restart
with 100,000 takes seconds; with so many, measure it before you rely on it.""")
    return Table("Bounds", note, ("setting", "default", f"needed on each of {plan.nodes}", "nodes instead"), rows)


# Placement


def members(count: int, zones: int) -> list[tuple[str, str]]:
    """Names and zones, as a StatefulSet and its zones give them."""
    return [(f"ndml-memory-node-{at}", f"zone-{at % zones}" if zones > 1 else "") for at in range(count)]


@dataclass(frozen=True, slots=True)
class Moves:
    """Of all copies: share that goes to nodes that came, share that goes between those that were there. fullest: copies over the mean."""

    moved: float
    between: float
    fullest: float


def moves(before: int, after: int, copies: int, zones: int, owners: int) -> Moves:
    """Place so many owners by `before` nodes and by `after`: what moves. Owners are u0, u1, ...: the page is the same each time."""
    old, new = placed(before, copies, zones, owners), placed(after, copies, zones, owners)
    were, are = ({name for name, _ in members(count, zones)} for count in (before, after))
    moved, between, load = 0, 0, Counter(dict.fromkeys(are, 0))
    for had, has in zip(old, new, strict=True):
        load.update(has)
        moved += len(has - were) + len(had - are)
        # A copy of one that left has to go somewhere; what moved although none of the owner's nodes left counts here.
        between += len((has - had) & were) if had <= are else 0
    copied = sum(load.values())
    return Moves(moved / copied, between / copied, max(load.values()) * after / copied)


@lru_cache(maxsize=16)
def placed(nodes: int, copies: int, zones: int, owners: int) -> tuple[frozenset[str], ...]:
    """Names of the nodes of each owner, as the suite itself would place it."""
    ring = Ring(members(nodes, zones), copies, cache_owners=1)
    return tuple(frozenset(ring.nodes[index][0] for index in ring.rank("default", f"u{at}")) for at in range(owners))


def moves_table(plan: Plan, m: Measured) -> Table:
    """Simulated beside expected, and how long the hand-over takes."""
    rate = NodeSettings().replication.sweep.bytes_per_s
    n = plan.nodes
    cases = [(3, 4, 1), (10, 11, 1), (n, n + 1, 1), (n, n + 10, 1), (n, n - 1, 1), (n, n + 1, plan.zones), (n, n + plan.zones, plan.zones)]
    rows = []
    for before, after, zones in cases:
        found = moves(before, after, plan.copies, zones, plan.owners)
        expected = abs(after - before) / max(before, after)
        tib = found.moved * plan.traces * plan.copies * m.record / GIB / 1024
        # Those that come fetch side by side, each at its own rate; of one that leaves, all others take part and it alone gives.
        hours = found.moved * plan.traces * plan.copies * m.record / abs(after - before) / rate / 3600
        rows.append(
            (
                f"{before} → {after}" + (f", {zones} zones" if zones > 1 else ""),
                f"{expected:.2%}",
                f"{found.moved:.2%}",
                f"{found.between:.2%}",
                f"{found.fullest:.2f}",
                f"{tib:,.2f}",
                f"{hours:,.1f}",
            )
        )
    note = flow(f"""{plan.owners:,} users placed by `ndml/placement` with {plan.copies} copies, before and after. Expected: by
rendezvous hashing, that is the share of the nodes that came or
went. "Others": copies that moved between nodes that were there all the time. "Fullest": the node with most users over the mean,
after; chance alone makes it
some 1 + 2.5 / sqrt(users on a node) of 100, which is little where users are many, and few large ones among many small make it
more. TiB and hours for
{plan.traces:,} traces, each node at `replication.sweep.bytes_per_s` = {rate >> 20} MiB/s; of three or ten nodes each would hold
hundreds of millions of them. Several that come at once fetch side by side.""")
    return Table(
        "Moves when nodes come and go",
        note,
        ("nodes", "moved, expected", "moved", "others", "fullest", "TiB moved", "hours"),
        rows,
    )


# Messages


def placement_of(plan: Plan) -> Placement:
    """The placement of such a suite, with names and addresses as the chart makes them."""
    records = [
        NodeRecord(name, f"{name}.ndml-memory-node.memory.svc.cluster.local:7710", zone, incarnation=1, replica=(1 << 62) + at)
        for at, (name, zone) in enumerate(members(plan.nodes, plan.zones))
    ]
    return Placement([PlacementNode(record, MemberState.ALIVE) for record in records], plan.copies)


def links(plan: Plan) -> tuple[int, int]:
    """Exchanges of updates between consensus nodes: inside of zones, and between the zones' speakers."""
    each, more = divmod(plan.consensus, plan.zones)
    inside = sum(size * (size - 1) // 2 for size in [each + 1] * more + [each] * (plan.zones - more))
    return inside, plan.zones * (plan.zones - 1) // 2


def standing_table(plan: Plan) -> Table:
    """Messages that go whether or not anybody writes."""
    node, consensus = NodeSettings(), ConsensusSettings()
    placement = placement_of(plan)
    record = record_to_proto(placement.members[0].record)
    beat = cpb.HeartbeatRequest(node=record).ByteSize() + cpb.HeartbeatResponse(epoch=placement.epoch, is_member=True).ByteSize()
    roster = cpb.ExchangeRosterRequest(records=[record_to_proto(member.record) for member in placement.members]).ByteSize()
    told = placement_to_proto(placement).ByteSize()
    name = placement.members[0].node_id
    asked = rpb.CompareBucketsRequest(node_id=name, digests=bytes(BUCKET_DIGESTS), epoch=placement.epoch).ByteSize()
    asked += rpb.CompareBucketsResponse(epoch=placement.epoch, replica=1).ByteSize()
    n, c, g = plan.nodes, plan.consensus, plan.gateways
    pause = (node.replication.sweep.least_interval_s + node.replication.sweep.most_interval_s) / 2
    inside, between = links(plan)
    lines = [
        ("heartbeats", f"N C / {node.heartbeat.interval_s:g} s", n * c / node.heartbeat.interval_s, beat),
        (
            "rosters, consensus nodes",
            f"C (C - 1) / {consensus.exchange.interval_s:g} s",
            c * (c - 1) / consensus.exchange.interval_s,
            2 * roster,
        ),
        ("placement repeated to watchers", f"(N + G) / {consensus.watch.keep_alive_s:g} s", (n + g) / consensus.watch.keep_alive_s, told),
        ("comparing with every partner", f"N (N - 1) / {pause:g} s", n * (n - 1) / pause, asked),
        (
            "what has come, consensus nodes, at most",
            f"2 links / {consensus.deltas.gossip_interval_s:g} s",
            2 * (inside + between) / consensus.deltas.gossip_interval_s,
            0,
        ),
    ]
    rows = [
        (what, formula, f"{rate:,.0f}", f"{size:,}" if size else "news only", f"{rate * size / 1024:,.0f}" if size else "")
        for what, formula, rate, size in lines
    ]
    note = flow(f"""N = {n} memory nodes, C = {c} consensus nodes in {plan.zones} zones, G = {g} gateways; {inside} + {between}
links between consensus nodes (in zones, between them). Bytes of request and
answer as protobuf writes them, without HTTP/2's frames. Comparing is what grows by N²: a node asks {n - 1} partners in a round,
{(n - 1) * asked / 1024:,.0f} KiB; at 1,000
nodes it would be {999 * asked / (1 << 20):,.1f} MiB a node and round.""")
    return Table("Messages of a suite at rest", note, ("what", "formula", "a second", "bytes each", "KiB/s in all"), rows)


def write_table(plan: Plan, m: Measured) -> Table:
    """Payloads of one write, by edge, and what the suite's writes make of them."""
    spread = plan.consensus - 1
    lines = [
        ("gateway to the coordinator, and back", "2", 2, 1 - 1 / plan.zones),
        ("gateway to the other copies", "R - 1", plan.copies - 1, 1 - 1 / plan.zones),
        ("coordinator to its consensus node", "1", 1, 0),
        ("among consensus nodes", "C - 1, of these Z - 1 between zones", spread, (plan.zones - 1) / spread),
        ("consensus nodes to copies", "ids alone, as a rule", 0, 0),
    ]
    rows = [
        (what, formula, f"{count}", f"{count * far:.2f}", f"{count * m.record * plan.writes_s / (1 << 20):,.1f}")
        for what, formula, count, far in lines
    ]
    total, wide = sum(line[2] for line in lines), sum(line[2] * line[3] for line in lines)
    rows.append(("all", "", f"{total}", f"{wide:.2f}", f"{total * m.record * plan.writes_s / (1 << 20):,.1f}"))
    note = flow(f"""Payloads of {m.record:,} B at {plan.writes_s:,} writes a second. A gateway knows no zone of the user's, so
its calls cross zones as often as chance has it; consensus nodes spread an
update inside of each zone, and once to each other zone. Copies have it from the gateway by then: consensus nodes offer ids, and
send what is missing.""")
    return Table("Payloads of one write", note, ("edge", "formula", "payloads", "of these between zones", "MiB/s"), rows)


def gossip_table(plan: Plan) -> Table:
    """5.5 of the science notes at this size: what one update would cost if it were gossiped to all memory nodes, which it is not."""
    table = consensus_choices.gossip(plan.nodes, plan.zones, VIEW).tables[0]
    note = flow(f"""Here an update goes to its {plan.copies} copies by the edges above. If every one of {plan.nodes} nodes needed
it, these would be the ways, counted by the simulation of
`make bench-consensus` ({VIEW} neighbours each) beside the formulas: N(N-1); fN; N-1 payloads and N a - 2(N-1) ids; (1-1/Z)(N-1)
and Z-1 between zones.""")
    return Table(
        f"Gossip among {plan.nodes} nodes, for comparison", note, table.head, [row for row in table.rows if "crash" not in row[0]][:5]
    )


# Cost


def cost_table(plan: Plan, prices: Prices, m: Measured) -> Table:
    """A month, line by line: amount, unit price, product."""
    kept = NodeSettings().store.snapshots_kept
    memory = plan.held * plan.active * m.grown / GIB
    disk = plan.held * m.store * (1 + kept) / GIB
    llm = plan.writes_s / m.texts_core
    wide_gib = (2 + plan.copies - 1) * (1 - 1 / plan.zones) + plan.zones - 1
    wide_gib *= m.record * plan.writes_s * 3600 * MONTH_H / GIB
    lines = [
        ("memory nodes, cores", "4 N", 4.0 * plan.nodes, prices.core),
        ("memory nodes, GiB of memory", "N (1 + held x active x grown)", plan.nodes * (1 + memory), prices.memory_gib),
        ("memory nodes, GiB of disk", "N x held x store x (1 + snapshots)", plan.nodes * disk, prices.disk_gib),
        ("gateways, cores", "2 G", 2.0 * plan.gateways, prices.core),
        ("gateways, GiB of memory", "G", float(plan.gateways), prices.memory_gib),
        ("llm, cores (embedding what is written)", "writes / texts a core", llm, prices.core),
        ("llm, GiB of memory", "1.5 a core", 1.5 * llm, prices.memory_gib),
        ("consensus, cores and GiB", "C each", float(plan.consensus), prices.core + prices.memory_gib),
        ("traffic between zones, GiB", "payloads between zones x record x writes", wide_gib, prices.zone_gib),
    ]
    rows = [(what, formula, f"{amount:,.0f}", f"{price:g}", f"{amount * price:,.0f}") for what, formula, amount, price in lines]
    total = sum(amount * price for _, _, amount, price in lines)
    rows.append(("**a month**", "", "", "", f"**{total:,.0f}**"))
    rows.append(("a million traces, a month", "", "", "", f"{total / plan.traces * 1e6:,.2f}"))
    note = flow(f"""**The unit prices are an assumption**, round numbers of nobody's price list: {prices.core:g} a core,
{prices.memory_gib:g} a GiB of memory, {prices.disk_gib:g} a GiB of disk, {prices.zone_gib:g} a GiB between
zones. Put yours in: `--core`, `--memory-gib`, `--disk-gib`, `--zone-gib`. Chats, searches' share of the cores, backups and the
model are not in it: how many cores
a search rate needs is in [sizing](sizing.md). Four cores a memory node are the production profile's limit, not a measurement at
this size.""")
    return Table("Cost of a month", note, ("what", "formula", "amount", "unit price", "product"), rows)


def page(plan: Plan, prices: Prices) -> str:
    """The page's text."""
    m = measured()
    tables = [
        bytes_table(plan, m),
        bounds_table(plan, m),
        moves_table(plan, m),
        standing_table(plan),
        write_table(plan, m),
        gossip_table(plan),
        cost_table(plan, prices, m),
    ]
    above = _ABOVE.format(
        traces=plan.traces,
        nodes=plan.nodes,
        copies=plan.copies,
        zones=plan.zones,
        gateways=plan.gateways,
        consensus=plan.consensus,
        writes=plan.writes_s,
        active=plan.active,
    )
    blocks = ["# Capacity", flow(above)]
    for table in tables:
        lines = [table.head, ["---"] * len(table.head), *table.rows]
        blocks += [f"## {table.title}", table.note, "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    return "\n\n".join(blocks) + "\n"


_ABOVE = """Written by `python -m tests.perf.capacity --markdown docs/operations/capacity.md`: {traces:,} traces, {copies} copies
each, on {nodes} memory nodes in {zones}
zones, with {consensus} consensus nodes, {gateways} gateways, {writes:,} texts written a second, {active:.0%} of the users in
memory. Other suites: its options.

**This is arithmetic and simulation; no suite of this size has run.** Inputs are what our benchmarks measured on two cores and up
to a million
traces, the defaults of the settings, and the sizes of the messages. For suites of a few nodes, requests and limits see
[sizing](sizing.md)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind in (Plan, Prices):
        for each in fields(kind):
            parser.add_argument(f"--{each.name.replace('_', '-')}", type=type(each.default), default=each.default)
    parser.add_argument("--markdown", type=Path)
    given = vars(parser.parse_args())
    plan = Plan(**{each.name: given[each.name] for each in fields(Plan)})
    prices = Prices(**{each.name: given[each.name] for each in fields(Prices)})
    if given["markdown"]:
        given["markdown"].write_text(page(plan, prices), encoding="utf-8")
    else:
        print(page(plan, prices))


if __name__ == "__main__":
    main()
