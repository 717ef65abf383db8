"""Clients in other languages: each program of examples/clients is built and run against the suite, where its toolchain is.

All do the same and print the same lines, so that one test holds them all.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ndml.client import NdmlClient
from ndml.errors import DeadlineExceeded, Unavailable
from ndml.testing import Suite, free_ports
from ndml.testing.process import ManagedProcess
from tests.doors.clients import BUILDERS, CLIENTS, ROOT, Command, need
from tests.doors.tls import loopback_certificate, terminated

# Bound of one run: seconds of them on a free machine, Java's start among them.
RUN_S = 60
# Bound of one start or stop of a gateway.
READY_S = 60
TOKEN = "clients-secret"
# Languages whose library prints no name for a code.
CODES = {"3": "INVALIDARGUMENT", "4": "DEADLINEEXCEEDED", "14": "UNAVAILABLE", "16": "UNAUTHENTICATED"}

# One worker builds them, one after the other.
pytestmark = [pytest.mark.xdist_group("clients"), pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Door:
    """Where a client calls, and how."""

    grpc: str
    rest: str
    token: str = ""
    authority: str = ""

    def run(self, command: Command, user: str, timeout_s: str = "20") -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"NDML_ADDRESS": self.grpc, "NDML_URL": self.rest, "NDML_USER": user, "NDML_TIMEOUT_S": timeout_s}
        environment |= {"NDML_TOKEN": self.token, "NDML_CA": self.authority, "no_proxy": "127.0.0.1"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=RUN_S, check=False)


@pytest.fixture(scope="module", params=list(BUILDERS))
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command that runs one language's program."""
    return BUILDERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def locked(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """One more gateway of the suite, which wants a token, behind TLS."""
    (spec,) = suite.layout.of_role("gateway")
    port, rest_port, metrics_port = free_ports(3)
    own: dict[str, object] = {
        "SERVER__PORT": port,
        "REST__PORT": rest_port,
        "SERVER__METRICS_PORT": metrics_port,
        "SERVER__INSTANCE": "locked",
    }
    own["AUTH__TOKENS"] = json.dumps([{"token": TOKEN, "name": "tests", "tenants": ["acme"]}])
    environment = {**spec.environment, **{f"NDML_GATEWAY__{name}": str(value) for name, value in own.items()}}
    directory = tmp_path_factory.mktemp("locked")
    gateway = ManagedProcess("locked", spec.module, environment, directory / "locked.log")
    certificate = loopback_certificate(directory)
    gateway.start()
    try:
        _until_ready(gateway, port)
        grpc_door = terminated(f"127.0.0.1:{port}", certificate)
        rest_door = terminated(f"127.0.0.1:{rest_port}", certificate, "http/1.1")
        with grpc_door as grpc, rest_door as rest:
            yield Door(grpc, f"https://{rest}", TOKEN, str(certificate))
    finally:
        gateway.terminate()
        if gateway.wait(READY_S) is None:
            gateway.kill()


def _until_ready(gateway: ManagedProcess, port: int) -> None:
    """Ready: it answers a caller with a token."""
    deadline = time.monotonic() + READY_S
    with NdmlClient(f"127.0.0.1:{port}", token=TOKEN, user="nobody", timeout_s=5.0) as probe:
        while True:
            try:
                probe.search("ready?", k=1)
                return
            except (Unavailable, DeadlineExceeded) as error:
                assert gateway.running and time.monotonic() < deadline, f"{error}\n{gateway.log_tail()}"


def user() -> str:
    return f"clients-{uuid.uuid4().hex}"


def code_of(word: str) -> str:
    """INVALID_ARGUMENT, InvalidArgument and 3 are one."""
    return CODES.get(word, word.replace("_", "").upper())


def assert_conversation(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What every program prints; the ids of what it added."""
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    ids = [line.removeprefix("added ") for line in lines if line.startswith("added ")]
    assert len(set(ids)) == 2 and all(re.fullmatch("[0-9a-f]{32}", each) for each in ids), done.stdout
    assert "Lisbon" in lines[2] and "Pixel" in lines[3], "the nearer memory comes first"
    (said,) = (line for line in lines if line.startswith("chat: "))
    assert "Lisbon" in said, done.stdout
    assert any(line.startswith("cited ") and line.endswith("I live in Lisbon.") for line in lines), done.stdout
    (refused,) = (line.split(maxsplit=4) for line in lines if line.startswith("refused: "))
    assert [code_of(refused[1]), *refused[2:4]] == ["INVALIDARGUMENT", "FIELD_INVALID", "k:"] and "1000" in refused[4]
    return ids


def test_it_remembers_searches_chats_and_says_why_it_is_refused(client: Command, suite: Suite) -> None:
    door, who = Door(suite.grpc_address, suite.rest_url), user()
    first = assert_conversation(door.run(client, who))
    assert assert_conversation(door.run(client, who)) == first, "the same request ids write once"


def test_a_deadline_that_is_over_ends_it_with_one_line(client: Command, suite: Suite) -> None:
    done = Door(suite.grpc_address, suite.rest_url).run(client, user(), timeout_s="0.0001")
    line = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert done.returncode != 0 and code_of(line.split()[1]) == "DEADLINEEXCEEDED", done.stderr
    assert "Traceback" not in done.stderr and "\tat " not in done.stderr


def test_it_shows_a_token_behind_tls(client: Command, locked: Door) -> None:
    assert_conversation(locked.run(client, user()))
    stranger = Door(locked.grpc, locked.rest, "wrong", locked.authority).run(client, user())
    line = next(line for line in stranger.stderr.splitlines() if line.startswith("error: "))
    assert stranger.returncode != 0 and code_of(line.split()[1]) == "UNAUTHENTICATED" and line.split()[2] == "CREDENTIALS_INVALID"


def test_it_trusts_no_certificate_of_another_authority(client: Command, locked: Door, tmp_path: Path) -> None:
    elsewhere = loopback_certificate(tmp_path)
    done = Door(locked.grpc, locked.rest, TOKEN, str(elsewhere)).run(client, user(), timeout_s="5")
    assert done.returncode != 0 and "error: " in done.stderr and "added" not in done.stdout, done.stdout + done.stderr


def test_the_template_makes_stubs_for_the_languages_whose_plugins_are_here(tmp_path: Path) -> None:
    install = "apt-get install protobuf-compiler protobuf-compiler-grpc protobuf-compiler-grpc-java-plugin protoc-gen-go protoc-gen-go-grpc"
    need(install, "protoc")
    lines = (CLIENTS / "buf.gen.yaml").read_text(encoding="utf-8").splitlines()
    plugins = {line: found[1] for line in lines if (found := re.match(r"  - \{local: ([\w-]+)", line))}
    assert len(plugins) >= 12
    template = tmp_path / "buf.gen.yaml"
    template.write_text("\n".join(line for line in lines if line not in plugins or shutil.which(plugins[line])) + "\n")
    buf = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")
    assert buf, "buf is missing: make setup installs it (buf-bin)"
    command = [buf, "generate", "--template", str(template), "--include-imports", "-o", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_S, check=False)
    assert done.returncode == 0, done.stderr
    made = {"cpp": "memory.pb.cc", "java": "MemoryTrace.java", "php": "MemoryTrace.php", "python": "memory_pb2.py"}
    made |= {"ruby": "memory_pb.rb", "csharp": "Memory.cs", "kotlin": "MemoryTraceKt.kt"}
    for language, name in made.items():
        assert list((tmp_path / language).rglob(name)), language
    assert not [path for path in tmp_path.rglob("*") if "validate" in path.name.lower()], "rules are the server's"


def readmes() -> list[Any]:
    return [pytest.param(path, id=path.parent.name) for path in sorted(CLIENTS.glob("*/README.md"))]


@pytest.mark.parametrize("readme", readmes())
def test_a_readme_is_short_and_names_the_settings(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    for name in ("NDML_TOKEN", "NDML_CA", "NDML_TIMEOUT_S", "make run"):
        assert name in text, name


def test_every_client_has_a_readme_and_a_test() -> None:
    assert {path.parent.name for path in CLIENTS.glob("*/README.md")} == set(BUILDERS)
