"""Which processes make a suite, on which ports, with which settings. Pure: nothing is started here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ndml.client import Tls
from ndml.errors import FieldInvalid
from ndml.testing.ports import free_ports

Role = Literal["gateway", "memory-node", "consensus", "llm"]

_MODULES: dict[Role, str] = {
    "gateway": "services.gateway",
    "memory-node": "services.memory_node",
    "consensus": "services.consensus",
    "llm": "services.llm",
}
_USUAL_PORTS: dict[Role, int] = {"gateway": 7700, "memory-node": 7710, "consensus": 7720, "llm": 7730}
# Ten ports lie between two roles' usual ports.
_LIMIT = 10


@dataclass(frozen=True)
class SuiteOptions:
    """What to start and how."""

    data_dir: Path = Path("data")
    """Where stores, rosters and logs live; made if absent, kept on stop."""
    gateways: int = 1
    """Gateways, 1 to 10. With two a client rides through the restart of one."""
    memory_nodes: int = 2
    """Memory nodes, 1 to 10. One more than a data_dir was made with comes JOINING and copies its share; one less is drained first."""
    consensus_nodes: int = 3
    """Consensus nodes, 1 to 10. Any one of them is enough to serve."""
    replication_factor: int = 0
    """Copies of each owner's traces, up to the memory nodes there are. 0: three where there are three, one below."""
    write_copies: int = 0
    """Copies that have a write on disk before it is answered. 0: as the gateway chooses, two of three."""
    zones: Sequence[str] = ()
    """Failure domains, dealt out to memory nodes and to consensus nodes in turn. Empty: all are in one."""
    profiles: Sequence[str] = ()
    """Node profiles, dealt out to memory nodes in turn: general, code, factual, conversational. Empty: all are general."""
    llm: bool = True
    """False: no embedding service; writes and searches must bring their vectors."""
    host: str = "127.0.0.1"
    """Address that everything listens on."""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Another address for single processes, by name: for those that run in a network of their own."""
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What stands before a process's command, by name: ("ip", "netns", "exec", …) runs it in a network of its own."""
    usual_ports: bool = False
    """True: gateway 7700 (REST 7780), memory nodes 7710…, consensus 7720…, llm 7730, metrics 1000 above. False: any free ports."""
    tls: Tls | None = None
    """Files with which every process speaks TLS, gateway and REST included; all but the gateway ask their callers for a certificate."""
    otlp_endpoint: str = ""
    """host:port that takes traces; empty: none are made."""
    log_level: str = "info"
    """debug, info, warning or error."""
    ready_timeout_s: float = 90.0
    """How long a process may take to get ready: the first load of torch from a cold disk is most of it."""
    stop_timeout_s: float = 20.0
    """How long a process may drain before SIGKILL; above the services' own grace, so that it is a last resort."""
    settings: Mapping[Role, Mapping[str, str]] = field(default_factory=dict)
    """More settings by role, as environment names without the service's prefix: {"gateway": {"LOGGING__LEVEL": "debug"}}."""


@dataclass(frozen=True)
class ProcessSpec:
    """One process to start."""

    name: str
    role: Role
    module: str
    host: str
    port: int
    metrics_port: int
    rest_port: int
    environment: Mapping[str, str]
    command: Sequence[str] = ()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Layout:
    """Every process of a suite, in the order of starting."""

    data_dir: Path
    processes: tuple[ProcessSpec, ...]

    @property
    def logs(self) -> Path:
        return self.data_dir / "logs"

    def of_role(self, role: Role) -> list[ProcessSpec]:
        return [spec for spec in self.processes if spec.role == role]

    def by_name(self, name: str) -> ProcessSpec:
        return next(spec for spec in self.processes if spec.name == name)


def plan(options: SuiteOptions) -> Layout:
    """Lay the suite out: names, ports, settings. Raises FieldInvalid for an option out of its range."""
    for name in ("gateways", "memory_nodes", "consensus_nodes"):
        if not 1 <= getattr(options, name) <= _LIMIT:
            raise FieldInvalid(f"{name} is {getattr(options, name)}; a suite has 1 to {_LIMIT}", field=name)
    if not 0 <= options.replication_factor <= options.memory_nodes:
        what = f"replication_factor is {options.replication_factor}: 0 to {options.memory_nodes}, the memory nodes there are"
        raise FieldInvalid(what, field="replication_factor")
    if not 0 <= options.write_copies <= copies_of(options):
        raise FieldInvalid(f"write_copies is {options.write_copies}; there are {copies_of(options)} copies", field="write_copies")
    data_dir = options.data_dir.expanduser().resolve()
    seats = _seats(options)
    consensus = [seat.address for seat in seats if seat.role == "consensus"]
    members = [seat.name for seat in seats if seat.role == "memory-node"]
    # Without an llm the gateway is given an address where nobody listens: its default might be somebody else's suite.
    llm = next(seat.address for seat in seats if seat.role == "llm")
    processes = []
    for seat in seats:
        if seat.role == "llm" and not options.llm:
            continue
        own = _own_settings(seat, data_dir / seat.name, consensus, members, llm)
        settings = {**_common_settings(options, seat), **own, **_copies(options, seat), **options.settings.get(seat.role, {})}
        prefix = f"NDML_{seat.role.replace('-', '_').upper()}__"
        processes.append(
            ProcessSpec(
                name=seat.name,
                role=seat.role,
                module=_MODULES[seat.role],
                host=seat.host,
                port=seat.port,
                metrics_port=seat.metrics_port,
                rest_port=seat.rest_port,
                environment={prefix + key: value for key, value in settings.items()},
                command=options.commands.get(seat.name, ()),
            )
        )
    return Layout(data_dir, tuple(processes))


