"""Settings of a service: defaults < YAML file < environment. Every knob has its reason as the field's description.

`NDML_<SERVICE>__SECTION__KEY=value` overrides `section: {key: value}` of the file that `--config` names. An unknown key is an error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, YamlConfigSettingsSource


class Section(BaseModel):
    """A nested group of knobs; refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid", validate_default=True)


class ServerSettings(Section):
    """The gRPC server of a service."""

    host: str = Field(
        "127.0.0.1", description="Address to listen on. Loopback by default: opening it to a network is a decision; pods set 0.0.0.0."
    )
    port: int = Field(0, ge=0, le=65535, description="gRPC port. 0: the service's usual port.")
    metrics_port: int = Field(0, ge=-1, le=65535, description="Port of /metrics. 0: gRPC port + 1000; -1: no metrics server.")
    health_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="A second port, for grpc.health.v1 in plain text and nothing else: Kubernetes' gRPC probes know no TLS. 0: none.",
    )
    advertise: str = Field("", description="host:port under which others reach this process. Empty: host:port as above.")
    instance: str = Field("", description="Name of this process in logs, traces and the roster. Empty: service name and port.")
    zone: str = Field("", description="Failure domain; replicas spread over zones first.")
    max_message_bytes: int = Field(
        32 << 20, ge=1 << 20, description="Largest message taken: a batch of 256 traces of 64 KiB and their vectors fits."
    )
    max_in_flight: int = Field(
        2048, ge=1, description="Calls under way at once; one more is answered OVERLOADED instead of queueing without bound."
    )
    max_concurrent_streams: int = Field(
        0, ge=0, description="Calls under way on one connection; a caller's next ones wait at the caller. 0: no bound of its own."
    )
    max_in_flight_bytes: int = Field(
        256 << 20,
        ge=1 << 20,
        description="Bytes of the unary requests under way at once; each takes some times its size while it lasts.",
    )
    least_in_flight: int = Field(
        8,
        ge=1,
        description="Unary calls of one method that are taken whatever their deadline: fewer say little of how long a queue is.",
    )
    wait_share: float = Field(
        0.5, gt=0, description="Of a caller's deadline, the most that a call may be expected to take; past it OVERLOADED, before any work."
    )
    refusals_per_s: float = Field(
        200.0,
        gt=0,
        description="Refusals of unary calls answered a second, the rest in their turn: at some 0.3 ms each, refusing takes a small part "
        "of a core however many calls come.",
    )
    default_deadline_s: float = Field(30.0, gt=0, description="Deadline of a unary call that brings none: nothing waits forever.")
    drain_s: float = Field(
        0.5, ge=0, description="After SIGTERM: serve on this long while not ready, so that load balancers turn away first."
    )
    grace_s: float = Field(10.0, ge=0, description="Then: let calls under way finish this long before they are cancelled.")


