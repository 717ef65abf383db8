"""The health command against servers that listen: its exit codes, its one line, what it takes from the environment, TLS."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from ndml.runtime.healthcheck import USUAL_PORTS, Misuse, Target, main, target_of
from ndml.runtime.service import DEFAULT_PORTS
from ndml.testing import free_ports


class Held:
    """A component that starts when it is let."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def start(self) -> None:
        await self.go.wait()

    async def stop(self) -> None: ...


async def ask(*arguments: str, **environment: str) -> int:
    return await asyncio.to_thread(main, ["gateway", "--timeout", "30", *arguments], environment)


async def test_alive_before_ready_and_both_after(serve: Any, capsys: pytest.CaptureFixture[str]) -> None:
    held = Held()
    running = await serve(held, ready=False)
    port = running.address.rpartition(":")[2]
    assert await ask("--check", "liveness", "--wait", "60", NDML_GATEWAY__SERVER__PORT=port) == 0
    assert await ask(NDML_GATEWAY__SERVER__PORT=port) == 1
    assert capsys.readouterr().err == f"healthcheck: gateway: 127.0.0.1:{port}: NOT_SERVING\n"
    waiting = asyncio.create_task(ask("--wait", "60", NDML_GATEWAY__SERVER__PORT=port))
    held.go.set()
    assert await waiting == 0
    assert await ask(NDML_HEALTH_ADDRESS=running.address) == 0


def test_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1, "127.0.0.1")
    assert main(["llm"], {"NDML_LLM__SERVER__PORT": str(port)}) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"healthcheck: llm: 127.0.0.1:{port}: UNAVAILABLE") and said.count("\n") == 1


def test_what_the_environment_says() -> None:
    assert {f"ndml-{name}": port for name, port in USUAL_PORTS.items()} == DEFAULT_PORTS
    assert target_of("memory-node", {}) == Target("127.0.0.1:7710")
    assert target_of("memory-node", {"NDML_MEMORY_NODE__SERVER__HOST": "0.0.0.0"}) == Target("127.0.0.1:7710")
    assert target_of("llm", {"NDML_LLM__SERVER__HOST": "10.1.2.3", "NDML_LLM__SERVER__PORT": "80"}) == Target("10.1.2.3:80")
    tls = {"NDML_LLM__TLS__CERT_FILE": "/c", "NDML_LLM__TLS__KEY_FILE": "/k", "NDML_LLM__TLS__CA_FILE": "/a"}
    assert target_of("llm", tls) == Target("127.0.0.1:7730", "/a", "/c", "/k")
    # An authority alone is what the service calls others with; its own door is plain text.
    assert target_of("llm", {"NDML_LLM__TLS__CA_FILE": "/a"}) == Target("127.0.0.1:7730")
    assert target_of("llm", {**tls, "NDML_LLM__SERVER__HEALTH_PORT": "7739"}) == Target("127.0.0.1:7739")
    with pytest.raises(Misuse, match="NDML_LLM__SERVER__PORT is 'x', not a port"):
        target_of("llm", {"NDML_LLM__SERVER__PORT": "x"})


def test_a_wrong_environment_is_told_from_a_sick_service(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = tmp_path / "none.pem"
    assert main(["llm"], {"NDML_LLM__TLS__CERT_FILE": str(missing), "NDML_HEALTH_ADDRESS": "127.0.0.1:1"}) == 2
    assert capsys.readouterr().err == f"healthcheck: llm: cannot read {missing}: No such file or directory\n"


def test_needs_grpcio_and_the_standard_library_alone() -> None:
    code = (
        "import sys, ndml.runtime.healthcheck; print(*sorted({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names))"
    )
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", _with_site_packages(code)], capture_output=True, text=True, check=True
    ).stdout.split()
    # grpc itself looks for its sisters (grpc_health, …); typing_extensions is its dependency, the rest its compiled part.
    assert {name for name in loaded if not name.startswith(("_", "grpc"))} <= {"ndml", "cython_runtime", "typing_extensions"}


def _with_site_packages(code: str) -> str:
    # -S, and the path by hand: .pth files of other packages must not import anything first.
    return f"import sys; sys.path[:0] = {[path for path in sys.path if path]!r}; {code}"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("mutual", [False, True], ids=["server certificate", "both certificates"])
def test_through_tls(authority: Authority, mutual: bool, capsys: pytest.CaptureFixture[str]) -> None:
    cert, key = authority.issue("ndml-llm.example")
    other = Authority(authority.directory / "other")
    with TlsServer(authority, cert, key, mutual) as port:
        files = {"NDML_LLM__TLS__CERT_FILE": str(cert), "NDML_LLM__TLS__KEY_FILE": str(key), "NDML_LLM__SERVER__PORT": str(port)}
        assert main(["llm"], {**files, "NDML_LLM__TLS__CA_FILE": str(authority.file)}) == 0
        assert main(["llm"], files) == 0  # the certificate itself is trusted where no authority is named
        capsys.readouterr()
        assert main(["llm"], {**files, "NDML_LLM__TLS__CA_FILE": str(other.file)}) == 1
        assert "certificate verify failed" in capsys.readouterr().err
        assert main(["llm"], {"NDML_LLM__SERVER__PORT": str(port)}) == 1  # plain text


class Authority:
    """Signs certificates, into files under a directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {directory.name}")])
        made = self._builder(self._name, self._key.public_key()).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.file = self._write("ca.pem", made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, host: str) -> tuple[Path, Path]:
        """Certificate and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("10.0.0.1"))])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        cert = self._builder(subject, key.public_key()).add_extension(names, critical=False).sign(self._key, hashes.SHA256())
        form = serialization.PrivateFormat.PKCS8
        secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        return self._write("cert.pem", cert.public_bytes(serialization.Encoding.PEM)), self._write("key.pem", secret)

    def _builder(self, subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(public)
        day = datetime.timedelta(days=1)
        return builder.serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)

    def _write(self, name: str, content: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(content)
        return path


class TlsServer:
    """A health server behind TLS; gives its port."""

    def __init__(self, authority: Authority, cert: Path, key: Path, mutual: bool) -> None:
        servicer = health.HealthServicer()
        servicer.set("readiness", health_pb2.HealthCheckResponse.SERVING)
        self._server = grpc.server(ThreadPoolExecutor(2))
        health_pb2_grpc.add_HealthServicer_to_server(servicer, self._server)
        pair = (key.read_bytes(), cert.read_bytes())
        credentials = grpc.ssl_server_credentials([pair], authority.file.read_bytes() if mutual else None, mutual)
        self._port = self._server.add_secure_port("127.0.0.1:0", credentials)

    def __enter__(self) -> int:
        self._server.start()
        return self._port

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()
