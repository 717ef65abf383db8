"""Scale-out under load: a memory node that nobody has listed comes, copies its share, and is read from."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import grpc

from ndml.testing.layout import ProcessSpec
from ndml.testing.ports import free_ports
from ndml.testing.process import ManagedProcess
from ndml.testing.suite import Suite
from ndml.v1 import admin_pb2, admin_pb2_grpc
from tests.crash.copies import owner_digests, shown
from tests.crash.load import Load, Row, first, options, under_load
from tests.sim.checkers.everything import violations

_NAME = "memory-node-4"
_READ_WITHIN_S = 120.0
_STOP_S = 20.0
_POLL_S = 0.1


def added_node(owners: int = 6, calm_s: float = 5.0) -> Row:
    """R=2 on three nodes: a fourth comes under load. Then an old one is away: what it shared with the newcomer comes from there."""
    asked = options(copies=2)
    asked = replace(asked, settings={**asked.settings, "consensus": {"CLUSTER__ADMIT": "true"}})
    with under_load(asked, clients=owners) as load, _started(load.suite) as added:
        began = time.monotonic()
        phase = _phase_in_the_end(load.suite)
        took = time.monotonic() - began
        time.sleep(calm_s)
        load.suite.kill("memory-node-1")
        time.sleep(calm_s)
        load.start_again("memory-node-1")
        load.end()
        nodes = {**load.nodes, _NAME: added.address}
        load.converged(2, nodes)
        holders = owner_digests(nodes)
        failed, bad = load.failures, violations(load.history(), _copies(load, nodes, holders))
        moved = sum(_NAME in held for held in holders.values())
    found = f"read from after {took:.1f} s, {moved} of {owners} owners moved to it, {len(failed)} failed, {len(bad)} violations"
    return Row("scale-out fills", "a fourth node comes under load, R=2 of 3 nodes; then SIGKILL of an old one", "0 lost, 0 wrong answers",
               found + first(failed or bad), phase == admin_pb2.MEMBER_PHASE_ACTIVE and moved > 0 and not bad and not failed)  # fmt: skip


def _copies(load: Load, nodes: Mapping[str, str], holders: Mapping[str, Iterable[str]]) -> dict[str, dict[str, int]]:
    """What the first and what the second copy of every user shows: no node holds all of them."""
    finals: dict[str, dict[str, int]] = {"first copy": {}, "second copy": {}}
    for writer in load.writers:
        for final, node in zip(finals.values(), sorted(holders[writer.name]), strict=True):
            final.update(shown({node: nodes[node]}, {writer.name: writer.ids})[node])
    return finals


@contextmanager
def _started(suite: Suite) -> Iterator[ProcessSpec]:
    """Another memory node beside the suite's, with a store, a name and ports of its own; ends with the block."""
    model = suite.layout.of_role("memory-node")[-1]
    port, metrics_port = free_ports(2, model.host)
    own = {
        "SERVER__PORT": str(port),
        "SERVER__METRICS_PORT": str(metrics_port),
        "SERVER__INSTANCE": _NAME,
        "NODE__NODE_ID": _NAME,
        "STORE__DATA_DIR": str(suite.layout.data_dir / _NAME),
    }
    environment = {**model.environment, **{f"NDML_MEMORY_NODE__{key}": value for key, value in own.items()}}
    process = ManagedProcess(_NAME, model.module, environment, suite.layout.logs / f"{_NAME}.log")
    process.start()
    try:
        yield replace(model, name=_NAME, port=port, metrics_port=metrics_port, environment=environment)
    finally:
        process.terminate()
        if process.wait(_STOP_S) is None:
            process.kill()
            process.wait(_STOP_S)


def _phase_in_the_end(suite: Suite) -> admin_pb2.MemberPhase:
    """ACTIVE as soon as the gateway sees it so; else where it stands after a while."""
    deadline = time.monotonic() + _READ_WITHIN_S
    with grpc.insecure_channel(suite.grpc_address) as channel:
        admin = admin_pb2_grpc.AdminServiceStub(channel)
        while True:
            placement = admin.GetPlacement(admin_pb2.GetPlacementRequest(), timeout=10)
            phases = {member.node_id: member.phase for member in placement.members}
            found = phases.get(_NAME, admin_pb2.MEMBER_PHASE_UNSPECIFIED)
            if found == admin_pb2.MEMBER_PHASE_ACTIVE or time.monotonic() > deadline:
                return found
            time.sleep(_POLL_S)