class LogSettings(Section):
    """Logs."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level written.")
    format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, JSON elsewhere.")
    file: str | None = Field(None, description="Also write JSON lines to this file, rotated by size.")
    file_max_bytes: int = Field(20 << 20, ge=1 << 16, description="Rotate at this size: five files of it stay below 120 MB.")
    file_backups: int = Field(5, ge=0, le=100, description="Rotated files kept.")
    slow_call_ms: float = Field(1000.0, ge=0, description="A call slower than this is logged at info; faster ones at debug.")


class TlsSettings(Section):
    """TLS at this process's doors and in its calls to other services. Without a certificate all is plain text."""

    cert_file: Path | None = Field(
        None, description="PEM: this process's certificate and what stands between it and the authority. Empty: no TLS."
    )
    key_file: Path | None = Field(None, description="PEM: the private key of that certificate, without a passphrase.")
    ca_file: Path | None = Field(None, description="PEM: the authorities that others' certificates must come from; several stand in a row.")
    client_auth: Literal["require", "none"] = Field(
        "require", description="require: who calls without a certificate of these authorities is refused; none: everybody may call."
    )
    peers: bool = Field(True, description="Calls to other services go by TLS, too. False where a mesh, or loopback, takes care of those.")
    server_name: str = Field(
        "", description="Name that others' certificates must have. Empty: the host called, so pods found by their IP need this."
    )
    reload_s: float = Field(
        10.0, gt=0, description="Between two looks at the files: a renewed certificate is shown to new connections after this time."
    )
    warn_s: float = Field(7 * 86_400.0, ge=0, description="A certificate that is read and lives shorter than this is warned of in the log.")

    @field_validator("cert_file", "key_file", "ca_file", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return value or None  # what a template leaves empty is not the current directory

    @model_validator(mode="after")
    def _complete(self) -> TlsSettings:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("set cert_file and key_file, or neither of them")
        if self.cert_file is None and self.ca_file is not None:
            raise ValueError("ca_file has no effect without cert_file and key_file: set these as well, or none")
        if self.cert_file is not None and self.ca_file is None and (self.peers or self.client_auth == "require"):
            raise ValueError("set ca_file: other services, and callers that must show a certificate, are known by it")
        return self


SERVICE_NAME = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$"
"""What Kubernetes lets a Service or a namespace be called; or nothing."""


class KubernetesSettings(Section):
    """What is learned from a Kubernetes cluster. By default nothing: addresses and zones are configured."""

    namespace: str = Field("", pattern=SERVICE_NAME, description="Namespace of the Services below. Empty: that of this pod.")
    kubeconfig: Path | None = Field(
        None, description="File that says how to reach the API server, outside of a cluster. Empty: as a pod, by its service account."
    )
    zone_from_node: bool = Field(
        False,
        description="server.zone, where it is empty, becomes the zone label of the node that NODE_NAME in the environment names; "
        "the service account must be let get nodes.",
    )
    first_s: float = Field(
        3.0, ge=0, description="On start, longest wait for a first list of replicas; then the configured addresses serve."
    )
    timeout_s: float = Field(5.0, gt=0, description="Longest wait for the API server's next byte of an answer; it answers in milliseconds.")
    watch_s: float = Field(300.0, ge=1, description="The API server ends a watch after so long, and it is asked for anew: load is spread.")
    silence_s: float = Field(90.0, gt=0, description="A watch that says nothing for so long is begun anew: bookmarks come each minute.")
    backoff_min_s: float = Field(0.1, gt=0, description="First pause between attempts, jittered; doubles with each failure.")
    backoff_max_s: float = Field(
        30.0, gt=0, description="Longest pause: what is known serves meanwhile, and an API server that starts is spared."
    )
    most_endpoints: int = Field(256, ge=1, description="Replicas used of one Service; each has a connection from this process.")


class FollowConsensus(KubernetesSettings):
    """Consensus nodes found by their Service."""

    consensus_service: str = Field(
        "",
        pattern=SERVICE_NAME,
        description="Name of the consensus nodes' Service: its ready endpoints stand for the configured addresses.",
    )


class TelemetrySettings(Section):
    """Traces."""

    otlp_endpoint: str = Field(
        "", description="host:port of an OTLP/gRPC collector. Empty: no spans are made, trace context still passes through."
    )
    otlp_insecure: bool = Field(True, description="Plain text to the collector: it usually is a sidecar or in the same network policy.")
    sample_ratio: float = Field(1.0, ge=0, le=1, description="Share of new traces that are sampled; a caller's decision is followed.")
    export_interval_ms: int = Field(500, ge=10, description="How long spans gather before they are sent.")


class ServiceSettings(BaseSettings):
    """What every service has. A subclass sets `model_config = settings_config("NDML_X__")` and adds its sections."""

    model_config = SettingsConfigDict(extra="forbid")
    server: ServerSettings = Field(default_factory=ServerSettings, description="gRPC server.")
    logging: LogSettings = Field(default_factory=LogSettings, description="Logs.")
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings, description="Traces.")
    tls: TlsSettings = Field(default_factory=TlsSettings, description="TLS at the doors and between services.")
    kubernetes: KubernetesSettings = Field(default_factory=KubernetesSettings, description="Kubernetes.")

    @model_validator(mode="after")
    def _names_of_pods(self) -> ServiceSettings:
        follows = [name for name in ("consensus_service", "llm_service") if getattr(self.kubernetes, name, "")]
        if follows and self.tls.cert_file is not None and self.tls.peers and not self.tls.server_name:
            raise ValueError(f"kubernetes.{follows[0]} finds pods by IP, which no certificate has: set tls.server_name to a name in all")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls)


