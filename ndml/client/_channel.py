"""How a channel is opened: target, credentials, options. The same for the sync and the async client."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import grpc
import grpc.aio

from ndml import __version__
from ndml.client._options import ClientOptions, Tls
from ndml.errors import FieldInvalid

ChannelOptions = list[tuple[str, str | int]]


def target(address: str) -> str:
    """gRPC target of "host:port", of a target URI, or of several "ip:port" joined by commas (calls go to each in turn)."""
    parts = [part.strip() for part in address.split(",")]
    if not all(parts):
        raise FieldInvalid(f"address {address!r} has an empty part: write host:port, or several ip:port joined by commas", field="address")
    if len(parts) == 1:
        return parts[0]
    hosts = [_ip_and_port(part) for part in parts]
    if len({version for version, _ in hosts}) != 1:
        raise FieldInvalid("several addresses must be all IPv4 or all IPv6: use a DNS name for a mix", field="address")
    return f"ipv{hosts[0][0]}:" + ",".join(part for _, part in hosts)


def _ip_and_port(part: str) -> tuple[int, str]:
    host, _, port = part.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host
    try:
        version = ipaddress.ip_address(host.strip("[]")).version
    except ValueError:
        raise FieldInvalid(f"{part!r} is not ip:port: several addresses must all be; a DNS name stands alone", field="address") from None
    if not port.isdecimal():
        raise FieldInvalid(f"{part!r} lacks its port: write ip:port", field="address")
    return version, f"{host}:{port}"


def open_channel(address: str, options: ClientOptions) -> grpc.Channel:
    """A channel for threads; raises FieldInvalid for an address or a file that cannot be used."""
    if options.tls is None:
        return grpc.insecure_channel(target(address), channel_options(options))
    return grpc.secure_channel(target(address), credentials(options.tls), channel_options(options))


def open_async_channel(address: str, options: ClientOptions) -> grpc.aio.Channel:
    """The same for the running event loop."""
    if options.tls is None:
        return grpc.aio.insecure_channel(target(address), channel_options(options))
    return grpc.aio.secure_channel(target(address), credentials(options.tls), channel_options(options))


def channel_options(options: ClientOptions) -> ChannelOptions:
    """Channel arguments: every address gets its share of the calls, dead connections are noticed and reopened soon."""
    result: ChannelOptions = [
        ("grpc.primary_user_agent", f"ndml-python/{__version__}"),
        # With the health check a draining gateway gets no new calls before it stops; those it has not picked up would end as CANCELLED.
        ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}})),
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.keepalive_time_ms", int(options.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", 10_000),
        # Ours retries within 3 s: a channel that waits longer before it dials again would make those tries useless.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]
    if options.tls and options.tls.server_name:
        result.append(("grpc.ssl_target_name_override", options.tls.server_name))
    return result


def credentials(tls: Tls) -> grpc.ChannelCredentials:
    """Raises FieldInvalid when a file cannot be read."""
    return grpc.ssl_channel_credentials(_read("roots", tls.roots), _read("key", tls.key), _read("certificate", tls.certificate))


def _read(name: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise FieldInvalid(f"cannot read {path}: {error.strerror}", field=f"tls.{name}") from error
