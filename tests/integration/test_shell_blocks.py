"""What the docs have people type is typed here, line by line, against the suite; for a line that cannot be, the test that does it is named.

`kubectl`, `helm install` and `docker` need a cluster or a daemon: what they are given is tested by tests/deploy.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ndml.client import NdmlClient
from tests.contract.doc_blocks import PAGES, ROOT, SHELL, Block, blocks

RUN = (
    "ndml status",
    "ndml doctor",
    "ndml stats",
    "ndml search",
    "ndml get",
    "ndml export memories",
    "ndml monitor --once",
    "curl http://127",
    "curl 'http://127",
)
"""How lines begin that are run as they stand, with a user and a trace that there are."""

ELSEWHERE = {
    "kubectl": "tests/deploy/test_kustomize.py",
    "helm": "tests/deploy/test_chart.py",
    "docker compose": "tests/deploy/test_containers.py",
    "make images": "tests/deploy/test_images.py",
    "make test": ".ci/run",
    "make WITH=debian": "tests/integration/test_clients.py",
    "make run": "tests/integration/test_clients.py",
    "make &&": "examples/clients/go/README.md",  # fetches modules, which is not possible here; the page says so
    "apt-get install": "tests/doors/clients.py",
    "cmake": "tests/integration/test_clients.py",
    "sh examples/clients": "tests/integration/test_clients.py",
    ".venv/bin/python examples/clients": "tests/integration/test_clients.py",
    "npm": "tests/integration/test_node_client.py",
    "NDML_ADDRESS=127.0.0.1:7700 npm": "tests/integration/test_node_client.py",
    "python -m services.": "tests/deploy/test_bad_starts.py",
    "NDML_LLM__CHAT": "tests/integration/test_chat_trouble.py",
    "python scripts/demo.py": ".ci/run",
    'eval "$(scripts/dockerd_in_vm.sh': "tests/deploy/test_docker_scripts.py",
    "scripts/dockerd_in_vm.sh": "tests/deploy/test_docker_scripts.py",
    "scripts/lookalike_base.sh": "tests/deploy/test_docker_scripts.py",  # its refusals; the rest takes a daemon
    ".venv/bin/python scripts/generate_": "tests/deploy/test_chart.py",
    "pip install": "Makefile",
    "ndml roster": "tests/unit/cli/test_rosters.py",
    "ndml trace": "tests/integration/test_trace_page.py",
    "ndml tune": "tests/integration/test_tune.py",
    "ndml train": "tests/unit/training/test_cli.py",
    "ndml mcp": "tests/integration/test_mcp.py",
    "ndml monitor": "tests/integration/test_monitor.py",
    "ndml export nir": "tests/unit/cli/test_export_nir.py",
    "NDML_GATEWAY__REST__MODEL_ALIASES=": "tests/integration/test_openai_python.py",
    "curl -s 'http://prometheus": "tests/deploy/test_prometheus.py",
    "curl -s localhost:7780/v1/memories:search": "tests/integration/test_trace_page.py",
    "curl -s -H 'accept: application/openmetrics-text'": "tests/integration/test_telemetry.py",
}
"""How other lines begin: the file that does it. Whole pages: below."""

PAGES_ELSEWHERE = {"examples/curl.md": "tests/integration/test_cli.py", "README.md": "tests/integration/test_guide.py"}


def lines(block: Block) -> Iterator[str]:
    """Commands of a block without their comments; one that goes on in the next line is one."""
    for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
        command = re.sub(r"\s+#\s.*$", "", line).strip()
        if command and not command.startswith("#"):
            yield command


def typed() -> dict[str, Block]:
    """Each line once, with the first block that has it."""
    found: dict[str, Block] = {}
    for page in PAGES:
        if page.relative_to(ROOT).as_posix() not in PAGES_ELSEWHERE:
            for block in blocks(page):
                for line in lines(block) if block.language in SHELL else ():
                    found.setdefault(line, block)
    return found


LINES = typed()


def test_every_line_is_run_here_or_by_a_test_that_is_named() -> None:
    lost = [f"{block}: {line}" for line, block in LINES.items() if not line.startswith((*RUN, *ELSEWHERE))]
    assert lost == []
    assert [path for path in {*ELSEWHERE.values(), *PAGES_ELSEWHERE.values()} if not (ROOT / path).exists()] == []
    assert [start for start in ELSEWHERE if not any(line.startswith(start) for line in LINES)] == [], "no page has such a line any more"


@pytest.fixture(scope="module")
def memory(suite: Any) -> tuple[str, str]:
    """(user, trace id) that placeholders stand for."""
    user = f"reader-of-docs-{uuid.uuid4().hex}"
    with NdmlClient(suite.grpc_address) as client:
        return user, client.add("I moved to Lisbon in May.", user=user).trace_id


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith(RUN)])
def test_it_does_what_it_says(line: str, suite: Any, memory: tuple[str, str], tmp_path: Path) -> None:
    user, trace_id = memory
    ndml = f"{sys.executable} -m ndml.cli"
    places = {"ndml ": f"{ndml} ", "USER": user, "TRACE_ID": trace_id, "http://127.0.0.1:7780": suite.rest_url}
    script = re.sub(r"\bann\b", user, line)
    for usual, here in places.items():
        script = script.replace(usual, here)
    environment = {**os.environ, "NDML_ADDRESS": suite.grpc_address, "no_proxy": "127.0.0.1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script.replace("curl ", "curl -s --fail-with-body ")],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.strip(), f"{line} ({LINES[line]})\n{done.stdout}\n{done.stderr}"
