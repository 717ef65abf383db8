"""Ask a service of this machine how it is: `python -m ndml.runtime.healthcheck gateway`. For a container's HEALTHCHECK and an exec probe.

Exit code 0: it serves. 1: it does not, or nobody answers. 2: the command line or the environment is wrong. One line says which.

Where to ask follows from the service's own environment (host, port, a plain port for health, TLS files), so that a changed port needs no
second setting. What a --config file says it cannot see: NDML_HEALTH_ADDRESS=host:port then tells. Standard library and grpcio alone.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc

USUAL_PORTS = {"gateway": 7700, "memory-node": 7710, "consensus": 7720, "llm": 7730}
_CHECK = "/grpc.health.v1.Health/Check"
_STATES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_SERVING = 1
_PAUSE_S = 0.2
_EVERYWHERE = {"", "0.0.0.0", "::", "[::]"}


class Misuse(Exception):
    """The command line or the environment is wrong; the message is one line."""


class Unwell(Exception):
    """The service does not serve, or nobody answers; the message is one line."""


@dataclass(frozen=True)
class Target:
    """Whom to ask. Without files the call is plain text; `ca_file` is who is trusted, the pair what we show, where they ask for it."""

    address: str
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


def target_of(service: str, environment: Mapping[str, str]) -> Target:
    """The service as its environment describes it. Raises Misuse."""
    prefix = f"NDML_{service.upper().replace('-', '_')}__"
    settings = {name.upper(): value for name, value in environment.items()}
    host = settings.get(f"{prefix}SERVER__HOST", "")
    host = "127.0.0.1" if host in _EVERYWHERE else host
    usual = f"{host}:{_port(settings, f'{prefix}SERVER__PORT') or USUAL_PORTS[service]}"
    plain = _port(settings, f"{prefix}SERVER__HEALTH_PORT")
    if plain:
        return Target(environment.get("NDML_HEALTH_ADDRESS") or f"{host}:{plain}")
    cert, key, ca = (settings.get(f"{prefix}TLS__{name}_FILE", "") for name in ("CERT", "KEY", "CA"))
    return Target(environment.get("NDML_HEALTH_ADDRESS") or usual, (ca or cert) if cert else "", cert, key)


def _port(settings: Mapping[str, str], name: str) -> int:
    value = settings.get(name, "") or "0"
    if not value.isdecimal():
        raise Misuse(f"{name} is {value!r}, not a port")
    return int(value)


def check(target: Target, name: str, timeout_s: float) -> None:
    """Returns where the health service `name` answers SERVING within `timeout_s` seconds. Raises Unwell, Misuse."""
    deadline = time.monotonic() + timeout_s
    with _channel(target, timeout_s) as channel:
        call = channel.unary_unary(_CHECK, request_serializer=_request, response_deserializer=_status)
        try:
            status = call(name, timeout=max(0.001, deadline - time.monotonic()))
        except grpc.RpcError as error:
            raise Unwell(f"{target.address}: {error.code().name}: {' '.join((error.details() or '').split())}") from None
    if status != _SERVING:
        raise Unwell(f"{target.address}: {_STATES.get(status, str(status))}")


def wait(target: Target, name: str, timeout_s: float, wait_s: float) -> None:
    """As `check`, again and again for `wait_s` seconds. Raises the last Unwell."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return check(target, name, timeout_s)
        except Unwell:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_PAUSE_S)


def _channel(target: Target, timeout_s: float) -> grpc.Channel:
    if not target.ca_file:
        return grpc.insecure_channel(target.address)
    pair = (_read(target.key_file), _read(target.cert_file)) if target.cert_file and target.key_file else (None, None)
    credentials = grpc.ssl_channel_credentials(_read(target.ca_file), *pair)
    # The certificate names the Service that peers call, not the loopback address that we call; who signed it is verified all the same.
    override = ("grpc.ssl_target_name_override", _certified_name(target, timeout_s))
    return grpc.secure_channel(target.address, credentials, options=(override,))


def _certified_name(target: Target, timeout_s: float) -> str:
    """A name in the certificate that the address shows, after verifying who signed it."""
    host, _, port = target.address.rpartition(":")
    context = ssl.create_default_context(cafile=target.ca_file)
    context.check_hostname = False
    # The process's own certificate may be all that there is to trust, and it is no CA.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols(["h2"])
    if target.cert_file and target.key_file:
        context.load_cert_chain(target.cert_file, target.key_file)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout_s) as plain, context.wrap_socket(plain) as secure:
            shown = secure.getpeercert() or {}
    except (OSError, ValueError) as error:
        raise Unwell(f"{target.address}: {error}") from None
    entries = cast("tuple[tuple[str, str], ...]", shown.get("subjectAltName", ()))
    names = [value for kind, value in entries if kind in ("DNS", "IP Address")]
    if not names:
        raise Unwell(f"{target.address}: its certificate has no subjectAltName")
    return names[0].replace("*", "health", 1)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Misuse(f"cannot read {path}: {error.strerror}") from None


def _request(name: str) -> bytes:
    # grpc.health.v1.HealthCheckRequest: field 1 is the name; shorter than 128 bytes, so its length is one byte.
    encoded = name.encode()
    return b"\x0a" + bytes([len(encoded)]) + encoded if encoded else b""


def _status(answer: bytes) -> int:
    # HealthCheckResponse: field 1 is the status, below 128; the default, 0, is not sent.
    return answer[1] if answer[:1] == b"\x08" and len(answer) > 1 else 0


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """The command; gives its exit code."""
    parser = argparse.ArgumentParser(prog="healthcheck", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("service", choices=sorted(USUAL_PORTS), help="whose environment says where to ask")
    parser.add_argument(
        "--check", choices=("readiness", "liveness"), default="readiness", help="readiness: it can serve; liveness: it runs"
    )
    parser.add_argument(
        "--timeout", type=float, default=2.0, metavar="S", help="seconds for one answer; an idle service takes milliseconds"
    )
    parser.add_argument("--wait", type=float, default=0.0, metavar="S", help="ask again for so many seconds before giving up")
    options = parser.parse_args(arguments)
    try:
        wait(target_of(options.service, environment), options.check, options.timeout, options.wait)
    except (Misuse, Unwell) as error:
        print(f"healthcheck: {options.service}: {error}", file=sys.stderr)
        return 2 if isinstance(error, Misuse) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], os.environ))
