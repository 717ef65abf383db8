"""Single faults under load, each a suite of its own: a dead node, a rolling restart, a wiped disk, a drain, flipped bytes.

Every scenario gives a Row: what was done, what was counted, and whether the promise held. `python -m tests.quality.reliability` runs them.
"""

from __future__ import annotations

import shutil
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import grpc

from ndml.testing.layout import SuiteOptions
from ndml.testing.suite import Suite
from ndml.v1 import admin_pb2, admin_pb2_grpc
from tests.crash.clients import RecordingClient, crew, together
from tests.crash.copies import converged, shown
from tests.sim.checkers.everything import violations

CLIENTS = 3
CONVERGE_S = 180.0
_SWEEP = {"REPLICATION__SWEEP__LEAST_INTERVAL_S": "2", "REPLICATION__SWEEP__MOST_INTERVAL_S": "3"}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    promise: str
    done: str
    target: str
    found: str
    held: bool


class Load:
    """A suite and its clients; `seen` is valid after the block."""

    def __init__(self, suite: Suite, writers: list[RecordingClient], readers: list[RecordingClient], stop: threading.Event) -> None:
        self.suite = suite
        self.writers = writers
        self.clients = [*writers, *readers]
        self._stop = stop

    @property
    def nodes(self) -> dict[str, str]:
        """Addresses of the memory nodes, by name."""
        return {spec.name: spec.address for spec in self.suite.layout.of_role("memory-node")}

    def end(self) -> None:
        """No call is under way afterwards."""
        self._stop.set()
        for client in self.clients:
            client.join(60.0)

    @property
    def failures(self) -> list[str]:
        return [f"{error.reason}: {error.message}" for client in self.clients for error in client.failures]

    def violations(self, nodes: dict[str, str]) -> list[str]:
        """What the checkers find, with every one of `nodes` read from its own disk."""
        history = together(self.clients)
        finals = shown(nodes, {writer.name: writer.ids for writer in self.writers})
        return violations(history, finals)

    def p99_s(self, since: float, until: float) -> float:
        """Of the calls that began then."""
        seconds = [took for client in self.clients for began, took in client.calls if since <= began < until]
        return statistics.quantiles(seconds, n=100)[-1] if len(seconds) >= 20 else float("nan")


@contextmanager
def under_load(options: SuiteOptions, seed: int = 1) -> Iterator[Load]:
    """A suite with clients at work; both end with the block."""
    with tempfile.TemporaryDirectory() as made, Suite(replace(options, data_dir=Path(made))) as suite:
        stop = threading.Event()
        address = ",".join(suite.grpc_addresses)
        load = Load(suite, *crew(CLIENTS, address, seed, stop), stop)
        for client in load.clients:
            client.start()
        time.sleep(3.0)
        try:
            yield load
        finally:
            load.end()


def options(copies: int, nodes: int = 3, **settings: str) -> SuiteOptions:
    """Two gateways: a client rides through the restart of one."""
    return SuiteOptions(
        gateways=2, memory_nodes=nodes, replication_factor=copies, llm=False, settings={"memory-node": {**_SWEEP, **settings}}
    )


def one_dead_node() -> Row:
    """R=2: SIGKILL, and the others carry on."""
    with under_load(options(copies=2, nodes=2)) as load:
        began = time.monotonic()
        time.sleep(5.0)
        killed = time.monotonic()
        load.suite.kill("memory-node-1")
        time.sleep(6.0)
        ended = time.monotonic()
        load.end()
        calm, after = load.p99_s(began, killed), load.p99_s(killed + 1.0, ended)
        failed = load.failures
    found = f"{len(failed)} failed; p99 {calm * 1e3:.0f} ms before, {after * 1e3:.0f} ms from 1 s after the kill on ({after / calm:.2f} x)"
    return Row("one dead memory node", "SIGKILL under load, R=2", "0 failed RPCs, p99 back within 1.5 x in 1 s", found + _first(failed),
               not failed and after <= 1.5 * calm)  # fmt: skip


