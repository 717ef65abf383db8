"""Commands for those who run the suite: status, snapshot, drain."""

from __future__ import annotations

from typing import Annotated

import typer

from ndml.cli.output import table
from ndml.cli.session import Session


def register(app: typer.Typer) -> None:
    app.command("status")(status)
    app.command("snapshot")(snapshot)
    app.command("drain")(drain)


def status(context: typer.Context) -> None:
    """Show every process of the suite and who owns what. With --user also that user's owners."""
    session: Session = context.obj
    with session.client(needs_user=False) as client:
        cluster, placement = client.cluster_status(), client.placement()
    services = [
        (
            row.service,
            row.instance,
            row.address,
            "up" if row.reachable else f"down: {row.error}",
            row.version,
            str(row.uptime).split(".")[0],
        )
        for row in cluster.services
    ]
    members = [
        (row.node_id, row.address, row.zone, row.state, row.phase, "owner" if row.node_id in placement.owners else "")
        for row in placement.members
    ]
    session.output.result(
        {"cluster": cluster, "placement": placement},
        f"{'healthy' if cluster.healthy else 'NOT HEALTHY'}, placement epoch {placement.epoch}, {placement.replication_factor} copies",
        table("service", "instance", "=address", "state", "=version", "=uptime", rows=services),
        table("node", "=address", "zone", "state", "phase", "", rows=members),
    )


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
