"""A frame as tables of plain cells: the same in the terminal application and with --once. Words say what colours say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from ndml.cli.monitoring.model import BINS, Bars, Calls, Counted, Frame, Node, Process, Queue
from ndml.cli.output import clean, table

# Of the sixteen colours that every terminal has; what they say stands there in words, too.
_GOOD, _WARN, _BAD, _DIM = "green", "yellow", "bold red", "dim"
_STATES = {"up": _GOOD, "alive": _GOOD, "suspect": _WARN, "unknown": _WARN, "standby": _DIM, "left": _DIM, "no answer": _BAD, "down": _BAD}
_BAR_WIDTH = 30
_NOT_KNOWN = "-"


@dataclass(frozen=True, slots=True)
class Panel:
    """One part of the screen; `name` is its own for good."""

    name: str
    title: str
    render: Callable[[Frame], RenderableType]


def headline(frame: Frame) -> Text:
    """How the suite is, in one line, and what troubles there are, a line each."""
    style = {True: _GOOD, False: _BAD, None: _BAD}[frame.healthy]
    line = Text(clean(frame.verdict).replace("\n", " "), style=style)
    over = f"rates over {frame.window_s:.0f} s" if frame.window_s else "rates with the next reading"
    return line.append(f"  {frame.at:%H:%M:%S} UTC, {over}", style="")


def troubles(frame: Frame) -> Text:
    """A line each; empty where there are none."""
    return Text("\n".join(clean(line).replace("\n", " ") for line in frame.troubles), style=_BAD)


def services(frame: Frame) -> RenderableType:
    columns = ("process", "=state", "=zone", ">epoch", ">up for", ">cpu", ">memory", ">calls")
    return table(*columns, rows=[_process(row) for row in frame.processes])


def nodes(frame: Frame) -> RenderableType:
    columns = ("node", "=zone", "=state", ">owners", ">traces", ">to take", ">behind", ">conflicts")
    return table(*columns, rows=[_node(row) for row in frame.nodes])


def calls(frame: Frame) -> RenderableType:
    return table("=call", ">per s", ">errors/s", ">p50", ">p99", rows=[_call(row) for row in frame.calls])


def gate(frame: Frame) -> RenderableType:
    return table("=decision", ">in all", ">per s", rows=map(_counted, frame.gate))


def replication(frame: Frame) -> RenderableType:
    return table("=what", ">now, in all", ">per s", rows=[_watched(row) for row in frame.replication])


def queues(frame: Frame) -> RenderableType:
    rows = [_queue(row) for row in frame.queues]
    return table("=process", "=queue", ">waiting", ">mean batch", rows=rows) if rows else Text("no queue has been used yet", style=_DIM)


def strengths(frame: Frame) -> RenderableType:
    found = frame.strengths
    if found is None:
        return Text("give --user to see how strong a user's memories are", style=_DIM)
    if found.error:
        return Text(clean(f"not read: {found.error}"), style=_BAD)
    of = f"{found.read:,} of {found.traces:,} memories of {found.user}"
    return Group(table("=strength", "", ">memories", rows=_bars(found)), Text(clean(of), style=_DIM))


PANELS = (
    Panel("services", "Services", services),
    Panel("calls", "Calls", calls),
    Panel("nodes", "Memory nodes", nodes),
    Panel("replication", "Replication", replication),
    Panel("gate", "Write gate", gate),
    Panel("queues", "Queues", queues),
    Panel("strengths", "Strengths", strengths),
)


def page(frame: Frame) -> Iterator[RenderableType]:
    """All of it, one below the other."""
    yield headline(frame)
    if frame.troubles:
        yield troubles(frame)
    for panel in PANELS:
        if panel.name != "strengths" or frame.strengths is not None:
            yield Text(f"\n{panel.title}", style="bold")
            yield panel.render(frame)


def _process(row: Process) -> Iterable[object]:
    memory = _NOT_KNOWN if row.resident_bytes is None else f"{row.resident_bytes / (1 << 20):,.0f} MiB"
    cpu = _NOT_KNOWN if row.cpu_cores is None else f"{row.cpu_cores:.0%}"
    # A name that says its service already needs no other: eighty columns are few.
    name = row.instance if row.service in row.instance else f"{row.service} {row.instance}"
    return name, _state(row.state), row.zone, _count(row.epoch), _span(row.uptime_s), cpu, memory, _count(row.in_flight)


def _node(row: Node) -> Iterable[object]:
    state = _state(row.state)
    if row.phase != "active":
        state.append(f", {clean(row.phase)}", style=_WARN)
    counts = (_short(row.owners), _short(row.traces), _held(row.to_take), _held(row.behind), _held(row.conflicts))
    return row.node_id, row.zone, state, *counts


def _call(row: Calls) -> Iterable[object]:
    errors = Text(_rate(row.errors), style=_BAD if row.errors else "")
    return row.name, _rate(row.rate), errors, _time(row.p50_s), (">" if row.beyond else "") + _time(row.p99_s)


def _counted(row: Counted) -> Iterable[object]:
    return row.name, _count(row.total), _rate(row.rate)


def _watched(row: Counted) -> Iterable[object]:
    worrying = row.name in ("quarantined authors", "updates dropped", "updates refused")
    return (
        row.name,
        _held(row.total, _BAD if worrying else _WARN if row.rate is None else ""),
        _rate(row.rate) if row.rate is not None else "",
    )


def _queue(row: Queue) -> Iterable[object]:
    return row.process, row.queue, _held(row.waiting), _NOT_KNOWN if row.batch is None else f"{row.batch:.1f}"


def _bars(found: Bars) -> Iterator[Iterable[object]]:
    most = max(found.counts, default=0) or 1
    for number, count in enumerate(found.counts):
        bar = "#" * max(1 if count else 0, round(_BAR_WIDTH * count / most))
        yield f"{number / BINS:.1f} to {(number + 1) / BINS:.1f}", Text(bar, style="cyan"), f"{count:,}"


def _state(state: str) -> Text:
    return Text(clean(state), style=_STATES.get(state, ""))


def _count(value: float | None) -> str:
    return _NOT_KNOWN if value is None else f"{value:,.0f}"


def _short(value: int | None) -> str:
    """Three or four digits of it: a node may hold billions."""
    if value is None or value < 100_000:
        return _count(value)
    return next(f"{value / unit:.1f}{name}" for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= unit)


def _held(value: float | None, style: str = _WARN) -> Text:
    """A count that is best at zero."""
    return Text(_count(value), style=style if value else "")


def _rate(value: float | None) -> str:
    if value is None:
        return _NOT_KNOWN
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 or value == 0 else f"{value:.2f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return _NOT_KNOWN
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _span(seconds: float | None) -> str:
    """The two largest units."""
    if seconds is None:
        return _NOT_KNOWN
    whole = int(seconds)
    for unit, below, name, lower in ((86_400, 3600, "d", "h"), (3600, 60, "h", "m"), (60, 1, "m", "s")):
        if whole >= unit:
            return f"{whole // unit}{name} {whole % unit // below}{lower}"
    return f"{whole}s"