def copies_of(options: SuiteOptions) -> int:
    """Copies of each owner's traces in a suite of these options."""
    return options.replication_factor or (3 if options.memory_nodes >= 3 else 1)


@dataclass(frozen=True)
class _Seat:
    """A process before its settings: others' settings name its address."""

    name: str
    role: Role
    host: str
    port: int
    metrics_port: int
    rest_port: int = 0
    zone: str = ""
    profile: str = ""

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


def _seats(options: SuiteOptions) -> list[_Seat]:
    counts: dict[Role, int] = {
        "consensus": options.consensus_nodes,
        "llm": 1,
        "memory-node": options.memory_nodes,
        "gateway": options.gateways,
    }
    free = iter(() if options.usual_ports else free_ports(3 * sum(counts.values()), options.host))
    seats = []
    for role, count in counts.items():
        for index in range(count):
            name = role if role == "llm" else f"{role}-{index + 1}"
            usual = _USUAL_PORTS[role] + index
            port, metrics_port = (usual, usual + 1000) if options.usual_ports else (next(free), next(free))
            rest_port = 0
            if role == "gateway":
                rest_port = usual + 80 if options.usual_ports else next(free)
            zone = options.zones[index % len(options.zones)] if options.zones else ""
            profile = options.profiles[index % len(options.profiles)] if options.profiles and role == "memory-node" else ""
            seats.append(_Seat(name, role, options.hosts.get(name, options.host), port, metrics_port, rest_port, zone, profile))
    return seats


def _common_settings(options: SuiteOptions, seat: _Seat) -> dict[str, str]:
    return {
        "SERVER__HOST": seat.host,
        "SERVER__PORT": str(seat.port),
        "SERVER__METRICS_PORT": str(seat.metrics_port),
        "SERVER__INSTANCE": seat.name,
        "LOGGING__LEVEL": options.log_level,
        "LOGGING__FORMAT": "json",
        "TELEMETRY__OTLP_ENDPOINT": options.otlp_endpoint,
        **_tls(options.tls),
    }


def _tls(tls: Tls | None) -> dict[str, str]:
    if tls is None:
        return {}
    files = {"CERT_FILE": tls.certificate, "KEY_FILE": tls.key, "CA_FILE": tls.roots, "SERVER_NAME": tls.server_name}
    return {f"TLS__{key}": str(value) for key, value in files.items() if value}


def _copies(options: SuiteOptions, seat: _Seat) -> dict[str, str]:
    """Copies and failure domains."""
    if seat.role == "gateway":
        return {"QUORUM__WRITE": str(options.write_copies)}
    settings = {"SERVER__ZONE": seat.zone} if seat.role in ("memory-node", "consensus") else {}
    if seat.role == "consensus":
        settings["CLUSTER__REPLICATION_FACTOR"] = str(copies_of(options))
    return settings


def _own_settings(seat: _Seat, directory: Path, consensus: list[str], members: list[str], llm: str) -> dict[str, str]:
    """What only this role knows. `directory` is the process's own."""
    addresses = json.dumps(consensus)
    if seat.role == "gateway":
        return {
            "REST__HOST": seat.host,
            "REST__PORT": str(seat.rest_port),
            "PLACEMENT__CONSENSUS": addresses,
            "LLM__ADDRESSES": json.dumps([llm]),
        }
    if seat.role == "memory-node":
        return {
            "NODE__NODE_ID": seat.name,
            "STORE__DATA_DIR": str(directory),
            "HEARTBEAT__CONSENSUS": addresses,
            "PLACEMENT__CONSENSUS": addresses,
            **({"HEARTBEAT__PROFILE": seat.profile} if seat.profile else {}),
        }
    if seat.role == "consensus":
        return {"STORE__DATA_DIR": str(directory), "CLUSTER__MEMBERS": json.dumps(members), "CLUSTER__PEERS": addresses}
    return {}
