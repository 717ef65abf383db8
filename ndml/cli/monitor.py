"""ndml monitor: the suite live, in a terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from ndml.cli.session import Session
from ndml.errors import FieldInvalid, NdmlError, NotAvailable, OwnerUnavailable

if TYPE_CHECKING:
    from ndml.cli.monitoring.watch import Watch


def register(app: typer.Typer) -> None:
    app.command("monitor")(monitor)


def monitor(
    context: typer.Context,
    interval: Annotated[float, typer.Option(help="Seconds between two readings.", min=0.5, max=3600.0)] = 2.0,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            help="Read the metrics there, and nowhere else; may be repeated. Default: port + 1000 of each process that the gateway knows.",
            metavar="[INSTANCE=]HOST:PORT",
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Read twice, print, end: for scripts and where there is no terminal.")] = False,
) -> None:
    """Watch the suite live: processes, calls, latencies, the write gate, queues, replication; with --user how strong its memories are."""
    session: Session = context.obj
    plain = once or session.output.as_json
    if not plain and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise FieldInvalid("this is no terminal: give --once (or -o json), or connect with ssh -t", field="once")
    try:
        from ndml.cli.monitoring.sources import Sources, named
        from ndml.cli.monitoring.watch import WINDOW_S, Watch
    except ModuleNotFoundError as error:
        raise NotAvailable(f"{error.name} is not installed: pip install 'ndml[cli]'") from error
    targets = named(metrics or ())
    with session.client(needs_user=False) as client:
        sources = Sources(client, session.address, targets=targets, user=session.user, timeout_s=session.timeout_s)
        # At least two readings, whatever the interval.
        watch = Watch(sources.read, max(WINDOW_S, 2 * interval))
        first = watch.reading()
        if first.silent:
            raise _away(session.address, first.error, len(first.answers))
        if plain:
            _print_once(session, watch, interval)
        else:
            _live(watch, interval)


def _away(address: str, error: NdmlError | None, asked: int) -> NdmlError:
    """Nothing answered: a gateway that refuses says why itself."""
    if error is not None and not isinstance(error, OwnerUnavailable):
        return error
    others = f", nor any of {asked} metrics addresses" if asked else ""
    return OwnerUnavailable(f"nothing answers at {address}{others}")


def _print_once(session: Session, watch: Watch, interval: float) -> None:
    from ndml.cli.monitoring.panels import page

    time.sleep(interval)
    frame = watch.frame()
    session.output.result(frame, *page(frame))


def _live(watch: Watch, interval: float) -> None:
    from ndml.cli.monitoring.screen import MonitorApp

    app = MonitorApp(watch.frame, interval)
    app.run(mouse=False)
    if app.failure is not None:
        raise app.failure
