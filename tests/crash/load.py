"""A suite under load: started, written to and read by recording clients, held against the checkers in the end. All faults stand on this."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ndml.testing.layout import SuiteOptions
from ndml.testing.suite import Suite
from tests.crash.clients import RecordingClient, crew, together
from tests.crash.copies import converged, shown
from tests.sim.checkers.everything import violations
from tests.sim.history import History

CONVERGE_S = 180.0
SWEEPS = {"REPLICATION__SWEEP__LEAST_INTERVAL_S": "2", "REPLICATION__SWEEP__MOST_INTERVAL_S": "3"}
"""Repairs come often, because a scenario waits for them."""
_WARM_S = 3.0
_JOIN_S = 60.0
_LEAST_CALLS = 20


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    promise: str
    done: str
    target: str
    found: str
    held: bool


class Load:
    """A suite and its clients. What the clients noted may be read after `end`."""

    def __init__(self, suite: Suite, writers: list[RecordingClient], readers: list[RecordingClient], stop: threading.Event) -> None:
        self.suite = suite
        self.writers = writers
        self.clients = [*writers, *readers]
        self._stop = stop

    @property
    def nodes(self) -> dict[str, str]:
        """Addresses of the memory nodes, by name."""
        return {spec.name: spec.address for spec in self.suite.layout.of_role("memory-node")}

    def directory(self, node: str) -> Path:
        """Where a memory node keeps its store."""
        return self.suite.layout.data_dir / node

    def end(self) -> None:
        """No call is under way afterwards."""
        self._stop.set()
        for client in self.clients:
            client.join(_JOIN_S)

    def start_again(self, node: str) -> None:
        """Start a process that is down, and wait until it serves and its peers know."""
        self.suite.process(node).start()
        self.suite.wait_ready(node)
        self.suite.wait_healthy()

    @property
    def failures(self) -> list[str]:
        return [f"{error.reason}: {error.message}" for client in self.clients for error in client.failures]

    @property
    def reasons(self) -> set[str]:
        """Of calls that failed."""
        return {error.reason for client in self.clients for error in client.failures}

    def history(self) -> History:
        return together(self.clients)

    def finals(self, nodes: dict[str, str] | None = None) -> dict[str, dict[str, int]]:
        """What each of the nodes, else every memory node, shows of each trace, read from its own disk."""
        return shown(nodes or self.nodes, {writer.name: writer.ids for writer in self.writers})

    def violations(self, nodes: dict[str, str] | None = None) -> list[str]:
        """What the checkers find."""
        return violations(self.history(), self.finals(nodes))

    def converged(self, copies: int, nodes: dict[str, str] | None = None) -> float:
        """Seconds until the copies of every owner are equal. Raises AssertionError."""
        return converged(nodes or self.nodes, copies, CONVERGE_S)

    def calls(self, since: float = 0.0, until: float = float("inf")) -> list[float]:
        """Seconds of each call that succeeded and began then."""
        return [took for client in self.clients for began, took in client.calls if since <= began < until]

    def p99_s(self, since: float, until: float) -> float:
        """Of the calls that began then."""
        return p99_s(self.calls(since, until))


def p99_s(seconds: Sequence[float]) -> float:
    """NaN where they are too few to tell."""
    return statistics.quantiles(seconds, n=100)[-1] if len(seconds) >= _LEAST_CALLS else float("nan")


@contextmanager
def under_load(options: SuiteOptions, *, clients: int = 3, seed: int = 1, data_dir: Path | None = None) -> Iterator[Load]:
    """A suite with so many writers, and a reader beside each, at work; all end with the block. `data_dir`: else one that goes with it."""
    with tempfile.TemporaryDirectory() as made, Suite(replace(options, data_dir=data_dir or Path(made))) as suite:
        stop = threading.Event()
        load = Load(suite, *crew(clients, ",".join(suite.grpc_addresses), seed, stop), stop)
        for client in load.clients:
            client.start()
        time.sleep(_WARM_S)
        try:
            yield load
        finally:
            load.end()


def options(copies: int, nodes: int = 3, **settings: str) -> SuiteOptions:
    """Two gateways: a client rides through the restart of one. `settings`: of the memory nodes."""
    return SuiteOptions(
        gateways=2, memory_nodes=nodes, replication_factor=copies, llm=False, settings={"memory-node": {**SWEEPS, **settings}}
    )


def first(problems: Sequence[str]) -> str:
    """The first of them, for the end of a row."""
    return f"; first: {problems[0]}" if problems else ""
