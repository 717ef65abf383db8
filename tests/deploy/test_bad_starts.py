"""What an operator gets wrong, at the real processes: one clear line and an exit code, or service as documented without what is missing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ndml.client import NdmlClient
from ndml.errors import Unavailable
from ndml.runtime.healthcheck import Target, wait
from ndml.testing import free_ports

ROOT = Path(__file__).resolve().parent.parent.parent
PREFIXES = {"gateway": "NDML_GATEWAY__", "consensus": "NDML_CONSENSUS__", "memory_node": "NDML_MEMORY_NODE__", "llm": "NDML_LLM__"}
every = pytest.mark.parametrize("service", PREFIXES)
with_a_store = pytest.mark.parametrize("service", ["consensus", "memory_node"])
# How long a start may take on a machine that others use; it ends when the process ends.
ENDS_S = 120.0


def environment(service: str, tmp_path: Path, **settings: str) -> dict[str, str]:
    ports = free_ports(3)
    usual = {"SERVER__PORT": str(ports[0]), "SERVER__METRICS_PORT": str(ports[1]), "LOGGING__FORMAT": "json"}
    if service == "gateway":
        usual["REST__PORT"] = str(ports[2])
    if service in ("consensus", "memory_node"):
        usual["STORE__DATA_DIR"] = str(tmp_path / "data")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NDML_")}
    return {**clean, "PYTHONPATH": str(ROOT), **{PREFIXES[service] + name: value for name, value in {**usual, **settings}.items()}}


def ended(service: str, variables: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"services.{service}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=ENDS_S)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one error among the log's lines. No stack trace stands beside it."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert not done.stdout and "Traceback" not in done.stderr
    records = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    (error,) = [record for record in records if record["level"] == "error"]
    assert error["event"] == "cannot_start"
    return str(error["error"])


@pytest.fixture
def taken() -> Iterator[int]:
    """A port where somebody listens."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@every
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("server: {prot: 1}\n", "config: server.prot: unknown setting; did you mean port?\n"),
        ("server: {grace_s: long}\n", "config: server.grace_s: Input should be a valid number, unable to parse string as a number\n"),
    ],
    ids=["unknown key", "wrong type"],
)
def test_a_config_file_that_is_wrong(service: str, text: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    done = ended(service, environment(service, tmp_path), "--config", str(path))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


def test_a_key_like_no_other_is_answered_with_those_there_are(tmp_path: Path) -> None:
    done = ended("llm", environment("llm", tmp_path, SERVER__QQQ="1"))
    assert done.returncode == 2 and done.stderr.startswith("config: server.qqq: unknown setting; known: host, port, ")


def test_a_secret_that_is_missing(tmp_path: Path) -> None:
    nobody = json.dumps([{"name": "operations", "tenants": ["default"]}])
    done = ended("gateway", environment("gateway", tmp_path, AUTH__TOKENS=nobody))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "config: auth.tokens.0.token: Field required\n")


def test_a_config_file_that_is_missing(tmp_path: Path) -> None:
    done = ended("llm", environment("llm", tmp_path), "--config", str(tmp_path / "absent.yaml"))
    assert (done.returncode, done.stderr) == (2, f"config: {tmp_path}/absent.yaml is not a file\n")


@every
def test_a_port_that_is_taken(service: str, tmp_path: Path, taken: int) -> None:
    said = refusal(ended(service, environment(service, tmp_path, SERVER__PORT=str(taken))))
    assert said.startswith(f"cannot listen on 127.0.0.1:{taken}: is another process there?")


def test_a_metrics_port_that_is_taken(tmp_path: Path, taken: int) -> None:
    said = refusal(ended("consensus", environment("consensus", tmp_path, SERVER__METRICS_PORT=str(taken))))
    assert said == f"cannot serve metrics on 127.0.0.1:{taken}: Address already in use; set server.metrics_port, -1 for none"


def test_a_rest_port_that_is_taken(tmp_path: Path, taken: int) -> None:
    said = refusal(ended("gateway", environment("gateway", tmp_path, REST__PORT=str(taken))))
    assert "Address already in use" in said and f"('127.0.0.1', {taken})" in said


@with_a_store
def test_a_data_directory_that_cannot_be_made(service: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    directory = tmp_path / "file" / "data"
    said = refusal(ended(service, environment(service, tmp_path, STORE__DATA_DIR=str(directory))))
    assert said.startswith(f"cannot make store.data_dir {directory}: Not a directory; ") and "fsGroup 10001" in said


@with_a_store
def test_a_data_directory_that_cannot_be_written(service: str, tmp_path: Path) -> None:
    directory = Path("/proc/sys/kernel/random")  # nobody may make files there, root included
    if not directory.is_dir() or os.access(directory, os.W_OK):
        pytest.skip("needs Linux' /proc, where even root cannot write; tests/deploy/test_containers.py has the same with another user")
    said = refusal(ended(service, environment(service, tmp_path, STORE__DATA_DIR=str(directory))))
    assert said.startswith(f"cannot write to store.data_dir {directory}: read-only, or another user's; ")


@every
def test_a_collector_that_is_not_there_costs_spans_and_nothing_else(service: str, tmp_path: Path) -> None:
    (nowhere,) = free_ports(1)
    settings = {"TELEMETRY__OTLP_ENDPOINT": f"127.0.0.1:{nowhere}"}
    if service == "llm":
        settings["CHAT__MODEL"] = ""  # the encoder alone is loaded: seconds less
    variables = environment(service, tmp_path, **settings)
    port = variables[f"{PREFIXES[service]}SERVER__PORT"]
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, "-m", f"services.{service}"], stdout=out, stderr=subprocess.STDOUT, env=variables)
        try:
            wait(Target(f"127.0.0.1:{port}"), "readiness", 10.0, ENDS_S)
            if service == "gateway":
                _call_in_vain(port)
            process.send_signal(signal.SIGTERM)
            assert process.wait(ENDS_S) == 0
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in log.read_text()


def _call_in_vain(port: str) -> None:
    """A call that makes spans: no owner is known, which is said as ever."""
    with NdmlClient(f"127.0.0.1:{port}", user="nobody", timeout_s=5.0) as client, pytest.raises(Unavailable) as caught:
        client.stats()
    assert "no placement is known yet" in str(caught.value)


def test_the_log_says_that_spans_are_lost(tmp_path: Path) -> None:
    (nowhere,) = free_ports(1)
    variables = environment("gateway", tmp_path, TELEMETRY__OTLP_ENDPOINT=f"127.0.0.1:{nowhere}")
    port = variables["NDML_GATEWAY__SERVER__PORT"]
    done: list[Any] = []
    process = subprocess.Popen(
        [sys.executable, "-m", "services.gateway"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables
    )
    assert process.stdout is not None
    try:
        wait(Target(f"127.0.0.1:{port}"), "readiness", 10.0, ENDS_S)
        _call_in_vain(port)
        for line in process.stdout:
            done.append(line)
            if "UNAVAILABLE" in line and str(nowhere) in line:
                break
    finally:
        process.kill()
        process.wait()
    assert str(nowhere) in done[-1] and "Traceback" not in "".join(done)
