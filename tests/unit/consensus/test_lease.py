"""The elector against a small server that speaks Kubernetes' Lease API, resource versions and conflicts included, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes
import pytest
import structlog

from ndml.errors import FieldInvalid
from services.consensus.deltas.elector import NeighboursNow, SmallestName
from services.consensus.lease import LeaseElector, LeaseName, lease_elector
from services.consensus.settings import MeshSection

NAME = LeaseName("ns", "gateway-a", duration_s=15.0, renew_s=5.0)


class ApiServer(ThreadingHTTPServer):
    """Leases by path. `down`: every request fails; `denied`: the caller has no permission."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.leases: dict[str, dict[str, Any]] = {}
        self.version = 0
        self.down = False
        self.denied = False
        self.conflicts = 0
        self.turn = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def store(self, path: str, lease: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        lease["metadata"]["resourceVersion"] = str(self.version)
        self.leases[path] = lease
        return lease

    @property
    def holder(self) -> str:
        [lease] = self.leases.values()
        return str(lease["spec"].get("holderIdentity", ""))


class _Handler(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        with self.server.turn:
            lease = self.server.leases.get(self.path)
            self._answer(404 if lease is None else 200, lease)

    def do_POST(self) -> None:
        lease = self._body()
        path = f"{self.path}/{lease['metadata']['name']}"
        with self.server.turn:
            if path in self.server.leases:
                self._answer(409, None)
            else:
                self._answer(201, self.server.store(path, lease))

    def do_PUT(self) -> None:
        lease = self._body()
        with self.server.turn:
            known = self.server.leases.get(self.path)
            if known is None:
                self._answer(404, None)
            elif lease["metadata"].get("resourceVersion") != known["metadata"]["resourceVersion"]:
                self.server.conflicts += 1
                self._answer(409, None)
            else:
                self._answer(200, self.server.store(self.path, lease))

    def _body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return found

    def _answer(self, status: int, body: dict[str, Any] | None) -> None:
        if self.server.down:
            status, body = 503, None
        if self.server.denied:
            status, body = 403, None
        data = json.dumps(body or {"kind": "Status", "status": "Failure", "code": status}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[ApiServer]:
    made = ApiServer()
    yield made
    made.shutdown()
    made.server_close()


class Now:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def api(server: ApiServer) -> kubernetes.client.CoordinationV1Api:
    settings = kubernetes.client.Configuration(host=f"http://127.0.0.1:{server.server_address[1]}")
    settings.retries = False
    return kubernetes.client.CoordinationV1Api(kubernetes.client.ApiClient(settings))


def electors(server: ApiServer, *names: str) -> tuple[Now, list[LeaseElector]]:
    now = Now()
    return now, [LeaseElector(api(server), NAME, name, SmallestName(name, neighbours(names, name)), clock=now) for name in names]


def neighbours(names: tuple[str, ...], own: str) -> NeighboursNow:
    return lambda: [name for name in names if name != own]


async def test_one_leads_and_renews_and_the_other_waits(server: ApiServer) -> None:
    now, (one, other) = electors(server, "c1", "c2")
    for _ in range(6):
        await one.once()
        await other.once()
        assert (one.leads(), other.leads()) == (True, False) and server.holder == "c1"
        now.seconds += 5
    [lease] = server.leases.values()
    assert lease["spec"]["leaseTransitions"] == 0 and lease["spec"]["leaseDurationSeconds"] == 15


async def test_a_dead_holder_is_replaced_after_the_duration_and_not_before(server: ApiServer) -> None:
    now, (one, other) = electors(server, "c1", "c2")
    await one.once()
    await other.once()
    now.seconds += 14.9
    await other.once()
    assert not other.leads() and one.leads()
    now.seconds += 0.2
    assert not one.leads(), "it stops by its own clock first"
    await other.once()
    assert other.leads() and server.holder == "c2"
    await one.once()
    assert not one.leads(), "the one that comes back waits"
    assert next(iter(server.leases.values()))["spec"]["leaseTransitions"] == 1


async def test_of_two_that_take_a_free_lease_at_once_one_wins(server: ApiServer) -> None:
    now, (one, other, third) = electors(server, "c1", "c2", "c3")
    await one.once()
    for elector in (other, third):
        await elector.once()
    now.seconds += 20
    reading = server.leases.copy()
    path, stale = next((path, json.loads(json.dumps(lease))) for path, lease in reading.items())
    real = other._api.read_namespaced_lease

    def read_then_lose(*args: Any, **kwargs: Any) -> Any:
        found = real(*args, **kwargs)
        stale["spec"]["holderIdentity"] = "c3"
        with server.turn:
            server.store(path, stale)
        return found

    other._api.read_namespaced_lease = read_then_lose  # type: ignore[method-assign]
    await other.once()
    assert server.conflicts == 1 and not other.leads() and server.holder == "c3"


async def test_without_the_server_nobody_goes_on_leading(server: ApiServer) -> None:
    now, (one,) = electors(server, "c1")
    await one.once()
    server.down = True
    now.seconds += 10
    await one.once()
    assert one.leads(), "what was won holds for its duration"
    now.seconds += 5
    await one.once()
    assert not one.leads()
    server.down = False
    await one.once()
    assert one.leads()


async def test_without_permission_the_smallest_name_leads_and_the_log_says_it_once(server: ApiServer) -> None:
    server.denied = True
    now, (one, other) = electors(server, "c1", "c2")
    with structlog.testing.capture_logs() as said:
        for _ in range(3):
            await one.once()
            await other.once()
            now.seconds += 5
    assert (one.leads(), other.leads()) == (True, False) and server.leases == {}
    assert [line["event"] for line in said] == ["lease_denied"] * 2, "each says it once"
    assert said[0]["error"] == "403 Forbidden" and said[0]["lease"] == "ns/gateway-a" and "RoleBinding" in said[0]["fix"]
    server.denied = False
    await other.once()
    assert other.leads() and server.holder == "c2", "with the permission the Lease decides"
    await one.once()
    assert not one.leads(), "also at the node that led by the rule"


async def test_a_holder_that_loses_its_permission_leads_on_until_the_lease_ends(server: ApiServer) -> None:
    now, (small, holder) = electors(server, "c1", "c2")
    await holder.once()
    server.denied = True
    await holder.once()
    assert holder.leads()
    now.seconds += 15.1
    await holder.once()
    await small.once()
    assert (small.leads(), holder.leads()) == (True, False), "then the rule decides at both"


async def test_a_refused_node_that_stops_asks_for_nothing(server: ApiServer) -> None:
    server.denied = True
    _, (one,) = electors(server, "c1")
    await one.once()
    assert one.leads()
    await one.stop()
    server.denied = False
    assert server.leases == {} and one.leads(), "the rule needs no server to give anything back to"


def test_a_lease_without_a_cluster_is_refused_with_what_to_set(tmp_path: Path) -> None:
    for settings in (MeshSection(lease_name="ndml"), MeshSection(lease_name="ndml", lease_kubeconfig=tmp_path / "none")):
        with pytest.raises(FieldInvalid, match=r"lease_kubeconfig.*or leave lease_name empty"):
            lease_elector(settings, "c1", "a", SmallestName("c1", list))


async def test_a_node_that_stops_gives_the_lease_back(server: ApiServer) -> None:
    _, (one, other) = electors(server, "c1", "c2")
    await one.once()
    await one.stop()
    assert server.holder == "" and not one.leads()
    await other.once()
    assert other.leads()


async def test_it_runs_by_itself_from_a_kubeconfig(server: ApiServer, tmp_path: Path) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "users": [{"name": "me", "user": {}}],
    }
    (tmp_path / "config").write_text(json.dumps(config))
    settings = MeshSection(
        lease_name="ndml", lease_namespace="ns", lease_kubeconfig=tmp_path / "config", lease_duration_s=3, lease_renew_s=0.05
    )
    elector = lease_elector(settings, "c1", "Zone_A", SmallestName("c1", list))
    await elector.start()
    async with asyncio.timeout(30):
        while not elector.leads():
            await asyncio.sleep(0.01)
    assert list(server.leases) == ["/apis/coordination.k8s.io/v1/namespaces/ns/leases/ndml-zone-a"]
    await elector.stop()
    assert server.holder == ""


def test_a_lease_that_cannot_be_renewed_in_time_is_refused() -> None:
    with pytest.raises(ValueError, match="at most half"):
        MeshSection(lease_duration_s=4, lease_renew_s=3)
