"""Single faults under load, each a suite of its own: a dead node, a rolling restart, a wiped disk, a drain, flipped bytes.

Every scenario gives a Row: what was done, what was counted, and whether the promise held. `python -m tests.quality.reliability` runs them.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from pathlib import Path
from random import Random

import grpc

from ndml.v1 import admin_pb2, admin_pb2_grpc
from tests.crash.load import Row, first, options, under_load


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
    return Row("one dead memory node", "SIGKILL under load, R=2", "0 failed RPCs, p99 back within 1.5 x in 1 s", found + first(failed),
               not failed and after <= 1.5 * calm)  # fmt: skip


def rolling_restart() -> Row:
    """R=3: every process in turn, drained and started again."""
    with under_load(options(copies=3)) as load:
        for name in load.suite.names:
            load.suite.restart(name)
            load.suite.wait_healthy()
            time.sleep(1.0)
        load.end()
        load.converged(3)
        bad, failed = load.violations(), load.failures
        count = len(load.suite.names)
    found = f"{count} processes, {len(failed)} failed, {len(bad)} violations"
    return Row("rolling restart of all", "SIGTERM in turn under load, R=3, two gateways", "0 failed RPCs", found + first(failed or bad),
               not failed and not bad)  # fmt: skip


def wiped_disk() -> Row:
    """R=3: a node's directory is deleted while it is down."""
    with under_load(options(copies=3)) as load:
        load.suite.kill("memory-node-2")
        shutil.rmtree(load.directory("memory-node-2"))
        load.suite.process("memory-node-2").start()
        load.suite.wait_ready("memory-node-2")
        began = time.monotonic()
        time.sleep(5.0)
        load.end()
        load.converged(3)
        took = time.monotonic() - began
        bad = load.violations()
    return Row("wiped disk rejoins", "SIGKILL, delete directory, start, under load, R=3", "0 lost, 0 wrong answers",
               f"{len(bad)} violations, equal copies after {took:.1f} s" + first(bad), not bad)  # fmt: skip


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
        load.converged(2, left)
        bad, failed = load.violations(left), load.failures
    gone = last.phase == admin_pb2.MEMBER_PHASE_LEFT
    found = f"{last.owners_total} owners handed over in {took:.1f} s, {len(failed)} failed, {len(bad)} violations"
    return Row("scale-in drains", "DrainNode under load, R=2 of 3 nodes, then SIGKILL for good", "0 lost, 0 wrong answers",
               found + first(failed or bad), gone and not bad and not failed)  # fmt: skip


def flipped_bytes(files: int = 8, seed: int = 7) -> Row:
    """R=3: bytes of a stopped node's store are flipped where its rows lie; it starts with store.on_damage = set_aside."""
    random = Random(seed)
    detected = lost = 0
    with under_load(options(copies=3, STORE__ON_DAMAGE="set_aside", STORE__CHECK="always")) as load:
        time.sleep(4.0)
        load.end()
        load.converged(3)
        directory = load.directory("memory-node-1")
        for _ in range(files):
            load.suite.terminate("memory-node-1")
            load.suite.process("memory-node-1").wait(20.0)
            _flip(directory / "ndml.db", random)
            before = set(directory.glob("ndml.db.damaged-*"))
            load.suite.process("memory-node-1").start()
            load.suite.wait_ready("memory-node-1")
            detected += bool(set(directory.glob("ndml.db.damaged-*")) - before)
            load.converged(3)
            lost += len(load.violations())
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


SCENARIOS = (one_dead_node, rolling_restart, wiped_disk, drained_node, flipped_bytes)
