"""The Dockerfiles, .dockerignore and the compose file as text: what every image must be, whether or not docker is here to build it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from ndml import __version__
from ndml.runtime.healthcheck import USUAL_PORTS
from scripts import build_images

ROOT = Path(__file__).resolve().parent.parent.parent
SERVICES = build_images.SERVICES
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text("utf-8"))
BASE = re.compile(r"\$\{BASE_REGISTRY\}python:\$\{(BUILD|RUNTIME)_TAG\}")
every = pytest.mark.parametrize("service", SERVICES)
every_container = pytest.mark.parametrize("name", COMPOSE["services"])


@cache
def instructions(service: str) -> tuple[tuple[str, str], ...]:
    """(INSTRUCTION, rest) of a service's Dockerfile, comments gone, continued lines joined."""
    lines = (ROOT / "services" / SERVICES[service] / "Dockerfile").read_text("utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#")).replace("\\\n", " ")
    split = (line.split(None, 1) for line in text.splitlines() if line.strip())
    return tuple((word.upper(), " ".join(rest.split())) for word, rest in split)


def last_stage(service: str) -> list[tuple[str, str]]:
    found = list(instructions(service))
    return found[max(number for number, (word, _) in enumerate(found) if word == "FROM") :]


def values(service: str, instruction: str) -> list[str]:
    return [rest for word, rest in last_stage(service) if word == instruction]


@every
def test_bases_are_pinned_by_arguments(service: str) -> None:
    bases = [rest.split(" AS ")[0] for word, rest in instructions(service) if word == "FROM"]
    assert len(bases) == 3 and all(BASE.fullmatch(base) for base in bases), bases
    tags = {rest.partition("=")[0]: rest.partition("=")[2] for word, rest in instructions(service) if word == "ARG" and "_TAG" in rest}
    assert tags == {"BUILD_TAG": "3.11-bookworm", "RUNTIME_TAG": "3.11-slim-bookworm"}
    text = (ROOT / "services" / SERVICES[service] / "Dockerfile").read_text("utf-8")
    assert ":latest" not in text and not text.startswith("# syntax")


@every
def test_runs_as_nobody_and_nothing_runs_while_it_is_put_together(service: str) -> None:
    assert values(service, "USER") == ["10001:10001"]
    assert {word for word, _ in last_stage(service)} <= {
        "FROM", "COPY", "WORKDIR", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "ARG", "LABEL",
    }  # fmt: skip
    assert not values(service, "ADD") and not values(service, "VOLUME")


@every
def test_process_one_is_the_service(service: str) -> None:
    # The exec form: with a shell between them SIGTERM would reach the shell alone.
    assert json.loads(values(service, "ENTRYPOINT")[0]) == ["python", "-m", f"services.{SERVICES[service]}"]


@every
def test_health_is_asked_of_the_service_itself(service: str) -> None:
    (check,) = values(service, "HEALTHCHECK")
    assert json.loads(check[check.index("CMD ") + 4 :]) == ["python", "-m", "ndml.runtime.healthcheck", service]
    assert str(USUAL_PORTS[service]) in values(service, "EXPOSE")[0].split()


@every
def test_labels(service: str) -> None:
    found = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", values(service, "LABEL")[0]))
    assert found == {"title", "description", "licenses", "version", "revision"}


@every
def test_listens_outside_and_writes_to_data(service: str) -> None:
    environment = dict(re.findall(r"(NDML_\w+)=(\S+)", values(service, "ENV")[0]))
    prefix = f"NDML_{SERVICES[service].upper()}__"
    assert environment[f"{prefix}SERVER__HOST"] == "0.0.0.0"
    if service in ("memory-node", "consensus"):
        assert environment[f"{prefix}STORE__DATA_DIR"] == "/data"
        assert any(rest.endswith("/data /data") and "--chown=10001:10001" in rest for rest in values(service, "COPY"))


@every
def test_its_settings_take_what_the_image_says(service: str) -> None:
    environment = dict(re.findall(r"(NDML_\w+)=(\S+)", values(service, "ENV")[0]))
    command = [sys.executable, "-m", f"services.{SERVICES[service]}", "--print-config"]
    shown = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), **environment}, check=True).stdout
    assert yaml.safe_load(shown)["server"]["host"] == "0.0.0.0"


@every
def test_only_its_own_service_goes_in(service: str) -> None:
    copied = {path for word, rest in instructions(service) if word == "COPY" for path in rest.split()[:-1] if path.startswith("services/")}
    assert {path.split("/")[1] for path in copied} == {SERVICES[service], "__init__.py"}


def test_every_version_is_pinned() -> None:
    for service in SERVICES:
        installs = [rest for word, rest in instructions(service) if word == "RUN" and "pip" in rest and " install " in rest]
        assert installs and all("-c constraints.txt" in rest for rest in installs), installs
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if "==" in line}
    wanted = {name for path in ROOT.glob("services/*/requirements*.in") for name in _names(path)}
    assert wanted <= pinned, wanted - pinned


def test_torch_stays_out_of_the_small_images() -> None:
    for service in ("gateway", "consensus"):
        assert service in build_images.LIMITS_MB
    lists = [ROOT / "ndml" / "runtime" / "requirements.in", *(ROOT / "services" / name / "requirements.in" for name in SERVICES.values())]
    heavy = {"torch", "transformers", "faiss-cpu"}
    found = {path.parent.name: heavy & _names(path) for path in lists}
    assert found == {
        "runtime": set(), "gateway": set(), "consensus": set(), "memory_node": {"faiss-cpu"}, "llm": {"torch", "transformers"},
    }  # fmt: skip


