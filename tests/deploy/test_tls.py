"""TLS between real processes: every hop with certificates on both sides, who is refused, and renewal without a restart."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from ndml.client import ClientOptions, NdmlClient, Retry, Tls
from ndml.errors import NdmlError, OwnerUnavailable
from ndml.runtime import semconv
from ndml.testing import Suite, SuiteOptions
from ndml.testing.ports import free_ports
from tests.deploy.certificates import NAME, Authority

BOUND_S = 30.0
RELOAD = {"TLS__RELOAD_S": "0.1"}
ONCE = Retry(attempts=1)


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it holds; BOUND_S is for a machine that others share."""
    deadline = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Suite]:
    """Two copies, so that nodes talk to each other as well; the memory nodes with a health port each."""
    health = free_ports(1)[0]
    options = SuiteOptions(
        data_dir=tmp_path_factory.mktemp("secured"),
        memory_nodes=2,
        consensus_nodes=2,
        replication_factor=2,
        tls=authority.issue(),
        settings={"gateway": RELOAD, "memory-node": RELOAD, "consensus": RELOAD, "llm": {**RELOAD, "SERVER__HEALTH_PORT": str(health)}},
    )
    with Suite(options) as suite:
        yield suite


def client(suite: Suite, user: str, tls: Tls | None = None) -> NdmlClient:
    return NdmlClient(suite.grpc_address, user=user, options=ClientOptions(tls=tls or suite.options.tls))


