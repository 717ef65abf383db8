"""The suite as containers: deploy/compose.yaml run under a project of its own, on free ports, and looked at through docker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import grpc

from ndml import __version__
from ndml.testing import free_ports
from ndml.v1 import admin_pb2, admin_pb2_grpc

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE_FILE = ROOT / "deploy" / "compose.yaml"
IMAGES = ("gateway", "consensus", "memory-node", "llm")
GPU_IMAGES = ("memory-node-gpu", "llm-gpu")
GATEWAYS = ("gateway", "gateway-2")
TAG = os.environ.get("NDML_TAG", __version__)
# Two cores that others use: the llm service loads torch and two models, everything else takes a second or two.
READY_S = 240.0
STOP_S = 30
_POLL_S = 0.2


class ContainerError(RuntimeError):
    """docker or compose refused, or something did not get ready; the message has what they said."""


@cache
def missing() -> str:
    """Why containers cannot be run here; empty when they can."""
    if shutil.which("docker") is None:
        return "docker is not installed: apt-get install docker.io"
    if subprocess.run(["docker", "version"], capture_output=True).returncode:
        return "no docker daemon answers: scripts/dockerd_in_vm.sh start DIR, then export DOCKER_HOST as it says"
    if not _compose_command():
        return "docker compose is not installed: apt-get install docker-compose"
    absent = [name for name in IMAGES if not built(image(name))]
    return f"images are not built: {', '.join(map(image, absent))}; make images" if absent else ""


def image(service: str) -> str:
    """Name and tag of a service's image, as `make images` gives it."""
    return f"ndml-{service}:{TAG}"


def built(name: str) -> bool:
    """Whether the daemon has an image of this name."""
    return docker("image", "inspect", name, check=False).returncode == 0


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run docker and take what it says. Raises ContainerError where it fails and `check` is set."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, errors="replace")
    if check and done.returncode:
        raise ContainerError(f"docker {' '.join(arguments)}: {done.stderr.strip()}")
    return done


def inspect(name: str, kind: str = "container") -> Any:
    """What docker knows of a container, an image, …"""
    return json.loads(docker(kind, "inspect", name).stdout)[0]


@cache
def _compose_command() -> tuple[str, ...]:
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ("docker", "compose")
    return ("docker-compose",) if shutil.which("docker-compose") else ()


@dataclass(frozen=True)
class Ended:
    """How a container ended."""

    exit_code: int
    seconds: float


