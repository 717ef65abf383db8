"""A SIGKILL of the gateway: what was learned with `wait` is there after it, what waited in its outbox is gone, and nothing counts it."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from ndml.testing import Suite, SuiteOptions
from tests.integration.test_chat import BOUND_S, client, said


def sample(suite: Suite, name: str, **labels: str) -> float:
    """Of the gateway's metrics; 0 where it has not counted any."""
    port = suite.layout.by_name("gateway-1").metrics_port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = (one for family in families for one in family.samples)
    return next((one.value for one in samples if one.name == name and one.labels == labels), 0.0)


def test_a_kill_of_the_gateway_takes_what_waited_and_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    settings = {"CHAT__RECALL_TIMEOUT_S": "20", "LEARNING__RETRY_FOR_S": "3600"}
    options = SuiteOptions(data_dir=tmp_path, memory_nodes=1, consensus_nodes=1, settings={"gateway": settings})
    with Suite(options) as suite, client(suite, "ann") as memory:
        assert len(said(memory, "My sister is called Maja.", learning="wait").learned_trace_ids) == 1
        suite.kill("memory-node-1")
        assert said(memory, "My brother is called Olaf.", recall_k=0).text
        ends = time.monotonic() + BOUND_S
        while sample(suite, "ndml_queue_depth", queue="learning") != 1:
            assert time.monotonic() < ends, "the turn does not wait in the outbox"
            time.sleep(0.05)
        suite.kill("gateway-1")
        suite.start()
        # A turn that is written now shows that this gateway learns, and that nothing was left for it to write before.
        said(memory, "My cat is called Miso.", learning="wait")
        assert sorted(m.text for m in memory.list()) == ["My cat is called Miso.", "My sister is called Maja."]
        assert sample(suite, "ndml_queue_depth", queue="learning") == 0
        assert sample(suite, "ndml_learned_statements_total", outcome="written") == 1
        assert sample(suite, "ndml_learned_statements_total", outcome="failed") == 0, "NdmlLearningLost reads this, and cannot fire"
