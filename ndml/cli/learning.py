"""Commands that change how strong memories are: reinforce, consolidate."""

from __future__ import annotations

from typing import Annotated

import typer

from ndml.cli.output import exit_code, table
from ndml.cli.session import Session
from ndml.client import ConsolidationProgress, CreditSpread, Feedback, Reinforced


def register(app: typer.Typer) -> None:
    app.command("reinforce")(reinforce)
    app.command("consolidate")(consolidate)


def reinforce(
    context: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(help="Ids of memories, as search shows them, or of answers, as chat shows them.", metavar="TRACE|ANSWER…"),
    ],
    grade: Annotated[float, typer.Option("--grade", "-g", help="-1: wrong, harmful; 0: not needed; 1: right, used.")] = 1.0,
    clock: Annotated[str, typer.Option(help="How far a neighbour is: turns, seconds; none: no credit to neighbours.")] = "",
    before: Annotated[float | None, typer.Option(help="Reach of credit backward, in the clock's unit.", show_default=False)] = None,
    after: Annotated[float | None, typer.Option(help="Reach of credit forward.", show_default=False)] = None,
    request_id: Annotated[str, typer.Option(help="Makes a repeat safe: the same id counts once.", show_default=False)] = "",
) -> None:
    """Grade memories, or all that an answer cited, by their use: only this strengthens them."""
    session: Session = context.obj
    spread = CreditSpread(clock, before, after) if clock or before is not None or after is not None else None
    with session.client() as client:
        done = client.reinforce([Feedback(target, grade) for target in targets], spread=spread, request_id=request_id)
    rows = [
        (row.trace_id, f"{row.strength.strength:.3f}", f"{row.strength.successes} good, {row.strength.failures} bad")
        for row in done.results
        if row.strength is not None
    ]
    summary = "there already: nothing changed" if done.replayed else f"{len(rows)} graded, {done.credited} neighbours got credit"
    session.output.result(done, *([table("memory", ">strength", "uses", rows=rows)] if rows else []), summary)
    _report(session, done)


def _report(session: Session, done: Reinforced) -> None:
    failed = [(row.trace_id, row.error) for row in done.results if row.error is not None]
    for trace_id, error in failed:
        session.output.note(f"{trace_id}: {error.reason}: {error.message}")
    if failed:
        raise typer.Exit(exit_code(failed[0][1]))


def consolidate(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be merged, change nothing.")] = False,
    max_traces: Annotated[int, typer.Option(help="Memories to look at; 0: the server's setting.", min=0)] = 0,
    time_budget: Annotated[float | None, typer.Option(help="Seconds it may take.", show_default="the server's setting")] = None,
) -> None:
    """Merge what belongs together into lasting memories; sources stay. Ctrl-C stops it, what is merged stays."""
    session: Session = context.obj
    made: list[str] = []
    last = ConsolidationProgress()
    with (
        session.output.progress("consolidating", None) as ticker,
        session.client() as client,
        client.consolidate(max_traces=max_traces, time_budget_s=time_budget, dry_run=dry_run) as steps,
    ):
        for last in steps:
            ticker.reach(last.clusters_done, last.clusters_total)
            made += last.semantic_trace_ids
    result = {name: getattr(last, name) for name in ("clusters_total", "clusters_done", "merged", "rejected", "unchanged", "done")}
    shown = f"{last.merged:,} {'would be ' * dry_run}merged, {last.rejected:,} rejected, {last.unchanged:,} as before, "
    shown += f"{last.clusters_done:,} of {last.clusters_total:,} clusters"
    stopped = f"stopped: {last.stopped_because}" if last.stopped_because else ""
    whole = {**result, "stopped_because": last.stopped_because, "semantic_trace_ids": made}
    session.output.result(whole, shown, *([stopped] if stopped else []))
