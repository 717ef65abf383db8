"""The pod's preStop: who leaves for good hands over, who comes back does not. Against a real API of HTTP, and a real suite."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from ndml.client import NdmlClient, NewMemory
from ndml.testing import Suite, SuiteOptions
from services.memory_node.leave import Pod, Unanswered, api_server, hand_over, statefulset, stays_because

NAME = "ndml-memory-node"
POD = Pod(f"{NAME}-2", "memory")
USERS = [f"user-{number}" for number in range(12)]


def wanted(replicas: int, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": NAME}, "spec": {"replicas": replicas, **more}}


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (wanted(2), ""),
        (wanted(1), ""),
        (wanted(3), "comes back with its volume"),
        (wanted(7), "comes back with its volume"),
        (wanted(0), "scaled to zero"),
        (None, "is deleted"),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"replicas": 1}}, "is deleted"),
        (wanted(2, ordinals={"start": 1}), "comes back"),
        (wanted(2, ordinals={"start": 3}), ""),
        ({"metadata": {}, "spec": {}}, ""),
    ],
)
def test_only_a_pod_that_is_wanted_no_more_leaves(found: dict[str, Any] | None, reason: str) -> None:
    told = stays_because(found, POD)
    assert reason in told and bool(told) == bool(reason)


class _Answers(BaseHTTPRequestHandler):
    """Says what its server's `answer` holds: (status, object)."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append((self.path, self.headers.get("Authorization")))
        status, body = server.answer
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def api(status: int, body: object) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """(URL, what was asked) of an API server that always says this."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    server.answer, server.asked = (status, body), []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.asked  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_it_asks_for_its_own_statefulset_as_its_account(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("let-me-in\n")
    with api(200, wanted(2)) as (url, asked):
        assert statefulset(NAME, POD, url, tmp_path) == wanted(2)
    assert asked == [(f"/apis/apps/v1/namespaces/memory/statefulsets/{NAME}", "Bearer let-me-in")]
    with api(404, {"kind": "Status"}) as (url, _):
        assert statefulset(NAME, POD, url, tmp_path) is None


def test_why_it_cannot_know_is_said_with_what_to_do(tmp_path: Path) -> None:
    with api(403, {"kind": "Status"}) as (url, asked), pytest.raises(Unanswered, match=r"403 .*may get statefulsets.apps/ndml-memory-node"):
        statefulset(NAME, POD, url, tmp_path)
    assert len(asked) == 1, "asking again changes no rights"
    pauses: list[float] = []
    with api(500, {}) as (url, asked), pytest.raises(Unanswered, match="500"):
        statefulset(NAME, POD, url, tmp_path, sleep=pauses.append)
    assert len(asked) == 3 and pauses == [0.0, 1.0, 1.0]
    with pytest.raises(Unanswered, match="NetworkPolicy"):
        statefulset(NAME, POD, url, tmp_path, sleep=pauses.append)  # nobody listens there any more
    with pytest.raises(Unanswered, match="ndml drain"):
        api_server({})
    assert api_server({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == "https://10.0.0.1:443"
    assert api_server({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}) == "https://[fd00::1]:6443"


async def test_a_node_that_does_not_answer_is_not_waited_for_long() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert await hand_over(channel, 5.0) is False
    finally:
        server.stop(None)


def leave(suite: Suite, process: str, server: str, replicas_pod: int, *more: str) -> subprocess.CompletedProcess[str]:
    """The preStop of one of the suite's memory nodes, as a pod of that ordinal."""
    environment = {
        **os.environ,
        **suite.layout.by_name(process).environment,
        "POD_NAME": f"{NAME}-{replicas_pod}",
        "POD_NAMESPACE": "memory",
    }
    command = [sys.executable, "-m", "services.memory_node.leave", f"--statefulset={NAME}", f"--api-server={server}", *more]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150, check=False)


def phases(client: NdmlClient) -> dict[str, str]:
    return {member.node_id: member.phase for member in client.placement().members}


def found(client: NdmlClient) -> int:
    """How many users find what was written for them."""
    rng = np.random.default_rng(3)
    vectors = {user: rng.standard_normal(384).astype(np.float32) for user in USERS}
    return sum(any(hit.memory.text == user for hit in client.search("", embedding=vectors[user], user=user, k=1)) for user in USERS)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """Three memory nodes, one copy of each user on one of them: what is not handed over is not found."""
    node = {"NODE__REJOIN": "true"}
    options = SuiteOptions(
        data_dir=tmp_path_factory.mktemp("leave"),
        memory_nodes=3,
        consensus_nodes=1,
        llm=False,
        replication_factor=1,
        settings={"memory-node": node},
    )
    with Suite(options) as running:
        with NdmlClient(running.grpc_address, timeout_s=30) as client:
            rng = np.random.default_rng(3)
            for user in USERS:
                client.add_many([NewMemory(user, embedding=rng.standard_normal(384).astype(np.float32))], user=user)
        yield running


@pytest.mark.xdist_group("leave")
def test_a_pod_scaled_in_hands_over_and_joins_when_scaled_out(cluster: Suite) -> None:
    leaver, pod = "memory-node-3", 2
    with NdmlClient(cluster.grpc_address, timeout_s=30) as client:
        with api(200, wanted(3)) as (server, _):
            updated = leave(cluster, leaver, server, pod)
        assert updated.returncode == 0 and "nothing_to_hand_over" in updated.stderr, updated.stderr
        assert phases(client)[leaver] == "active", "a rolling update moves nothing"

        with api(200, wanted(2)) as (server, _):
            gone = leave(cluster, leaver, server, pod)
        assert gone.returncode == 0 and "handed_over" in gone.stderr, gone.stderr
        assert phases(client)[leaver] == "left"
        cluster.terminate(leaver)
        cluster.process(leaver).wait(30)
        assert found(client) == len(USERS)

        cluster.restart(leaver)
        wait_for(lambda: phases(client)[leaver] == "active")
        assert found(client) == len(USERS)


@pytest.mark.xdist_group("leave")
def test_where_nothing_is_known_nothing_moves(cluster: Suite) -> None:
    with api(403, {}) as (server, _):
        refused = leave(cluster, "memory-node-2", server, 1)
    assert refused.returncode == 1
    assert "may get statefulsets.apps" in refused.stderr and "scale out again" in refused.stderr
    with NdmlClient(cluster.grpc_address) as client:
        assert phases(client)["memory-node-2"] == "active"


def wait_for(reached: Any) -> None:
    """Until it is so; the test's own limit of time ends what never is."""
    while not reached():
        threading.Event().wait(0.2)
