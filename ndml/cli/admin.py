"""Commands for those who run the suite: status, snapshot, drain."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated

import typer

from ndml.cli.output import table
from ndml.cli.session import Session
from ndml.client import ClusterStatus, Placement, PlacementMember, ServiceStatus


def register(app: typer.Typer) -> None:
    app.command("status")(status)
    app.command("snapshot")(snapshot)
    app.command("drain")(drain)


def status(context: typer.Context) -> None:
    """Show every process of the suite and who owns what. With --user also that user's owners."""
    session: Session = context.obj
    with session.client(needs_user=False) as client:
        cluster, placement = client.cluster_status(), client.placement()
    left = drained(placement.members)
    session.output.result(
        {"cluster": cluster, "placement": placement},
        _verdict(cluster, placement),
        *_troubles(cluster, left),
        table("=service", "=instance", "=address", "=state", "=version", ">uptime", rows=[_process(row, left) for row in cluster.services]),
        table("=memory node", "=zone", "=state", "=phase", ">memories", ">to take", ">conflicts", "", rows=_members(cluster, placement)),
    )


def drained(members: Iterable[PlacementMember]) -> frozenset[str]:
    """Memory nodes that have left for good: they may be gone, and are missed by nobody."""
    return frozenset(row.node_id for row in members if row.phase == "left")


def _verdict(cluster: ClusterStatus, placement: Placement) -> str:
    away = [_absence(row) for row in placement.members if row.phase != "left" and row.state in ("down", "unspecified")]
    verdict = "healthy" if cluster.healthy else f"NOT HEALTHY: {', '.join(away) or 'no memory node is a member'}"
    copies = placement.replication_factor
    return f"{verdict} (placement epoch {placement.epoch}, {copies} {'copy' if copies == 1 else 'copies'} of each user's memories)"


def _absence(row: PlacementMember) -> str:
    return f"{row.node_id} is down" if row.state == "down" else f"{row.node_id} has not been heard of yet"


def _troubles(cluster: ClusterStatus, left: Collection[str]) -> list[str]:
    """A line for each process that does not answer and should, and for each author that is not believed any more."""
    silent = (row for row in cluster.services if not (row.reachable or row.instance in left))
    lines = [f"  {row.instance or row.address}: {row.error}" for row in silent]
    liars = {name for row in cluster.services for name in row.details.get("quarantined", "").split(", ") if name}
    return lines + [f"  {name}: quarantined, it signed two histories; nothing of it is taken" for name in sorted(liars)]


def _process(row: ServiceStatus, left: Collection[str]) -> tuple[str, ...]:
    """`left`: memory nodes that were drained, of which nobody expects an answer."""
    uptime = str(row.uptime).split(".")[0] if row.reachable else ""
    state = "up" if row.reachable else "left" if row.instance in left else "no answer"
    return row.service, row.instance, row.address, state, row.version, uptime


def _members(cluster: ClusterStatus, placement: Placement) -> list[tuple[str, ...]]:
    details = {row.instance: row.details for row in cluster.services if row.reachable}
    lag = to_take(cluster)
    rows: list[tuple[str, ...]] = []
    for row in placement.members:
        own = details.get(row.node_id)
        memories, conflicts = ("", "") if own is None else (own.get("traces", "0"), own.get("siblings", "0"))
        owner = "owner" if row.node_id in placement.owners else ""
        rows.append((row.node_id, row.zone, row.state, row.phase, memories, str(lag.get(row.node_id, "")), conflicts, owner))
    return rows


def to_take(cluster: ClusterStatus) -> dict[str, int]:
    """Updates that each node has yet to take, by the consensus node that knows of most."""
    found: dict[str, int] = {}
    for row in cluster.services:
        for part in filter(None, row.details.get("lag", "").split(", ")):
            name, _, count = part.rpartition("=")
            found[name] = max(int(count) if count.isdigit() else 0, found.get(name, 0))
    return found


def drain(
    context: typer.Context,
    node: Annotated[str, typer.Argument(help="Name of the memory node, as ndml status shows it.", show_default=False)],
) -> None:
    """Hand a memory node's users over to the others; it serves meanwhile. Breaking off does not stop it: call again to follow it."""
    session: Session = context.obj
    with (
        session.output.progress(f"draining {node}", None) as ticker,
        session.client(needs_user=False) as client,
        client.drain(node) as stream,
    ):
        for step in stream:
            ticker.reach(max(0, step.owners_total - step.owners_left), step.owners_total)
        last = stream.last
    total = last.owners_total if last else 0
    session.output.result(last, f"{node} has left: {total:,} users handed over, it may be stopped for good")


def snapshot(context: typer.Context) -> None:
    """Make every memory node write a consistent copy of its store beside it, while it serves."""
    session: Session = context.obj
    with session.client(needs_user=False) as client:
        taken = client.create_snapshot(timeout_s=max(session.timeout_s, 600.0))
    rows = [(row.node_id, f"{row.traces:,}", f"{row.size_bytes:,}", row.path, row.sha256) for row in taken]
    session.output.result({"snapshots": taken}, table("node", ">memories", ">bytes", "path", "sha256", rows=rows))
