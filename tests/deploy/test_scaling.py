"""Gateways come and go under load. Memory nodes: test_leave.py; llm and consensus pods: test_discovery.py."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ndml.client import NdmlClient
from ndml.testing import Suite, SuiteOptions
from tests.deploy.load import DIMENSION, ONCE, PATIENT, Load

BOUND_S = 60.0


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[Suite]:
    """All but the second gateway, which has its address already: that is what a client gets of a name that stands for both."""
    made = Suite(SuiteOptions(data_dir=tmp_path, gateways=2, memory_nodes=1, consensus_nodes=1, llm=False))
    early = [name for name in made.names if name != "gateway-2"]
    try:
        for name in early:
            made.process(name).start()
        for name in early:
            made.wait_ready(name)
        with NdmlClient(made.grpc_address, user="first", options=PATIENT, timeout_s=BOUND_S) as client:
            client.add("Bees.", embedding=[1.0] * DIMENSION)  # waits until the gateway knows the memory node
        yield made
    finally:
        made.stop()


def served(suite: Suite, gateway: str) -> int:
    """Calls of MemoryService that this gateway has answered."""
    spec = suite.layout.by_name(gateway)
    with urllib.request.urlopen(f"http://{spec.host}:{spec.metrics_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    counts = re.findall(r'^ndml_rpc_duration_seconds_count\{[^}]*method="/ndml\.v1\.MemoryService/[^}]*\} ([\d.e+]+)$', text, re.MULTILINE)
    return int(sum(map(float, counts)))


def wait_served(suite: Suite, gateway: str, calls: int) -> None:
    deadline = time.monotonic() + BOUND_S
    while (now := served(suite, gateway)) < calls:
        assert time.monotonic() < deadline, f"{gateway} answered {now} of {calls}"
        time.sleep(0.1)


def test_a_gateway_that_comes_is_used_and_one_that_goes_is_not_missed(suite: Suite) -> None:
    with Load(suite.grpc_addresses, ONCE, vectors=True) as callers:
        callers.wait_for(100)
        suite.process("gateway-2").start()
        suite.wait_ready("gateway-2")
        wait_served(suite, "gateway-2", 100)
        before = served(suite, "gateway-1")
        wait_served(suite, "gateway-1", before + 50)  # both at once: they take turns
    assert callers.tally.failures == []
    # A client as it comes: calls under way on a connection that ends may be repeated.
    with Load(suite.grpc_addresses, vectors=True) as callers:
        callers.wait_for(100)
        suite.terminate("gateway-1")
        assert suite.process("gateway-1").wait(BOUND_S) == 0, suite.process("gateway-1").log_tail()
        wait_served(suite, "gateway-2", served(suite, "gateway-2") + 100)
        suite.process("gateway-1").start()
        suite.wait_ready("gateway-1")
        wait_served(suite, "gateway-1", 50)
    assert callers.tally.failures == []
