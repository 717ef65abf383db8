"""Every knob of the consensus node, with its reason."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from ndml.runtime.placement import check_addresses
from ndml.runtime.settings import Section, ServerSettings, ServiceSettings, settings_config


class ConsensusServer(ServerSettings):
    """The gRPC server of a consensus node."""

    grace_s: float = Field(1.0, ge=0, description="Then end what runs: calls take milliseconds, and watches never end but move elsewhere.")


class ClusterSection(Section):
    """Who belongs to the cluster. The same on every consensus node."""

    members: list[str] = Field(
        [], max_length=1024, description="Ids of the memory nodes that own data. Adding one moves owners: see ADR 0002 before you do."
    )
    replication_factor: int = Field(1, ge=1, le=16, description="Copies of each owner's traces, on as many members, zones spread first.")
    peers: list[str] = Field(
        [], max_length=64, description="host:port of the consensus nodes; this one may stand in the list, so that all share one list."
    )
    max_standbys: int = Field(
        256, ge=0, description="Living nodes that are not members remembered at once: strangers must not fill memory."
    )

    @field_validator("members")
    @classmethod
    def _members(cls, members: list[str]) -> list[str]:
        for node_id in members:
            if not 1 <= len(node_id.encode()) <= 128:
                raise ValueError(f"{node_id!r} is not a node id: 1 to 128 bytes")
        if len(set(members)) != len(members):
            raise ValueError("a member stands twice")
        return members

    @field_validator("peers")
    @classmethod
    def _peers(cls, peers: list[str]) -> list[str]:
        return check_addresses(peers)


class LivenessSection(Section):
    """When silence means something. Liveness advises gateways where to ask first; it never moves an owner."""

    suspect_after_s: float = Field(3.0, gt=0, description="Three heartbeats of 1 s missed: others are asked first.")
    down_after_s: float = Field(10.0, gt=0, description="No heartbeat for so long: down. Shorter takes a garbage collection for a death.")
    tick_s: float = Field(0.25, gt=0, le=5, description="How often ages are looked at: the delay that this adds to the figures above.")
    stall_s: float = Field(1.0, gt=0, description="A look that comes so late means this process slept; that time counts against no node.")

    @model_validator(mode="after")
    def _in_order(self) -> LivenessSection:
        if self.down_after_s < self.suspect_after_s:
            raise ValueError("down_after_s must not be less than suspect_after_s")
        return self


class ExchangeSection(Section):
    """Rosters among consensus nodes."""

    interval_s: float = Field(
        1.0, gt=0, description="Between exchanges with a peer when nothing changes (+-20 %); a change goes out at once."
    )
    timeout_s: float = Field(1.0, gt=0, description="A peer that takes longer is tried again at the next interval.")


class WatchSection(Section):
    """Placement watches of gateways and memory nodes."""

    keep_alive_s: float = Field(8.0, gt=0, le=10, description="Repeat the placement this often; the contract says at least each 10 s.")
    max_watchers: int = Field(1024, ge=1, description="Watches at once; below server.max_in_flight, so that heartbeats always get through.")


class StoreSection(Section):
    """The durable roster."""

    data_dir: Path = Field(Path("data/consensus"), description="Directory of roster.json; one consensus node, one directory.")


class ConsensusSettings(ServiceSettings):
    """NDML consensus node: knows the memory nodes and tells who owns what."""

    model_config = settings_config("NDML_CONSENSUS__")
    server: ConsensusServer = Field(default_factory=ConsensusServer, description="gRPC server.")
    cluster: ClusterSection = Field(default_factory=ClusterSection, description="Who belongs to the cluster.")
    liveness: LivenessSection = Field(default_factory=LivenessSection, description="When silence means something.")
    exchange: ExchangeSection = Field(default_factory=ExchangeSection, description="Rosters among consensus nodes.")
    watch: WatchSection = Field(default_factory=WatchSection, description="Placement watches.")
    store: StoreSection = Field(default_factory=StoreSection, description="The durable roster.")