def rolling_restart() -> Row:
    """R=3: every process in turn, drained and started again."""
    with under_load(options(copies=3)) as load:
        for name in load.suite.names:
            load.suite.restart(name)
            load.suite.wait_healthy()
            time.sleep(1.0)
        load.end()
        converged(load.nodes, 3, CONVERGE_S)
        bad, failed = load.violations(load.nodes), load.failures
        count = len(load.suite.names)
    found = f"{count} processes, {len(failed)} failed, {len(bad)} violations"
    return Row("rolling restart of all", "SIGTERM in turn under load, R=3, two gateways", "0 failed RPCs", found + _first(failed or bad),
               not failed and not bad)  # fmt: skip


def wiped_disk() -> Row:
    """R=3: a node's directory is deleted while it is down."""
    with under_load(options(copies=3)) as load:
        load.suite.kill("memory-node-2")
        shutil.rmtree(load.suite.layout.data_dir / "memory-node-2")
        load.suite.process("memory-node-2").start()
        load.suite.wait_ready("memory-node-2")
        began = time.monotonic()
        time.sleep(5.0)
        load.end()
        converged(load.nodes, 3, CONVERGE_S)
        took = time.monotonic() - began
        bad = load.violations(load.nodes)
    return Row("wiped disk rejoins", "SIGKILL, delete directory, start, under load, R=3", "0 lost, 0 wrong answers",
               f"{len(bad)} violations, equal copies after {took:.1f} s" + _first(bad), not bad)  # fmt: skip


def drained_node() -> Row:
    """R=2 on three nodes: one is drained under load, then stopped for good."""
    with under_load(options(copies=2)) as load:
        with grpc.insecure_channel(load.suite.grpc_address) as channel:
            admin = admin_pb2_grpc.AdminServiceStub(channel)
            began = time.monotonic()
            last = list(admin.DrainNode(admin_pb2.DrainNodeRequest(node_id="memory-node-3"), timeout=120))[-1]
            took = time.monotonic() - began
        load.suite.kill("memory-node-3")
        time.sleep(3.0)
        load.end()
        left = {name: address for name, address in load.nodes.items() if name != "memory-node-3"}
        converged(left, 2, CONVERGE_S)
        bad, failed = load.violations(left), load.failures
    gone = last.phase == admin_pb2.MEMBER_PHASE_LEFT
    found = f"{last.owners_total} owners handed over in {took:.1f} s, {len(failed)} failed, {len(bad)} violations"
    return Row("scale-in drains", "DrainNode under load, R=2 of 3 nodes, then SIGKILL for good", "0 lost, 0 wrong answers",
               found + _first(failed or bad), gone and not bad and not failed)  # fmt: skip


def flipped_bytes(files: int = 8, seed: int = 7) -> Row:
    """R=3: bytes of a stopped node's store are flipped where its rows lie; it starts with store.on_damage = set_aside."""
    random = Random(seed)
    detected = lost = 0
    with under_load(options(copies=3, STORE__ON_DAMAGE="set_aside", STORE__CHECK="always")) as load:
        time.sleep(4.0)
        load.end()
        converged(load.nodes, 3, CONVERGE_S)
        directory = load.suite.layout.data_dir / "memory-node-1"
        for _ in range(files):
            load.suite.terminate("memory-node-1")
            load.suite.process("memory-node-1").wait(20.0)
            _flip(directory / "ndml.db", random)
            before = set(directory.glob("ndml.db.damaged-*"))
            load.suite.process("memory-node-1").start()
            load.suite.wait_ready("memory-node-1")
            detected += bool(set(directory.glob("ndml.db.damaged-*")) - before)
            converged(load.nodes, 3, CONVERGE_S)
            lost += len(load.violations(load.nodes))
    return Row("corruption is detected and repaired from copies", f"a byte flipped in a row of the closed store, {files} times",
               "100 % detected, 0 lost", f"{detected} of {files} detected, {lost} lost", detected == files and not lost)  # fmt: skip


def _flip(path: Path, random: Random) -> None:
    """One bit of a payload or vector that is stored: where a page is free nothing would be damaged."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as store:
        rows = store.execute("SELECT payload, vector FROM traces").fetchall()
    data = bytearray(path.read_bytes())
    while True:
        part = random.choice(random.choice(rows))[:200]
        at = data.find(part)
        if at >= 0:
            break
    data[at + random.randrange(len(part))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


def _first(problems: list[str]) -> str:
    return f"; first: {problems[0]}" if problems else ""


SCENARIOS = (one_dead_node, rolling_restart, wiped_disk, drained_node, flipped_bytes)
