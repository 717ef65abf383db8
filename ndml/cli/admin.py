"""Commands for those who run the suite: status, snapshot."""

from __future__ import annotations

import typer

from ndml.cli.output import table
from ndml.cli.session import Session


def register(app: typer.Typer) -> None:
    app.command("status")(status)
    app.command("snapshot")(snapshot)


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
        (row.node_id, row.address, row.zone, row.state, "owner" if row.node_id in placement.owners else "") for row in placement.members
    ]
    session.output.result(
        {"cluster": cluster, "placement": placement},
        f"{'healthy' if cluster.healthy else 'NOT HEALTHY'}, placement epoch {placement.epoch}, {placement.replication_factor} copies",
        table("service", "instance", "=address", "state", "=version", "=uptime", rows=services),
        table("node", "=address", "zone", "state", "", rows=members),
    )


def snapshot(context: typer.Context) -> None:
    """Make every memory node write a consistent copy of its store beside it, while it serves."""
    session: Session = context.obj
    with session.client(needs_user=False) as client:
        taken = client.create_snapshot(timeout_s=max(session.timeout_s, 600.0))
    rows = [(row.node_id, f"{row.traces:,}", f"{row.size_bytes:,}", row.path, row.sha256) for row in taken]
    session.output.result({"snapshots": taken}, table("node", ">memories", ">bytes", "path", "sha256", rows=rows))