class Containers:
    """The suite of deploy/compose.yaml. Names are those of its services; with `second_gateway` there are two doors."""

    def __init__(self, *, second_gateway: bool) -> None:
        self._project = f"ndml-test-{os.getpid()}"
        names = ("NDML_GRPC_PORT", "NDML_REST_PORT", "NDML_GRPC_PORT_2", "NDML_REST_PORT_2")
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))
        self._profile = ["--profile", "second-gateway"] if second_gateway else []
        self.names = ("consensus", "memory-1", "memory-2", "llm", *(GATEWAYS if second_gateway else GATEWAYS[:1]))
        self._ids: dict[str, str] = {}

    @property
    def grpc_addresses(self) -> list[str]:
        """host:port of every gateway."""
        ports = [self._ports["NDML_GRPC_PORT"], self._ports["NDML_GRPC_PORT_2"]]
        return [f"127.0.0.1:{port}" for port in ports[: 2 if self._profile else 1]]

    @property
    def rest_url(self) -> str:
        """The first gateway's REST door."""
        return f"http://127.0.0.1:{self._ports['NDML_REST_PORT']}"

    def up(self) -> None:
        """Start everything and wait until docker's own health checks pass. Raises ContainerError."""
        self._compose("up", "-d", "--no-build")
        self._ids = {name: self._compose("ps", "-q", name).strip() for name in self.names}
        for name in self.names:
            self.wait_healthy(name)
        self.wait_whole()

    def down(self) -> None:
        """Stop everything and remove it, volumes included."""
        self._compose("down", "--volumes", "--timeout", str(STOP_S))

    def id(self, name: str) -> str:
        """Container of a service."""
        return self._ids[name]

    def state(self, name: str) -> Mapping[str, Any]:
        """State as docker has it: Running, ExitCode, StartedAt, Health."""
        state: Mapping[str, Any] = inspect(self.id(name))["State"]
        return state

    def logs(self, name: str) -> list[dict[str, Any]]:
        """Log records, each with docker's own time under "at" (seconds since 1970)."""
        lines = docker("logs", "--timestamps", self.id(name)).stderr.splitlines()
        return [{**json.loads(text), "at": _seconds(at)} for at, _, text in (line.partition(" ") for line in lines) if text.startswith("{")]

    def stop(self, name: str) -> Ended:
        """SIGTERM, and SIGKILL after STOP_S seconds."""
        began = time.monotonic()
        docker("stop", "--time", str(STOP_S), self.id(name))
        return Ended(int(self.state(name)["ExitCode"]), time.monotonic() - began)

    def start(self, name: str) -> None:
        """Start a stopped one and wait until the suite is whole again."""
        docker("start", self.id(name))
        self.wait_healthy(name)
        self.wait_whole()

    def start_seconds(self, name: str) -> float:
        """From docker's start of the process to its log's last "ready"."""
        ready = [record["at"] for record in self.logs(name) if record.get("event") == "ready"]
        return float(ready[-1] - _seconds(str(self.state(name)["StartedAt"])))

    def wait_healthy(self, name: str) -> None:
        """Wait for docker's health check of one. Raises ContainerError with the end of its log."""
        deadline = time.monotonic() + READY_S
        while (state := self.state(name))["Health"]["Status"] != "healthy":
            if not state["Running"] or time.monotonic() > deadline:
                said = docker("logs", "--tail", "20", self.id(name))
                raise ContainerError(f"{name} is not healthy: {state['Status']}, exit code {state['ExitCode']}\n{said.stdout}{said.stderr}")
            time.sleep(_POLL_S)

    def wait_whole(self) -> None:
        """Wait until every gateway sees every process. Raises ContainerError."""
        deadline = time.monotonic() + READY_S
        for address in self.grpc_addresses:
            with grpc.insecure_channel(address) as channel:
                admin = admin_pb2_grpc.AdminServiceStub(channel)
                while problem := _unwhole(admin):
                    if time.monotonic() > deadline:
                        raise ContainerError(f"the gateway at {address} does not see a whole suite: {problem}")
                    time.sleep(_POLL_S)

    def _compose(self, *arguments: str) -> str:
        command = [*_compose_command(), "-f", str(COMPOSE_FILE), "-p", self._project, *self._profile, *arguments]
        environment = {**os.environ, **{name: str(port) for name, port in self._ports.items()}, "NDML_TAG": TAG}
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
        if done.returncode:
            raise ContainerError(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
        return done.stdout


@contextmanager
def running(*, second_gateway: bool) -> Iterator[Containers]:
    """The suite for the length of a block. Raises ContainerError."""
    containers = Containers(second_gateway=second_gateway)
    try:
        containers.up()
        yield containers
    finally:
        containers.down()


def run_once(service: str, environment: Mapping[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """One container of a service in the foreground, hardened as in compose, until it ends by itself."""
    given = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
    hardened = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    return docker("run", "--rm", *hardened, *given, *options, image(service), check=False)


def _unwhole(admin: admin_pb2_grpc.AdminServiceStub) -> str:
    try:
        status = admin.GetClusterStatus(admin_pb2.GetClusterStatusRequest(), timeout=5.0)
    except grpc.RpcError as error:
        return str(error)
    silent = [f"{service.address}: {service.error}" for service in status.services if not service.reachable]
    return "; ".join(silent) or ("" if status.healthy else "an owner is not alive")


def _seconds(timestamp: str) -> float:
    # Docker gives nanoseconds, datetime takes microseconds.
    return datetime.fromisoformat(timestamp.rstrip("Z")[:26] + "+00:00").timestamp()