def test_what_is_removed_from_a_package_is_not_imported() -> None:
    text = (ROOT / "services" / "consensus" / "Dockerfile").read_text("utf-8")
    assert "kubernetes/aio" in text
    for path in [*ROOT.glob("ndml/**/*.py"), *ROOT.glob("services/**/*.py")]:
        assert not any(name.startswith("kubernetes.aio") for name in _imports(path)), path


def test_the_builder_is_sent_what_the_images_need_and_no_more() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert {"**/__pycache__", "**/*.so"} <= set(lines)
    assert not any(line.startswith(("!data", "!tests", "!.git", "!.venv")) for line in lines)
    sent = {line[1:].split("/")[0] for line in lines if line.startswith("!")}
    needed = {
        path.split("/")[0] for name in SERVICES for word, rest in instructions(name) if word == "COPY" and not rest.startswith("--from")
        for path in rest.split()[:-1]
    }  # fmt: skip
    assert needed <= sent, needed - sent


@every_container
def test_containers_are_hardened(name: str) -> None:
    container = COMPOSE["services"][name]
    assert container["read_only"] is True and container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"] and container["tmpfs"] and container["mem_limit"]
    assert not {"privileged", "network_mode", "pid", "user"} & set(container)
    for port in container.get("ports", []):
        assert port.startswith("127.0.0.1:"), "opening it to a network is a decision"


@every_container
def test_containers_wait_for_each_other_by_health(name: str) -> None:
    container = COMPOSE["services"][name]
    service = re.match(r"ndml-([a-z-]+):", container["image"])
    assert service is not None and service[1] in SERVICES
    assert container["healthcheck"]["test"] == ["CMD", "python", "-m", "ndml.runtime.healthcheck", service[1]]
    assert container["build"]["dockerfile"] == f"services/{SERVICES[service[1]]}/Dockerfile"
    assert all(wait == {"condition": "service_healthy"} for wait in container.get("depends_on", {}).values())
    assert container["image"] == f"ndml-{service[1]}:${{NDML_TAG:-{__version__}}}"


@every_container
def test_a_container_may_drain_before_it_is_killed(name: str) -> None:
    service = re.match(r"ndml-([a-z-]+):", COMPOSE["services"][name]["image"])
    assert service is not None
    command = [sys.executable, "-m", f"services.{SERVICES[service[1]]}", "--print-config"]
    shown = yaml.safe_load(subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, check=True).stdout)
    # One after the other: not ready, calls under way, REST calls under way, what chats left to write.
    drains = [shown["server"]["drain_s"], shown["server"]["grace_s"], shown.get("rest", {}).get("drain_s", 0)]
    assert sum(drains) + shown.get("learning", {}).get("drain_s", 0) < float(
        COMPOSE["services"][name]["stop_grace_period"].removesuffix("s")
    )


def test_settings_in_compose_exist() -> None:
    for name, container in COMPOSE["services"].items():
        service = re.match(r"ndml-([a-z-]+):", container["image"])
        assert service is not None
        environment = {"PYTHONPATH": str(ROOT), **container["environment"]}
        command = [sys.executable, "-m", f"services.{SERVICES[service[1]]}", "--print-config"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, f"{name}: {done.stderr}"


def test_in_compose_any_name_of_a_model_stands_for_the_one_that_is_here() -> None:
    for name in ("gateway", "gateway-2"):
        assert json.loads(COMPOSE["services"][name]["environment"]["NDML_GATEWAY__REST__MODEL_ALIASES"]) == {"*": ""}


def test_the_build_command() -> None:
    services, options = build_images.read_options(
        ["--tag", "t", "--base-registry", "mirror.example/", "--torch-index", "https://torch.example"]
    )
    assert services == list(SERVICES) and options.version == __version__
    words = build_images.command("memory-node", options)
    assert "BASE_REGISTRY=mirror.example/" in words and "VARIANT=cpu" in words and "services/memory_node/Dockerfile" in words
    assert words[words.index("-t") + 1] == "ndml-memory-node:t"
    assert not any(word.startswith(("VARIANT", "TORCH_INDEX")) for word in build_images.command("gateway", options))
    services, options = build_images.read_options(["--gpu"])
    assert services == ["memory-node", "llm"] and build_images.image_name("llm", options) == f"ndml-llm-gpu:{__version__}"


def test_no_gpu_variant_of_a_service_that_computes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_images.read_options(["--gpu", "--only", "gateway"])
    assert ended.value.code == 2 and "of gateway there is no GPU variant" in capsys.readouterr().err


def test_without_a_daemon_the_build_says_so(tmp_path: Path) -> None:
    stub = tmp_path / "docker"
    stub.write_text("#!/bin/sh\nexit 1\n")
    stub.chmod(0o755)
    command = [sys.executable, str(ROOT / "scripts" / "build_images.py")]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin", "DOCKER_HOST": "unix:///nowhere"}
    )
    assert done.returncode == 2
    assert done.stderr == "build_images: no docker daemon answers at unix:///nowhere; scripts/dockerd_in_vm.sh starts one\n"


def _names(path: Path) -> set[str]:
    lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    return {re.split(r"[<>=~;\[ ]", line)[0].lower() for line in lines if line and not line.startswith(("#", "-"))}


def _imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    whole = {
        f"{node.module}.{alias.name}" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module for alias in node.names
    }
    return plain | whole