def health(address: str, credentials: grpc.ChannelCredentials | None) -> str:
    """What the standard health check says, or the status code of the refusal."""
    options = [("grpc.ssl_target_name_override", NAME)]
    opened = grpc.insecure_channel(address) if credentials is None else grpc.secure_channel(address, credentials, options=options)
    with opened as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError as error:
            return str(error.code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def credentials(roots: Path, own: Tls | None = None) -> grpc.ChannelCredentials:
    if own is None or own.key is None or own.certificate is None:
        return grpc.ssl_channel_credentials(roots.read_bytes())
    return grpc.ssl_channel_credentials(roots.read_bytes(), own.key.read_bytes(), own.certificate.read_bytes())


def expiry(suite: Suite, name: str) -> float:
    """When the process's own certificate ends, as its metrics say."""
    port = suite.layout.by_name(name).metrics_port
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    [family] = [each for each in text_string_to_metric_families(text) if each.name == semconv.METRIC_TLS_EXPIRY]
    return next(sample.value for sample in family.samples if sample.labels == {"certificate": "own"})


def test_memory_and_chat_work_with_certificates_on_every_hop(secured: Suite) -> None:
    with client(secured, "ann") as ann:
        added = ann.add("Ann keeps bees behind the house.")
        assert [hit.memory.trace_id for hit in ann.search("Who keeps bees?", k=1)] == [added.trace_id]
        answer = "".join(ann.chat("What do I keep?"))
        status = ann.cluster_status()
    assert answer
    assert all(service.reachable for service in status.services) and status.healthy
    assert {service.service for service in status.services} == {"ndml-gateway", "ndml-memory-node", "ndml-consensus", "ndml-llm"}


def test_writes_reach_the_other_copy_over_tls(secured: Suite) -> None:
    with client(secured, "cas") as cas:
        added = cas.add("Cas plays the viola.", consistency="all")
        assert [hit.memory.trace_id for hit in cas.search("viola", k=1, consistency="all")] == [added.trace_id]

        # Beside requests: nodes compare with each other and stream to consensus nodes, which is done when nothing is left to tell.
        def settled() -> bool:
            rows = [row for row in cas.cluster_status().services if row.service == "ndml-memory-node"]
            return len(rows) == 2 and all(row.details.get("unpublished", "0") == "0" for row in rows)

        eventually(settled)
    for node in secured.layout.of_role("memory-node"):
        log = (secured.layout.logs / f"{node.name}.log").read_text()
        assert '"attached"' in log, "the stream of updates to a consensus node was opened"


def test_rest_speaks_tls_and_no_plain_text(secured: Suite, authority: Authority) -> None:
    context = ssl.create_default_context(cafile=str(authority.file))
    assert json.loads(urllib.request.urlopen(f"{secured.rest_url}/health", timeout=10, context=context).read())
    with pytest.raises((OSError, ValueError)):
        urllib.request.urlopen(f"{secured.rest_url.replace('https', 'http')}/health", timeout=10)


@pytest.mark.parametrize("role", ["gateway", "memory-node", "consensus", "llm"])
def test_plain_text_and_other_authorities_are_refused_everywhere(secured: Suite, authority: Authority, tmp_path: Path, role: str) -> None:
    stranger = Authority(tmp_path, "another-ca")
    address = secured.layout.of_role(role)[0].address  # type: ignore[arg-type]
    assert health(address, credentials(authority.file, authority.issue("caller"))) == "SERVING"
    assert health(address, None) == "UNAVAILABLE"
    assert health(address, credentials(stranger.file, authority.issue("caller"))) == "UNAVAILABLE", "it trusts another authority"
    if role == "gateway":
        assert health(address, credentials(authority.file)) == "SERVING", "who comes to the public door brings a token"
    else:
        assert health(address, credentials(authority.file)) == "UNAVAILABLE", "no certificate"
        assert health(address, credentials(authority.file, stranger.issue())) == "UNAVAILABLE", "one of another authority"


def test_a_client_that_does_not_trust_the_gateway_or_speaks_plain_text_gets_an_error(secured: Suite, tmp_path: Path) -> None:
    other = Tls(roots=Authority(tmp_path).file, server_name=NAME)
    misnamed = Tls(roots=secured.options.tls.roots if secured.options.tls else None, server_name="elsewhere.test")
    for tls in (None, other, misnamed):
        options = ClientOptions(tls=tls, retry=ONCE)
        with NdmlClient(secured.grpc_address, user="eve", options=options) as eve, pytest.raises(OwnerUnavailable):
            eve.add("x")


def test_the_health_port_answers_probes_in_plain_text_and_nothing_else(secured: Suite) -> None:
    environment = secured.layout.by_name("llm").environment
    address = f"127.0.0.1:{environment['NDML_LLM__SERVER__HEALTH_PORT']}"
    assert health(address, None) == "SERVING"
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/ndml.internal.v1.LlmService/GetModelInfo")(b"", timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_renewed_certificate_is_taken_without_a_restart_and_no_call_fails(secured: Suite, authority: Authority) -> None:
    before = {name: expiry(secured, name) for name in secured.names}
    pids = {name: secured.process(name).pid for name in secured.names}
    with client(secured, "dan") as dan:
        dan.add("Dan sails.")
        authority.issue(ends=timedelta(days=90))
        calls = 0
        deadline = time.monotonic() + BOUND_S
        while any(expiry(secured, name) <= before[name] for name in secured.names):
            assert dan.search("sails", k=1)
            calls += 1
            assert time.monotonic() < deadline, "not every process took the new certificate"
        # New channels to new certificates: as a suite whose first ones have expired needs them.
        with client(secured, "dan") as later:
            assert later.search("sails", k=1) and all(row.reachable for row in later.cluster_status().services)
    assert calls and {name: secured.process(name).pid for name in secured.names} == pids
    served = _served(secured.grpc_address, authority)
    assert abs(served.not_valid_after_utc.timestamp() - expiry(secured, secured.layout.of_role("gateway")[0].name)) < 1
    rest = ssl.get_server_certificate(_host_port(secured.rest_url))
    assert x509.load_pem_x509_certificate(rest.encode()).serial_number == served.serial_number


def _host_port(url: str) -> tuple[str, int]:
    host, _, port = url.rpartition("/")[2].partition(":")
    return host, int(port)


def _served(address: str, authority: Authority) -> x509.Certificate:
    host, _, port = address.partition(":")
    return x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port)), ca_certs=str(authority.file)).encode())


def test_files_that_no_peer_would_take_are_not_taken(secured: Suite, authority: Authority, tmp_path: Path) -> None:
    own = secured.options.tls
    assert own is not None and own.certificate is not None and own.key is not None
    kept = tmp_path / "kept"
    shutil.copytree(authority.directory, kept)
    before = expiry(secured, "llm")
    own.certificate.write_bytes(Authority(tmp_path / "other").issue().certificate.read_bytes())  # type: ignore[union-attr]
    log = secured.layout.logs / "llm.log"
    eventually(lambda: "certificate_not_taken" in log.read_text())
    with client(secured, "fay", Tls(roots=authority.file, server_name=NAME)) as fay:
        assert fay.add("The one before stays in use.").trace_id
    assert expiry(secured, "llm") == before
    for name in (own.certificate.name, own.key.name):
        shutil.copy(kept / name, authority.directory / name)


