"""The images in containers: the demonstration, both doors, a stop under load, and what an operator gets wrong. Skipped without docker.

The suite comes up once, from deploy/compose.yaml, hardened as it says there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from ndml.client import NdmlClient
from tests.deploy.containers import IMAGES, ROOT, STOP_S, Containers, docker, image, inspect, missing, run_once, running
from tests.deploy.load import Load
from tests.deploy.measure_images import ROUND

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.integration,
    pytest.mark.xdist_group("containers"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def containers() -> Iterator[Containers]:
    with running(second_gateway=True) as found:
        yield found


@pytest.mark.parametrize("service", ["gateway", "consensus"])
def test_small_images_are_small_and_have_no_torch(service: str) -> None:
    assert inspect(image(service), "image")["Size"] <= 250_000_000
    looking = "import importlib.util as u; print([name for name in ('torch', 'faiss', 'transformers') if u.find_spec(name)])"
    assert docker("run", "--rm", "--entrypoint", "python", image(service), "-c", looking).stdout.strip() == "[]"


@pytest.mark.parametrize("service", IMAGES)
def test_the_compiler_stayed_behind(service: str) -> None:
    looking = "import shutil; print([name for name in ('gcc', 'cc', 'ld') if shutil.which(name)])"
    assert docker("run", "--rm", "--entrypoint", "python", image(service), "-c", looking).stdout.strip() == "[]"


def test_the_memory_node_has_its_kernels() -> None:
    loading = "; ".join(
        [
            "from ndml.btsp.kernels.native import library",
            "from ndml.crdt.oscillator_native import native",
            "from services.memory_node.signals.late import native as late",
            "print(None in (library(), native(), late()))",
        ]
    )
    assert docker("run", "--rm", "--entrypoint", "python", image("memory-node"), "-c", loading).stdout.strip() == "False"


def test_everybody_is_nobody_with_a_read_only_root(containers: Containers) -> None:
    for name in containers.names:
        found = inspect(containers.id(name))
        assert found["Config"]["User"] == "10001:10001" and found["HostConfig"]["ReadonlyRootfs"]
        assert found["HostConfig"]["CapDrop"] == ["ALL"] and "no-new-privileges:true" in found["HostConfig"]["SecurityOpt"]
        assert docker("exec", containers.id(name), "python", "-c", "open('/app/x', 'w')", check=False).returncode == 1


def test_the_demonstration(containers: Containers) -> None:
    command = [sys.executable, "scripts/demo.py", "--address", containers.grpc_addresses[0]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


def test_rest_writes_what_the_other_gateway_finds_by_grpc(containers: Containers) -> None:
    body = {"memory": {"scope": {"user": "rest"}, "text": "The spare key lies under the third flower pot."}}
    answer = httpx.post(f"{containers.rest_url}/v1/memories", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    with NdmlClient(containers.grpc_addresses[1], user="rest", timeout_s=30) as client:
        assert client.search("Where is the spare key?", k=1)[0].memory.text == body["memory"]["text"]


@pytest.mark.parametrize("name", ["gateway", "memory-1", "consensus"])
def test_sigterm_under_load_fails_no_call(containers: Containers, name: str) -> None:
    with Load(containers.grpc_addresses, timeout_s=30.0) as load:
        load.wait_for(ROUND)
        ended = containers.stop(name)
        load.wait_for(ROUND)
        containers.start(name)
        load.wait_for(ROUND)
    assert ended.exit_code == 0 and ended.seconds < STOP_S
    assert load.tally.failures == []


def test_the_ndml_command_is_in_the_gateways_image(containers: Containers) -> None:
    done = docker("exec", containers.id("gateway"), "python", "-m", "ndml.cli", "doctor", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_unknown_key_ends_the_container_with_one_line() -> None:
    done = run_once("gateway", {"NDML_GATEWAY__SERVER__PROT": "1"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "config: server.prot: unknown setting; did you mean port?\n"


@pytest.mark.parametrize("service", ["memory-node", "consensus"])
def test_a_volume_of_another_user_is_named(service: str) -> None:
    # Nothing is mounted on /data: it is the read-only root's.
    done = run_once(service, {})
    assert done.returncode == 1
    last = json.loads(done.stderr.splitlines()[-1])
    assert last["event"] == "cannot_start" and last["error"].startswith(
        "cannot write to store.data_dir /data: read-only, or another user's"
    )
