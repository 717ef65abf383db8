"""Fixtures of all tests: two suites of real processes on loopback, started when the first test asks for them.

Under xdist every test that uses a suite runs in one worker (group "suite"), so each suite exists once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ndml.testing import Suite, SuiteOptions, TraceSink
from ndml.testing.ports import RANGE

# Before torch or FAISS are imported anywhere, and inherited by the processes of a suite: one thread each, two cores for all.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# A shell's background job ignores Ctrl-C, and so would all that tests start: what Ctrl-C does is tested there, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Workers of one run start suites side by side: what one kills and starts again must find its port free.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
os.environ[RANGE] = f"{18_000 + 3_400 * _WORKER}-{21_399 + 3_400 * _WORKER}"

_SUITES = {"suite", "spare_suite"}
_HERE = Path(__file__).parent


# Real processes, servers and threads on a machine that others share: what fails there once runs once more, and the summary names it
# (CONTRIBUTING.md, "Tests"). What has no clock but its own (`property`, `sim`, `architecture`, `contract`) fails at once.
_ONCE_MORE = ("unit", "integration", "crash", "doors", "deploy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.path.is_relative_to(_HERE / part) for part in _ONCE_MORE):
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=1))
        if item.path.is_relative_to(_HERE / "integration"):
            item.add_marker(pytest.mark.integration)
        if _SUITES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group("suite"))


@pytest.fixture(scope="session")
def trace_sink() -> Iterator[TraceSink]:
    """Takes the traces of both suites."""
    with TraceSink() as sink:
        yield sink


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory, trace_sink: TraceSink) -> Iterator[Suite]:
    """The whole of NDML, shared by the session: `grpc_address`, `rest_url`. Use users of your own, and do not stop any process."""
    options = SuiteOptions(data_dir=tmp_path_factory.mktemp("suite"), otlp_endpoint=trace_sink.endpoint)
    with Suite(options) as running:
        yield running


@pytest.fixture(scope="session")
def _spare_suite(tmp_path_factory: pytest.TempPathFactory, trace_sink: TraceSink) -> Iterator[Suite]:
    options = SuiteOptions(data_dir=tmp_path_factory.mktemp("spare"), gateways=2, llm=False, otlp_endpoint=trace_sink.endpoint)
    with Suite(options) as running:
        yield running


@pytest.fixture
def spare_suite(_spare_suite: Suite) -> Suite:
    """Two gateways, two memory nodes, no llm: a suite for tests that kill and restart. What the last test killed runs again."""
    return _spare_suite.start()
