"""Following a Service: against an API server over real HTTP, and a real gateway whose llm replicas come and go under load."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml
from pydantic import ValidationError

from ndml.client import ClientOptions, NdmlClient, Retry
from ndml.errors import FieldInvalid, NdmlError
from ndml.runtime.discovery import ServiceEndpoints, endpoints_of, zone_of_node
from ndml.runtime.kube_api import KubeApi, find_cluster, in_cluster
from ndml.runtime.settings import KubernetesSettings
from ndml.testing import Suite, SuiteOptions
from ndml.testing.layout import Role
from ndml.testing.ports import free_ports
from ndml.testing.process import ManagedProcess
from services.gateway.settings import GatewaySettings
from services.memory_node.heartbeat import Identity
from tests.deploy.certificates import Authority
from tests.deploy.kube import KubeServer, endpoint, piece
from tests.deploy.load import ONCE
from tests.deploy.load import Load as Callers

BOUND_S = 30.0
FAST: dict[str, Any] = {"backoff_min_s": 0.01, "backoff_max_s": 0.05, "first_s": 10.0}


@pytest.fixture
def server() -> Iterator[KubeServer]:
    made = KubeServer()
    made.put(piece("llm", "llm-a", 7730, endpoint("10.0.0.1", zone="a")))
    yield made
    made.stop()


@asynccontextmanager
async def following(server: KubeServer, tmp_path: Path, *fallback: str, pod: str = "", **settings: Any) -> AsyncIterator[ServiceEndpoints]:
    knobs = KubernetesSettings(**{**FAST, **settings}, kubeconfig=server.kubeconfig(tmp_path / "config"))
    made = ServiceEndpoints("llm", knobs, fallback, pod)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_is_listed_and_what_changes_is_followed(server: KubeServer, tmp_path: Path) -> None:
    server.put(piece("other", "other-a", 7730, endpoint("10.9.9.9")))
    changes: list[list[str]] = []
    async with following(server, tmp_path, "configured:1") as llm:
        assert list(llm) == ["10.0.0.1:7730"] and llm.zone_of("10.0.0.1:7730") == "a"
        llm.on_change(lambda: changes.append(list(llm)))
        server.put(piece("llm", "llm-b", 7730, endpoint("10.0.0.2"), endpoint("10.0.0.3", ready=False)))
        await until(lambda: list(llm) == ["10.0.0.1:7730", "10.0.0.2:7730"])
        server.bookmark()
        server.put(piece("llm", "llm-b", 7730, endpoint("10.0.0.3")))
        await until(lambda: list(llm) == ["10.0.0.1:7730", "10.0.0.3:7730"])
        server.remove("llm-a")
        await until(lambda: list(llm) == ["10.0.0.3:7730"])
        server.remove("llm-b")
        await until(lambda: list(llm) == [])
    assert changes[-1] == [] and len(changes) == 4 and "Bearer secret" in server.tokens
    assert server.asked.count("list") == 1, "changes came by the watch"


async def test_a_watch_that_breaks_goes_on_from_where_it_was(server: KubeServer, tmp_path: Path) -> None:
    async with following(server, tmp_path) as llm:
        await until(lambda: server.watchers == 1)
        server.cut()
        server.put(piece("llm", "llm-b", 7730, endpoint("10.0.0.2")))
        await until(lambda: len(llm) == 2 and server.watchers == 1)
    assert server.asked.count("list") == 1


async def test_a_version_that_is_gone_is_listed_anew_and_nothing_is_forgotten_meanwhile(server: KubeServer, tmp_path: Path) -> None:
    """As an answer of 410 to the watch, and as an event in it."""
    seen: list[int] = []
    async with following(server, tmp_path) as llm:
        await until(lambda: server.watchers == 1)
        llm.on_change(lambda: seen.append(len(llm)))
        server.oldest = server.version + 1
        server.put(piece("llm", "llm-b", 7730, endpoint("10.0.0.2")))
        server.cut()
        await until(lambda: len(llm) == 2 and server.watchers == 1)
        server.version += 1
        server.say("ERROR", {"kind": "Status", "code": 410, "message": "too old"})
        lists = server.asked.count("list")
        await until(lambda: server.asked.count("list") > lists)
        server.put(piece("llm", "llm-c", 7730, endpoint("10.0.0.4")))
        await until(lambda: len(llm) == 3)
    assert 0 not in seen


async def test_an_api_server_that_is_away_changes_nothing(server: KubeServer, tmp_path: Path) -> None:
    port = server.server_address[1]
    async with following(server, tmp_path, "configured:1") as llm:
        await until(lambda: server.watchers == 1)
        with structlog.testing.capture_logs() as logs:
            server.stop()
            await until(lambda: any(row["event"] == "endpoints_not_followed" for row in logs))
            assert list(llm) == ["10.0.0.1:7730"]
            again = KubeServer(port)
            again.put(piece("llm", "llm-z", 7730, endpoint("10.0.0.9")))
            # The new one counts from its own beginning: what we ask for is older than all it has, or newer.
            again.oldest = 1_000
            await until(lambda: list(llm) == ["10.0.0.9:7730"])
            again.oldest = 0
            again.stop()
    assert sum(row["event"] == "endpoints_not_followed" for row in logs) <= 3, "a fault that lasts is said once"


async def test_starting_without_an_api_server_uses_the_configured_addresses(tmp_path: Path) -> None:
    server = KubeServer()
    server.stop()
    with structlog.testing.capture_logs() as logs:
        async with following(server, tmp_path, "configured:1", first_s=0.2) as llm:
            assert list(llm) == ["configured:1"] and llm.expected
    assert any(row["event"] == "endpoints_unknown" for row in logs)


@pytest.mark.parametrize("verb", ["list", "watch"])
async def test_a_missing_right_is_one_line_that_names_it(server: KubeServer, tmp_path: Path, verb: str) -> None:
    server.denied[verb] = 403
    with structlog.testing.capture_logs() as logs:
        async with following(server, tmp_path, "configured:1", first_s=0.3) as llm:
            await until(lambda: server.asked.count(verb) > 3)
            assert list(llm) == (["configured:1"] if verb == "list" else ["10.0.0.1:7730"])
            server.denied.clear()
            server.put(piece("llm", "llm-b", 7730, endpoint("10.0.0.2")))
            await until(lambda: len(llm) == 2)
    [denied] = [row for row in logs if row["event"] == "endpoints_not_followed"]
    assert f"may not {verb} endpointslices.discovery.k8s.io in namespace ns (403)" in denied["error"] and "RoleBinding" in denied["fix"]
    assert any(row["event"] == "endpoints_followed_again" for row in logs)


@pytest.mark.parametrize(
    "item",
    [{"kind": "Status", "code": 500, "message": "broken"}, {"metadata": {}}, {"metadata": {"resourceVersion": "5", "labels": 3}}],
)
async def test_events_that_make_no_sense_end_the_watch_and_nothing_else(server: KubeServer, tmp_path: Path, item: dict[str, Any]) -> None:
    async with following(server, tmp_path) as llm:
        await until(lambda: server.watchers == 1)
        with server.changed:
            server.version += 1
        server.say("ERROR", item)
        with server.changed:
            server.events.clear()
        server.cut()
        server.put(piece("llm", "llm-b", 7730, endpoint("10.0.0.2")))
        await until(lambda: len(llm) == 2)


async def test_a_silent_watch_is_begun_anew(server: KubeServer, tmp_path: Path) -> None:
    async with following(server, tmp_path, silence_s=0.05) as llm:
        await until(lambda: server.asked.count("watch") > 3)
        assert list(llm) == ["10.0.0.1:7730"] and server.asked.count("list") == 1


async def test_a_service_that_follows_itself_leaves_itself_out(server: KubeServer, tmp_path: Path) -> None:
    server.put(piece("llm", "llm-b", 7730, endpoint("10.0.0.2", pod="me-0"), endpoint("10.0.0.3", pod="me-1")))
    async with following(server, tmp_path, pod="me-0") as llm:
        assert list(llm) == ["10.0.0.1:7730", "10.0.0.3:7730"]


def addresses(*slices: dict[str, Any]) -> list[str]:
    return sorted(each.address for each in endpoints_of(slices, "llm"))


def test_which_endpoints_count() -> None:
    unknown = piece("llm", "a", 1, endpoint("h1", ready=None), endpoint("h2", ready=False), endpoint("h3", ready=False, serving=True))
    found = {each.address: each.ready for each in endpoints_of([unknown], "llm")}
    assert found == {"h1:1": True, "h3:1": False}, "no condition means ready; what ends may still serve"
    four, six = piece("llm", "a", 1, endpoint("10.0.0.1")), piece("llm", "b", 1, endpoint("fd00::1"), addressType="IPv6")
    assert addresses(four, six) == ["10.0.0.1:1"] and addresses(six) == ["[fd00::1]:1"], "of dual stack one family"
    several = [{"name": "metrics", "port": 9}, {"name": "grpc", "port": 7}]
    assert addresses(piece("llm", "a", 1, endpoint("h"), ports=several)) == ["h:7"]
    assert addresses(piece("llm", "a", 1, endpoint("h"), ports=[{"name": "", "port": 5}])) == ["h:5"]
    with structlog.testing.capture_logs() as logs:
        assert addresses(piece("llm", "a", 1, endpoint("h"), ports=[{"name": "x", "port": 5}, {"name": "y", "port": 6}])) == []
    assert "'grpc'" in logs[0]["fix"]
    assert addresses(piece("llm", "a", 1, ports=None), {"metadata": {"name": "empty"}}) == []


async def test_only_while_none_is_ready_those_that_end_are_used(server: KubeServer, tmp_path: Path) -> None:
    async with following(server, tmp_path) as llm:
        ending = endpoint("10.0.0.1", ready=False, serving=True)
        server.put(piece("llm", "llm-a", 7730, ending, endpoint("10.0.0.2")))
        await until(lambda: list(llm) == ["10.0.0.2:7730"])
        server.put(piece("llm", "llm-a", 7730, ending))
        await until(lambda: list(llm) == ["10.0.0.1:7730"])


BAD_CONFIGS = {
    "missing": (None, "No such file"),
    "no_yaml": ("{", "while parsing"),
    "no_context": ("{}", "no 'current-context'"),
    "exec": ({"exec": {"command": "aws"}}, "gets credentials from a program"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_kubeconfig_that_is_no_use_is_said_in_one_line(case: str, tmp_path: Path, server: KubeServer) -> None:
    content, expected = BAD_CONFIGS[case]
    path = tmp_path / "config"
    if isinstance(content, dict):
        server.kubeconfig(path, **content)
    elif content is not None:
        path.write_text(content)
    with pytest.raises(FieldInvalid) as refused:
        find_cluster(path, "")
    assert expected in refused.value.message and "\n" not in refused.value.message and str(path) in refused.value.message


def test_outside_of_a_cluster_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(FieldInvalid, match="KUBERNETES_SERVICE_HOST is not set; outside of one set"):
        find_cluster(None, "")


def test_a_token_file_is_read_for_each_request(server: KubeServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    api = KubeApi(find_cluster(server.kubeconfig(tmp_path / "config", tokenFile="token"), ""), 5.0)
    path = "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices"
    api.get(path)
    (tmp_path / "token").write_text("second\n")
    api.get(path)
    assert server.tokens == ["Bearer first", "Bearer second"]


def test_https_with_the_clusters_authority(server: KubeServer, tmp_path: Path) -> None:
    """And none other: what the API server shows is verified, its name included."""
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "other", "another-ca")
    own = authority.issue("api")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(own.certificate), str(own.key))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    config = yaml.safe_load(server.kubeconfig(tmp_path / "config").read_text())
    for trusted, works in ((authority, True), (stranger, False)):
        config["clusters"][0]["cluster"] = {"server": server.url.replace("http:", "https:"), "certificate-authority": str(trusted.file)}
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        api = KubeApi(find_cluster(tmp_path / "config", ""), 5.0)
        if works:
            assert api.get("/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices")["items"]
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                api.get("/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices")


def test_a_pod_uses_its_service_account(server: KubeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("api")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(own.certificate), str(own.key))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_address[1]))
    with pytest.raises(FieldInvalid, match="automountServiceAccountToken"):
        in_cluster("", tmp_path)
    for name, text in (("ca.crt", authority.file.read_text()), ("namespace", "ns\n"), ("token", "mounted\n")):
        (tmp_path / name).write_text(text)
    cluster = in_cluster("", tmp_path)
    assert cluster.namespace == "ns" and in_cluster("other", tmp_path).namespace == "other"
    assert KubeApi(cluster, 5.0).get("/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices")["items"]
    assert server.tokens == ["Bearer mounted"]


async def test_a_slice_of_another_shape_is_reported_and_what_was_known_stays(server: KubeServer, tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with following(server, tmp_path) as llm:
            await until(lambda: server.watchers == 1)
            server.put({**piece("llm", "llm-b", 7730), "endpoints": [{"addresses": 7}]})
            await until(lambda: any(row["event"] == "endpoints_not_followed" for row in logs))
            assert list(llm) == ["10.0.0.1:7730"]
            server.put(piece("llm", "llm-b", 7730, endpoint("10.0.0.2")))
            await until(lambda: len(llm) == 2)


def test_the_zone_of_the_node(server: KubeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = KubernetesSettings(kubeconfig=server.kubeconfig(tmp_path / "config"), zone_from_node=True)
    monkeypatch.delenv("NODE_NAME", raising=False)
    with pytest.raises(FieldInvalid, match="NODE_NAME"):
        zone_of_node(settings)
    monkeypatch.setenv("NODE_NAME", "node-1")
    server.nodes["node-1"] = {"metadata": {"labels": {"topology.kubernetes.io/zone": "eu-1b"}}}
    assert zone_of_node(settings) == "eu-1b"
    with structlog.testing.capture_logs() as logs:
        server.nodes["node-1"] = {"metadata": {}}
        assert zone_of_node(settings) == ""
        server.denied["get"] = 403
        assert zone_of_node(settings) == ""
    assert "no label" in logs[0]["error"] and "may not get nodes" in logs[1]["error"] and "ClusterRole" in logs[1]["fix"]


def test_a_memory_node_that_cannot_learn_its_zone_keeps_the_one_it_had(tmp_path: Path) -> None:
    def identity(zone: str, *, keeps: bool) -> Identity:
        made = Identity(tmp_path, "m0", "127.0.0.1:7710", zone, "general", keeps_zone=keeps)
        made.restore()
        return made

    assert identity("eu-1b", keeps=True).record.zone == "eu-1b"
    assert identity("", keeps=True).record.zone == "eu-1b", "the API server was away"
    assert identity("eu-1c", keeps=True).record.zone == "eu-1c", "it was moved"
    assert identity("", keeps=False).record.zone == "", "without zones from nodes the setting decides"


def test_bad_settings_are_refused() -> None:
    for wrong in ({"llm_service": "Not_A_Name"}, {"namespace": "-x"}, {"llm": "ndml-llm"}):
        with pytest.raises(ValidationError):
            GatewaySettings(kubernetes=wrong)  # type: ignore[arg-type]
    tls = {"cert_file": "a", "key_file": "b", "ca_file": "c"}
    with pytest.raises(ValidationError, match="which no certificate has"):
        GatewaySettings(kubernetes={"llm_service": "ndml-llm"}, tls=tls)  # type: ignore[arg-type]


def llm_process(name: str, port: int, folder: Path) -> ManagedProcess:
    settings = {"SERVER__PORT": str(port), "SERVER__METRICS_PORT": "-1", "SERVER__INSTANCE": name}
    return ManagedProcess(name, "services.llm", {f"NDML_LLM__{key}": value for key, value in settings.items()}, folder / f"{name}.log")


class Load:
    """Four callers that search without pause and without retries of their own, each for something new: no vector is in a cache."""

    def __init__(self, address: str) -> None:
        self.calls = 0
        self.failures: list[NdmlError] = []
        self._address = address
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(f"u{index}",)) for index in range(4)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(BOUND_S)

    def more(self, count: int = 60) -> None:
        """Wait until so many further calls have ended well."""
        goal, deadline = self.calls + count, time.monotonic() + 2 * BOUND_S
        while self.calls < goal:
            assert time.monotonic() < deadline, self.failures[:3]
            time.sleep(0.05)

    def _run(self, user: str) -> None:
        with NdmlClient(self._address, user=user, options=ClientOptions(retry=Retry(attempts=1))) as client:
            while not self._stop.is_set():
                try:
                    client.search(f"bees {user} {self.calls}", k=1)
                    self.calls += 1
                except NdmlError as error:
                    self.failures.append(error)


def llms_are(suite: Suite, count: int) -> None:
    """Wait until the gateway knows so many llm replicas, and all answer."""
    deadline = time.monotonic() + 2 * BOUND_S
    while True:
        with NdmlClient(suite.grpc_address, user="operator") as operator:
            rows = [row for row in operator.cluster_status().services if row.service == "ndml-llm"]
        if len(rows) == count and all(row.reachable for row in rows):
            return
        assert time.monotonic() < deadline, rows
        time.sleep(0.1)


def test_llm_replicas_come_and_go_under_load_and_no_call_fails(server: KubeServer, tmp_path: Path) -> None:
    """A real gateway that follows the Service, two real llm processes: one, both, then only the second, which then serves alone."""
    first, second = free_ports(2)
    server.put(piece("llm", "llm-a", first, endpoint("127.0.0.1")))
    settings: dict[Role, dict[str, str]] = {
        "gateway": {
            "KUBERNETES__KUBECONFIG": str(server.kubeconfig(tmp_path / "config")),
            "KUBERNETES__LLM_SERVICE": "llm",
            "LLM__ADDRESSES": '["127.0.0.1:9"]',
        },
    }
    suite = Suite(SuiteOptions(data_dir=tmp_path / "data", memory_nodes=1, consensus_nodes=1, llm=False, settings=settings))
    replicas = [llm_process("llm-1", first, tmp_path), llm_process("llm-2", second, tmp_path)]
    load = Load(suite.grpc_address)
    try:
        for replica in replicas:
            replica.start()
        suite.start()
        llms_are(suite, 1)
        with NdmlClient(suite.grpc_address, user="u0") as client:
            client.add("Bees live behind the house.")
        load.start()
        load.more()
        server.put(piece("llm", "llm-b", second, endpoint("127.0.0.1")))
        llms_are(suite, 2)
        load.more()
        server.remove("llm-a")
        llms_are(suite, 1)
        replicas[0].terminate()
        assert replicas[0].wait(BOUND_S) == 0
        load.more()
    finally:
        load.stop()
        suite.stop()
        for replica in replicas:
            replica.terminate()
            replica.wait(BOUND_S)
    assert not load.failures, load.failures[:3]
    assert load.calls >= 180


def test_everybody_follows_the_consensus_nodes(server: KubeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No address of a consensus node is configured anywhere. A second one comes, the first one goes, then a memory node: no call fails."""
    monkeypatch.setenv("NODE_NAME", "node-1")
    server.nodes["node-1"] = {"metadata": {"labels": {"topology.kubernetes.io/zone": "eu-1b"}}}
    config = str(server.kubeconfig(tmp_path / "config"))
    found = {"KUBERNETES__KUBECONFIG": config, "KUBERNETES__CONSENSUS_SERVICE": "consensus"}
    nobody = {"PLACEMENT__CONSENSUS": "[]"}
    settings: dict[Role, dict[str, str]] = {
        "gateway": {**found, **nobody},
        "memory-node": {**found, **nobody, "HEARTBEAT__CONSENSUS": "[]", "KUBERNETES__ZONE_FROM_NODE": "true"},
        "consensus": {**found, "CLUSTER__PEERS": "[]"},
    }
    suite = Suite(
        SuiteOptions(data_dir=tmp_path / "data", memory_nodes=2, consensus_nodes=2, replication_factor=2, llm=False, settings=settings)
    )
    first, second = (spec.port for spec in suite.layout.of_role("consensus"))
    server.put(piece("consensus", "first", first, endpoint("127.0.0.1")))

    def status() -> dict[str, Any]:
        with NdmlClient(suite.grpc_address, user="operator") as operator:
            return {row.instance: row for row in operator.cluster_status().services if row.reachable}

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 2 * BOUND_S
        while not condition():
            assert time.monotonic() < deadline, status()
            time.sleep(0.1)

    vector = [1.0] + [0.0] * 383
    late = "memory-node-2"
    try:
        for name in suite.names:
            if name != late:
                suite.process(name).start()
        for name in suite.names:
            if name != late:
                suite.wait_ready(name)
        wait(lambda: {"consensus-1", "memory-node-1"} <= status().keys())
        assert "consensus-2" not in status()
        # Without retries: what the consensus nodes do is on nobody's way.
        with Callers(suite.grpc_addresses, ONCE, vectors=True) as callers, NdmlClient(suite.grpc_address, user="ann") as ann:
            callers.wait_for(100)
            server.put(piece("consensus", "second", second, endpoint("127.0.0.1")))
            wait(lambda: "consensus-2" in status())
            log = suite.layout.logs / "consensus-1.log"
            wait(lambda: any("peer_reachable" in line and f":{second}" in line for line in log.read_text().splitlines()))
            added = ann.add("Bees.", embedding=vector)
            server.remove("first")
            wait(lambda: "consensus-1" not in status())
            suite.kill("consensus-1")
            callers.wait_for(100)
            suite.process(late).start()
            suite.wait_ready(late)
            wait(lambda: {"consensus-2", "memory-node-1", late} <= status().keys())
            wait(lambda: {member.state for member in ann.placement(user="ann").members} == {"alive"})
            callers.wait_for(100)
            assert {member.zone for member in ann.placement(user="ann").members} == {"eu-1b"}
            assert [hit.memory.trace_id for hit in ann.search(embedding=vector, k=1)] == [added.trace_id]
        assert callers.tally.failures == []
    finally:
        suite.stop()
