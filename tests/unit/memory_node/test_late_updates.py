"""An update whose stream was slow reaches a copy after another one has carried it out, and newer ones have followed."""

from __future__ import annotations

from pathlib import Path

from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1.types_pb2 import Embedding, MemoryTrace
from services.memory_node.records import timestamp
from tests.unit.memory_node import node_harness as harness
from tests.unit.memory_node.test_joins import as_one, sites


def test_an_update_that_comes_late_behind_newer_ones_replaces_nothing(tmp_path: Path) -> None:
    with sites(tmp_path, 2) as (a, b):
        b.take(a.put(harness.trace(1, "hello")))
        change = MemoryTrace(trace_id=harness.trace_id(1), text="bye", embedding=Embedding(vector=harness.vector("bye")))
        change.updated_at.CopyFrom(timestamp(harness.T0_US + 7))
        action = pb.UpdateAction(trace=change, fields=["text"])
        b.take(a.do(action)[1])
        a.take(b.change(1, "see you"))
        for site in (a, b):  # its gateway had given one of them up, whose stream was slow
            late, _ = site.do(action)
            assert late.trace.text == "see you"
        as_one(a, b)