S = TypeVar("S", bound=ServiceSettings)


def settings_config(env_prefix: str) -> SettingsConfigDict:
    """model_config of a service's settings."""
    return SettingsConfigDict(env_prefix=env_prefix, env_nested_delimiter="__", extra="forbid", nested_model_default_partial_update=True)


def load_settings(cls: type[S], path: Path | None) -> S:
    """Read `path` (YAML, may be None) and the environment. Raises SystemExit(2) with one line a problem."""
    if path is not None and not path.is_file():
        print(f"config: {path} is not a file", file=sys.stderr)
        raise SystemExit(2)
    bound = type(cls.__name__, (cls,), {"model_config": SettingsConfigDict(**{**cls.model_config, "yaml_file": path})})
    _refuse_unknown_environment(cls)
    try:
        loaded: S = bound()
        return loaded
    except ValidationError as error:
        lines = [f"config: {'.'.join(str(part) for part in e['loc'])}: {_said(cls, e)}" for e in error.errors()]
        print("\n".join(lines), file=sys.stderr)
        raise SystemExit(2) from None
    except yaml.YAMLError as error:
        print(f"config: {path}: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


def _said(cls: type[BaseModel], error: ErrorDetails) -> str:
    """What is wrong; of a key that there is not, the ones that there are, the likeliest first where one is like it."""
    if error["type"] != "extra_forbidden":
        return error["msg"]
    model: Any = cls
    *above, key = error["loc"]
    for part in above:
        if isinstance(part, str) and part in model.model_fields:
            model = model.model_fields[part].annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return "unknown setting"
    alike = get_close_matches(str(key), model.model_fields, n=1)
    return f"unknown setting; did you mean {alike[0]}?" if alike else f"unknown setting; known: {', '.join(model.model_fields)}"


def _refuse_unknown_environment(cls: type[ServiceSettings]) -> None:
    """pydantic-settings passes over a mistyped top-level variable; a knob that silently does nothing is worse than an error."""
    prefix = str(cls.model_config.get("env_prefix", ""))
    for name in os.environ:
        head = name.removeprefix(prefix).split("__")[0].lower()
        if prefix and name.startswith(prefix) and head not in cls.model_fields:
            print(f"config: {name}: unknown setting; known sections: {', '.join(cls.model_fields)}", file=sys.stderr)
            raise SystemExit(2)


def render_config(settings: BaseModel) -> str:
    """The effective settings as YAML, each knob under its reason, secrets redacted."""
    return "\n".join(_render(settings, ""))


def _render(model: BaseModel, pad: str) -> Iterator[str]:
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if info.description:
            yield f"{pad}# {info.description}"
        if isinstance(value, BaseModel):
            yield f"{pad}{name}:"
            yield from _render(value, pad + "  ")
        else:
            flow = yaml.safe_dump(_plain(value), default_flow_style=True, width=10_000).removesuffix("...\n").strip()
            yield f"{pad}{name}: {flow}"


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return "**********" if value.get_secret_value() else ""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def parse_command_line(name: str, cls: type[S], argv: Sequence[str]) -> S:
    """Options that every service takes: --config FILE, --print-config."""
    parser = argparse.ArgumentParser(prog=name, description=(cls.__doc__ or "").strip())
    parser.add_argument("--config", type=Path, help="YAML file with settings")
    parser.add_argument("--print-config", action="store_true", help="print the effective settings and exit")
    options = parser.parse_args(argv)
    settings = load_settings(cls, options.config)
    if options.print_config:
        print(render_config(settings))
        raise SystemExit(0)
    return settings