BAD = {
    "no_key": ({"KEY_FILE": ""}, "tls: Value error, set cert_file and key_file, or neither of them"),
    "no_ca": ({"CA_FILE": ""}, "set ca_file"),
    "missing": ({"CERT_FILE": "{dir}/nowhere.crt"}, "cannot read {dir}/nowhere.crt: No such file"),
    "key_of_another": ({"KEY_FILE": "{dir}/second.key"}, "is not the key of {dir}/own.crt"),
    "no_pem": ({"CA_FILE": "{dir}/junk"}, "{dir}/junk has no certificates in PEM form"),
    "other_ca": ({"CA_FILE": "{dir}/other/ca.pem"}, "{dir}/own.crt would be refused by {dir}/other/ca.pem: unable to get local issuer"),
    "expired": ({"CERT_FILE": "{dir}/old.crt", "KEY_FILE": "{dir}/old.key"}, "certificate has expired"),
    "too_early": ({"CERT_FILE": "{dir}/early.crt", "KEY_FILE": "{dir}/early.key"}, "certificate is not yet valid"),
    "servers_only": ({"CERT_FILE": "{dir}/server.crt", "KEY_FILE": "{dir}/server.key"}, "unsuitable certificate purpose"),
    "unknown": ({"CIPHERS": "all"}, "tls.ciphers: unknown setting"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bad")
    made = Authority(directory)
    made.issue()
    made.issue("second")
    made.issue("old", starts=timedelta(days=-3), ends=timedelta(days=-1))
    made.issue("early", starts=timedelta(days=1))
    made.issue("server", usage=(ExtendedKeyUsageOID.SERVER_AUTH,))
    Authority(directory / "other", "another-ca")
    (directory / "junk").write_text("junk")
    return directory


@pytest.mark.parametrize("case", BAD)
def test_a_certificate_that_peers_would_refuse_is_one_clear_line_at_start(case: str, files: Path, tmp_path: Path) -> None:
    changes, expected = BAD[case]
    settings = {"CERT_FILE": "{dir}/own.crt", "KEY_FILE": "{dir}/own.key", "CA_FILE": "{dir}/ca.pem", **changes}
    port = free_ports(1)[0]
    environment = {f"NDML_CONSENSUS__TLS__{key}": value.format(dir=files) for key, value in settings.items()}
    environment |= {"NDML_CONSENSUS__STORE__DATA_DIR": str(tmp_path), "NDML_CONSENSUS__SERVER__PORT": str(port)}
    environment |= {"NDML_CONSENSUS__SERVER__METRICS_PORT": "-1", "NDML_CONSENSUS__LOGGING__FORMAT": "json"}
    command = [sys.executable, "-m", "services.consensus"]
    ended = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in (ended.stdout + ended.stderr).splitlines() if "cannot_start" in line or line.startswith("config:")]
    assert ended.returncode in (1, 2) and len(said) == 1, ended.stdout + ended.stderr
    assert expected.format(dir=files) in said[0].replace("\\'", "'")
    assert "Traceback" not in ended.stderr


def test_status_says_what_is_wrong_with_a_service_that_has_no_tls(authority: Authority, tmp_path: Path) -> None:
    """A gateway with TLS among services without it, and the other way round: the operator hears which side to change."""
    own = authority.issue("mixed")
    tls = {"TLS__CERT_FILE": str(own.certificate), "TLS__KEY_FILE": str(own.key), "TLS__CA_FILE": str(own.roots), "TLS__SERVER_NAME": NAME}
    plain = SuiteOptions(data_dir=tmp_path, memory_nodes=1, consensus_nodes=1, llm=False, settings={"gateway": tls})
    suite = Suite(plain)
    try:
        for name in ("consensus-1", "memory-node-1", "gateway-1"):
            suite.process(name).start()
        for name in ("consensus-1", "memory-node-1"):
            suite.wait_ready(name)
        options = ClientOptions(tls=Tls(roots=own.roots, server_name=NAME), retry=ONCE)

        def errors() -> dict[str, str]:
            try:
                with NdmlClient(suite.grpc_address, user="ann", options=options) as operator:
                    return {row.service: row.error for row in operator.cluster_status().services}
            except NdmlError:
                return {}

        eventually(lambda: "speaks plain text" in errors().get("ndml-consensus", ""))
    finally:
        suite.stop()


def test_the_command_line_checks_a_suite_that_speaks_tls(secured: Suite, authority: Authority) -> None:
    own = authority.issue("operator")
    options = ["--address", secured.grpc_address, "--tls-roots", str(own.roots), "--tls-server-name", NAME, "-o", "json"]
    both = [*options, "--tls-certificate", str(own.certificate), "--tls-key", str(own.key)]
    doctor = [sys.executable, "-m", "ndml.cli", "doctor"]
    for given in (options, both):
        found = subprocess.run([*doctor, *given], capture_output=True, text=True, timeout=120, check=False)
        assert found.returncode == 0, found.stdout + found.stderr
    half = subprocess.run([*doctor, *options, "--tls-key", str(own.key)], capture_output=True, text=True, timeout=120, check=False)
    assert half.returncode == 2 and "mutual TLS needs both key and certificate" in half.stdout + half.stderr
